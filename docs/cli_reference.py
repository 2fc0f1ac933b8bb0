"""Write the reference of all commands from their own --help.

`python docs/cli_reference.py FILE.md` writes docs/cli.md, `python docs/cli_reference.py FOLDER/` manual
pages (`man FOLDER/tumorbatch-infer.1`).
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from tumorbatch import __version__
from tumorbatch.cli.main import main

WIDTH = 96


def _contexts(context: click.Context, width: dict[str, int]) -> Iterator[click.Context]:
    """A command's own, and those of the commands in it."""
    yield context
    if isinstance(context.command, click.Group):
        for name, command in sorted(context.command.commands.items()):
            yield from _contexts(click.Context(command, info_name=name, parent=context, **width), width)


def _all() -> Iterator[click.Context]:
    width = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    root = click.Context(main, info_name="tumorbatch", **(main.context_settings | width))
    yield from _contexts(root, width)


def reference() -> str:
    """The Markdown text of docs/cli.md."""
    parts = [
        "# Commands",
        "",
        "Generated from `--help` by `make docs`; a test keeps it true. Do not edit it by hand.",
        "",
    ]
    for context in _all():
        help_text = context.command.get_help(context).rstrip()
        parts += [f"## {context.command_path}", "", "```text", help_text, "```", ""]
    return "\n".join(parts)


def _escaped(text: str) -> str:
    """Text for groff: no line begins a request, hyphens are those that can be typed."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.\'])", r"\\&", text, flags=re.MULTILINE)


def _paragraphs(help_text: str) -> Iterator[str]:
    """The lines of a command's help; what click leaves as it is (after \\b) is not filled."""
    for paragraph in re.split(r"\n\s*\n", help_text.strip()):
        lines = [line.strip("\n") for line in paragraph.splitlines()]
        if lines[0].strip() == "\b":
            yield from (".PP", ".nf", *map(_escaped, textwrap.dedent("\n".join(lines[1:])).split("\n")))
            yield ".fi"
        else:
            yield from (".PP", _escaped(" ".join(line.strip() for line in lines)))


def manual_page(context: click.Context) -> str:
    """One command's page in man(7)."""
    command, name = context.command, context.command_path.replace(" ", "-")
    help_text = (command.help or "").replace("\x08", "\\b").replace("\\b", "\b")
    summary = help_text.strip().splitlines()[0].rstrip(".")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [
        f'.TH {name.upper()} 1 "" "tumorbatch {__version__}" "tumorbatch"',
        ".SH NAME", f"{_escaped(name)} \\- {_escaped(summary)}",
        ".SH SYNOPSIS", _escaped(usage), ".SH DESCRIPTION", *_paragraphs(help_text), ".SH OPTIONS",
    ]  # fmt: skip
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            lines += [".TP", f".B {_escaped(record[0])}", _escaped(record[1])]
    if isinstance(command, click.Group):
        pages = (f"{name}-{other}(1)" for other in sorted(command.commands))
        lines += [".SH SEE ALSO", _escaped(", ".join(pages))]
    return "\n".join(lines) + "\n"


def manual_pages(folder: Path) -> None:
    """Write the pages of all commands."""
    folder.mkdir(parents=True, exist_ok=True)
    for context in _all():
        path = folder / f"{context.command_path.replace(' ', '-')}.1"
        path.write_text(manual_page(context))


if __name__ == "__main__":
    if sys.argv[1].endswith("/"):
        manual_pages(Path(sys.argv[1]))
    else:
        Path(sys.argv[1]).write_text(reference())
