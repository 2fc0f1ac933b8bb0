"""The predictions file: one flat row for every input file, and what made them in the footer."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tumorbatch.atomic import atomic_path, write_json
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import printable
from tumorbatch.shardset import file_sha256

SCHEMA_VERSION = 1
ROW_GROUP = 65_536  # rows
_PREFIX = "tumorbatch."
_PRIVATE = 0o600  # of a table that has rows of DICOM files: their paths often hold names

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        ("error", pa.string()),
        ("label", pa.string()),
        ("prob_tumor", pa.float32()),
        ("logit", pa.float32()),
        ("file_size", pa.int64()),
        ("mtime", pa.timestamp("us", tz="UTC")),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("flags", pa.string()),
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)


class PredictionsWriter:
    """Writes one Parquet file atomically, as a context manager; memory holds one row group.

    When the block raises, what was at `path` before is untouched.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches: list[pa.RecordBatch] = []
        self._waiting = 0
        self._private = False
        self._metadata: dict[str, Any] = {}

    def __enter__(self) -> "PredictionsWriter":
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(self._path, _PRIVATE))
            self._file = self._temporary.open("wb")
            stack.callback(self._file.close)
            # Not its name: pyarrow knows only names that are UTF-8.
            self._writer = pq.ParquetWriter(
                self._file, SCHEMA, compression="zstd", write_page_checksum=True
            )
            self._open = stack.pop_all()
        return self

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows, dictionaries of the columns; absent ones are null."""
        self._private = self._private or any(row.get("format") == "dicom" for row in rows)
        self._batches.append(pa.RecordBatch.from_pylist(rows, SCHEMA))
        self._waiting += len(rows)
        if self._waiting >= ROW_GROUP:
            self._flush(self._waiting - self._waiting % ROW_GROUP)

    def _flush(self, count: int) -> None:
        """Write the first `count` rows that wait."""
        table = pa.Table.from_batches(self._batches, SCHEMA)
        self._writer.write_table(table.slice(0, count), row_group_size=ROW_GROUP)
        self._batches = table.slice(count).to_batches()
        self._waiting -= count

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Say what goes into the footer and the sidecar; the file is closed when the block ends.

        Args:
            metadata: JSON values; in the footer each becomes a key `tumorbatch.NAME`.
        """
        self._metadata = {"schema_version": SCHEMA_VERSION, **metadata}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._open:
            if value is not None:
                with contextlib.suppress(OSError, pa.ArrowException):
                    self._writer.close()
                raise value
            if self._waiting:
                self._flush(self._waiting)
            self._writer.add_key_value_metadata(
                {_PREFIX + name: _text(value) for name, value in self._metadata.items()}
            )
            self._writer.close()
            self._file.close()
            mode = _PRIVATE if self._private else _default_mode()
            self._temporary.chmod(mode)
            # The sidecar first: when it cannot be written, the file must not appear either.
            sidecar = {
                **self._metadata,
                "file": printable(self._path.name),
                "bytes": self._temporary.stat().st_size,
                "sha256": file_sha256(self._temporary),
            }
            write_json(sidecar_path(self._path), sidecar, mode)


def _default_mode() -> int:
    """Permission bits of a new file: what the umask gives."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sidecar_path(path: Path) -> Path:
    """`out.parquet.json` for `out.parquet`."""
    return path.with_name(path.name + ".json")


def read_metadata(path: Path) -> dict[str, str]:
    """The footer's `tumorbatch.` keys, without the prefix; empty for a foreign Parquet file.

    Raises:
        InputError: There is no readable Parquet file at `path`.
    """
    try:
        with path.open("rb") as file:
            found = pq.read_metadata(file).metadata or {}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a whole Parquet file: {error}.") from error
    prefix = _PREFIX.encode()
    return {
        key.removeprefix(prefix).decode(): value.decode()
        for key, value in found.items()
        if key.startswith(prefix)
    }


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Each row as a dictionary, page checksums verified.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True)
            for batch in table.iter_batches(1024):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged: {error}.") from error


def refuse_special(path: Path) -> None:
    """Raise `ConfigError` when `path` is a folder, a device or a pipe, none of which is replaced."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder. Give the name of a file, such as {path}/out.parquet.")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a regular file. Give another name.")


def refuse_foreign(path: Path, model_id: str) -> None:
    """Raise unless `path` is free, or holds predictions of the same model, which a rerun renews.

    Raises:
        ConfigError: It holds another model's predictions, or something else.
    """
    if not path.exists():
        return
    try:
        before = read_metadata(path).get("model_id")
    except InputError:
        before = None
    if before is None:
        raise ConfigError(
            f"{path} exists and is no predictions file. Give another name, or --overwrite."
        )
    if before != model_id:
        raise ConfigError(
            f"{path} holds predictions of model {before}; this run would use {model_id}. "
            "Give another name, --model for that model, or --overwrite."
        )
