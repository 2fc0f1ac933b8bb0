"""Options from a file and from the environment, and completion in a shell."""

import os
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.cli.test_options import LEAVES
from tumorbatch.cli import settings
from tumorbatch.cli.main import main
from tumorbatch.errors import ExitCode


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TUMORBATCH_"):
            monkeypatch.delenv(name)


def _options(*arguments: object, command: str = "infer") -> dict[str, Any]:
    """Return what `command` would run with."""
    context = click.Context(main, info_name="tumorbatch", **main.context_settings)
    words, found = command.split(), main
    for word in words[:-1]:
        found = found.commands[word]  # type: ignore[assignment]
        context = click.Context(found, context, info_name=word)
    texts = list(map(str, arguments))
    return dict(found.commands[words[-1]].make_context(words[-1], texts, context).params)


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def test_a_file_sets_options_by_the_names_that_are_typed(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        """
        [infer]
        batch-size = 64
        timeout = "5m"
        max-error-rate = 0.25
        include = ["*.dcm", "a b"]
        hash = true
        model = "models/cnn1"
        [shard]
        clahe = false
        class = ["Healthy=controls", "Tumor=patients"]
        [experiment.clahe]
        seeds = 3
        """,
    )
    values = _options("in", "out.parquet", "--config", path)
    assert (values["batch_size"], values["timeout"], values["max_error_rate"]) == (64, 300, 0.25)
    assert (values["include"], values["content"]) == (("*.dcm", "a b"), True)
    assert values["model"] == Path("models/cnn1")
    values = _options("--config", path, command="shard")
    assert (values["clahe"], values["size"]) == (False, 150)
    assert values["classes"] == {"Healthy": ["controls"], "Tumor": ["patients"]}
    assert _options("--config", path, command="experiment clahe")["seeds"] == 3
    assert _options("--config", path, command="explore")["clahe_clip"] == 2.0  # no table: all defaults


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _file(tmp_path, "[infer]\nbatch-size = 64\nworkers = 5\nthreads = 7\n")
    monkeypatch.setenv("TUMORBATCH_INFER_BATCH_SIZE", "16")
    monkeypatch.setenv("TUMORBATCH_INFER_WORKERS", "6")
    monkeypatch.setenv("TUMORBATCH_INFER_EXCLUDE", "*.png *.gif")
    monkeypatch.setenv("TUMORBATCH_INFER_INCREMENTAL", "1")
    values = _options("in", "out.parquet", "--config", path, "--batch-size", 8)
    assert (values["batch_size"], values["workers"], values["threads"]) == (8, 6, 7)
    assert (values["exclude"], values["incremental"]) == (("*.png", "*.gif"), True)
    monkeypatch.setenv("TUMORBATCH_INFER_CONFIG", str(path))
    assert _options("in", "out.parquet")["threads"] == 7


def test_each_option_has_one_variable() -> None:
    names = [
        name
        for command in LEAVES.values()
        for option in settings.options_of(command).values()
        for name in (option.envvar or [])
        if name != "TUMORBATCH_PIXELS"
    ]
    assert len(names) == len(set(names)) > 150
    assert {"TUMORBATCH_INFER_BATCH_SIZE", "TUMORBATCH_EXPERIMENT_CLAHE_SEEDS"} <= set(names)
    assert "TUMORBATCH_SHARD_PIXELS" in names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[infer]\nbatchsize = 1", "[infer]: batchsize is not an option; do you mean batch-size?"),
        ("[infer]\nconfig = 'x'", "config is not an option"),
        ("[infr]\nworkers = 1", "infr is not a command; do you mean infer?"),
        ("workers = 1", "workers stands outside of a command's table."),
        ("infer = 1", "infer must be a table, [infer]."),
        ("[infer]\nbatch-size = 'x'", "[infer]: batch-size: 'x' is not a valid integer"),
        ("[infer]\nworkers = 0", "workers: 0 is not in the range x>=1."),
        ("[infer]\ntimeout = '5 min'", "timeout: '5 min' is not a duration"),
        ("[infer]\nbatch-size = true", "batch-size must be one text or number."),
        ("[infer]\nbatch-size = [1, 2]", "batch-size must be one text or number."),
        ("[infer]\ninclude = [true]", "include must be a text, a number, or a list of them."),
        ("[infer]\nincremental = 1", "incremental must be true or false."),
        ("[infer\n", "cannot be read"),
        (None, "does not exist"),
    ],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_is_wrong_in_a_file_is_named(
    text: str | None, sentence: str, log_format: str, tmp_path: Path, invoke: Any
) -> None:
    path = tmp_path / "absent.toml" if text is None else _file(tmp_path, text)
    code, output = invoke("infer", "in", "out", "--config", path, "--log-format", log_format)
    assert (code, sentence in output, str(path) in output) == (ExitCode.USAGE, True, True), output


