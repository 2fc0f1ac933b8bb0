"""Chunks of the first pass that tasks of a job have computed: rows in one file, records in another.

chunk-00000012-1a2b3c4d.records   framed records, one after another
chunk-00000012-1a2b3c4d.parquet   rows, with the places of their records; written last
"""

import bisect
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tumorbatch.atomic import PRIVATE, atomic_path, sync_folder
from tumorbatch.errors import InputError, reason
from tumorbatch.files import printable
from tumorbatch.manifest_schema import ROW_SCHEMA
from tumorbatch.parquet_reader import read_footer, read_table
from tumorbatch.parts import Frozen, find_chunks

log = logging.getLogger(__name__)

# The keyed hash of a DICOM file's patient joins files into groups. It leaves the work area only as the
# number of a group.
JOURNAL_SCHEMA = ROW_SCHEMA.append(pa.field("patient", pa.string()))
_STATE = ("at", "length", "found_size", "found_mtime")
_SCHEMA = pa.schema([*JOURNAL_SCHEMA, *(pa.field(name, pa.int64(), nullable=False) for name in _STATE)])
_PREFIX = "tumorbatch."
# Records of chunks are addressed as if their files followed the spool, from here on.
_FIRST = 1 << 56


class ChunkRows(NamedTuple):
    """What one chunk's file holds.

    Attributes:
        rows: `JOURNAL_SCHEMA`.
        places: Offset and length of each record in the records' file; or in the previous set.
        states: Size and time of change of each file, when it was listed.
        generation: sha256 of the manifest of the set that rows were taken from, or None.
    """

    rows: pa.RecordBatch
    places: list[tuple[int, int]]
    states: list[tuple[int, int]]
    generation: str | None


def records_path(chunk: Path) -> Path:
    """Return the file with the records of a chunk."""
    return chunk.with_suffix(".records")


def write_chunk(
    path: Path,
    number: int,
    frozen: Frozen,
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[tuple[int, int]],
    states: Sequence[tuple[int, int]],
    generation: str | None,
    texts: Mapping[str, str],
) -> None:
    """Write a chunk's rows, which makes it one; its records are in their place already.

    Args:
        path: From `new_chunk`.
        number: Of the chunk.
        frozen: The plan of the job.
        rows: Values of `JOURNAL_SCHEMA`.
        places, states, generation: As in `ChunkRows`.
        texts: More for the footer.

    Raises:
        OutputError: It cannot be written.
    """
    full = [
        {**row, "at": at, "length": length, "found_size": size, "found_mtime": mtime}
        for row, (at, length), (size, mtime) in zip(rows, places, states, strict=True)
    ]
    texts = {
        **texts, "plan": frozen.fingerprint, "chunk": str(number), "rows": str(len(rows)),
        "base": generation or "", "bytes": str(records_path(path).stat().st_size),
    }  # fmt: skip
    sync_folder(path.parent)
    with (
        atomic_path(path, PRIVATE) as temporary,
        temporary.open("wb") as stream,
        pq.ParquetWriter(stream, _SCHEMA, compression="zstd", write_page_checksum=True) as writer,
    ):
        writer.write_table(pa.Table.from_pylist(full, _SCHEMA))
        writer.add_key_value_metadata({_PREFIX + name: text for name, text in texts.items()})


def read_texts(path: Path, number: int, frozen: Frozen) -> dict[str, str] | None:
    """Return a chunk's footer if it is whole and of this job, judged by that and its size."""
    try:
        return _footer(path, number, frozen)
    except (OSError, ValueError) as error:
        _warn(path, error)
        return None


def _warn(path: Path, error: Exception) -> None:
    log.warning("%s cannot be used: %s. It is computed again.", printable(str(path)), reason(error))


def _footer(path: Path, number: int, frozen: Frozen) -> dict[str, str]:
    _, texts = read_footer(path, _PREFIX)
    if (texts.get("plan"), texts.get("chunk")) != (frozen.fingerprint, str(number)):
        raise ValueError("it belongs to another job")
    if str(records_path(path).stat().st_size) != texts.get("bytes"):
        raise ValueError("its records are not whole")
    return texts


def _read(path: Path, number: int, frozen: Frozen) -> ChunkRows:
    texts = _footer(path, number, frozen)
    table = read_table(path, _SCHEMA)
    if str(table.num_rows) != texts.get("rows"):
        raise ValueError("it lacks rows")
    columns = [table[name].to_pylist() for name in _STATE]
    rows = table.select(JOURNAL_SCHEMA.names).combine_chunks().to_batches()
    batch = rows[0] if rows else pa.RecordBatch.from_pylist([], JOURNAL_SCHEMA)
    places = list(zip(*columns[:2], strict=True))
    return ChunkRows(batch, places, list(zip(*columns[2:], strict=True)), texts["base"] or None)


class Chunks:
    """All finished chunks in a work area; their records have places after those of the spool.

    Args:
        area: The work area. Hold the output's lock.
        frozen: The plan of the job, or None: then there are no chunks.
    """

    def __init__(self, area: Path, frozen: Frozen | None) -> None:
        self.rows: list[ChunkRows] = []
        self._first: list[int] = []  # where each file of records begins
        self._files: list[Path] = []
        if frozen is not None:
            self._find(area, frozen)

    def _find(self, area: Path, frozen: Frozen) -> None:
        end = _FIRST
        for number, paths in sorted(find_chunks(area).items()):
            for path in paths:
                try:
                    chunk = _read(path, number, frozen)
                except (OSError, ValueError) as error:
                    _warn(path, error)
                    continue
                self._first.append(end)
                self._files.append(records_path(path))
                moved = [(at + end if at >= 0 else at, length) for at, length in chunk.places]
                self.rows.append(chunk._replace(places=moved))
                end += records_path(path).stat().st_size
                break

    def holds(self, place: tuple[int, int]) -> bool:
        """Return whether a place is that of a record of a chunk."""
        return place[0] >= _FIRST

    def read(self, place: tuple[int, int]) -> bytes:
        """Return the framed record at a place.

        Raises:
            InputError: Its file is not what it was.
        """
        at = bisect.bisect_right(self._first, place[0]) - 1
        path = self._files[at]
        with path.open("rb", buffering=0) as file:  # there may be more of them than may be open
            data = os.pread(file.fileno(), place[1], place[0] - self._first[at])
        if len(data) != place[1]:
            raise InputError(
                f"{path} was changed during the run. Run the same command with --overwrite."
            )
        return data
