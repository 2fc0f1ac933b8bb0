"""What is printed on standard output: sentences, JSON, tables.

A reader that has seen enough (`| head`) ends the printing and nothing else. A standard output that
cannot be written, on a full disk say, ends it too; the work goes on, and `session` tells at the end.
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
    """What kept standard output from being written since this was asked last."""
    found = _failures[0] if _failures else None
    _failures.clear()
    return found


def output(width: int) -> "Console":
    """A rich console for tables: as wide as the terminal, or `width` columns where there is none."""
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
