"""Write the reference of all commands from their own --help: `python docs/cli_reference.py FILE`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tumorbatch.cli.main import main

WIDTH = 96


def _contexts(context: click.Context, width: dict[str, int]) -> Iterator[click.Context]:
    """A command's own, and those of the commands in it."""
    yield context
    if isinstance(context.command, click.Group):
        for name, command in sorted(context.command.commands.items()):
            yield from _contexts(click.Context(command, info_name=name, parent=context, **width), width)


def reference() -> str:
    """The Markdown text of docs/cli.md."""
    parts = [
        "# Commands",
        "",
        "Generated from `--help` by `make docs`; a test keeps it true. Do not edit it by hand.",
        "",
    ]
    width = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    root = click.Context(main, info_name="tumorbatch", **(main.context_settings | width))
    for context in _contexts(root, width):
        help_text = context.command.get_help(context).rstrip()
        parts += [f"## {context.command_path}", "", "```text", help_text, "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
