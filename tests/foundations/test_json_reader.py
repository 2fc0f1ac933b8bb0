"""JSON of unknown origin: whatever is in the file, an object of the right shape or a reason."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import json_reader
from tumorbatch.json_reader import (
    COUNT,
    FILE_NAME,
    FLAG,
    NULL,
    NUMBER,
    SHA256,
    TEXT,
    Shape,
    check,
    parse_object,
    read_object,
    read_own,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"[]", "must hold an object, not"),
        (b"null", "must hold an object, not null"),
        (b'{"a": NaN}', "NaN, which is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity, which is not"),
        (b'{"a": 1e999}', "a number that is too large"),
        (b'{"a": 1' + b"0" * 400 + b"}", "a whole number of 401 digits"),
        (b'{"a": -1' + b"0" * 5000 + b"}", "a whole number of 5,001 digits"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', 'has "b" twice'),
        (b'{"a": "\\ud800"}', "not Unicode"),
        (b'{"\\udfff": 1}', "not Unicode"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested too deeply"),
        (b"[" * 500 + b"]" * 500, "nested too deeply"),
    ],
)
def test_what_is_no_json_object_has_a_reason(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_object(text)


def test_what_this_product_writes_is_read() -> None:
    value = {"a": 2**63 - 1, "b": -1.5e300, "c": ["ü\n\t", None, True, {}], "d": {"e": {"f": []}}}
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(json.dumps(value, indent=2, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("value", "shape", "words"),
    [
        ({}, {"a": TEXT}, "a is missing"),
        ({"a": {}}, {"a": {"b": TEXT}}, "a.b is missing"),
        ({"a": {"b": 1}}, {"a": {"b": TEXT}}, "a.b must be a text, not 1"),
        ({"a": [1, "x"]}, {"a": [COUNT]}, r'a\[1\] must be a whole number of at least 0, not "x"'),
        ({"a": -1}, {"a": COUNT}, "a must be a whole number"),
        ({"a": True}, {"a": COUNT}, "not true"),
        ({"a": 1}, {"a": FLAG}, "a must be true or false"),
        ({"a": "1"}, {"a": (NUMBER, NULL)}, 'a must be a number or null, not "1"'),
        ({"a": {"b": 1}}, {"a": (NULL, {"b": TEXT})}, "a.b must be a text"),
        ({"a": []}, {"a": {TEXT: COUNT}}, r"a must be an object, not \[\]"),
        ({"a": {"x": None}}, {"a": {TEXT: COUNT}}, "a.x must be"),
        ({"a": {}}, {"a": [COUNT]}, "a must be a list"),
        ({"a": "AB" * 32}, {"a": SHA256}, "a must be a sha256"),
        ({"a": "ab" * 31}, {"a": SHA256}, "a must be a sha256"),
        *(
            ({"a": name}, {"a": FILE_NAME}, "a must be the name of a file in the same folder")
            for name in ("", ".", "..", "../b", "/b", "b/", "b\0", "b\n", "\x1b[2Jb", "\u202eb")
        ),
        ({"a?": 1}, {"b?": TEXT, "a": TEXT}, "a is missing"),
        ({"b": 1}, {"b?": TEXT}, "b must be a text"),
        ({"a": "x" * 999}, {"a": COUNT}, r'not "x{39}\.\.\.$'),
    ],
)
def test_another_shape_is_named_by_its_place(value: Any, shape: Shape, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(value, shape)


def test_more_members_than_are_asked_for_are_fine() -> None:
    check({"a": "x", "more": object()}, {"a": TEXT, "b?": TEXT})
    check({"a": None, "b": [{"c": 0}]}, {"a": (NUMBER, NULL), "b": [{"c": COUNT}]})


def test_only_regular_files_of_a_possible_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero", ""):  # the last is the folder itself
        with pytest.raises(OSError, match="not a regular file"):
            read_object(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "missing")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(ValueError, match="no such file is so large"):
        read_object(tmp_path / "huge")
    (tmp_path / "good").write_text('{"a": 1}')
    (tmp_path / "link").symlink_to("good")
    assert read_object(tmp_path / "link") == {"a": 1}


def test_what_an_earlier_run_left_is_there_missing_or_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk must not look like a missing file: that would be made anew."""
    path = tmp_path / "plan.json"
    assert read_own(path) is None
    path.write_text("{")
    assert read_own(path) is None
    path.write_text('{"a": 1}')
    assert read_own(path) == {"a": 1}
    assert read_own(path, {"a": TEXT}) is read_own(path / "below") is read_own(tmp_path) is None

    def failing(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(json_reader, "read_regular", failing)
    with pytest.raises(OSError, match="Input/output error"):
        read_own(path)
