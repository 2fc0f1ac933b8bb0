"""What may be replaced by predictions, and the formats beside the single Parquet file."""

import csv
import datetime
import json
import os
import stat
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from tumorbatch.errors import ConfigError, ExitCode, InputError
from tumorbatch.infer import verify, writers
from tumorbatch.infer.predictions import SCHEMA, iterate_rows, read_metadata, sidecar_path, table_files
from tumorbatch.infer.target import Target

METADATA = {"model_id": "cnn1-0123", "threshold": 0.5}
WHEN = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.UTC)


def _rows(count: int, format: str = "png") -> list[dict[str, Any]]:
    """Names that are hard to write, a null, an error, a float32 with no short decimal form."""
    rows = []
    for index in range(count):
        name = ("a,b", 'quote"d', "line\nend", "Zürich", "=1+1")[index % 5]
        row = {"path": f"{index:03}/{name}.png", "frame": 1, "status": "ok", "label": "Tumor"}
        row |= {"prob_tumor": float(np.float32(1 / (index + 3))), "logit": float(np.float32(-0.1))}
        row |= {"file_size": 10, "mtime": WHEN, "width": 5, "height": 4, "format": format, "flags": []}
        if index % 4 == 3:
            row = {"path": row["path"], "frame": 1, "status": "empty", "error": "the file has no bytes"}
        rows.append(dict.fromkeys(SCHEMA.names) | row | {"model_id": "cnn1-0123", "run_id": "r"})
    return rows


def _write(target: Target, rows: list[dict[str, Any]]) -> Target:
    with target.writer(METADATA) as writer:
        for at in range(0, len(rows), 3):
            writer.write(rows[at : at + 3])
        statuses = {name: sum(row["status"] == name for row in rows) for name in ("empty", "ok")}
        writer.finish({**METADATA, "rows": len(rows), "statuses": statuses})
    return target


# ------------------------------------------------------------------------------- what is replaced


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "out.jsonl", "out"])
def test_a_rerun_of_the_same_model_may_replace_and_another_may_not(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    format = "dataset" if name == "out" else "auto"
    target = Target.choose(path, format)
    assert target.refuse_foreign("cnn1-0123") is None  # free
    _write(target, _rows(2))
    again = Target.choose(path, "auto")
    assert again == target
    found = again.refuse_foreign("cnn1-0123")
    assert found is not None
    assert found["model_id"] == "cnn1-0123"
    with pytest.raises(ConfigError, match=r"model cnn1-0123.*cnn2-4567.*--overwrite"):
        again.refuse_foreign("cnn2-4567")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("out", "parquet"), ("out.PARQUET", "parquet"), ("out.pq", "parquet"), ("out.csv", "csv"),
        ("out.jsonl", "jsonl"), ("out.ndjson", "jsonl"),
    ],
)  # fmt: skip
def test_the_suffix_chooses_the_format(name: str, format: str, tmp_path: Path) -> None:
    assert Target.choose(tmp_path / name, "auto").format == format


