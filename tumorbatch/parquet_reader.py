"""Parquet tables that a bug, an editor or an attacker may have written.

A small file can promise any number of rows and bytes, lack columns, give them other types, or hold
null where a value must be and bytes that are not UTF-8 where text must be. Page checksums are verified:
a flipped bit reads back as a wrong value otherwise.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tumorbatch.files import open_regular

# Each row of this product's tables has its own path, which takes more than a byte of the file
# however well it is compressed.
_ROWS_A_BYTE = 1
_ROWS_AT_LEAST = 4096
_MAX_RATIO = 1024  # uncompressed bytes for each byte of the file
_BYTES_AT_LEAST = 64 << 20
Source = Path | BinaryIO

_BATCH_ROWS = 1024
_MAX_BATCH_BYTES = 1 << 30


def read_table(source: Source, schema: pa.Schema, cast: bool = False) -> pa.Table:
    """Return the columns of `schema`, in its order.

    Args:
        source: A regular file, anything else is refused without being opened; or an open one.
        schema: Names and types of the columns; nulls are refused where a field is not nullable.
            Further columns of the file are not read.
        cast: Take columns of other types, too, whose values can be converted without a loss.

    Raises:
        OSError: The file is missing, unreadable, or not a regular file.
        ValueError: It is not such a table; the text is a reason, without the file's name.
    """
    with _opened(source, schema, cast) as file:
        table = file.read(columns=schema.names).select(schema.names).replace_schema_metadata(None)
        _check_values(table, schema)
        return table.cast(schema) if cast else table


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return those of some columns that a foreign table has, as lists of texts, numbers and None.

    Raises:
        OSError, ValueError: As `read_table`; also where a column holds something else.
    """
    schema, _ = read_footer(path)
    present = [name for name in names if name in schema.names]
    table = read_table(path, pa.schema([schema.field(name) for name in present]))
    return {name: _plain(name, table[name]).to_pylist() for name in present}


def _plain(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(column), None, column)  # how pandas writes that there is no value
    if any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer)):
        return column
    raise ValueError(f"its column {name!r} holds {kind}, and must hold texts or numbers")


def iterate_rows(
    path: Path, schema: pa.Schema, check: Callable[[pa.RecordBatch], None] = lambda _: None
) -> Iterator[dict[str, Any]]:
    """Yield each row as a dictionary of the columns of `schema`, with memory for some rows only.

    Args:
        path: A regular file.
        schema: As for `read_table`.
        check: Raises `ValueError` for values that a batch of rows must not have.

    Raises:
        OSError, ValueError: As `read_table`.
    """
    with _opened(path, schema, cast=False) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=schema.names):
            if batch.nbytes > _MAX_BATCH_BYTES:
                raise ValueError(f"{len(batch):,} of its rows take {batch.nbytes:,} bytes")
            selected = batch.select(schema.names)
            _check_values(selected, schema)
            check(selected)
            yield from selected.to_pylist()


def read_footer(path: Path, prefix: str = "") -> tuple[pa.Schema, dict[str, str]]:
    """Return a file's columns, and texts of its footer.

    Args:
        path: A regular file.
        prefix: Only texts whose names begin with it are returned, by the rest of their names.

    Raises:
        OSError: The file is missing, unreadable, or not a regular file.
        ValueError: It is not a Parquet file, or these texts are not UTF-8.
    """
    with _translated(), open_regular(path) as stream, pq.ParquetFile(stream) as file:
        texts = {
            name.removeprefix(prefix.encode()).decode(): text.decode()
            for name, text in (file.metadata.metadata or {}).items()
            if prefix and name.startswith(prefix.encode())
        }
        return file.schema_arrow, texts


def _stream(source: Source) -> contextlib.AbstractContextManager[BinaryIO]:
    return open_regular(source) if isinstance(source, Path) else contextlib.nullcontext(source)


@contextlib.contextmanager
def _opened(source: Source, schema: pa.Schema, cast: bool) -> Iterator[Any]:
    with (
        _translated(),
        _stream(source) as stream,
        pq.ParquetFile(stream, page_checksum_verification=True) as file,
    ):
        size = stream.seek(0, 2)
        stored = file.schema_arrow
        for field in schema:
            places = stored.get_all_field_indices(field.name)
            if len(places) != 1:
                count = f"{len(places)} columns" if places else "no column"
                raise ValueError(f"it has {count} {field.name!r}")
            kind = stored.field(places[0]).type
            if kind != field.type and not cast:
                raise ValueError(f"its column {field.name!r} holds {kind}, not {field.type}")
        _check_size(file.metadata, size)
        yield file


def _check_size(metadata: Any, size: int) -> None:
    """Raise `ValueError` where a file promises more than its own size makes likely."""
    if metadata.num_rows > max(_ROWS_AT_LEAST, size * _ROWS_A_BYTE):
        raise ValueError(f"it promises {metadata.num_rows:,} rows in {size:,} bytes")
    # Not the sizes of single columns: pyarrow ends the process where their metadata are damaged.
    groups = range(metadata.num_row_groups)
    promised = sum(metadata.row_group(group).total_byte_size for group in groups)
    if promised > max(_BYTES_AT_LEAST, size * _MAX_RATIO):
        raise ValueError(f"it promises {promised:,} bytes in {size:,}")


def _check_values(table: Any, schema: pa.Schema) -> None:
    table.validate(full=True)  # among others, that texts are UTF-8
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"its column {field.name!r} lacks values")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Make a `ValueError` of whatever pyarrow raises for a damaged file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError("its footer is not UTF-8") from error
    except MemoryError as error:  # pyarrow's own is one too
        raise ValueError("there is not enough memory to read it") from error
    except (pa.ArrowException, KeyError, IndexError, OverflowError) as error:
        raise ValueError(_first_line(error)) from error
    except OSError as error:
        if error.errno is not None:  # the file system's own
            raise
        raise ValueError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
