"""Who belongs to whom: a table that joins the files of one patient into one group."""

import csv
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tumorbatch.errors import ConfigError, InputError

_COLUMNS = ("path", "patient")


def read_patients(table: Path, names: Collection[str]) -> dict[str, str]:
    """Read a table of files and patients.

    Args:
        table: A CSV file with a header, or a Parquet file, with the columns `path` (relative to the
            source, `/` between its parts, as in the manifest) and `patient` (any text; it is used
            for grouping only and written nowhere). Rows without a patient join nothing.
        names: The files that were found.

    Returns:
        {path: patient}, of files in `names`.

    Raises:
        InputError: The table is missing or unreadable.
        ConfigError: A column is missing, a path is given to two patients, or no path fits.
    """
    patients: dict[str, str] = {}
    unknown = 0
    known = set(names)
    for path, patient in _rows(table):
        if not patient:
            continue
        if path not in known:
            unknown += 1
            continue
        if patients.setdefault(path, patient) != patient:
            raise ConfigError(f"{table} gives {path} to two patients. Correct the table.")
    if not patients:
        raise ConfigError(
            f"{table} names no file that was found ({unknown} other paths). Its paths must be relative "
            f"to the source, such as {min(known, default='Healthy/1.png')!r}."
        )
    return patients


def digest(patients: Mapping[str, str]) -> str | None:
    """sha256 (hex) over which files belong together; the patients' names do not go into it.

    Returns:
        None where there are no patients.
    """
    if not patients:
        return None
    first: dict[str, str] = {}
    lines = [f"{path}\0{first.setdefault(patients[path], path)}\0" for path in sorted(patients)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _rows(table: Path) -> list[tuple[str, str]]:
    try:
        if table.suffix.lower() in (".parquet", ".pq"):
            columns = pq.read_table(table).to_pydict()
        else:
            with table.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
            columns = {name: [row.get(name) for row in rows] for name in (rows[0] if rows else ())}
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"{table} cannot be read: {error}.") from error
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise ConfigError(
            f"{table} has no column {missing[0]!r}. It needs the columns path and patient."
        )
    pairs = zip(columns["path"], columns["patient"], strict=True)
    return [(str(path or ""), str(patient or "").strip()) for path, patient in pairs]
