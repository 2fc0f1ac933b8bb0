"""The predictions as Parquet: one row for every frame of every input file, and what made them.

A table is one file with a sidecar (`out.parquet`, `out.parquet.json`), or a folder of files
`part-00000.parquet`, ... with a `_SUCCESS` that is written last.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tumorbatch import json_reader, parquet_reader
from tumorbatch.atomic import PRIVATE, atomic_path, remove_temporaries, sync_folder, write_json, writing
from tumorbatch.errors import InputError, cannot_write, not_finished, reason
from tumorbatch.files import printable, read_regular
from tumorbatch.infer.columns import DESCRIPTIONS, flags
from tumorbatch.infer.worker import Row
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.parquet_reader import read_footer
from tumorbatch.schema_descriptions import described
from tumorbatch.shardset import file_sha256
from tumorbatch.status import Status

SCHEMA_VERSION = 3  # 2: the column `frame`; 3: `flags` is a list. Columns behind `run_id` came later
CONTINUED = ("2",)  # earlier versions whose rows `iterate_rows` gives as those of this one
ROW_GROUP = 65_536  # rows
SUCCESS = "_SUCCESS"
PARTS = "part-*.parquet"
PREFIX = "tumorbatch."

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
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
        ("flags", pa.list_(pa.field("element", pa.string()))),  # the name that Parquet gives it
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        # Of DICOM files; the keys only with --identity-key.
        ("patient_key", pa.string()),
        ("study_key", pa.string()),
        ("series_key", pa.string()),
        ("instance_key", pa.string()),
        ("modality", pa.string()),
        ("body_part", pa.string()),
        ("slice_position", pa.float64()),
        ("unfamiliar", pa.float32()),
    ]
)
SCHEMA = described(SCHEMA, DESCRIPTIONS)
_LATEST = SCHEMA.names[SCHEMA.names.index("run_id") + 1 :]
# Of version 2 at first; and what tables of earlier versions may lack.
EARLIER_SCHEMA = pa.schema([field for field in SCHEMA if field.name not in _LATEST])
LATER = ("frame", *_LATEST)


def is_private(row: Row) -> bool:
    """Return whether a table with this row must be readable by its owner only."""
    return row.get("format") == "dicom"


class PredictionsWriter:
    """Writes one Parquet file atomically, as a context manager; memory holds one row group.

    When the block raises, what was at `path` before is untouched.

    Args:
        path: The file; its folder exists.
        sidecar: Whether `path.json` is written too.
    """

    def __init__(self, path: Path, sidecar: bool = True) -> None:
        self._path = path
        self._sidecar = sidecar
        self._batches: list[pa.RecordBatch] = []
        self._waiting = 0
        self._private = False
        self._metadata: dict[str, Any] = {}
        self._writer: Any = None

    def __enter__(self) -> "PredictionsWriter":
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(self._path, PRIVATE))
            self._file = self._temporary.open("wb")
            stack.callback(self._file.close)
            stack.callback(self._abandon)  # before the file: its destructor would complain otherwise
            # Not its name: pyarrow knows only names that are UTF-8.
            self._writer = pq.ParquetWriter(
                self._file, SCHEMA, compression="zstd", write_page_checksum=True
            )
            self._open = stack.pop_all()
        return self

    def _abandon(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError, ValueError, pa.ArrowException):
                self._writer.close()

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, dictionaries of the columns; absent ones are null."""
        self._private = self._private or any(map(is_private, rows))
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
        """Set the content of footer and sidecar; the file is closed when the block ends.

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
        with no_sidecar_left(self._path), self._open:
            if value is not None:
                raise value
            if self._waiting:
                self._flush(self._waiting)
            self._writer.add_key_value_metadata(footer(self._metadata))
            self._writer.close()
            self._file.close()
            finish_file(self._temporary, self._path, self._metadata, self._private, self._sidecar)
        if self._sidecar:
            publish_sidecar(self._path)


def footer(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return each value as text under `tumorbatch.NAME`."""
    return {PREFIX + name: _text(value) for name, value in metadata.items()}


def finish_file(
    temporary: Path, path: Path, metadata: Mapping[str, Any], private: bool, sidecar: bool
) -> None:
    """Set the mode, and write the sidecar: before the file, which must not appear without it.

    Until then the old table keeps its own; `publish_sidecar` exchanges it afterwards.
    """
    mode = PRIVATE if private else _default_mode()
    temporary.chmod(mode)
    if sidecar:
        if sidecar_path(path).is_dir():  # the table must not appear without it
            number = errno.EISDIR
            raise cannot_write(sidecar_path(path), OSError(number, os.strerror(number)))
        of_file = {
            **metadata,
            "file": printable(path.name),
            "bytes": temporary.stat().st_size,
            "sha256": file_sha256(temporary),
        }
        write_json(_waiting_sidecar(path), of_file, mode)


