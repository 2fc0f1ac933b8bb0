"""Write the reference of all commands from their own --help: `python docs/cli_reference.py FILE`."""

import sys
from pathlib import Path

import click

from tumorbatch.cli import main

WIDTH = 96


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
    contexts = [root] + [
        click.Context(command, info_name=name, parent=root, **width)
        for name, command in sorted(main.commands.items())
    ]
    for context in contexts:
        help_text = context.command.get_help(context).rstrip()
        parts += [f"## {context.command_path}", "", "```text", help_text, "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
