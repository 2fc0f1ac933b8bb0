"""Standard output: sentences, JSON, tables.

A reader that closes its end (`| head`) ends the printing and nothing else. A standard output that
cannot be written, for example on a full disk, ends the printing too; the work continues, and `session`
reports the error at the end.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

_failures: list[OSError] = []


def say(text: str) -> None:
    """Print a line."""
    try:
        click.echo(text)
    except OSError as error:
        _print_no_more(error)


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
                super().print(*objects, **how)
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
