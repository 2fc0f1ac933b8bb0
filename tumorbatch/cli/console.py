"""Standard output: sentences, JSON, tables.

A reader that closes its end (`| head`) ends the printing and nothing else. A standard output that
cannot be written, for example on a full disk, ends the printing too; the work continues, and `session`
reports the error at the end.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from tumorbatch.files import visible_lines

if TYPE_CHECKING:
    from rich.console import Console

_failures: list[OSError] = []


def say(text: str) -> None:
    """Print lines; what would command a terminal is made visible."""
    try:
        click.echo(visible_lines(text))
    except OSError as error:
        _print_no_more(error)


def complain(sentence: str) -> None:
    """Print a sentence on standard error, with what would command a terminal made visible."""
    click.echo(visible_lines(sentence), err=True)


def failure() -> OSError | None:
    """Return the error that stopped standard output since the last call, or None."""
    error = _failures[0] if _failures else None
    _failures.clear()
    return error


def output(width: int) -> "Console":
    """Return a rich console for tables: as wide as the terminal, or `width` columns without one."""
    from rich.console import Console

    class Output(Console):
        def print(self, *objects: Any, **how: Any) -> None:
            try:
                texts = (visible_lines(item) if isinstance(item, str) else item for item in objects)
                super().print(*texts, **how)
            except OSError as error:
                _print_no_more(error)

        def on_broken_pipe(self) -> None:  # rich would end the process with exit code 1
            _print_no_more(BrokenPipeError())

    return Output(width=None if Console().is_terminal else width, highlight=False)


def _print_no_more(error: OSError) -> None:
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        _failures.append(error)
