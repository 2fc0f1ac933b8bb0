"""The predictions file: its format, its checksums, and that it is whole or absent."""

import contextlib
import datetime
import errno
import hashlib
import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tumorbatch.errors import ExitCode, InputError, OutputError
from tumorbatch.infer import predictions, verify
from tumorbatch.infer.predictions import (
    PredictionsWriter,
    iterate_rows,
    read_metadata,
    recover_sidecar,
    sidecar_path,
)

METADATA = {"model_id": "cnn1-0123", "threshold": 0.5, "classes": ["Healthy", "Tumor"], "note": "ü"}


def _rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Every third one without a prediction."""
    when = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.UTC)
    rows = []
    for index in range(first, first + count):
        row = {"path": f"scans/{index:05}.png", "frame": 1, "model_id": "cnn1-0123", "run_id": "r1"}
        if index % 3 == 2:
            row |= {"status": "empty", "error": "the file has no bytes"}
        else:
            share = float(np.float32(index / 10_000))
            row |= {"status": "ok", "label": "Tumor", "prob_tumor": share, "logit": -share}
            row |= {"width": 300 + index, "height": 200, "format": "png", "flags": ["16-bit", "alpha"]}
            row |= {"file_size": 2**40 + index, "mtime": when, "sha256": f"{index:064x}"}
        rows.append(row)
    return rows


def _write(path: Path, rows: list[dict[str, Any]], chunk: int = 7) -> Path:
    with PredictionsWriter(path) as writer:
        for at in range(0, len(rows), chunk):
            writer.write(rows[at : at + chunk])
        writer.finish(METADATA)
    return path


def _with_nulls(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row.get(name) for name in predictions.SCHEMA.names} for row in rows]


# -------------------------------------------------------------------------------------- format


def test_golden_schema(tmp_path: Path) -> None:
    schema = pq.read_schema(_write(tmp_path / "out.parquet", _rows(3)))
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        ("path", "string", False),
        ("frame", "int32", False),
        ("status", "string", False),
        ("error", "string", True),
        ("label", "string", True),
        ("prob_tumor", "float", True),
        ("logit", "float", True),
        ("file_size", "int64", True),
        ("mtime", "timestamp[us, tz=UTC]", True),
        ("sha256", "string", True),
        ("width", "int32", True),
        ("height", "int32", True),
        ("format", "string", True),
        ("flags", "list<element: string>", True),
        ("model_id", "string", False),
        ("run_id", "string", False),
        ("patient_key", "string", True),
        ("study_key", "string", True),
        ("series_key", "string", True),
        ("instance_key", "string", True),
        ("modality", "string", True),
        ("body_part", "string", True),
        ("slice_position", "double", True),
        ("unfamiliar", "float", True),
    ]


def test_what_is_written_is_read_by_this_module_pyarrow_and_pandas(tmp_path: Path) -> None:
    rows = _with_nulls(_rows(100))
    path = _write(tmp_path / "out.parquet", rows)
    assert list(iterate_rows(path)) == rows
    assert pq.read_table(path).to_pylist() == rows

    frame = pd.read_parquet(path)
    assert list(frame["path"]) == [row["path"] for row in rows]
    good = frame[frame["status"] == "ok"]
    assert len(good) == sum(row["status"] == "ok" for row in rows)
    assert good["prob_tumor"].dtype == np.float32
    assert frame["prob_tumor"].isna().sum() == len(frame) - len(good)
    assert good["mtime"].iloc[0] == pd.Timestamp("2024-02-29 12:00:00.123456", tz="UTC")


def test_zstd_in_every_column(tmp_path: Path) -> None:
    metadata = pq.read_metadata(_write(tmp_path / "out.parquet", _rows(10)))
    columns = range(metadata.num_columns)
    assert {metadata.row_group(0).column(column).compression for column in columns} == {"ZSTD"}


@pytest.mark.parametrize("chunk", [1, 4, 10, 23, 100])
@pytest.mark.parametrize("count", [0, 9, 10, 57])
def test_row_groups_are_full_but_for_the_last(
    count: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows come at once: leftovers must not become tiny groups in the middle."""
    monkeypatch.setattr(predictions, "ROW_GROUP", 10)
    path = _write(tmp_path / "out.parquet", _rows(count), chunk)
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sizes == [10] * (count // 10) + ([count % 10] if count % 10 else [])
    assert list(iterate_rows(path)) == _with_nulls(_rows(count))


def test_row_groups_have_65536_rows() -> None:
    assert predictions.ROW_GROUP == 65_536


def test_footer_and_sidecar_say_the_same(tmp_path: Path) -> None:
    path = _write(tmp_path / "out.parquet", _rows(5))
    footer = read_metadata(path)
    assert footer == {
        "schema_version": "3",
        "model_id": "cnn1-0123",
        "threshold": "0.5",
        "classes": '["Healthy", "Tumor"]',
        "note": "ü",
    }
    raw = pq.read_metadata(path).metadata
    assert raw[b"tumorbatch.model_id"] == b"cnn1-0123"  # the prefix that other tools will see

    assert sidecar_path(path) == tmp_path / "out.parquet.json"
    sidecar = json.loads(sidecar_path(path).read_text())
    data = path.read_bytes()
    assert sidecar == {
        "schema_version": 3,
        **METADATA,
        "file": "out.parquet",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def test_an_output_name_that_is_not_utf8(tmp_path: Path) -> None:
    """Such names occur on old file shares; pyarrow alone cannot open them."""
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    folder.mkdir()
    path = _write(folder / os.fsdecode(b"caf\xe9.parquet"), _rows(4))
    assert list(iterate_rows(path)) == _with_nulls(_rows(4))
    assert read_metadata(path)["model_id"] == "cnn1-0123"
    assert json.loads(sidecar_path(path).read_text())["file"] == "caf\\xe9.parquet"


# ----------------------------------------------------------------------------------- checksums


def _data_bytes(path: Path) -> list[int]:
    """Positions inside the compressed pages of `prob_tumor`."""
    column = (
        pq.read_metadata(path).row_group(0).column(predictions.SCHEMA.get_field_index("prob_tumor"))
    )
    start = column.dictionary_page_offset or column.data_page_offset
    end = start + column.total_compressed_size
    return list(range(end - 40, end - 1, 3))  # the last bytes of the column's last page


def test_any_flipped_bit_in_a_column_is_an_error_and_never_another_value(tmp_path: Path) -> None:
    rows = _with_nulls(_rows(500))
    path = _write(tmp_path / "out.parquet", rows)
    whole = path.read_bytes()
    unnoticed = 0
    for position in _data_bytes(path):
        damaged = bytearray(whole)
        damaged[position] ^= 0x20
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"out\.parquet is damaged"):
            list(iterate_rows(path))
        # pyarrow's own default for contrast: it does not look at the checksums.
        with contextlib.suppress(OSError, pa.ArrowException):
            unnoticed += pq.read_table(path).to_pylist() != rows
    assert unnoticed > 0  # or this test would prove nothing


def test_files_that_are_not_ours_or_not_whole(tmp_path: Path) -> None:
    path = _write(tmp_path / "out.parquet", _rows(30))
    path.write_bytes(path.read_bytes()[:-20])
    foreign = tmp_path / "foreign.parquet"
    table = pa.table({"a": [1]}).replace_schema_metadata({b"\xff": b"\xfe", b"other": b"1"})
    pq.write_table(table, foreign)
    text = tmp_path / "text.parquet"
    text.write_text("a,b\n1,2\n")

    assert read_metadata(foreign) == {}
    for broken, reason in (
        (path, "not a whole"),
        (text, "not a whole"),
        (tmp_path / "no", "not exist"),
    ):
        with pytest.raises(InputError, match=reason) as raised:
            read_metadata(broken)
        assert str(broken) in str(raised.value)
    for broken in (path, text, tmp_path / "no"):
        with pytest.raises(InputError, match=broken.name):
            list(iterate_rows(broken))


# ----------------------------------------------------------------------------- whole or absent


class _StopError(Exception):
    pass


@pytest.mark.parametrize("error", [_StopError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("written", [0, 5, 25])
@pytest.mark.parametrize("before", [False, True])
def test_a_block_that_raises_leaves_everything_as_it_was(
    before: bool,
    written: int,
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predictions, "ROW_GROUP", 10)
    path = tmp_path / "out.parquet"
    if before:
        _write(path, _rows(3))
    content = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}

    def interrupted() -> None:
        with PredictionsWriter(path) as writer:
            writer.write(_rows(written))
            writer.finish(METADATA)
            raise error

    with pytest.raises(error):
        interrupted()
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == content


def test_nothing_appears_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with PredictionsWriter(path) as writer:
        writer.write(_rows(5))
        writer.finish(METADATA)
        assert [entry for entry in tmp_path.iterdir() if not entry.name.startswith(".")] == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.parquet", "out.parquet.json"]


@pytest.mark.parametrize("limit", [0, 2000])
def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(limit: int, tmp_path: Path) -> None:
    path = _write(tmp_path / "out.parquet", _rows(3))
    content = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match=r"Cannot write .*out\.parquet: .*limit") as raised:
            _write(path, _rows(3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.exit_code == ExitCode.CANNOT_WRITE
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == content


def test_without_its_sidecar_the_file_does_not_appear_either(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    sidecar_path(path).mkdir()
    with pytest.raises(OutputError, match=r"out\.parquet\.json"):
        _write(path, _rows(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.parquet.json"]


def _killed_behind_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a table over the one that is there; the process ends before the sidecar has its name."""

    def killed(_: Path) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("tumorbatch.infer.predictions.publish_sidecar", killed)
        with pytest.raises(SystemExit), PredictionsWriter(path) as writer:
            writer.finish({"model_id": "m", "rows": 0, "statuses": {}, "number": 2})


def test_table_and_sidecar_belong_together_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.parquet"
    with PredictionsWriter(path) as writer:
        writer.finish({"model_id": "m", "rows": 0, "statuses": {}, "number": 1})
    assert verify.run(path).problems == ()
    before = path.read_bytes(), sidecar_path(path).read_bytes()

    def failed() -> None:
        with PredictionsWriter(path) as writer:
            writer.finish({"model_id": "m", "rows": 0, "statuses": {}, "number": 2})

    with monkeypatch.context() as patch:  # an error in place of the table's rename
        patch.setattr(os, "replace", _fails_for(path))
        with pytest.raises(OutputError, match="unchanged"):
            failed()
    assert (path.read_bytes(), sidecar_path(path).read_bytes()) == before
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, sidecar_path(path).name}

    _killed_behind_the_rename(path, monkeypatch)
    assert verify.run(path).problems == ()  # of the new table
    recover_sidecar(path)
    assert json.loads(sidecar_path(path).read_bytes())["number"] == 2
    assert verify.run(path).problems == ()
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, sidecar_path(path).name}


def _fails_for(path: Path) -> Any:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if target == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    return replace
