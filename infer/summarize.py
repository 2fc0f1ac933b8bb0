"""From a table of predictions to a row for each series, study or patient.

The model judges single slices. What is computed here counts and averages its answers; no rule that
turns them into an answer about a patient was compared with diagnoses, and every output says so.
"""

import io
import itertools
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tumorbatch import csv_text, json_reader, table_reader
from tumorbatch.atomic import PRIVATE, atomic_file, write_bytes, write_json
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import printable
from tumorbatch.infer.columns import flags
from tumorbatch.infer.predictions import footer, read_metadata, sidecar_path, table_files
from tumorbatch.status import Status
from tumorbatch.table_reader import Row, as_number

BY = ("study_key", "series_key", "patient_key", "path")
NOT_VALIDATED = (
    "Not validated: the model judges single slices, and no summary of them was compared with "
    "diagnoses. Not for diagnosis."
)
# Rows with one of these flags show no slice of their own, or not of an MR of the head.
LEFT_OUT = frozenset(
    {"absent", "blank", "duplicate", "localizer", "mosaic", "not-head", "not-mr", "screenshot"}
)
SUFFIXES = (".parquet", ".csv")
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        ("patient_key", pa.string()),
        pa.field("series", pa.int64(), nullable=False),
        pa.field("files", pa.int64(), nullable=False),
        pa.field("slices", pa.int64(), nullable=False),
        pa.field("errors", pa.int64(), nullable=False),
        pa.field("left_out", pa.int64(), nullable=False),
        ("mean_prob", pa.float64()),
        ("max_prob", pa.float64()),
        ("kth_prob", pa.float64()),
        ("share_above", pa.float64()),
        ("longest_run", pa.int64()),
        ("longest_run_from", pa.float64()),
        ("longest_run_to", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Config:
    """How to summarise.

    Attributes:
        by: One of `BY`: the column whose values are put together.
        threshold: A slice of at least this probability counts as above; None: the model's own.
        kth: kth_prob is the k-th largest probability, which single outliers do not decide.
        all_rows: Also rows with a flag of `LEFT_OUT`.
    """

    by: str = "study_key"
    threshold: float | None = None
    kth: int = 3
    all_rows: bool = False

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise ConfigError(f"--by must be one of {', '.join(BY)}. Received: {self.by}.")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"--threshold must be between 0 and 1. Received: {self.threshold:g}.")
        if self.kth < 1:
            raise ConfigError(f"--kth must be at least 1. Received: {self.kth}.")


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        rows: A dictionary of the columns of `SCHEMA` each, sorted by key.
        metadata: What was summarised, how, and that it is not validated.
        without_key: Rows that belong to nothing, and are in no row of the summary.
        seconds: Wall time.
    """

    rows: list[Row]
    metadata: Mapping[str, Any]
    without_key: int
    seconds: float


class _Slice(NamedTuple):
    """A prediction: the series or file that it belongs to, its place there, and its probability."""

    series: str
    position: float | None
    prob: float


@dataclass(slots=True)
class _Group:
    """What belongs together."""

    patients: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    slices: list[_Slice] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def run(table: Path, config: Config) -> Report:
    """Summarise a table of predictions.

    Args:
        table: As `infer` writes it: a Parquet file, a folder of them, CSV, JSON lines.
        config: How.

    Raises:
        InputError: There is no such table, it is damaged, or no row has a key to go by.
        ConfigError: The table does not say the model's threshold, and none is given.
    """
    started = time.monotonic()
    about = metadata_of(table)
    threshold = config.threshold if config.threshold is not None else as_number(about.get("threshold"))
    if threshold is None:
        raise ConfigError(f"{table} does not say the model's threshold: give --threshold.")
    groups, without_key = _groups(table, config)
    if not groups:
        raise InputError(
            f"No row of {table} has a {config.by}. Keys are written by `tumorbatch infer "
            "--identity-key FILE`, for DICOM files; --by path summarises the slices of each file."
        )
    rows = [_summary(key, groups[key], threshold, config.kth) for key in sorted(groups)]
    metadata = {
        "summary_of": printable(table.name),
        "by": config.by,
        "threshold": threshold,
        "kth": config.kth,
        "all_rows": config.all_rows,
        "model_id": about.get("model_id", ""),
        "identity_key": about.get("identity_key", ""),
        "groups": len(rows),
        "rows_without_key": without_key,
        "validated": NOT_VALIDATED,
    }
    return Report(rows, metadata, without_key, time.monotonic() - started)


def write(report: Report, out: Path, overwrite: bool = False) -> None:
    """Write a summary for its owner's eyes only: Parquet, or CSV with a sidecar OUT.json.

    Raises:
        ConfigError: The suffix is neither .parquet nor .csv; `out` exists, and `overwrite` is not set.
        OutputError: It cannot be written.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{out} must end in {' or '.join(SUFFIXES)}.")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists. Give another name, or --overwrite to replace it.")
    if out.suffix.lower() == ".parquet":
        values = pa.Table.from_pylist(report.rows, SCHEMA)
        values = values.replace_schema_metadata(footer(report.metadata))
        with atomic_file(out, PRIVATE) as file:
            pq.write_table(values, file, compression="zstd", write_page_checksum=True)
        return
    text = io.StringIO(newline="")
    writer = csv_text.Writer(text)
    writer.write_row(SCHEMA.names)
    for row in report.rows:
        writer.write_row([row[name] for name in SCHEMA.names])
    write_bytes(out, text.getvalue().encode("utf-8", "backslashreplace"), PRIVATE)
    write_json(sidecar_path(out), dict(report.metadata), PRIVATE)


