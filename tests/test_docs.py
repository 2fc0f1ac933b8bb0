"""The documents say what the program does."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from tumorbatch.cli.main import main
from tumorbatch.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "docs/cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cli_reference_is_fresh() -> None:
    assert (ROOT / "docs/cli.md").read_text() == _module().reference(), "run `make docs`"


def test_manual_pages_name_every_option(tmp_path: Path) -> None:
    _module().manual_pages(tmp_path)
    assert (tmp_path / "tumorbatch-experiment-clahe.1").exists()
    for name, command in COMMANDS.items():
        text = (tmp_path / f"tumorbatch-{name.replace(' ', '-')}.1").read_text().replace("\\-", "-")
        for option in command.params:
            assert all(flag in text for flag in option.opts if flag.startswith("-")), option.opts
    if shutil.which("groff"):
        for path in tmp_path.iterdir():
            command_line = ["groff", "-man", "-Tutf8", "-ww", "-z", str(path)]
            done = subprocess.run(command_line, capture_output=True, text=True, check=True)
            assert done.stderr == ""


def test_the_settings_of_the_guide_are_options(tmp_path: Path) -> None:
    text = (ROOT / "docs/guide.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    path = tmp_path / "settings.toml"
    path.write_text(example)
    root = click.Context(main, info_name="tumorbatch", **main.context_settings)
    context = main.commands["infer"].make_context(
        "infer", ["scans", "out.parquet", "--config", str(path)], root
    )
    assert context.params["batch_size"] == 64
    assert context.params["include"] == ("*.dcm", "*.png")


COMMANDS = main.commands | {
    f"{group} {name}": of
    for group, commands in main.commands.items()
    if isinstance(commands, click.Group)
    for name, of in commands.commands.items()
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_an_example_and_a_help_for_each_option(name: str) -> None:
    command = COMMANDS[name]
    assert command.help is not None
    assert re.search(rf"Examples:\n\s+tumorbatch {name}(?: |$)", command.help, re.MULTILINE)
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"--{parameter.name} of {name} has no help"


def test_every_exit_code_is_in_the_help() -> None:
    assert main.help is not None
    listed = {int(code) for code in re.findall(r"^\s*(\d+)  ", main.help, re.MULTILINE)}
    assert listed == {int(code) for code in ExitCode}


def test_readme_names_only_commands_and_options_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for name, rest in re.findall(r"^ *tumorbatch ([a-z]+)(.*)$", text, re.MULTILINE):
        assert name in main.commands
        known = {flag for parameter in main.commands[name].params for flag in parameter.opts}
        known |= {flag for parameter in main.commands[name].params for flag in parameter.secondary_opts}
        code = rest.split("#")[0]
        for flag in re.findall(r"(?<!\S)--[a-z-]+", code):
            assert flag in known, f"{flag} of {name}"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
