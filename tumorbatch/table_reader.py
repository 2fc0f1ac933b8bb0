"""Rows of any table that this product writes, as dictionaries: Parquet, CSV, JSON lines."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tumorbatch import csv_text, json_reader, parquet_reader
from tumorbatch.errors import InputError, reason
from tumorbatch.files import open_regular, printable

Row = dict[str, Any]

_SUFFIXES = (".csv", ".jsonl", ".ndjson")
_MAX_LINE = 16 << 20  # bytes; a row of the product's tables takes some hundreds


def is_text(path: Path) -> bool:
    """Return whether the name is that of a CSV or JSON lines table."""
    return path.suffix.lower() in _SUFFIXES


def iterate_rows(path: Path) -> Iterator[Row]:
    """Yield each row of a table, with memory for some rows only.

    Args:
        path: CSV with a head line, JSON lines (both UTF-8), or else Parquet without nested columns.

    Raises:
        InputError: There is no such table, or it is damaged.
    """
    suffix, name = path.suffix.lower(), printable(str(path))
    read = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}.get(suffix, _parquet_rows)
    kind = "Parquet file" if read is _parquet_rows else f"{suffix} table"
    try:
        yield from read(path)
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{name} is not a whole {kind}, or is damaged: {reason(error)}.") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    schema, _ = parquet_reader.read_footer(path)
    yield from parquet_reader.iterate_rows(path, schema)


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the lines of a UTF-8 text; raise `ValueError` for one that is longer than any of ours."""
    while line := file.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise ValueError(f"one of its lines has {_MAX_LINE:,} bytes or more")
        yield line.decode()


def _csv_rows(path: Path) -> Iterator[Row]:
    with open_regular(path) as file:
        try:
            reader = csv.reader(_lines(file), strict=True)
            names = next(reader, [])
            if not names or len(set(names)) < len(names):
                raise ValueError("its first line does not name the columns")
            for cells in reader:
                if len(cells) != len(names):
                    raise ValueError(
                        f"line {reader.line_num:,} has {len(cells)} cells, not {len(names)}"
                    )
                texts = (csv_text.restored(cell) if cell else None for cell in cells)
                yield dict(zip(names, texts, strict=True))
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num:,}: {error}") from error


def _json_rows(path: Path) -> Iterator[Row]:
    with open_regular(path) as file:
        for number, line in enumerate(_lines(file), 1):
            try:
                yield json_reader.parse_object(line.encode())
            except ValueError as error:
                raise ValueError(f"line {number:,}: {error}") from error


def as_number(value: object) -> float | None:
    """Return a cell as a number; None if it is not one. All cells of CSV are texts."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
