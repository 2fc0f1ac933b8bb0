"""Rows of a table: which ones `show` prints, in which order, and how."""

import heapq
import io
import itertools
import json
import operator
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tumorbatch import csv_text, json_reader, table_reader
from tumorbatch.cli.console import say
from tumorbatch.errors import ConfigError
from tumorbatch.files import visible
from tumorbatch.infer.predictions import read_metadata, sidecar_path, table_files
from tumorbatch.status import Status
from tumorbatch.table_reader import Row, as_number

FORMATS = ("table", "json", "csv", "tsv")
_TABLE_ROWS = 20  # where nothing else is said
_HEAD = ("model_id", "threshold", "statuses", "labels", "finished")
_PREDICTIONS = ("path", "frame", "status", "label", "prob_tumor", "size", "format", "flags", "error")
_WIDTH = 120  # columns, where there is no terminal and no COLUMNS
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_CONDITION = re.compile(r"(\w+)(!=|>=|<=|=|>|<|~)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows and columns.

    Attributes:
        where: Conditions such as "label=Tumor", "prob_tumor>=0.9", "flags~low-res"; all must hold.
        sort: A column, with "-" in front for descending; None: as they stand in the file.
        columns: Names; none: those that the kind of table suggests.
        rows: The largest number; None: 20 in a table, all otherwise.
        errors: Only rows without a prediction.
    """

    where: tuple[str, ...] = ()
    sort: str | None = None
    columns: tuple[str, ...] = ()
    rows: int | None = None
    errors: bool = False


def show(path: Path, selection: Selection, format: str) -> None:
    """Print rows of a table on standard output.

    Args:
        path: Any table of this product: a Parquet file, a folder of them, CSV, JSON lines.
        selection: Which rows and columns.
        format: One of `FORMATS`.

    Raises:
        InputError: There is no such table, or it is damaged.
        ConfigError: A condition cannot be read, or names a column that is not there.
    """
    metadata = _metadata(path)
    rows = itertools.chain.from_iterable(map(table_reader.iterate_rows, table_files(path)))
    first = next(rows, None)
    names = () if first is None else tuple(first)
    selected = _selected(itertools.chain([] if first is None else [first], rows), selection, names)
    limit = _TABLE_ROWS if selection.rows is None and format == "table" else selection.rows
    chosen = _first(selected, selection.sort, limit)
    columns = selection.columns or (_suggested(names) if format == "table" else names)
    if format == "table":
        for name in _HEAD if "model_id" in metadata else ():
            say(f"{name}: {metadata.get(name, 'not recorded')}")
    _PRINT[format](columns, chosen)


def _metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a table, {name: text}; of a text table, those of its sidecar."""
    if not table_reader.is_text(path):
        return read_metadata(path)
    try:
        values = json_reader.read_object(sidecar_path(path))
    except (OSError, ValueError):
        return {}
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()
    }