def publish_sidecar(path: Path) -> None:
    """Give the sidecar of the table that has just taken its place its name.

    Raises:
        OutputError: It cannot be renamed; the next run does it.
    """
    try:
        os.replace(_waiting_sidecar(path), sidecar_path(path))
        sync_folder(path.parent)
    except OSError as error:
        raise not_finished(path, error) from error


@contextlib.contextmanager
def no_sidecar_left(path: Path) -> Iterator[None]:
    """Delete the sidecar that waits where the block, which is to put its table in place, raises."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if sidecar_of(path) == sidecar_path(path):  # the new table is not in its place
                _waiting_sidecar(path).unlink(missing_ok=True)
        raise


def sidecar_of(path: Path) -> Path:
    """Return the sidecar that belongs to a table: after a kill it may still wait for its name."""
    waiting = _waiting_sidecar(path)
    try:
        recorded = json_reader.read_object(waiting, {"sha256": json_reader.TEXT})
        if recorded["sha256"] == file_sha256(path):
            return waiting
    except (OSError, ValueError):
        pass
    return sidecar_path(path)


def recover_sidecar(path: Path) -> None:
    """Finish, or undo, what a killed run left next to a table. Hold the lock.

    Raises:
        OutputError: A file cannot be renamed or deleted.
    """
    with writing(path):
        if sidecar_of(path) == _waiting_sidecar(path):
            os.replace(_waiting_sidecar(path), sidecar_path(path))
        _waiting_sidecar(path).unlink(missing_ok=True)
    remove_temporaries(path.parent, _waiting_sidecar(path).name)


def _waiting_sidecar(path: Path) -> Path:
    return path.with_name(f".{path.name}.json.new")


def _default_mode() -> int:
    """Return the permission bits of a new file under the current umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sidecar_path(path: Path) -> Path:
    """Return `out.parquet.json` for `out.parquet`."""
    return path.with_name(path.name + ".json")


def table_files(path: Path) -> list[Path]:
    """Return the Parquet files of a table, in the order of their rows.

    Raises:
        InputError: `path` is a folder without `_SUCCESS`.
    """
    if not path.is_dir():
        return [path]
    if not (path / SUCCESS).is_file():
        raise InputError(f"{path} is not a finished table: it has no {SUCCESS}.")
    return sorted(path.glob(PARTS))


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a table: the footer's `tumorbatch.` keys, or a folder's `_SUCCESS`.

    Empty for a foreign Parquet file.

    Raises:
        InputError: There is no readable table at `path`.
    """
    if path.is_dir():
        table_files(path)
        data = _read_success(path)
        return {name: _text(value) for name, value in data.items()}
    try:
        _, texts = read_footer(path, PREFIX)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a whole Parquet file: {reason(error)}.") from error
    return texts


def _read_success(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `_SUCCESS`; other programs write an empty one."""
    path = folder / SUCCESS
    try:
        data = read_regular(path, json_reader.MAX_BYTES)
        return json_reader.parse_object(data) if data else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {reason(error)}.") from error


def iterate_rows(path: Path) -> Iterator[Row]:
    """Yield each row of a table as a dictionary, page checksums verified.

    Raises:
        InputError: A file is damaged.
    """
    for part in table_files(path):
        yield from iterate_file(part)


def _check_values(batch: pa.RecordBatch) -> None:
    """Raise `ValueError` for values that no row of a table of predictions has."""
    for name, allowed in (("status", [*Status]), ("label", CLASS_NAMES)):
        valid = pc.is_in(batch[name], pa.array(allowed, pa.string()))
        if pc.any(pc.and_(pc.is_valid(batch[name]), pc.invert(valid))).as_py():
            raise ValueError(f"its column {name!r} must be one of {', '.join(allowed)}")
    if pc.any(pc.invert(pc.match_substring_regex(batch["sha256"], "^[0-9a-f]{64}$"))).as_py():
        raise ValueError("its column 'sha256' must hold 64 hexadecimal digits")


def stored_schema(names: Sequence[str]) -> pa.Schema:
    """Return the schema of a table by its columns: earlier versions have fewer."""
    absent = set(LATER) - set(names)
    return pa.schema([field for field in SCHEMA if field.name not in absent])


def file_schema(path: Path) -> pa.Schema:
    """Return the schema of a Parquet table, which may be that of an earlier version.

    Raises:
        OSError, ValueError: It is missing, unreadable, or not a Parquet file.
    """
    found = read_footer(path)[0]
    schema = stored_schema(found.names)
    if found.names.count("flags") == 1 and found.field("flags").type == pa.string():
        place = schema.get_field_index("flags")
        schema = schema.set(place, schema.field(place).with_type(pa.string()))
    return schema


def iterate_file(path: Path) -> Iterator[Row]:
    """Yield each row of one Parquet file as `iterate_rows` does."""
    try:
        schema = file_schema(path)
        for row in parquet_reader.iterate_rows(path, schema, _check_values):
            if isinstance(row["flags"], str):
                row["flags"] = flags(row["flags"])
            yield row
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {reason(error)}.") from error
