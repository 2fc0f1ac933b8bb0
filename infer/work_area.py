"""What an unfinished run has done: rows in small files, each whole or absent.

    .out.parquet.partial/plan.json            what the run is about
    .out.parquet.partial/00001-00003.parquet  fourth part of the first attempt

The rows of one attempt are sorted by path over its parts. A killed run continues in a new attempt,
which leaves out the files that have rows in an earlier one.
"""

import datetime
import heapq
import itertools
import logging
import operator
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tumorbatch.atomic import (
    PRIVATE,
    discard_folder,
    holds_only_files,
    new_folder,
    remove_temporaries,
    write_json,
)
from tumorbatch.checks import refuse_other_plan
from tumorbatch.errors import InputError
from tumorbatch.files import FoundFile
from tumorbatch.infer.decoding import Row, to_time
from tumorbatch.infer.predictions import PredictionsWriter, iterate_file
from tumorbatch.json_reader import read_object
from tumorbatch.signals import deferred
from tumorbatch.status import DECIDED_BY_CONTENT, NO_ERRORS

log = logging.getLogger(__name__)

PART_ROWS = 4096
PART_SECONDS = 60.0
_PLAN = "plan.json"

FileRows = list[Row]


class WorkArea:
    """The folder of an unfinished run.

    Args:
        folder: Made when it is not there.
        plan: What the run is about, as JSON values; it decides whether a killed run may continue.
        overwrite: Start anew where the folder belongs to a run with another plan.

    Raises:
        ConfigError: The folder belongs to a run with another plan, and `overwrite` is not set.
        OutputError: It cannot be written.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], overwrite: bool) -> None:
        self.folder = folder
        try:
            old = read_object(folder / _PLAN) if holds_only_files(folder) else None
        except (OSError, ValueError):
            old = None
        if old != plan:
            if old is not None and not overwrite:
                refuse_other_plan(folder.name, old, plan)
            self.remove()
            new_folder(folder)
            folder.chmod(0o700)  # the rows may be those of DICOM files
            write_json(folder / _PLAN, dict(plan), PRIVATE)
        remove_temporaries(folder)
        self._earlier = self._sound_parts()
        self._attempt = max((int(name) for name in self._earlier), default=0) + 1
        self._written: list[Path] = []
        self._rows: list[Row] = []
        self._since = time.monotonic()

    def _sound_parts(self) -> dict[str, list[Path]]:
        attempts: dict[str, list[Path]] = {}
        for path in sorted(self.folder.glob("*-*.parquet")):
            try:
                for _ in iterate_file(path):
                    pass
            except InputError as error:
                log.warning("%s It is computed again.", error)
                path.unlink()
                continue
            attempts.setdefault(path.name.partition("-")[0], []).append(path)
        return attempts

    def earlier(self) -> list[Iterator[FileRows]]:
        """Return the rows of each earlier attempt, newest first."""
        return [by_file(_rows(paths)) for _, paths in sorted(self._earlier.items(), reverse=True)]

    def current(self) -> Iterator[FileRows]:
        """Return the rows of this attempt."""
        return by_file(_rows(self._written))

    def has_earlier(self) -> bool:
        """Return whether an interrupted attempt has left rows."""
        return bool(self._earlier)

    def add(self, rows: FileRows) -> None:
        """Keep a file's rows; from time to time they are written."""
        self._rows += rows
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._since >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._rows:
            return
        path = self.folder / f"{self._attempt:05d}-{len(self._written):05d}.parquet"
        with deferred():  # it takes milliseconds, and a signal waits for it
            with PredictionsWriter(path, sidecar=False) as writer:
                writer.write(self._rows)
            self._written.append(path)
            self._rows = []
        self._since = time.monotonic()

    def remove(self) -> None:
        """Delete the work area; its content has been published."""
        discard_folder(self.folder, first=_PLAN)


def _rows(paths: Sequence[Path]) -> Iterator[Row]:
    return itertools.chain.from_iterable(map(iterate_file, paths))


def by_file(rows: Iterable[Row]) -> Iterator[FileRows]:
    """Group consecutive rows by their path."""
    for _, group in itertools.groupby(rows, operator.itemgetter("path")):
        yield list(group)


class Entry(NamedTuple):
    """What is known of one path.

    Attributes:
        name: The path.
        file: The file that is there now, or None.
        rows: Of each stream; [] where it has none.
    """

    name: str
    file: FoundFile | None
    rows: list[FileRows]


def aligned(files: Iterable[FoundFile], streams: Sequence[Iterable[FileRows]]) -> Iterator[Entry]:
    """Pair files and rows by path, both sorted by it; the memory holds one path."""
    sources: list[Iterator[tuple[str, int, Any]]] = [((file.name, 0, file) for file in files)]
    sources += [_numbered(number, stream) for number, stream in enumerate(streams, 1)]
    merged = heapq.merge(*sources, key=operator.itemgetter(0))
    for name, group in itertools.groupby(merged, operator.itemgetter(0)):
        file: FoundFile | None = None
        rows: list[FileRows] = [[] for _ in streams]
        for _, number, value in group:
            if number:
                rows[number - 1] = value
            else:
                file = value
        yield Entry(name, file, rows)


def _numbered(number: int, stream: Iterable[FileRows]) -> Iterator[tuple[str, int, FileRows]]:
    return ((rows[0]["path"], number, rows) for rows in stream)


def matches(file: FoundFile, rows: FileRows, also_errors: bool) -> bool:
    """Return whether the rows are still valid for the file, by its size and time of change.

    Args:
        file: As it is now.
        rows: Of an earlier run, or [].
        also_errors: Whether errors that lie in the file's content count as its rows.
    """
    allowed = DECIDED_BY_CONTENT if also_errors else NO_ERRORS
    return (
        bool(rows)
        and all(row["status"] in allowed for row in rows)
        and rows[0]["file_size"] == file.size
        and isinstance(rows[0]["mtime"], datetime.datetime)
        and rows[0]["mtime"] == to_time(file.mtime_ns)
    )
