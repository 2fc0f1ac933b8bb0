"""The first pass of `shard`: every file read once, decoded, hashed, and its record spooled.

The parent appends the finished records to one spool file and, after an fsync, one line a chunk to a
journal. A killed run goes on behind the journal's last whole line; nothing else needs repair.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tumorbatch.atomic import make_folder, write_json
from tumorbatch.errors import ConfigError, InputError, cannot_write
from tumorbatch.files import read_file
from tumorbatch.limits import differences
from tumorbatch.pool import ordered_map
from tumorbatch.preprocess.classes import SourceFile
from tumorbatch.preprocess.pixels import perceptual_hash, pixel_hash, process
from tumorbatch.preprocessing import Preprocessing
from tumorbatch.records import ImageRecord, frame
from tumorbatch.status import FileError, Status

_PLAN = "plan.json"
CHUNK = 64  # files a task: 0.15 s of work, 1.5 MB of records

# What the first pass knows of a file. `manifest.parquet` has these columns and the plan's.
ROW_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("class", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("file_size", pa.int64()),
        ("sha256", pa.string()),
        ("pixel_hash", pa.string()),
        ("perceptual_hash", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bit_depth", pa.int16()),
        ("flags", pa.string()),
    ]
)


class FileResult(NamedTuple):
    """What a worker sends back for one file.

    Attributes:
        row: Values for `ROW_SCHEMA`, without path and class.
        record: The framed TFRecord, or None when there are no pixels.
    """

    row: dict[str, Any]
    record: bytes | None


def process_files(files: Sequence[SourceFile], preprocessing: Preprocessing) -> list[FileResult]:
    """The work of one task, in a worker process."""
    return [_process_file(file, preprocessing) for file in files]


def _process_file(source: SourceFile, preprocessing: Preprocessing) -> FileResult:
    row: dict[str, Any] = {"status": Status.OK.value}
    try:
        data, content = _read(source)
        row |= content
        done = process(data, preprocessing)
    except FileError as error:
        return FileResult(row | {"status": error.status.value, "error": error.message}, None)
    grey, header = done.decoded.grey, done.decoded.header
    row |= {
        "pixel_hash": pixel_hash(grey),
        "perceptual_hash": f"{perceptual_hash(grey):016x}",
        "width": grey.shape[1],
        "height": grey.shape[0],
        "format": header.format,
        "bit_depth": header.bit_depth,
        "flags": ",".join(done.flags),
    }
    height, width = done.pixels.shape
    record = ImageRecord(
        done.pixels.tobytes(), height, width, source.label, source.file.name, row["sha256"]
    )
    return FileResult(row, frame(record.encode()))


def _read(source: SourceFile) -> tuple[bytes, dict[str, Any]]:
    data, info = read_file(source.file)
    return data, {"file_size": info.st_size, "sha256": hashlib.sha256(data).hexdigest()}


def _crashed(source: SourceFile) -> FileResult:
    message = "the process that decoded it was killed, by a crash or for memory"
    row = {"status": Status.DECODER_CRASH.value, "error": message}
    with contextlib.suppress(FileError):  # a later run must know the file again
        row |= _read(source)[1]
    return FileResult(row, None)


class WorkArea:
    """The folder of an unfinished run: plan, spool and journal.

    Args:
        folder: Made when it is not there.
        plan: What the run is about, as JSON values; it decides whether a killed run may go on.
        overwrite: Start anew where the folder belongs to a run with another plan.

    Raises:
        ConfigError: The folder belongs to a run with another plan, and `overwrite` is not set.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], overwrite: bool) -> None:
        self.folder = folder
        self._spool = folder / "records"
        self._journal = folder / "journal.jsonl"
        before = _read_plan(folder)
        if before != plan:
            if before is not None and not overwrite:
                _refuse_other_plan(folder, before, plan)
            self.remove()  # without a plan, it is what a run left that was killed at its start
            make_folder(folder)
            write_json(folder / _PLAN, dict(plan))

    def run(
        self,
        files: Sequence[SourceFile],
        classes: Sequence[str],
        preprocessing: Preprocessing,
        workers: int,
        advance: Callable[[int], None],
    ) -> tuple[pa.Table, "list[tuple[int, int]]", int]:
        """Process what is not in the journal yet.

        Returns:
            The rows (`ROW_SCHEMA`, in the order of `files`); for each row the offset and length of
            its record in the spool (length 0: no record); and how many files were taken over from
            an interrupted run.
        """
        batches: list[pa.RecordBatch] = []
        places: list[tuple[int, int]] = []
        for line in self._finished_lines():
            batches.append(pa.RecordBatch.from_pylist(line["rows"], ROW_SCHEMA))
            places += map(tuple, line["places"])
        taken_over = len(places)
        if taken_over:
            advance(taken_over)
        rest = files[taken_over:]
        chunks = (rest[at : at + CHUNK] for at in range(0, len(rest), CHUNK))
        work = functools.partial(process_files, preprocessing=preprocessing)
        at = taken_over
        try:
            with self._spool.open("ab") as spool, self._journal.open("ab") as journal:
                for results in ordered_map(work, chunks, workers, _crashed):
                    rows, here = [], []
                    for source, result in zip(files[at:], results, strict=False):
                        rows.append(
                            {"path": source.file.name, "class": classes[source.label], **result.row}
                        )
                        here.append((spool.tell(), len(result.record or b"")))
                        spool.write(result.record or b"")
                    spool.flush()
                    os.fsync(spool.fileno())
                    journal.write(json.dumps({"rows": rows, "places": here}).encode() + b"\n")
                    journal.flush()
                    os.fsync(journal.fileno())
                    batches.append(pa.RecordBatch.from_pylist(rows, ROW_SCHEMA))
                    places += here
                    at += len(results)
                    advance(len(results))
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        return pa.Table.from_batches(batches, ROW_SCHEMA), places, taken_over

    def _finished_lines(self) -> Iterator[dict[str, Any]]:
        """The journal's whole lines; cuts journal and spool off behind them."""
        if not self._journal.exists():
            self._spool.unlink(missing_ok=True)
            return
        spooled = self._spool.stat().st_size if self._spool.exists() else 0
        good = end = 0
        with self._journal.open("rb+") as journal:
            for line in journal:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                new_end = max((at + length for at, length in entry["places"]), default=end)
                if not line.endswith(b"\n") or new_end > spooled:
                    break
                good, end = good + len(line), new_end
                yield entry
            journal.truncate(good)
        if spooled:
            os.truncate(self._spool, end)

    def record_reader(self) -> "SpoolReader":
        """Random access to the spooled records."""
        return SpoolReader(self._spool)

    def remove(self) -> None:
        """Delete the work area; its content has been published."""
        shutil.rmtree(self.folder, ignore_errors=True)