@pytest.mark.parametrize("name", ["out.parqet", "out.xlsx", "out.json", "out.csv.gz", "scans.d"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.parquet, \.pq, \.csv, \.jsonl, \.ndjson, .*--format"):
        Target.choose(tmp_path / name, "auto")
    assert Target.choose(tmp_path / name, "csv").format == "csv"  # who names the format may
    assert Target.choose(tmp_path / name, "dataset").format == "dataset"


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    cut = _write(Target.choose(tmp_path / "cut.parquet", "auto"), _rows(2))
    cut.path.write_bytes(cut.path.read_bytes()[:-1])
    bare = _write(Target.choose(tmp_path / "bare.csv", "auto"), _rows(2))
    sidecar_path(bare.path).unlink()
    (tmp_path / "text.csv").write_text("a,b\n")
    for target in (cut, bare, Target.choose(tmp_path / "text.csv", "auto")):
        with pytest.raises(ConfigError, match="not a predictions file"):
            target.refuse_foreign("cnn1-0123")


def test_folders_devices_and_pipes_are_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "part-00000.parquet").touch()
    Target.choose(tmp_path / "file", "auto")
    Target.choose(tmp_path / "free", "auto")
    for name in (
        tmp_path,
        tmp_path / "half",
        tmp_path / "pipe",
        Path("/dev/null"),
        Path("."),
        Path("/"),
    ):
        for format in ("auto", "dataset"):
            with pytest.raises(ConfigError, match=r"Give .*name"):
                Target.choose(name, format)
    (tmp_path / "empty").mkdir()
    assert Target.choose(tmp_path / "empty", "auto").format == "dataset"
    with pytest.raises(ConfigError, match="is a folder"):
        Target.choose(tmp_path / "empty", "parquet")
    with pytest.raises(ConfigError, match="is a file"):
        Target.choose(tmp_path / "file", "dataset")


# ----------------------------------------------------------------------------------- text formats


def test_csv_and_jsonl_hold_every_value(tmp_path: Path) -> None:
    rows = _rows(12)
    _write(Target.choose(tmp_path / "out.csv", "auto"), rows)
    _write(Target.choose(tmp_path / "out.jsonl", "auto"), rows)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [list(line) for line in (*read, *lines)] == [SCHEMA.names] * 24
    for row, text, value in zip(rows, read, lines, strict=True):
        assert text["path"] == value["path"] == row["path"]
        if row["status"] == "ok":
            assert np.float32(text["prob_tumor"]) == np.float32(value["prob_tumor"])
            assert float(np.float32(value["prob_tumor"])) == row["prob_tumor"]
            assert value["mtime"] == "2024-02-29T12:00:00.123456Z"
            assert len(text["prob_tumor"]) <= 11  # not the digits of a float64
        else:
            assert (text["prob_tumor"], value["prob_tumor"]) == ("", None)
    assert json.loads(sidecar_path(tmp_path / "out.csv").read_text())["rows"] == 12


@pytest.mark.parametrize("name", ["b\rc.png", "Icon\r", "a\nb", 'a,"b"', "a\r\nb"])
def test_a_csv_keeps_a_name_with_line_ends_in_one_row(tmp_path: Path, name: str) -> None:
    """By the bytes: Python's own reader takes what its writer has left unquoted."""
    rows = [{**row, "path": name + row["path"]} for row in _rows(2)]
    _write(Target.choose(tmp_path / "out.csv", "auto"), rows)
    text = (tmp_path / "out.csv").read_bytes().decode()
    outside = "".join(text.split('"')[::2])  # what stands between the quoted cells
    assert "\r" not in outside
    assert outside.count("\n") == 3
    found = duckdb.sql(f"select path from read_csv('{tmp_path / 'out.csv'}', header = true)").fetchall()
    assert [path for (path,) in found] == [row["path"] for row in rows]


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "out.jsonl", "out"])
def test_tables_with_dicom_rows_are_private(name: str, tmp_path: Path) -> None:
    target = Target.choose(tmp_path / name, "dataset" if name == "out" else "auto")
    _write(target, _rows(3, "dicom"))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out"])
def test_a_failed_run_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    target = Target.choose(tmp_path / name, "dataset" if name == "out" else "auto")
    _write(target, _rows(3))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail() -> None:
        with target.writer(METADATA) as writer:
            writer.write(_rows(7))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("format", ["parquet", "dataset"])
def test_a_published_table_whose_size_cannot_be_told_is_no_error(format: str, tmp_path: Path) -> None:
    assert Target(tmp_path / "nothing there" / "out", format).bytes() == 0


def test_a_folder_of_parts_is_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "PART_ROWS", 10)
    rows = _rows(25)
    target = _write(Target.choose(tmp_path / "out", "dataset"), rows)
    parts = table_files(target.path)
    assert [path.name for path in parts] == [f"part-0000{number}.parquet" for number in range(3)]
    assert [pq.read_metadata(path).num_rows for path in parts] == [10, 10, 5]
    assert list(iterate_rows(target.path)) == rows
    assert pq.read_table(target.path).num_rows == 25  # `_SUCCESS` is skipped
    assert pl.read_parquet(target.path / "part-*.parquet").height == 25
    assert read_metadata(parts[1])["model_id"] == read_metadata(target.path)["model_id"] == "cnn1-0123"
    assert verify.run(target.path).problems == ()

    _write(Target.choose(target.path, "auto"), rows[:5])  # fewer parts: no old one stays
    assert len(table_files(target.path)) == 1
    (target.path / "_SUCCESS").unlink()
    with pytest.raises(InputError, match="not a finished table"):
        read_metadata(target.path)


