"""The first pass of `shard`: every file read once, decoded, hashed, and its record spooled.

Where a finished set is to grow, a file whose bytes it knows is read and hashed, and no more: row and
record are in the previous set.

The parent appends the finished records to one spool file and, after an fsync, one line a chunk to a
journal. A killed run keeps each row whose file is as it was, by name, class, size and time of change,
whatever else has come, changed or gone in the source; nothing needs repair.
"""

import base64
import functools
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from tumorbatch.atomic import (
    discard_folder,
    holds_only_files,
    new_folder,
    remove_temporaries,
    write_json,
)
from tumorbatch.checks import refuse_other_plan
from tumorbatch.errors import cannot_write
from tumorbatch.json_reader import INTEGER, NULL, TEXT, parse_object, read_own
from tumorbatch.manifest_schema import ROW_SCHEMA
from tumorbatch.parts import Frozen, read_frozen
from tumorbatch.preprocess.chunks import JOURNAL_SCHEMA, Chunks
from tumorbatch.preprocess.classes import SourceFile
from tumorbatch.preprocess.previous_set import PreviousSet
from tumorbatch.preprocess.records import IN_PREVIOUS_SET, RecordReader, in_previous_set
from tumorbatch.preprocess.worker import (
    CHUNK,
    FileResult,
    Task,
    lost_file,
    process_files,
    status_of,
)
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.secret_key import create_key, read_key
from tumorbatch.status import DECIDED_BY_CONTENT
from tumorbatch.stores import watched
from tumorbatch.workers import ordered_map

_PLAN = "plan.json"
KEY = "patients.key"
_FORMAT = 2  # of the journal; an older one is not taken up

_LINE_SHAPE = {
    "base": (TEXT, NULL),
    "rows": [{"path": TEXT, "class": TEXT, "status": TEXT}],
    "places": [[INTEGER]],
    "states": [[INTEGER]],
}

_State = tuple[str, str, int, int]  # path, class, bytes, time of change