def metadata_of(table: Path) -> dict[str, Any]:
    """Return what is known of a table; of CSV and JSON lines, from its sidecar."""
    if not table_reader.is_text(table):
        return dict(read_metadata(table))
    try:
        return json_reader.read_object(sidecar_path(table))
    except (OSError, ValueError):
        return {}


def prediction_rows(table: Path) -> Iterator[Row]:
    """Yield each row of a table of predictions, in any of the formats that `infer` writes.

    Raises:
        InputError: There is no such table, or it is damaged, or another one.
    """
    for row in itertools.chain.from_iterable(map(table_reader.iterate_rows, table_files(table))):
        if "prob_tumor" not in row or "path" not in row:
            raise InputError(f"{table} is not a table of predictions, as `tumorbatch infer` writes it.")
        yield row


def _groups(table: Path, config: Config) -> tuple[dict[str, _Group], int]:
    """Read all rows; return {key: what belongs to it}, and the number of rows without a key."""
    groups: dict[str, _Group] = defaultdict(_Group)
    without_key = 0
    models: set[str] = set()
    for row in prediction_rows(table):
        key = row.get(config.by)
        if not key:
            without_key += 1
            continue
        models.add(str(row.get("model_id")))
        _add(groups[str(key)], row, config)
    if len(models) > 1:
        raise InputError(f"{table} holds rows of several models: summarise each table on its own.")
    return groups, without_key


def _add(group: _Group, row: Row, config: Config) -> None:
    """Add a row to its group."""
    path = str(row["path"])
    group.files.add(path)
    if row.get("patient_key"):
        group.patients.add(str(row["patient_key"]))
    prob = as_number(row["prob_tumor"])
    if row.get("status") != Status.OK or prob is None or not math.isfinite(prob):
        group.counts["errors"] += row.get("status") != Status.NOT_AN_IMAGE
    elif not config.all_rows and LEFT_OUT.intersection(flags(row.get("flags"))):
        group.counts["left_out"] += 1
    else:
        place = as_number(row.get("slice_position"))
        if place is None and not row.get("series_key"):  # slices of one file, in their order
            place = as_number(row.get("frame"))
        series = str(row.get("series_key") or path)
        group.slices.append(_Slice(series, place, prob))


def _summary(key: str, group: _Group, threshold: float, kth: int) -> Row:
    probs = sorted((one.prob for one in group.slices), reverse=True)
    best = max(_runs(group.slices, threshold), default=_Run(0, None, None))
    placed = any(one.position is not None for one in group.slices)
    return {
        "key": key,
        # One patient, unless the table holds a study that two patients claim.
        "patient_key": min(group.patients) if len(group.patients) == 1 else None,
        "series": len({one.series for one in group.slices}),
        "files": len(group.files),
        "slices": len(probs),
        "errors": group.counts["errors"],
        "left_out": group.counts["left_out"],
        "mean_prob": math.fsum(probs) / len(probs) if probs else None,
        "max_prob": probs[0] if probs else None,
        "kth_prob": probs[kth - 1] if len(probs) >= kth else None,
        "share_above": sum(prob >= threshold for prob in probs) / len(probs) if probs else None,
        "longest_run": best.length if placed else None,
        "longest_run_from": best.first,
        "longest_run_to": best.last,
    }


class _Run(NamedTuple):
    """Neighbouring slices above the threshold: how many, and the places of the first and last."""

    length: int
    first: float | None
    last: float | None


def _runs(slices: Iterable[_Slice], threshold: float) -> Iterator[_Run]:
    """Yield all runs of neighbouring slices of one series that reach the threshold.

    Slices at one place, such as the echoes of a series, count as one, the highest of them.
    """
    series: dict[str, dict[float, float]] = defaultdict(dict)
    for one in slices:
        if one.position is not None:
            places = series[one.series]
            places[one.position] = max(one.prob, places.get(one.position, 0.0))
    for places in series.values():
        ordered = sorted(places.items())
        for above, members in itertools.groupby(ordered, lambda item: item[1] >= threshold):
            run_of = [place for place, _ in members]
            if above:
                yield _Run(len(run_of), run_of[0], run_of[-1])