class SpoolReader:
    """Reads framed records from the spool, as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "SpoolReader":
        self._file = self._path.open("rb")
        return self

    def __call__(self, place: tuple[int, int]) -> bytes:
        """The framed record at (offset, length)."""
        data = os.pread(self._file.fileno(), place[1], place[0])
        if len(data) != place[1]:
            raise InputError(
                f"{self._path} was changed during the run. Run the same command with --overwrite."
            )
        return data

    def __exit__(self, *_: object) -> None:
        self._file.close()


def remove_if_planned(folder: Path, plan: Mapping[str, Any]) -> None:
    """Delete the work area in `folder` if it belongs to a run with this plan, or is half deleted."""
    if _read_plan(folder) in (plan, None):
        shutil.rmtree(folder, ignore_errors=True)


def _read_plan(folder: Path) -> dict[str, Any] | None:
    try:
        plan: dict[str, Any] = json.loads((folder / _PLAN).read_bytes())
        return plan
    except (OSError, ValueError):
        return None


def _refuse_other_plan(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changes = "; ".join(
        "other input files" if name == "inputs" else f"{name}: {then} then, {wanted} now"
        for name, then, wanted in differences(before, now)
    )
    raise ConfigError(
        f"{folder.parent} holds an interrupted run that was about something else ({changes}). "
        "Repeat that command to finish it, or start anew with --overwrite."
    )
