"""Who belongs to whom: a table that joins the files of one patient into one group."""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch.errors import ConfigError, InputError, reason
from tumorbatch.files import composed, read_text
from tumorbatch.parquet_reader import read_columns

_COLUMNS = ("path", "patient")


@dataclass(frozen=True, slots=True)
class Patients:
    """A table of patients matched to the files.

    Attributes:
        by_path: {file: patient}; a patient's name is used for grouping only, and written nowhere.
        without_file: Paths in the table that fit no file, sorted.
        without_patient: Files to which the table gives no patient, sorted.
    """

    by_path: Mapping[str, str]
    without_file: tuple[str, ...] = ()
    without_patient: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return the two numbers that dataset.json keeps; {} where there is no table."""
        if not self.by_path:
            return {}
        return {
            "paths_without_file": len(self.without_file),
            "files_without_patient": len(self.without_patient),
        }


def read_patients(
    table: Path, names: Collection[str], is_known: Callable[[str], bool] = lambda _: False
) -> Patients:
    """Read a table of files and patients.

    Args:
        table: A CSV file with a header, or a Parquet file, with the columns `path` (relative to the
            source, `/` between its parts, as in the manifest) and `patient` (any text). Rows without a
            patient join nothing. Names are compared in Unicode's composed form: macOS writes others.
        names: The files that were found.
        is_known: Whether the patient of a file that is not in the table is known in another way.

    Raises:
        InputError: The table is missing or unreadable.
        ConfigError: A column is missing, a path is given to two patients, or no path fits.
    """
    exact = set(names)
    composed_names = defaultdict(list)
    for name in sorted(exact):
        composed_names[composed(name)].append(name)
    by_path: dict[str, str] = {}
    without_file = set()
    for path, patient in _rows(table):
        targets = [path] if path in exact else composed_names.get(composed(path), [])
        if not targets:
            without_file.add(path)
        for name in targets if patient else ():
            if by_path.setdefault(name, patient) != patient:
                raise ConfigError(f"{table} gives {name} to two patients. Correct the table.")
    if not by_path:
        raise ConfigError(
            f"{table} names no file that was found ({len(without_file)} other paths). Its paths must "
            f"be relative to the source, such as {min(exact, default='Healthy/1.png')!r}."
        )
    without_patient = sorted(name for name in exact - by_path.keys() if not is_known(name))
    return Patients(by_path, tuple(sorted(without_file)), tuple(without_patient))


def refuse_unmatched(table: Path, patients: Patients) -> None:
    """Raise `ConfigError` where the table and the files do not cover each other.

    A patient whose files the table misses is torn over training and test, and the figures are too good.
    """
    parts = []
    for paths, problem in (
        (patients.without_file, "of its paths fit no file"),
        (patients.without_patient, "files have no patient in it"),
    ):
        if paths:
            parts.append(f"{len(paths):,} {problem} (such as {paths[0]!r})")
    if parts:
        raise ConfigError(
            f"{table} and the files that were found do not fit: {'; '.join(parts)}. Files of one "
            "patient could come into training and test. Correct the table, or give --allow-unmatched: "
            "each file without a patient is then its own group."
        )


def digest(patients: Mapping[str, str]) -> str | None:
    """Return the sha256 (hex) of which files belong together; no patient's name goes into it.

    Returns:
        None if there are no patients.
    """
    if not patients:
        return None
    first: dict[str, str] = {}
    lines = [f"{path}\0{first.setdefault(patients[path], path)}\0" for path in sorted(patients)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _rows(table: Path) -> list[tuple[str, str]]:
    """Return each row's path and patient; "" for what is missing."""
    try:
        if table.suffix.lower() in (".parquet", ".pq"):
            columns = read_columns(table, _COLUMNS)
        else:
            columns = _read_csv(table)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{table} cannot be read: {reason(error)}.") from error
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise ConfigError(
            f"{table} has no column {missing[0]!r}. It needs the columns path and patient, with a "
            "comma between them."
        )
    pairs = zip(columns["path"], columns["patient"], strict=True)
    return [(_text(path), _text(patient).strip()) for path, patient in pairs]


def _text(value: Any) -> str:
    return "" if value is None else str(value)  # a patient may have the number 0


def _read_csv(table: Path) -> dict[str, list[str | None]]:
    reader = csv.DictReader(io.StringIO(read_text(table), newline=""))
    rows = list(reader)
    heads = reader.fieldnames or ()
    for name in _COLUMNS:
        if list(heads).count(name) > 1:
            raise ValueError(f"it has several columns {name!r}")
    return {name: [row[name] for row in rows] for name in heads}