def _suggested(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a table on the terminal: of predictions, those that a person reads."""
    if {"path", "status", "prob_tumor", "width", "height"} <= set(names):
        return tuple(name for name in _PREDICTIONS if name in (*names, "size"))
    return tuple(names)


def _selected(rows: Iterable[Row], selection: Selection, names: Sequence[str]) -> Iterator[Row]:
    """Yield the rows for which all conditions hold; refuse unknown columns before the first."""
    sort = [selection.sort.removeprefix("-")] if selection.sort else []
    conditions = [_condition(text) for text in selection.where]
    used = [*(name for name, _ in conditions), *sort, *(["status"] if selection.errors else [])]
    for name in (*used, *selection.columns):
        if names and name not in names:
            raise ConfigError(f"There is no column {name!r}. The table has: {', '.join(names)}.")
    return (
        row
        for row in rows
        if all(holds(row.get(name)) for name, holds in conditions)
        and not (selection.errors and row["status"] == Status.OK)
    )


def _condition(text: str) -> tuple[str, Callable[[object], bool]]:
    """Return the column of a condition, and what its values must fulfil."""
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise ConfigError(
            f"--where {text}: give COLUMN=VALUE, or another of !=, <, <=, >, >=, ~ (contains)."
        )
    name, sign, wanted = parts.groups()
    number = as_number(wanted)
    if sign in ("<", "<=", ">", ">=") and number is None:
        raise ConfigError(f"--where {text}: {wanted!r} is not a number.")

    def holds(value: object) -> bool:
        if sign == "~":
            return wanted in _text(value)
        left = as_number(value)
        if sign in ("=", "!="):
            same = left == number if None not in (left, number) else _text(value) == wanted
            return same == (sign == "=")
        if left is None or number is None:
            return False
        return bool(_COMPARE[sign](left, number))

    return name, holds


def _first(rows: Iterator[Row], sort: str | None, limit: int | None) -> Iterable[Row]:
    """Return at most `limit` rows in order; those without a value in the sorted column come last."""
    if sort is None:
        return itertools.islice(rows, limit)
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    missing: list[Row] = []

    def present() -> Iterator[Row]:
        for row in rows:
            if row.get(name) not in (None, ""):
                yield row
            elif limit is None or len(missing) < limit:
                missing.append(row)

    def key(row: Row) -> tuple[bool, float, str]:
        number = as_number(row[name])
        return number is None, number or 0.0, _text(row[name])

    if limit is None:
        return [*sorted(present(), key=key, reverse=descending), *missing]
    best = (heapq.nlargest if descending else heapq.nsmallest)(limit, present(), key)
    return [*best, *missing][:limit]


def _text(value: object) -> str:
    return "" if value is None else str(_flat(value))


def _flat(value: object) -> object:
    """Return a list (of flags) as one text, and other values as they are."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _cell(name: str, row: Row) -> str:
    """Return a value as a person reads it; nothing of it is left out but digits of a number."""
    if name == "size" and name not in row:
        width = row.get("width")
        return "" if width in (None, "") else f"{width}x{row['height']}"
    value = row.get(name)
    if name.startswith("prob") and as_number(value) is not None:
        return f"{as_number(value):.4f}"
    return visible(f"{value:.6g}" if isinstance(value, float) else _text(value))


def _print_table(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print a line a row where the terminal is wide enough, else a block a row."""
    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    cells = [[_cell(name, row) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        for line in (columns, *cells):
            text = "  ".join(cell.ljust(room) for cell, room in zip(line, widths, strict=True))
            say(text.rstrip())
        return
    for line in cells:
        say(line[0])  # on its own: a name in two lines cannot be searched for
        rest = [f"{name} {cell}" for name, cell in zip(columns[1:], line[1:], strict=True) if cell]
        indent = "    "
        wrapped = textwrap.wrap(
            "  ".join(rest), max(20, width), initial_indent=indent, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        for piece in wrapped:
            say(piece)


def print_rows(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print rows that are no file's, as `show` prints a table."""
    _print_table(columns, rows)


def _print_json(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print an array, an object a line."""
    before = "["
    for row in rows:
        values = {name: row.get(name) for name in columns}
        say(before + json.dumps(values, ensure_ascii=False, default=_json_value))
        before = ","
    say("]" if before == "," else "[]")


def _json_value(value: object) -> str:
    isoformat = getattr(value, "isoformat", None)
    return str(isoformat() if isoformat else value)


def _print_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    for cells in (columns, *([_flat(row.get(name)) for name in columns] for row in rows)):
        line = io.StringIO(newline="")
        csv_text.Writer(line).write_row(cells)
        say(line.getvalue().removesuffix("\n"))


def _print_tsv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    for cells in (columns, *([row.get(name) for name in columns] for row in rows)):
        click.echo("\t".join(visible(_text(cell)) for cell in cells))  # `say` would show the tabs


_PRINT = {"table": _print_table, "json": _print_json, "csv": _print_csv, "tsv": _print_tsv}
