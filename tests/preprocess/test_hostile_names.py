"""File names that would command a terminal, end a line, or turn the text around them."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.preprocess.sets import image_files, small_config, write_file
from tumorbatch.cli import console, session
from tumorbatch.cli.summaries import shard_summary
from tumorbatch.preprocess.shard import run

if TYPE_CHECKING:
    from tests.conftest import Invoke
    from tests.preprocess.conftest import Build

NAMES = ["\x1b[2J\x1b[31mred", "a\rERASED", "a\nError: forged", "\u202egnp", "\x9b31m", "\u2066x"]
BAD = set("\x1b\r\u202e\x9b\u2066")


def test_the_largest_groups_and_both_classes_are_told_harmlessly(
    build: "type[Build]", tmp_path: Path
) -> None:
    for name, data in image_files(build, 8).items():
        write_file(tmp_path / "raw" / name, data)
    for number, name in enumerate(NAMES):
        write_file(tmp_path / "raw" / "Healthy" / f"{name}.png", build.png(build.smooth(64, 64, 77)))
        write_file(tmp_path / "raw" / "Healthy" / f"{number}.png", build.png(build.smooth(64, 64, 77)))
    text = shard_summary(
        run(tmp_path / "raw", tmp_path / "\x1bout", small_config()), tmp_path / "\x1bout"
    )
    assert not BAD & set(text)
    assert "copies of Healthy/" in text


@pytest.mark.parametrize("name", NAMES)
def test_errors_tables_and_logs_show_names_harmlessly(
    name: str, tmp_path: Path, invoke: "Invoke", monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        ("show", tmp_path / name),
        ("verify", tmp_path / name),
        ("train", tmp_path / name, "--arch", "cnn1"),
    ):
        code, output = invoke(*command)
        assert code == 66
        assert not BAD & set(output)
    record = logging.makeLogRecord(
        {"msg": "%s: bad", "args": (name,), "levelno": logging.WARNING, "levelname": "WARNING"}
    )
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = session._Formatter().format(record)
    assert not BAD & set(line)
    assert "\n" not in line  # a name must not look like a line of the log
    message = json.loads(session._JsonFormatter().format(record))["message"]
    assert not (BAD | {"\n"}) & set(message)


def test_standard_output_and_tables_show_texts_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        console.say(f"one {name}")
        console.complain(f"two {name}")
        console.output(80).print(f"three {name}", markup=False)
    captured = capsys.readouterr()
    assert not BAD & set(captured.out + captured.err)
    assert r"\u001b[2J" in captured.out


def test_bytes_that_are_no_text_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(os.fsdecode(b"not utf-8 \xff"))
    assert capsys.readouterr().out == "not utf-8 \\udcff\n"
