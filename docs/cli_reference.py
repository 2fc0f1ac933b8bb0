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
    commands = [(("tumorbatch",), main)] + [
        (("tumorbatch", name), command) for name, command in sorted(main.commands.items())
    ]
    for names, command in commands:
        context: click.Context | None = None
        for name in names[:-1]:
            context = click.Context(main, info_name=name)
        context = click.Context(
            command, info_name=names[-1], parent=context, terminal_width=WIDTH, max_content_width=WIDTH
        )
        parts += [f"## {' '.join(names)}", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
