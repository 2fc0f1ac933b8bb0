"""A row for each series, study or patient: counted and averaged by hand here."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tumorbatch.csv_text import restored
from tumorbatch.errors import ConfigError, ExitCode, InputError
from tumorbatch.infer.predictions import PredictionsWriter, read_metadata
from tumorbatch.infer.summarize import SCHEMA, Config, run, write
from tumorbatch.infer.writers import TextWriter

Rows = dict[str, dict[str, Any]]


def _row(name: str, prob: float | None, place: float | None, **more: Any) -> dict[str, Any]:
    ok = prob is not None
    keys = {"patient_key": "p" * 64, "study_key": "1" * 64, "series_key": "a" * 64}
    return {
        "path": name, "frame": 1, "status": "ok" if ok else "truncated",
        "label": ("Tumor" if (prob or 0) >= 0.5 else "Healthy") if ok else None,
        "prob_tumor": prob, "logit": 0.0 if ok else None, "flags": [] if ok else None,
        "model_id": "m", "run_id": "r", "slice_position": place, **keys, **more,
    }  # fmt: skip


# Two series of one study, and another patient's. Places are not in the order of the names.
ROWS = [
    _row("a1", 0.75, 10.0),
    _row("a2", 0.25, 30.0),
    _row("a3", 1.0, 5.0),
    _row("a4", 0.5, 15.0),
    _row("a5", 0.625, 40.0),
    _row("a6", 0.875, 0.0, flags=["localizer", "low-res"]),
    _row("a7", None, None),
    _row("b1", 0.75, 12.0, series_key="b" * 64),
    _row("b2", 0.125, 12.0, series_key="b" * 64),  # another echo at the same place
    _row("c1", 0.25, None, study_key="2" * 64, series_key="c" * 64, patient_key="q" * 64),
    _row("d1", 0.5, None, study_key=None, series_key=None, patient_key=None),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "out.parquet"
    with PredictionsWriter(path) as writer:
        writer.write(ROWS)
        writer.finish({"threshold": 0.5, "model_id": "m", "identity_key": "0123456789ab"})
    return path


def _by(table: Path, **config: Any) -> Rows:
    return {row["key"]: row for row in run(table, Config(**config)).rows}


def test_a_row_a_study(table: Path) -> None:
    report = run(table, Config())
    assert report.without_key == 1
    first, second = report.rows
    assert first == {
        "key": "1" * 64, "patient_key": "p" * 64, "series": 2, "files": 9, "slices": 7, "errors": 1,
        "left_out": 1, "mean_prob": 4.0 / 7, "max_prob": 1.0, "kth_prob": 0.75, "share_above": 5 / 7,
        "longest_run": 3, "longest_run_from": 5.0, "longest_run_to": 15.0,
    }  # fmt: skip
    assert (second["slices"], second["kth_prob"], second["longest_run"]) == (1, None, None)
    assert "Not validated" in report.metadata["validated"]


def test_by_series_and_patient_and_other_settings(table: Path) -> None:
    series = _by(table, by="series_key")
    assert {key[0]: (row["slices"], row["longest_run"]) for key, row in series.items()} == {
        "a": (5, 3), "b": (2, 1), "c": (1, None),
    }  # fmt: skip
    assert set(_by(table, by="patient_key")) == {"p" * 64, "q" * 64}
    everything = _by(table, all_rows=True, threshold=0.9, kth=2)["1" * 64]
    assert (everything["slices"], everything["left_out"], everything["kth_prob"]) == (8, 0, 0.875)
    assert (everything["longest_run"], everything["longest_run_from"]) == (1, 5.0)


def test_slices_of_a_file_are_neighbours_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "volumes.parquet"
    none = {"series_key": None, "study_key": None, "patient_key": None}
    with PredictionsWriter(path) as writer:
        writer.write(
            [
                _row("v.nii", prob, None, frame=k, **none)
                for k, prob in enumerate((0.9, 0.1, 0.8, 0.7), 1)
            ]
        )
        writer.finish({"threshold": 0.5})
    (row,) = run(path, Config(by="path")).rows
    assert (row["files"], row["longest_run"], row["longest_run_from"]) == (1, 2, 3.0)
    with pytest.raises(InputError, match=r"No row .* has a study_key"):
        run(path, Config())


def test_text_tables_give_the_same(table: Path, tmp_path: Path) -> None:
    expected = run(table, Config())
    for name, kind in (("out.csv", "csv"), ("out.jsonl", "jsonl")):
        with TextWriter(tmp_path / name, kind) as writer:
            writer.write(ROWS)
            writer.finish({"threshold": 0.5, "model_id": "m"})
        assert run(tmp_path / name, Config()).rows == expected.rows


def test_outputs_are_private_and_say_that_nothing_is_validated(table: Path, tmp_path: Path) -> None:
    report = run(table, Config())
    for name in ("sum.parquet", "sum.csv"):
        write(report, tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigError, match="--overwrite"):
            write(report, tmp_path / name)
        write(report, tmp_path / name, overwrite=True)
    assert pq.read_table(tmp_path / "sum.parquet").to_pylist() == report.rows
    assert "Not validated" in read_metadata(tmp_path / "sum.parquet")["validated"]
    with (tmp_path / "sum.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == SCHEMA.names
    assert [restored(line[0]) for line in lines[1:]] == ["1" * 64, "2" * 64]
    assert "Not validated" in json.loads((tmp_path / "sum.csv.json").read_text())["validated"]
    with pytest.raises(ConfigError, match="must end in"):
        write(report, tmp_path / "sum.txt")


def test_what_is_refused(table: Path, tmp_path: Path) -> None:
    with PredictionsWriter(tmp_path / "two.parquet") as writer:
        writer.write([ROWS[0], {**ROWS[1], "model_id": "another"}])
        writer.finish({"threshold": 0.5})
    with pytest.raises(InputError, match="several models"):
        run(tmp_path / "two.parquet", Config())
    with PredictionsWriter(tmp_path / "bare.parquet") as writer:
        writer.write(ROWS[:1])
        writer.finish({})
    with pytest.raises(ConfigError, match="give --threshold"):
        run(tmp_path / "bare.parquet", Config())
    for wrong in ({"by": "label"}, {"kth": 0}, {"threshold": 2.0}):
        with pytest.raises(ConfigError):
            Config(**wrong)  # type: ignore[arg-type]


def test_the_command(table: Path, tmp_path: Path, invoke: Any) -> None:
    code, text = invoke("summarize", table)
    assert code == ExitCode.OK
    assert "Not validated" in text
    assert "1 rows of the table have no study_key" in text
    code, text = invoke("summarize", table, "--by", "patient_key", "-o", tmp_path / "p.csv", "--json")
    assert code == ExitCode.OK
    assert json.loads(text)["metadata"]["groups"] == 2
    assert (tmp_path / "p.csv").is_file()
