"""CSV that stays whole in every reader, and that a spreadsheet does not run.

A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return for a
formula, and a file name may begin so (https://owasp.org/www-community/attacks/CSV_Injection). So a text
that begins with one of them, or with an apostrophe, gets one more apostrophe in front: a program takes
one apostrophe from the beginning of each text that has one, and has the original again. Numbers stay
numbers.
"""

import csv
from collections.abc import Iterable
from typing import Any, Protocol

_RUN = ("=", "+", "-", "@", "\t", "\r", "'")


class _Output(Protocol):
    def write(self, text: str, /) -> object: ...


class _ShortLineEnds:
    """Ends lines with a line feed alone.

    Python's writer gets `\\r\\n`, for then it quotes each cell that holds either of them. Before
    Python 3.13 it would leave a carriage return bare otherwise, which most readers take for a line end.
    """

    def __init__(self, file: _Output) -> None:
        self._file = file

    def write(self, line: str) -> object:
        return self._file.write(line.removesuffix("\r\n") + "\n")


class Writer:
    """Writes rows of texts, numbers and None (an empty cell).

    Args:
        file: Text, opened with `newline=""` where it is a file.
    """

    def __init__(self, file: _Output) -> None:
        self._writer = csv.writer(_ShortLineEnds(file), lineterminator="\r\n")

    def write_row(self, cells: Iterable[Any]) -> None:
        """Write one row."""
        self._writer.writerow([defused(cell) if isinstance(cell, str) else cell for cell in cells])


def defused(text: str) -> str:
    """Return the text as a cell that no spreadsheet runs; `restored` gives it again."""
    return f"'{text}" if text.startswith(_RUN) else text


def restored(cell: str) -> str:
    """Return the text that `defused` made a cell of."""
    return cell.removeprefix("'")
