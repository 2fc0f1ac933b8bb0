"""The other ways to write a table: a folder of Parquet files, CSV, JSON lines."""

import contextlib
import datetime
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from tumorbatch import csv_text
from tumorbatch.atomic import PRIVATE, atomic_folder, atomic_path, write_json
from tumorbatch.infer.predictions import (
    SCHEMA,
    SCHEMA_VERSION,
    SUCCESS,
    PredictionsWriter,
    finish_file,
    is_private,
    no_sidecar_left,
    publish_sidecar,
)
from tumorbatch.infer.worker import Row
from tumorbatch.shardset import file_sha256

PART_ROWS = 1 << 20  # rows of one file of a folder

_FLOAT32 = tuple(field.name for field in SCHEMA if str(field.type) == "float")


class Writer(Protocol):
    """Takes the rows of a table in order, as a context manager: all of it is published, or nothing."""

    def __enter__(self) -> "Writer":
        """Begin."""
        ...

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, dictionaries of the columns; absent ones are null."""
        ...

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Set the table's metadata, as JSON values; the table is published when the block ends."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publish the table, or leave no trace."""
        ...


class TextWriter:
    """CSV with a head line (see `csv_text`), or one JSON object a line, UTF-8; with the sidecar.

    Times are ISO 8601 in UTC; a float32 has the fewest digits that give it again. In CSV null and ""
    are both empty, and the flags are one text, with commas between them.

    Args:
        path: The file; its folder exists.
        format: "csv" or "jsonl".
    """

    def __init__(self, path: Path, format: str) -> None:
        self._path = path
        self._csv = format == "csv"
        self._private = False
        self._metadata: dict[str, Any] = {}

    def __enter__(self) -> "TextWriter":
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(self._path, PRIVATE))
            self._file = stack.enter_context(
                io.TextIOWrapper(self._temporary.open("wb"), encoding="utf-8", newline="")
            )
            self._writer = csv_text.Writer(self._file)
            if self._csv:
                self._writer.write_row(SCHEMA.names)
            self._open = stack.pop_all()
        return self

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        self._private = self._private or any(map(is_private, rows))
        for row in rows:
            value = {name: _plain(name, row.get(name)) for name in SCHEMA.names}
            if self._csv:
                self._writer.write_row((value | {"flags": _joined(value["flags"])}).values())
            else:
                self._file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Set the content of the sidecar."""
        self._metadata = {"schema_version": SCHEMA_VERSION, **metadata}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with no_sidecar_left(self._path), self._open:
            if value is not None:
                raise value
            self._file.close()
            finish_file(self._temporary, self._path, self._metadata, self._private, sidecar=True)
        publish_sidecar(self._path)


def _joined(names: list[str] | None) -> str | None:
    return None if names is None else ",".join(names)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
    if name in _FLOAT32 and value is not None:
        return float(str(np.float32(value)))
    return value


class DatasetWriter:
    """A folder of Parquet files with at most `PART_ROWS` rows each, and `_SUCCESS`, written last.

    The folder is made next to `path` and takes its place when it is complete.

    Args:
        path: The folder; no symbolic link.
        metadata: What is known at the beginning: goes into each file's footer.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self._path = path
        self._static = metadata
        self._metadata: dict[str, Any] = {}
        self._part: PredictionsWriter | None = None
        self._rows: list[int] = []
        self._private = False

    def __enter__(self) -> "DatasetWriter":
        with contextlib.ExitStack() as stack:
            self._new = stack.enter_context(atomic_folder(self._path))
            self._next_part()
            self._publishing = stack.pop_all()
        return self

    def _next_part(self) -> None:
        self._close_part()
        path = self._new / f"part-{len(self._rows):05d}.parquet"
        self._part = PredictionsWriter(path, sidecar=False).__enter__()
        self._rows.append(0)

    def _close_part(self) -> None:
        if self._part is not None:
            part, self._part = self._part, None
            part.finish(self._static)
            part.__exit__(None, None, None)

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows; a file's frames may lie in two parts."""
        while rows:
            room = PART_ROWS - self._rows[-1]
            if not room:
                self._next_part()
                continue
            fitting, rows = rows[:room], rows[room:]
            if self._part is not None:
                self._part.write(fitting)
            self._rows[-1] += len(fitting)
            self._private = self._private or any(map(is_private, fitting))

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Set the content of `_SUCCESS`."""
        self._metadata = {"schema_version": SCHEMA_VERSION, **metadata}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._publishing:
            if value is not None:
                if self._part is not None:
                    with contextlib.suppress(BaseException):
                        self._part.__exit__(kind, value, traceback)
                raise value
            self._close_part()
            files = [
                {"name": path.name, "rows": rows, "bytes": path.stat().st_size}
                | {"sha256": file_sha256(path)}
                for path, rows in zip(sorted(self._new.iterdir()), self._rows, strict=True)
            ]
            mode = PRIVATE if self._private else None
            if self._private:
                for path in self._new.iterdir():
                    path.chmod(PRIVATE)
                self._new.chmod(0o700)
            write_json(self._new / SUCCESS, {**self._metadata, "files": files}, mode)
