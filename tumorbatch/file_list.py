"""The list of files that all tasks of a job share (`tumorbatch.parts`): written once, in chunks.

One row group of the Parquet file is one chunk, so that a task reads its own part only.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tumorbatch import stores
from tumorbatch.atomic import PRIVATE, atomic_path
from tumorbatch.errors import InputError, reason
from tumorbatch.files import FoundFile, check_source, open_regular, printable
from tumorbatch.object_path import Location, ObjectPath, is_uri, location
from tumorbatch.parts import Frozen, chunk_size, manifest_path
from tumorbatch.shardset import file_sha256
from tumorbatch.status import Status

_SCHEMA = pa.schema(
    [
        pa.field("source", pa.int32(), nullable=False),  # the folder, or the file itself
        pa.field("path", pa.binary(), nullable=False),  # below it, as the file system names it
        pa.field("name", pa.string(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("note", pa.string()),  # what else the stage knows of it
        pa.field("chunk", pa.int32(), nullable=False),
    ]
)


def write_manifest(
    area: Path,
    sources: Sequence[Location],
    files: Iterable[FoundFile],
    chunk_files: int,
    notes: Sequence[str] | None = None,
) -> str:
    """Write the list of files, and return its sha256.

    Args:
        area: The work area.
        sources: Folders that hold the files, or files.
        files: Sorted by name.
        chunk_files: Files a chunk; the last one may have fewer.
        notes: What else is known of each file.
    """
    roots = [os.path.join(str(source), "") for source in sources]

    def chunks() -> Iterator[pa.Table]:
        coming = iter(files)
        for number in itertools.count():
            rows = [_row(file, roots, number) for file in itertools.islice(coming, chunk_files)]
            if not rows:
                return
            some = notes[number * chunk_files : (number + 1) * chunk_files] if notes else ()
            for row, note in zip(rows, some, strict=bool(notes)):
                row["note"] = note
            yield pa.Table.from_pylist(rows, _SCHEMA)

    return _write(area, chunks())


def write_as_listed(
    area: Path, sources: Sequence[Location], files: Iterable[FoundFile]
) -> dict[str, Any]:
    """Write a list of files while it comes: the memory holds a chunk.

    How large chunks are depends on the number of files, which the end alone tells; a long list is then
    written again.

    Args:
        area: The work area.
        sources: Folders that hold the files, or files.
        files: Sorted by name.

    Returns:
        What the plan says of it: `files`, `chunk_files`, `manifest_sha256`.
    """
    size = chunk_size(0)
    sha256 = write_manifest(area, sources, files, size)
    short = manifest_path(area, sha256)
    with pq.ParquetFile(short) as file:
        count = file.metadata.num_rows
        if chunk_size(count) != size:
            size = chunk_size(count)
            sha256 = _write(area, _regrouped(file, size))
            short.unlink()
    return {"files": count, "chunk_files": size, "manifest_sha256": sha256}


def _regrouped(file: pq.ParquetFile, size: int) -> Iterator[pa.Table]:
    """Yield the rows of a list in chunks of another size."""
    column, waiting, numbers = (
        _SCHEMA.get_field_index("chunk"),
        _SCHEMA.empty_table(),
        itertools.count(),
    )

    def chunk(rows: pa.Table) -> pa.Table:
        number = pa.array(np.full(rows.num_rows, next(numbers), np.int32))
        return rows.set_column(column, _SCHEMA.field(column), number)

    for group in range(file.num_row_groups):
        waiting = pa.concat_tables([waiting, file.read_row_group(group)])
        while waiting.num_rows >= size:
            yield chunk(waiting.slice(0, size))
            waiting = waiting.slice(size)
    if waiting.num_rows:
        yield chunk(waiting)


def _write(area: Path, chunks: Iterable[pa.Table]) -> str:
    waiting = area / f".manifest-{os.getpid()}.parquet"
    with (
        atomic_path(waiting, PRIVATE) as temporary,
        temporary.open("wb") as stream,
        pq.ParquetWriter(stream, _SCHEMA, compression="zstd", write_page_checksum=True) as writer,
    ):
        for chunk in chunks:
            writer.write_table(chunk, row_group_size=max(1, chunk.num_rows))
    sha256 = file_sha256(waiting)
    os.replace(waiting, manifest_path(area, sha256))
    return sha256


def _row(file: FoundFile, roots: Sequence[str], chunk: int) -> dict[str, object]:
    whole = os.path.join(file.path, "")
    source = next(number for number, root in enumerate(roots) if whole.startswith(root))
    path = file.path[len(roots[source]) :]
    return {
        "source": source, "path": os.fsencode(path), "name": file.name, "problem": file.problem,
        "status": file.status.value, "size": file.size, "mtime_ns": file.mtime_ns, "chunk": chunk,
    }  # fmt: skip


class Manifest:
    """The list of a job, as a context manager.

    Args:
        area: The work area.
        sources: Folders or files, as this task's command names them.
        frozen: The plan, which names the list.

    Raises:
        InputError: The list is missing or damaged.
    """

    def __init__(self, area: Path, sources: Sequence[Location], frozen: Frozen) -> None:
        sha256 = str(frozen.values["manifest_sha256"])
        self._path = manifest_path(area, sha256)
        self._frozen = frozen
        self._sources = [str(source) for source in sources]
        try:
            if file_sha256(self._path) != sha256:
                raise ValueError("its content has changed")
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error

    def __enter__(self) -> "Manifest":
        try:
            self._stream = open_regular(self._path)
            self._file = pq.ParquetFile(self._stream, page_checksum_verification=True)
            numbers = (self._file.metadata.num_rows, self._file.num_row_groups)
            if numbers != (self._frozen.files, self._frozen.chunks):
                raise ValueError("it is not that of the plan")
            if self._file.schema_arrow != _SCHEMA:
                raise ValueError("its columns are not those of a list")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._damaged(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._stream.close()

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"The list of files {printable(str(self._path))} is damaged: {reason(error)}. Start the "
            "job again with --overwrite."
        )

    def chunk(self, number: int) -> Iterator[FoundFile]:
        """Yield the files of one chunk, in their order."""
        for file, _ in self.noted(number):
            yield file

    def noted(self, number: int) -> Iterator[tuple[FoundFile, str]]:
        """Yield the files of one chunk with the notes on them, or ""."""
        try:
            table = self._file.read_row_group(number)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from error
        for batch in table.to_batches(1024):
            for row in batch.to_pylist():
                path, below = self._sources[row["source"]], os.fsdecode(row["path"])
                path = os.path.join(path, below) if below else path
                status = Status(row["status"])
                file = FoundFile(
                    path, row["name"], row["problem"], status, row["size"], row["mtime_ns"]
                )
                yield file, row["note"] or ""

    def __len__(self) -> int:
        return self._frozen.files

    def __iter__(self) -> Iterator[FoundFile]:
        """Yield all files in their order; the memory holds one chunk."""
        return itertools.chain.from_iterable(map(self.chunk, self.chunks))

    @property
    def chunks(self) -> range:
        """Return the numbers of all chunks."""
        return range(self._file.num_row_groups)

    def some(self, todo: Sequence[int]) -> list[str]:
        """Return paths of some chunks: the first, one in the middle, and one near the end."""
        numbers = (todo[0], todo[len(todo) // 2], todo[-1])
        return [file.path for number in numbers if (file := next(self.chunk(number), None)) is not None]

    def probe(self, todo: Sequence[int]) -> None:
        """Raise `InputError` where this machine sees none of some paths of these chunks."""
        for source in self._sources:
            check_source(location(source))
        some = self.some(todo)
        if some and not any(map(is_seen, some)):
            names = ", ".join(dict.fromkeys(some))
            raise InputError(
                f"None of {printable(names)} can be seen on {os.uname().nodename}. Mount the folder "
                "there under the same name; --overwrite lists its files again."
            )


def is_seen(path: str) -> bool:
    """Return whether this machine sees a file, or an object."""
    return stores.exists(ObjectPath.parse(path)) if is_uri(path) else os.path.lexists(path)
