"""Records of the first pass, wherever they are: the spool, the chunks of tasks, the previous set."""

import os
from collections.abc import Sequence
from pathlib import Path

from tumorbatch.errors import InputError
from tumorbatch.preprocess.chunks import Chunks
from tumorbatch.preprocess.previous_set import PreviousSet

IN_PREVIOUS_SET = -1  # offset of a record that is in the previous set, not in the spool


def in_previous_set(place: Sequence[int]) -> bool:
    """Return whether a file is unchanged since the previous set."""
    return place[0] == IN_PREVIOUS_SET


class RecordReader:
    """Reads framed records from the spool, tasks' chunks or the previous set, as a context manager."""

    def __init__(self, spool: Path, previous: PreviousSet | None, chunks: Chunks) -> None:
        self._path = spool
        self._previous = previous
        self._chunks = chunks

    def __enter__(self) -> "RecordReader":
        self._file = self._path.open("rb")
        return self

    def length(self, place: tuple[int, int], path: str) -> int:
        """Return the number of bytes of the framed record of the file `path`."""
        previous = self._previous if in_previous_set(place) else None
        return place[1] if previous is None else previous.length(path)

    def __call__(self, place: tuple[int, int], path: str) -> bytes:
        """Return the framed record of the file `path` at (offset, length)."""
        if in_previous_set(place) and self._previous is not None:
            return self._previous.record(path)
        if self._chunks.holds(place):
            return self._chunks.read(place)
        data = os.pread(self._file.fileno(), place[1], place[0])
        if len(data) != place[1]:
            raise InputError(
                f"{self._path} was changed during the run. Run the same command with --overwrite."
            )
        return data

    def __exit__(self, *_: object) -> None:
        self._file.close()
