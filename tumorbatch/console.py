"""Tables on standard output."""

import os
import sys

from rich.console import Console


class Output(Console):
    """Standard output: as wide as the terminal, or `width` columns where there is none.

    A reader that has seen enough (`| head`) ends the printing and nothing else; rich would end the
    process with exit code 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width=None if Console().is_terminal else width, highlight=False)

    def on_broken_pipe(self) -> None:
        """Print no more."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
