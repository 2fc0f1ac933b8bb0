"""The predictions file: one flat row for every input file, and what made them in the footer."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tumorbatch.atomic import atomic_path, write_json
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.shardset import file_sha256

SCHEMA_VERSION = 1
ROW_GROUP = 65_536  # rows
_PREFIX = "tumorbatch."

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
        self._metadata: dict[str, Any] = {}

    def __enter__(self) -> "PredictionsWriter":
        self._file = atomic_path(self._path)
        temporary = self._file.__enter__()
        try:
            self._writer = pq.ParquetWriter(
                temporary, SCHEMA, compression="zstd", write_page_checksum=True
            )
        except BaseException as error:
            if not self._file.__exit__(type(error), error, error.__traceback__):
                raise
        return self

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows, dictionaries of the columns; absent ones are null."""
        self._batches.append(pa.RecordBatch.from_pylist(rows, SCHEMA))
        self._waiting += len(rows)
        if self._waiting >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._batches)
            self._writer.write_table(table, row_group_size=ROW_GROUP)
        self._batches, self._waiting = [], 0

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
        try:
            if kind is None:
                self._flush()
                self._writer.add_key_value_metadata(
                    {_PREFIX + name: _text(value) for name, value in self._metadata.items()}
                )
            self._writer.close()
        except BaseException as error:
            self._file.__exit__(type(error), error, error.__traceback__)
            raise
        self._file.__exit__(kind, value, traceback)
        if kind is None:
            sidecar = {
                **self._metadata,
                "file": self._path.name,
                "bytes": self._path.stat().st_size,
                "sha256": file_sha256(self._path),
            }
            write_json(sidecar_path(self._path), sidecar)


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
        found = pq.read_metadata(path).metadata or {}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a whole Parquet file: {error}.") from error
    return {
        key.decode().removeprefix(_PREFIX): value.decode()
        for key, value in found.items()
        if key.decode().startswith(_PREFIX)
    }


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Each row as a dictionary, page checksums verified.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged: {error}.") from error


def refuse_foreign(path: Path, model_id: str) -> None:
    """Raise unless `path` is free, or holds predictions of the same model, which a rerun renews.

    Raises:
        ConfigError: It holds another model's predictions, or something else.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder. Give the name of a file, such as {path}/out.parquet.")
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
