"""Whether a table of predictions is still what `infer` wrote."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch.errors import InputError, reason
from tumorbatch.files import printable
from tumorbatch.infer.predictions import (
    SUCCESS,
    file_schema,
    iterate_file,
    read_metadata,
    sidecar_of,
    stored_schema,
    table_files,
)
from tumorbatch.infer.worker import Row
from tumorbatch.json_reader import COUNT, FILE_NAME, SHA256, TEXT, parse_object, read_object
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.parquet_reader import read_footer
from tumorbatch.shardset import file_sha256
from tumorbatch.status import Status
from tumorbatch.table_reader import as_number, is_text
from tumorbatch.table_reader import iterate_rows as iterate_text

_FILE_SHAPE = {"bytes": COUNT, "sha256": SHA256}
_FOLDER_SHAPE = {"files": [{"name": FILE_NAME, **_FILE_SHAPE}]}
_NUMBERS = ("frame", "prob_tumor", "logit")  # of a row, that are looked at; in CSV they are text


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        rows: That could be read.
        files: Of the table.
        bytes: Of them.
        problems: Sentences, each with the file that has it; none: the table is sound.
    """

    rows: int
    files: int
    bytes: int
    problems: tuple[str, ...]


def run(table: Path) -> Report:
    """Read all of a table: page checksums, sha256, columns, order, and the counts of its metadata.

    Args:
        table: A Parquet, CSV or JSON lines file with its sidecar, or a folder with `_SUCCESS`.

    Raises:
        InputError: There is no predictions table at `table`.
    """
    text = is_text(table) and not table.is_dir()
    metadata = _sidecar_texts(table) if text else read_metadata(table)
    if "model_id" not in metadata:
        raise InputError(f"{table} is not a predictions file of tumorbatch.")
    problems: list[str] = []
    files = table_files(table)
    recorded = _recorded(table, problems)
    for path in files:
        problems += _changed(path, recorded.pop(path.name, None))
    problems += [f"{table / name} is missing." for name in recorded if table.is_dir()]
    rows = 0
    statuses: Counter[str] = Counter()
    last: tuple[str, int] | None = None
    for path in files:
        try:
            for row in _text_rows(path) if text else _parquet_rows(path):
                row_key = (row["path"], row["frame"])
                if last is not None and row_key <= last:
                    problems.append(f"{path}: row {rows + 1:,} is not after the row before it.")
                last = row_key
                rows += 1
                problems += [f"{path}: row {rows:,} {problem}." for problem in _wrong_prediction(row)]
                statuses[row["status"]] += 1
        except InputError as error:
            problems.append(f"{error} Bring the table back from a backup, or make it again.")
    if not problems:
        problems += _counts(table, metadata, rows, statuses)
    size = sum(path.stat().st_size for path in files if path.is_file())
    return Report(rows, len(files), size, tuple(problems))


def _sidecar_texts(table: Path) -> dict[str, str]:
    """Return the sidecar of a text table as the footer of a Parquet file has it; {} without one.

    Raises:
        InputError: There is no table, or its sidecar is damaged.
    """
    if not table.is_file():
        raise InputError(f"{table} does not exist, or is not a file.")
    path = sidecar_of(table)
    try:
        content = read_object(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{table} has no {printable(path.name)} next to it: it is not a predictions file of "
            "tumorbatch, or was moved without it."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {reason(error)}.") from error
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in content.items()
    }


def _parquet_rows(path: Path) -> Iterator[Row]:
    _check_columns(path)
    yield from iterate_file(path)


def _text_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV or JSON lines table with numbers where the schema has them."""
    for row in iterate_text(path):
        if "frame" not in row or list(row) != stored_schema(list(row)).names:
            raise InputError(f"{path} has other columns than this version of tumorbatch writes.")
        numbers = {name: as_number(row[name]) for name in _NUMBERS}
        if not isinstance(row["path"], str) or numbers["frame"] is None:
            raise InputError(f"{path} has a row without a path or a frame.")
        yield {**row, **numbers}


def _recorded(table: Path, problems: list[str]) -> dict[str, Mapping[str, Any]]:
    """Return bytes and sha256 of each file, as the sidecar or `_SUCCESS` records them."""
    path = table / SUCCESS if table.is_dir() else sidecar_of(table)
    try:
        if table.is_dir():
            return {entry["name"]: entry for entry in read_object(path, _FOLDER_SHAPE)["files"]}
        return {table.name: read_object(path, _FILE_SHAPE)}
    except FileNotFoundError:
        problems.append(f"{path} is missing: the sha256 of the table cannot be checked.")
    except (OSError, ValueError) as error:
        problems.append(f"{path} is damaged: {reason(error)}.")
    return {}


def _changed(path: Path, recorded: Mapping[str, Any] | None) -> Iterator[str]:
    if recorded is None:
        return
    try:
        size = path.stat().st_size
        if size != recorded["bytes"]:
            yield f"{path} has {size:,} bytes and should have {recorded['bytes']:,}."
        elif file_sha256(path) != recorded["sha256"]:
            yield f"{path} was changed: its sha256 is not the one recorded."
    except OSError as error:
        yield f"{path} cannot be read: {reason(error)}."


def _check_columns(path: Path) -> None:
    try:
        schema, expected = read_footer(path)[0], file_schema(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {reason(error)}.") from error
    if "frame" not in schema.names or not schema.equals(expected):
        raise InputError(f"{path} has other columns than this version of tumorbatch writes.")


def _wrong_prediction(row: Row) -> Iterator[str]:
    """Yield what contradicts the row's status, as the end of a sentence."""
    values = [row[name] for name in ("logit", "prob_tumor")]
    if row["status"] != Status.OK:
        if row["label"] is not None or any(value is not None for value in values):
            yield f"has a prediction, and the status {row['status']}"
        return
    finite = all(value is not None and math.isfinite(value) for value in values)
    if row["label"] not in CLASS_NAMES or not finite:
        yield "is ok, and has no label or no finite logit and probability"
    elif not 0 <= row["prob_tumor"] <= 1:
        yield "has a probability that is not between 0 and 1"


def _counts(
    table: Path, metadata: Mapping[str, str], rows: int, statuses: Mapping[str, int]
) -> Iterator[str]:
    try:
        statuses_there = parse_object(metadata["statuses"].encode(), {TEXT: COUNT})
        recorded = int(metadata["rows"]), statuses_there
    except (KeyError, ValueError) as error:
        yield f"{table}: its metadata is damaged ({error})."
        return
    if recorded != (rows, dict(statuses)):
        yield f"{table} has {rows:,} rows, and other counts than its metadata says."
