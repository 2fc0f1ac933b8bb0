"""The options of all commands: one name, one order, one wording."""

import dataclasses
import re

import click
import pytest

import tumorbatch
from tumorbatch import native
from tumorbatch.cli import options
from tumorbatch.cli.main import main

COMMANDS = main.commands | {
    f"{group} {name}": one
    for group, commands in main.commands.items()
    if isinstance(commands, click.Group)
    for name, one in commands.commands.items()
}
LEAVES = {name: one for name, one in COMMANDS.items() if not isinstance(one, click.Group)}

# After a command's own options, the shared ones stand in this order.
SHARED = (
    "classes", "size", "clahe_clip", "clahe_grid", "patients", "allow_unmatched", "weights",
    "epochs", "patience", "learning_rate", "tta", "batch_size", "cache_dir", "workers", "device",
    "precision", "xla", "threads", "pixels", "timeout", "formats", "max_error_rate", "seed",
    "yes", "dry_run", "overwrite", "config_file", "save_config", "as_json", "log_format", "verbose",
    "quiet",
)  # fmt: skip
LAST = SHARED[SHARED.index("workers") :]


def _options(command: click.Command) -> dict[str, click.Option]:
    return {one.name or "": one for one in command.params if isinstance(one, click.Option)}


@pytest.mark.parametrize("name", LEAVES)
def test_shared_options_stand_in_one_order(name: str) -> None:
    shared = [option for option in _options(LEAVES[name]) if option in SHARED]
    assert shared == sorted(shared, key=SHARED.index)


@pytest.mark.parametrize("name", LEAVES)
def test_the_options_of_a_run_come_last(name: str) -> None:
    names = list(_options(LEAVES[name]))
    last = [option for option in names if option in LAST]
    assert names[len(names) - len(last) :] == last


@pytest.mark.parametrize("option", SHARED)
def test_a_shared_option_is_the_same_everywhere(option: str) -> None:
    same = [
        found.to_info_dict() | {"help": None, "envvar": None}
        for command in LEAVES.values()
        if (found := _options(command).get(option)) is not None and found.opts != ["--patients"]
    ]
    assert len(same) > 0
    assert all(one == same[0] for one in same)


@pytest.mark.parametrize("name", LEAVES)
def test_defaults_are_written_in_one_way(name: str) -> None:
    for option in _options(LEAVES[name]).values():
        words = option.help or ""
        assert words.endswith((".", "]")), words
        assert "Default:" not in words, words
        assert "[default:" not in words or "  [default:" in words, words


def test_the_choices_of_pixels_are_those_of_the_library() -> None:
    """The command line cannot import them: `--help` would load OpenCV."""
    pixels = _options(LEAVES["shard"])["pixels"]
    assert isinstance(pixels.type, click.Choice)
    assert tuple(pixels.type.choices) == native.CHOICES
    assert options.PIXELS == native.ENVIRONMENT


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("shard", tumorbatch.Preprocessing), ("shard", tumorbatch.ShardConfig),
        ("train", tumorbatch.Schedule), ("train", tumorbatch.TrainConfig),
        ("infer", tumorbatch.InferConfig), ("evaluate", tumorbatch.EvaluationConfig),
    ],
)  # fmt: skip
def test_a_default_of_a_command_is_that_of_its_configuration(name: str, config: type) -> None:
    compared = 0
    for field in dataclasses.fields(config):
        option = _options(LEAVES[name]).get(field.name)
        if option is not None and type(field.default) is type(option.default):
            assert option.default == field.default, field.name
            compared += field.default is not None
    assert compared > 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1.5h", 5400),
        ("1d", 86_400),
        (" 2 H ", 7200),
        (".5s", 0.5),
    ],
)
def test_a_duration_is_a_number_with_a_unit_or_seconds(text: str, seconds: float) -> None:
    assert options.Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "-5m", "5 min", "5x", "nan", "inf", "1e3", "1:30", "\u0665m", "0", "0h"]
)
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        options.Duration().convert(text, None, None)


def test_a_duration_has_limits() -> None:
    assert options.Duration(zero=True).convert("0s", None, None) == 0
    assert options.Duration(most=60).convert("1m", None, None) == 60
    with pytest.raises(click.BadParameter, match="longer than 60s"):
        options.Duration(most=60).convert("2m", None, None)
    with pytest.raises(click.BadParameter, match="too long"):
        options.Duration().convert("9" * 400, None, None)


@pytest.mark.parametrize("name", LEAVES)
def test_a_time_span_is_a_duration(name: str) -> None:
    spans = {"timeout", "min_age", "max_runtime", "checkpoint_every"}
    for option, one in _options(LEAVES[name]).items():
        assert isinstance(one.type, options.Duration) == (option in spans), option
        assert not re.search("second|minute|hour", option)


@pytest.mark.parametrize("name", LEAVES)
def test_short_names_mean_one_thing(name: str) -> None:
    for option, one in _options(LEAVES[name]).items():
        short = [text for text in one.opts if len(text) == 2]
        assert short == {"out": ["-o"], "verbose": ["-v"], "quiet": ["-q"]}.get(option, []), option


def test_an_earlier_name_of_an_option_still_works() -> None:
    for name in ("--rate", "--lr-schedule"):
        context = main.commands["train"].make_context(
            "train", ["--arch", "cnn1", name, "cosine"], click.Context(main, **main.context_settings)
        )
        assert context.params["rate"] == "cosine"
