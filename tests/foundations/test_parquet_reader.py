"""Parquet tables of unknown origin: the columns that are needed, or a reason."""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tumorbatch.parquet_reader import iterate_rows, read_columns, read_footer, read_table

SCHEMA = pa.schema([pa.field("path", pa.string(), nullable=False), ("size", pa.int64())])
GOOD = {"path": pa.array(["a", "b"]), "size": pa.array([1, None], pa.int64())}


def _write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, write_page_checksum=True, **options)
    return path


def _bad_text() -> pa.Array:
    """Bytes that are not UTF-8, as a column of texts."""
    return pa.array([b"\xff\xfe", b"ok"], pa.binary()).view(pa.string())


def test_the_columns_come_in_the_order_of_the_schema(tmp_path: Path) -> None:
    path = _write(tmp_path / "t", {"more": pa.array([1.0, 2.0]), "size": GOOD["size"], **GOOD})
    table = read_table(path, SCHEMA)
    assert table.to_pydict() == {"path": ["a", "b"], "size": [1, None]}
    assert table.schema.metadata is None
    assert list(iterate_rows(path, SCHEMA)) == table.to_pylist()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"path": GOOD["path"]}, "no column 'size'"),
        ({**GOOD, "size": pa.array(["1", "2"])}, "'size' holds string, not int64"),
        ({**GOOD, "size": pa.array([1, 2], pa.int32())}, "'size' holds int32, not int64"),
        ({**GOOD, "path": pa.array([[1], [2]])}, "'path' holds list"),
        ({**GOOD, "path": pa.array([{"a": 1}, None])}, "'path' holds struct"),
        ({**GOOD, "path": pa.array(["a", None])}, "'path' lacks values"),
        ({**GOOD, "path": _bad_text()}, "(?i)utf-?8"),
        ({}, "no column 'path'"),
    ],
)
def test_another_table_has_a_reason(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    path = _write(tmp_path / "t", columns)
    with pytest.raises(ValueError, match=words):
        read_table(path, SCHEMA)
    with pytest.raises(ValueError, match=words):
        list(iterate_rows(path, SCHEMA))


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([*GOOD.values(), GOOD["size"]], ["path", "size", "size"])
    pq.write_table(table, tmp_path / "t")
    with pytest.raises(ValueError, match="2 columns 'size'"):
        read_table(tmp_path / "t", SCHEMA)


def test_every_cut_and_every_flipped_byte(tmp_path: Path) -> None:
    """A damaged file is refused, or (where nothing reads the byte) gives the same rows."""
    whole = _write(tmp_path / "t", GOOD).read_bytes()
    expected = read_table(tmp_path / "t", SCHEMA)
    for at in range(0, len(whole), 3):
        (tmp_path / "t").write_bytes(whole[:at])
        with pytest.raises(ValueError):  # noqa: PT011 - any reason
            read_table(tmp_path / "t", SCHEMA)
        (tmp_path / "t").write_bytes(whole[:at] + bytes((whole[at] ^ 0x20,)) + whole[at + 1 :])
        with contextlib.suppress(ValueError):
            assert read_table(tmp_path / "t", SCHEMA).num_rows <= expected.num_rows


def test_a_few_bytes_that_promise_many_rows(tmp_path: Path) -> None:
    rows = 2_000_000
    same = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["a"]).cast(pa.string())
    path = _write(tmp_path / "t", {"path": same, "size": pa.array(np.zeros(rows, np.int64))})
    assert path.stat().st_size < rows
    with pytest.raises(ValueError, match="it promises 2,000,000 rows in"):
        read_table(path, SCHEMA)


def test_a_few_bytes_that_promise_much_text(tmp_path: Path) -> None:
    long = pa.array(["x" * 50_000_000, "y" * 50_000_000])
    path = _write(tmp_path / "t", {**GOOD, "path": long}, compression="zstd")
    with pytest.raises(ValueError, match=r"it promises 100,.* bytes in"):
        read_table(path, SCHEMA)


def test_a_footer_that_is_not_utf8(tmp_path: Path) -> None:
    table = pa.table(GOOD).replace_schema_metadata({b"our.a": b"\xff", b"\xfe": b"1", b"b": b"2"})
    pq.write_table(table, tmp_path / "t")
    assert read_footer(tmp_path / "t")[1] == {}
    with pytest.raises(ValueError, match="its footer is not UTF-8"):
        read_footer(tmp_path / "t", "our.")
    pq.write_table(table.replace_schema_metadata({b"our.a": "ü".encode()}), tmp_path / "t")
    assert read_footer(tmp_path / "t", "our.")[1] == {"a": "ü"}


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", ""):
        with pytest.raises(OSError, match="not a regular file"):
            read_table(tmp_path / name, SCHEMA)
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "missing", SCHEMA)


def test_a_foreign_table_is_read_as_texts_and_numbers(tmp_path: Path) -> None:
    columns = {
        "path": pa.array(["a", "b", None]).dictionary_encode(),
        "patient": pa.array([7.0, float("nan"), None]),
        "more": pa.array([[1], [2], [3]]),
    }
    path = _write(tmp_path / "t", columns)
    expected = {"path": ["a", "b", None], "patient": [7.0, None, None]}
    assert read_columns(path, ("path", "patient", "absent")) == expected
    with pytest.raises(ValueError, match="'more' holds list"):
        read_columns(path, ("more",))
