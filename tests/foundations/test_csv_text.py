"""CSV: the same cells again from any reader, and none that a spreadsheet would run."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tumorbatch.csv_text import Writer, defused, restored

HOSTILE = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "'=1", "''", "'",
    "a\rb.png", "a\nb.png", "a\r\nb.png", 'a"b', "a,b", "a;b", "", " =1", "ü\u202e", "1", "-",
]  # fmt: skip


def _written(*rows: list[object]) -> str:
    text = io.StringIO(newline="")
    writer = Writer(text)
    for row in rows:
        writer.write_row(row)
    return text.getvalue()


def _read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_comes_back_and_is_not_run(text: str) -> None:
    written = _written([text, "next"], ["second", "row"])
    (cell, after), second = _read(written)
    assert (restored(cell), after, second) == (text, "next", ["second", "row"])
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")


def test_numbers_stay_numbers_and_lines_end_in_a_line_feed() -> None:
    assert _written(["n", "x"], [-1, None], [-0.5, "-0.5"]) == "n,x\n-1,\n-0.5,'-0.5\n"


def test_a_carriage_return_is_quoted_on_every_python() -> None:
    assert _written(["a\rb", "c"]) == '"a\rb",c\n'


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2))
def test_any_texts_come_back(texts: list[str]) -> None:
    assert [restored(cell) for cell in _read(_written(texts))[0]] == texts
    assert all(restored(defused(text)) == text for text in texts)