def test_saved_options_are_those_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    before = _file(tmp_path, "[infer]\nmin-age = '2m'\nworkers = 3\n")
    monkeypatch.setenv("TUMORBATCH_INFER_PRUNE", "yes")
    given = (
        "in", tmp_path / "out.parquet", "--config", before, "--include", 'a "quoted" *', "--include",
        "ü", "--incremental", "--max-error-rate", "0.5", "--workers", 4,
    )  # fmt: skip
    saved = tmp_path / "saved.toml"
    code, output = invoke("infer", *given, "--save-config", saved)
    assert (code, output) == (ExitCode.OK, f"Wrote {saved}. Nothing else was done.\n")
    assert tomllib.loads(saved.read_text())["infer"] == {
        "include": ['a "quoted" *', "ü"], "min-age": "2m", "incremental": True, "prune": True,
        "workers": 4, "max-error-rate": 0.5,
    }  # fmt: skip
    assert "# batch-size = 32" in saved.read_text().splitlines()
    expected = _options(*given)
    monkeypatch.delenv("TUMORBATCH_INFER_PRUNE")
    assert _options(*given[:2], "--config", saved) == expected
    code, output = invoke("infer", *given, "--save-config", saved)
    assert (code, "exists. Give another name" in output) == (ExitCode.USAGE, True)


_REQUIRED = {
    "train": ["--arch", "cnn1"], "export": ["--format", "h5"], "ensemble": ["-o", "out"],
    "slurm": ["--tasks", "2", "--time", "1"],
    "k8s": ["--tasks", "2", "--image", "x", "--claim", "c"],
}  # fmt: skip


@pytest.mark.parametrize("name", LEAVES)
def test_saved_defaults_are_defaults(name: str, tmp_path: Path, invoke: Any) -> None:
    """Without their comment signs they change nothing."""
    required = _REQUIRED.get(name, [])
    places = [one for one in LEAVES[name].params if isinstance(one, click.Argument) and one.required]
    arguments = ["x"] * len(places) + required
    saved = tmp_path / "saved.toml"
    code, output = invoke(*name.split(), *arguments, "--save-config", saved)
    assert code == ExitCode.OK, output
    lines = saved.read_text().splitlines()
    saved.write_text("\n".join(line.removeprefix("# ") for line in lines[1:]))
    assert _options(*arguments, "--config", saved, command=name) == _options(*arguments, command=name)


def test_a_variable_that_is_misspelt_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    monkeypatch.setenv("TUMORBATCH_EQUALIZE_CLAHECLIP", "3")
    monkeypatch.setenv("TUMORBATCH_INFER_BOGUS", "3")  # of another command
    _, output = invoke("equalize", tmp_path / "absent", tmp_path / "out")
    assert (
        "CLAHECLIP is not an option of equalize; do you mean TUMORBATCH_EQUALIZE_CLAHE_CLIP?" in output
    )
    assert "BOGUS" not in output


def test_a_shell_completes_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cnn1", "cnn2", "resnet50"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.json").touch()
    monkeypatch.chdir(tmp_path)
    for words in ("tumorbatch infer in out --model c", "tumorbatch evaluate c"):
        asked = {"_TUMORBATCH_COMPLETE": "bash_complete", "COMP_WORDS": words}
        asked["COMP_CWORD"] = str(words.count(" "))
        result = CliRunner().invoke(main, [], prog_name="tumorbatch", env=asked)
        assert result.output.splitlines() == ["plain,cnn1", "plain,cnn2", "dir,c"]


@pytest.mark.parametrize(
    ("words", "found"), [("tumorbatch inf", "infer"), ("tumorbatch infer --batch", "--batch-size")]
)
def test_a_shell_completes_commands_and_options(words: str, found: str) -> None:
    asked = {"_TUMORBATCH_COMPLETE": "bash_complete", "COMP_WORDS": words}
    asked["COMP_CWORD"] = str(words.count(" "))
    result = CliRunner().invoke(main, [], prog_name="tumorbatch", env=asked)
    assert f"plain,{found}" in result.output.splitlines()