class WorkArea:
    """The folder of an unfinished run: plan, spool, journal, and the patients' secret.

    Args:
        folder: Made when it is not there.
        settings: What the run is to make, as JSON values.
        software: Versions of what decides the pixels; work of other versions is done again.
        overwrite: Take up a run only if it was to overwrite, too, with the same settings.

    Attributes:
        frozen: The plan of the tasks that have worked here, or None.

    Raises:
        ConfigError: The folder belongs to a run with other settings, and `overwrite` is not set.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], software: Mapping[str, str], overwrite: bool
    ) -> None:
        self.folder = folder
        self.frozen: Frozen | None = None
        self._spool = folder / "records"
        self._journal = folder / "journal.jsonl"
        if folder.is_dir() and not folder.is_symlink():
            remove_temporaries(folder)  # a task that was killed may have left two names of one file
        made_by = {"journal": _FORMAT, "software": dict(software)}
        plan = {**made_by, "overwrite": overwrite, **settings}
        ours = holds_only_files(folder) and (folder / KEY).exists()
        old = _read_plan(folder) if ours else None
        if old is not None and all(old.get(name) == made_by[name] for name in made_by):
            if not overwrite:
                refuse_other_plan(folder.parent, {name: old.get(name) for name in settings}, settings)
            if not overwrite or old == plan:
                self.frozen = read_frozen(folder)
                return
        self.remove()  # without a plan, it is what a run left that was killed at its start
        new_folder(folder)
        folder.chmod(0o700)  # the rows and records may be those of DICOM files
        create_key(folder / KEY)
        write_json(folder / _PLAN, plan)

    def run(
        self,
        files: Sequence[SourceFile],
        classes: Sequence[str],
        preprocessing: Preprocessing,
        formats: Collection[str],
        workers: int,
        seconds: float,
        previous: PreviousSet | None,
        advance: Callable[[int], None],
    ) -> tuple[pa.Table, "list[tuple[int, int]]", int]:
        """Process the files that are not in the journal yet.

        Returns:
            The rows (`ROW_SCHEMA` and `patient`, in the order of `files`); for each row the offset and
            length of its record, for `record_reader` (length 0: no record, or in the previous set); how
            many files were taken over from an interrupted run.
        """
        generation = None if previous is None else previous.dataset.manifest_sha256
        batches, places, numbers = self._journalled(generation)
        self._chunks = Chunks(self.folder, self.frozen)
        self._take_chunks(generation, batches, places, numbers)
        order = [numbers.get(_state(source, classes), -1) for source in files]
        todo = [index for index, number in enumerate(order) if number < 0]
        taken_over = len(files) - len(todo)
        if taken_over:
            advance(taken_over)
        tasks = (task_of(files[index], classes, previous) for index in todo)
        finished = 0
        chunks = iter(lambda: list(itertools.islice(tasks, CHUNK)), [])
        secret = read_key(self.folder / KEY)
        work = functools.partial(
            process_files, preprocessing=preprocessing, secret=secret, seconds=seconds, formats=formats
        )
        try:
            with self._spool.open("ab") as spool, self._journal.open("ab") as journal:
                computed = ordered_map(work, chunks, workers, lost_file, seconds)
                for results in watched(computed, files[0].file.path, status_of):
                    indices = todo[finished : finished + len(results)]
                    chunk_files = [files[index] for index in indices]
                    rows = journal_rows(chunk_files, results, classes, previous)
                    new = [spool_record(spool, result) for result in results]
                    spool.flush()
                    os.fsync(spool.fileno())
                    entry = {
                        "base": generation,
                        "rows": rows,
                        "places": new,
                        "states": [(source.file.size, source.file.mtime_ns) for source in chunk_files],
                    }
                    journal.write(_journal_line(entry))
                    journal.flush()
                    os.fsync(journal.fileno())
                    batches.append(pa.RecordBatch.from_pylist(rows, JOURNAL_SCHEMA))
                    for number, index in enumerate(indices, len(places)):
                        order[index] = number
                    places += new
                    finished += len(results)
                    advance(len(results))
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        table = pa.Table.from_batches(batches, JOURNAL_SCHEMA).take(pa.array(order, pa.int64()))
        return table, [places[number] for number in order], taken_over

    def _journalled(
        self, generation: str | None
    ) -> "tuple[list[pa.RecordBatch], list[tuple[int, int]], dict[_State, int]]":
        """Read the journal.

        Args:
            generation: sha256 of the previous set's manifest; a row taken from another set is void.

        Returns:
            The rows, the places of their records, and {a file's state: number of its row}.
        """
        batches: list[pa.RecordBatch] = []
        places: list[tuple[int, int]] = []
        numbers: dict[_State, int] = {}
        for line in self._finished_lines():
            batches.append(pa.RecordBatch.from_pylist(line["rows"], JOURNAL_SCHEMA))
            for row, place, state in zip(line["rows"], line["places"], line["states"], strict=True):
                usable = line["base"] == generation or not in_previous_set(place)
                if usable and row["status"] in DECIDED_BY_CONTENT:
                    numbers[row["path"], row["class"], *state] = len(places)
                places.append(tuple(place))
        return batches, places, numbers

    def _take_chunks(
        self,
        generation: str | None,
        batches: list[pa.RecordBatch],
        places: "list[tuple[int, int]]",
        numbers: "dict[_State, int]",
    ) -> None:
        """Append what the tasks of a job have left to what `_journalled` gave."""
        for chunk in self._chunks.rows:
            batches.append(chunk.rows)
            columns = (chunk.rows[name].to_pylist() for name in ("path", "class", "status"))
            rows = zip(*columns, chunk.states, chunk.places, strict=True)
            for number, (path, name, status, state, place) in enumerate(rows, len(places)):
                usable = chunk.generation == generation or not in_previous_set(place)
                if usable and status in DECIDED_BY_CONTENT:
                    numbers[path, name, *state] = number
            places += chunk.places

    def _finished_lines(self) -> Iterator[dict[str, Any]]:
        """Return the journal's whole lines; cut off journal and spool after them."""
        if not self._journal.exists():
            self._spool.unlink(missing_ok=True)
            return
        spooled = self._spool.stat().st_size if self._spool.exists() else 0
        good = end = 0
        with self._journal.open("rb+") as journal:
            for line in journal:
                try:
                    entry = parse_object(line, _LINE_SHAPE)
                    if len({len(entry[name]) for name in ("rows", "places", "states")}) > 1:
                        break
                    entry["rows"] = [_with_signature(row) for row in entry["rows"]]
                    pa.RecordBatch.from_pylist(entry["rows"], JOURNAL_SCHEMA)
                    new_end = max([end, *(at + length for at, length in entry["places"])])
                except (ValueError, pa.ArrowException):  # cut by a kill, or by whatever damaged it
                    break
                if not line.endswith(b"\n") or new_end > spooled:
                    break
                good, end = good + len(line), new_end
                yield entry
            journal.truncate(good)
        if spooled:
            os.truncate(self._spool, end)

    def record_reader(self, previous: PreviousSet | None) -> "RecordReader":
        """Open the records in spool and previous set for random access."""
        return RecordReader(self._spool, previous, self._chunks)

    def remove(self) -> None:
        """Delete the work area; its content has been published."""
        discard_folder(self.folder, first=_PLAN)


def task_of(source: SourceFile, classes: Sequence[str], previous: PreviousSet | None) -> Task:
    """Return the task for a file, with what the previous set knows of it."""
    return Task(source, previous.sha256(source.file.name, classes[source.label]) if previous else None)


def _state(source: SourceFile, classes: Sequence[str]) -> "_State":
    file = source.file
    return file.name, classes[source.label], file.size, file.mtime_ns


def journal_rows(
    files: Sequence[SourceFile],
    results: Sequence[FileResult],
    classes: Sequence[str],
    previous: PreviousSet | None,
) -> list[dict[str, Any]]:
    """Return the rows of some files: what was found, or what the previous set has."""
    rows = [
        {"path": source.file.name, "class": classes[source.label], **result.row}
        for source, result in zip(files, results, strict=True)
    ]
    taken_over = [row for row, result in zip(rows, results, strict=True) if result.in_previous_set]
    old_rows = [] if previous is None else previous.rows([row["path"] for row in taken_over])
    for row, before in zip(taken_over, old_rows, strict=True):
        row.update({name: before[name] for name in ROW_SCHEMA.names})
    return rows


def _journal_line(entry: Mapping[str, Any]) -> bytes:
    """Return a chunk as JSON; the only bytes in it, the signatures, go in as base64."""
    text = json.dumps(entry, default=lambda data: base64.b64encode(data).decode("ascii"))
    return text.encode() + b"\n"


def _with_signature(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the journal with its signature as bytes again."""
    text = row.get("signature")
    return row if text is None else row | {"signature": base64.b64decode(text)}


def spool_record(spool: BinaryIO, result: FileResult) -> tuple[int, int]:
    """Append a file's record, and return its place."""
    if result.in_previous_set:
        return IN_PREVIOUS_SET, 0
    at = spool.tell()
    spool.write(result.record or b"")
    return at, len(result.record or b"")


def _read_plan(folder: Path) -> dict[str, Any] | None:
    """Return the plan of the interrupted run in `folder`, or None."""
    return read_own(folder / _PLAN)
