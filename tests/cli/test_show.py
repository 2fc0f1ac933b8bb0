"""`show`: each kind of table, conditions, order, columns, formats, narrow terminals."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tumorbatch.errors import ExitCode

ROWS = [
    {"path": "a/one.png", "label": "Tumor", "prob": 0.9, "flags": "low-res,alpha", "n": 10},
    {"path": "=b/two.png", "label": "Healthy", "prob": 0.25, "flags": None, "n": 9},
    {
        "path": "c/three, a long name.png",
        "label": "Tumor",
        "prob": 0.5,
        "flags": "alpha",
        "n": None,
    },
]
LONG = "folder/" * 30 + "name.png"


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"table.{request.param}"
    if request.param == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        from tumorbatch.csv_text import Writer

        with path.open("w", newline="") as file:
            writer = Writer(file)
            writer.write_row(ROWS[0])
            for row in ROWS:
                writer.write_row(row.values())
    return path


def _paths(invoke: Any, *arguments: object) -> list[str]:
    code, output = invoke("show", *arguments, "--format", "json")
    assert code == ExitCode.OK, output
    return [row["path"] for row in json.loads(output)]


def test_conditions_and_order(table: Path, invoke: Any) -> None:
    one, two, three = (row["path"] for row in ROWS)
    assert _paths(invoke, table) == [one, two, three]
    for condition, expected in {
        "label=Tumor": [one, three], "label!=Tumor": [two], "prob>=0.5": [one, three], "prob>.5": [one],
        "prob<0.5": [two], "prob<=0.25": [two], "prob=0.50": [three], "flags~alpha": [one, three],
        "flags=": [two], "flags!=": [one, three], "n<100": [one, two], "path==b/two.png": [two],
    }.items():  # fmt: skip
        assert _paths(invoke, table, "--where", condition) == expected, condition
    assert _paths(invoke, table, "--where", "label=Tumor", "--where", "prob<0.6") == [three]
    assert _paths(invoke, table, "--sort", "prob") == [two, three, one]
    assert _paths(invoke, table, "--sort", "-prob") == [one, three, two]
    assert _paths(invoke, table, "--sort", "n") == [two, one, three]  # 9 before 10, null last
    assert _paths(invoke, table, "--sort", "-n") == [one, two, three]
    assert _paths(invoke, table, "--sort", "-n", "--rows", 2) == [one, two]
    assert _paths(invoke, table, "--sort", "-path", "--rows", 1) == [three]
    assert _paths(invoke, table, "--rows", 0) == []


def test_columns_and_formats(table: Path, invoke: Any) -> None:
    code, output = invoke("show", table, "--columns", "label,path", "--format", "csv")
    assert code == ExitCode.OK
    lines = list(csv.reader(io.StringIO(output)))
    assert lines[0] == ["label", "path"]
    assert lines[2] == ["Healthy", "'=b/two.png"]  # no spreadsheet runs it
    code, output = invoke("show", table, "--columns", "path,label", "--format", "tsv")
    assert [line.split("\t") for line in output.splitlines()[1:]] == [
        [row["path"], row["label"]] for row in ROWS
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--where", "label"), ("--where", "prob>high"), ("--where", "colour=1"), ("--sort", "-colour"),
        ("--columns", "path,colour"), ("--errors",),
    ],
)  # fmt: skip
def test_a_wrong_selection_is_a_sentence(wrong: tuple[str, ...], table: Path, invoke: Any) -> None:
    code, output = invoke("show", table, *wrong)
    assert code == ExitCode.USAGE
    assert "Traceback" not in output
    if "colour" in wrong[-1]:
        assert "The table has: path, label, prob, flags, n." in output


@pytest.mark.parametrize("width", [20, 80, 400])
def test_a_path_is_never_shortened(
    width: int, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"path": [LONG, "b.png"], "label": ["Tumor", "Healthy"]}), path)
    code, output = invoke("show", path)
    assert code == ExitCode.OK
    lines = output.splitlines()
    assert LONG in [line.split("  ")[0] for line in lines]
    assert len(lines) == (3 if width == 400 else 4)  # one line a row, or a block a row


def test_an_empty_table_is_shown(tmp_path: Path, invoke: Any) -> None:
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    assert invoke("show", tmp_path / "empty.parquet", "--format", "json") == (ExitCode.OK, "[]\n")
    assert invoke("show", tmp_path / "empty.parquet")[0] == ExitCode.OK


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", '{"a": 1}\n[2]\n', "line 2"),
        ("a.jsonl", '{"a": 1}\n{"a"\n', "line 2"),
        ("a.csv", 'a,b\n1,"2\n', "line"),
        ("a.csv", "a,a\n1,2\n", "does not name the columns"),
        ("a.csv", "", "does not name the columns"),
    ],
)
def test_a_damaged_text_is_a_sentence(
    name: str, text: str, problem: str, tmp_path: Path, invoke: Any
) -> None:
    (tmp_path / name).write_text(text)
    code, output = invoke("show", tmp_path / name)
    assert (code, problem in output) == (ExitCode.NO_INPUT, True), output
    (tmp_path / name).write_bytes(b"a,b\n\xff,1\n")
    assert invoke("show", tmp_path / name)[0] == ExitCode.NO_INPUT