# ------------------------------------------------------------------------------------ other readers


def test_duckdb_and_polars_and_pandas_read_the_same_table(tmp_path: Path) -> None:
    rows = _rows(12)
    path = _write(Target.choose(tmp_path / "out.parquet", "auto"), rows).path
    frame = pl.read_parquet(path)
    assert frame.to_dicts() == rows
    assert dict(frame.schema)["prob_tumor"] == pl.Float32
    found = duckdb.sql(
        f"select path, prob_tumor, frame from '{path}' where status = 'ok' order by path"
    )
    good = [row for row in rows if row["status"] == "ok"]
    expected = sorted((row["path"], np.float32(row["prob_tumor"]), 1) for row in good)
    assert [(name, np.float32(prob), of) for name, prob, of in found.fetchall()] == expected
    assert pd.read_parquet(path)["label"].value_counts().to_dict() == {"Tumor": len(good)}


# ------------------------------------------------------------------------------------------ verify


def test_verify_finds_a_bit_a_cut_a_missing_part_and_wrong_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    monkeypatch.setattr(writers, "PART_ROWS", 10)
    rows = _rows(25)
    path = _write(Target.choose(tmp_path / "out.parquet", "auto"), rows).path
    assert verify.run(path).problems == ()
    code, output = invoke("verify", path)
    assert (code, "is intact" in output) == (ExitCode.OK, True)

    data = path.read_bytes()
    column = pq.read_metadata(path).row_group(0).column(SCHEMA.get_field_index("logit"))
    end = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size
    flipped = bytearray(data)
    flipped[end - 5] ^= 4
    path.write_bytes(flipped)
    code, output = invoke("verify", path, "--quiet")
    assert code == ExitCode.NO_INPUT
    assert str(path) in output
    assert "sha256" in output
    assert "checksum" in output.lower()
    # Without the sidecar the page's own checksum still tells.
    sidecar_path(path).unlink()
    assert len(verify.run(path).problems) == 2
    path.write_bytes(data[:-10])
    with pytest.raises(InputError, match="not a whole Parquet file"):
        verify.run(path)

    folder = _write(Target.choose(tmp_path / "out", "dataset"), rows).path
    (folder / "part-00001.parquet").unlink()
    assert any("part-00001.parquet is missing" in problem for problem in verify.run(folder).problems)

    twice = _write(Target.choose(tmp_path / "twice.parquet", "auto"), rows[:3] + rows[2:]).path
    assert any("not after" in problem for problem in verify.run(twice).problems)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pq.read_table(twice).replace_schema_metadata({}), foreign)
    with pytest.raises(InputError, match="not a predictions file"):
        verify.run(foreign)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_verify_reads_text_tables(name: str, tmp_path: Path, invoke: Any) -> None:
    rows = _rows(25)
    path = _write(Target.choose(tmp_path / name, "auto"), rows).path
    assert (verify.run(path).problems, verify.run(path).rows) == ((), 25)
    code, output = invoke("verify", path)
    assert (code, "is intact (25 rows in 1 file" in output) == (ExitCode.OK, True)

    data = path.read_bytes()
    path.write_bytes(data.replace(b"Tumor", b"Humor", 1))
    code, output = invoke("verify", path, "--json", "--quiet")
    assert code == ExitCode.NO_INPUT
    assert "sha256" in output
    assert "row 1 is ok, and has no label" in output
    path.write_bytes(data[:-20])
    assert any("should have" in problem for problem in verify.run(path).problems)
    path.write_bytes(data)
    assert verify.run(path).problems == ()

    twice = _write(Target.choose(tmp_path / f"twice-{name}", "auto"), rows[:3] + rows[2:]).path
    assert any("not after" in problem for problem in verify.run(twice).problems)
    sidecar_path(path).unlink()
    with pytest.raises(InputError, match="not a predictions file"):
        verify.run(path)
    with pytest.raises(InputError, match="does not exist"):
        verify.run(tmp_path / f"absent-{name}")
