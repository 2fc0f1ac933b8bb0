"""Standard output: sentences, JSON, tables.

Nothing here fails where standard output cannot be written: see `streams`.
"""

from typing import TYPE_CHECKING, Any

import click

from tumorbatch.files import visible_lines

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    """Print lines; what would command a terminal is made visible."""
    click.echo(visible_lines(text))


def complain(sentence: str) -> None:
    """Print a sentence on standard error, with what would command a terminal made visible."""
    click.echo(visible_lines(sentence), err=True)


def output(width: int) -> "Console":
    """Return a rich console for tables: as wide as the terminal, or `width` columns without one."""
    from rich.console import Console

    class Output(Console):
        def print(self, *objects: Any, **how: Any) -> None:
            texts = (visible_lines(item) if isinstance(item, str) else item for item in objects)
            super().print(*texts, **how)

    return Output(width=None if Console().is_terminal else width, highlight=False)
