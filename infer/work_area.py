"""What an unfinished run has done: rows in small files, each whole or absent.

    .out.parquet.partial/plan.json            what the run is about
    .out.parquet.partial/00001-00003.parquet  fourth part of the first attempt

The rows of one attempt are sorted by path over its parts. A killed run continues in a new attempt,
which leaves out the files that have rows in an earlier one. The tasks of a job that is computed in
parts (`tumorbatch.parts`) have their plan and their chunks there too.
"""

import datetime
import heapq
import itertools
import logging
import operator
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
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
from tumorbatch.infer.batching import FileToPredict
from tumorbatch.infer.chunks import sound_chunks
from tumorbatch.infer.predictions import PredictionsWriter, iterate_file
from tumorbatch.infer.worker import Row, to_time
from tumorbatch.json_reader import read_own
from tumorbatch.parts import read_frozen
from tumorbatch.signals import deferred
from tumorbatch.status import DECIDED_BY_CONTENT, NO_ERRORS

log = logging.getLogger(__name__)

PART_ROWS = 4096
PART_SECONDS = 60.0
_PLAN = "plan.json"

FileRows = list[Row]


class WorkArea:
    """The folder of an unfinished run. Hold the output's lock, and no part is being computed.

    Args:
        folder: Made when it is not there.
        plan: What the run is about, as JSON values; it decides whether a killed run may continue.
        overwrite: Start anew where the folder belongs to a run with another plan.
        choices: What, besides, decides the chunks that tasks have left.

    Attributes:
        frozen: The plan of the tasks that have worked here, or None.

    Raises:
        ConfigError: The folder belongs to a run with another plan, and `overwrite` is not set.
        OutputError: It cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        plan: Mapping[str, Any],
        overwrite: bool,
        choices: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        old = _old_plan(folder)
        self.frozen = None if old is None else read_frozen(folder)
        if self.frozen is not None:
            wanted: Mapping[str, Any] = {**plan, **choices}
            same = self.frozen.has(wanted)
        else:
            wanted, same = plan, old == plan
        if not same:
            if old is not None and not overwrite:
                refuse_other_plan(folder.name, old, wanted)
            self.remove()
            new_folder(folder)
            folder.chmod(0o700)  # the rows may be those of DICOM files
            write_json(folder / _PLAN, dict(plan), PRIVATE)
            self.frozen = None
        remove_temporaries(folder)
        self._chunks = [] if self.frozen is None else sound_chunks(folder, self.frozen)
        self._earlier = self._sound_parts()
        self._attempt = max((int(_attempt(path)) for path in self._earlier), default=0) + 1
        self._written: list[Path] = []
        self._rows: list[Row] = []
        self._since = time.monotonic()

    def _sound_parts(self) -> list[Path]:
        sound = []
        for path in attempt_files(self.folder):
            try:
                for _ in iterate_file(path):
                    pass
            except InputError as error:
                log.warning("%s It is computed again.", error)
                path.unlink()
                continue
            sound.append(path)
        return sound

    def earlier(self) -> list[Iterator[FileRows]]:
        """Return the rows of each earlier attempt, newest first, and those of the tasks."""
        attempts = earlier_attempts(self._earlier)
        return [*attempts, by_file(_rows([chunk.path for chunk in self._chunks]))]

    def current(self) -> Iterator[FileRows]:
        """Return the rows of this attempt."""
        return by_file(_rows(self._written))

    def has_earlier(self) -> bool:
        """Return whether an interrupted attempt, or a task, has left rows."""
        return bool(self._earlier) or any(chunk.rows for chunk in self._chunks)

    def machines(self) -> dict[str, set[str]]:
        """Return on what the tasks have computed their chunks: {name in the table's footer: values}."""
        names = ("runtime", "processor", "place_in_batch_matters")
        return {name: {chunk.texts[name] for chunk in self._chunks if chunk.rows} for name in names}

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


def _old_plan(folder: Path) -> Mapping[str, Any] | None:
    """Return the plan of the run, or of the tasks, that worked in `folder` before; None: nobody did."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    remove_temporaries(folder)  # a task that was killed may have left two names of one file
    if not holds_only_files(folder):
        return None
    frozen = read_frozen(folder)
    if frozen is not None:
        return frozen.values
    return read_own(folder / _PLAN)


def attempt_files(folder: Path) -> list[Path]:
    """Return the files of interrupted attempts, in the order in which they were written."""
    return sorted(folder.glob("[0-9]*-*.parquet"))


def _attempt(path: Path) -> str:
    return path.name.partition("-")[0]


def earlier_attempts(paths: Sequence[Path]) -> list[Iterator[FileRows]]:
    """Return the rows of each attempt, newest first; `paths`: as from `attempt_files`."""
    attempts = [list(files) for _, files in itertools.groupby(paths, _attempt)]
    return [by_file(_rows(files)) for files in reversed(attempts)]


def kept_rows(entry: "Entry", base: bool, content: bool) -> FileRows:
    """Return the rows that are still valid for a file by size and time; []: read it again.

    Args:
        entry: What is known of it.
        base: Whether the last stream is the table that --incremental keeps.
        content: Whether only the content decides.
    """
    if entry.file is None or content:
        return []
    attempts = len(entry.rows) - base
    for number, rows in enumerate(entry.rows):
        if matches(entry.file, rows, also_errors=number < attempts):
            return rows
    return []


def to_predict(file: FoundFile, entry: "Entry", content: bool) -> FileToPredict:
    """Return a file to read, with the rows that stay valid if its content is what it was."""
    earlier = next((rows for rows in entry.rows if rows), []) if content else []
    good = all(row["status"] in NO_ERRORS for row in earlier)
    return file, tuple(earlier if good else [])


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
