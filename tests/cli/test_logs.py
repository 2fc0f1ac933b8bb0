"""Logs and receipts: one time zone, one last event, whatever the command and its end."""

import json
import logging
import re
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.cli.test_options import LEAVES
from tumorbatch import progress
from tumorbatch.cli import session
from tumorbatch.errors import ExitCode
from tumorbatch.preprocess import equalize_folder

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight pictures of each class, and a broken one."""
    random = np.random.default_rng(0)
    for name in ("Healthy", "Tumor"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, 255, (40, 40), np.uint8)
            (folder / f"{number}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    (tmp_path / "images" / "Tumor" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "images"


def _ends(output: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line.get("event") for line in lines[:-1]] == [None] * (len(lines) - 1)
    return lines


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_can_log_and_print_json(name: str) -> None:
    flags = {flag for one in LEAVES[name].params for flag in one.opts}
    assert {"--log-format", "--json", "--verbose"} <= flags


# What fails at once, without TensorFlow: the input is not there, or the output is not free.
_FAILING = {
    "sample": ("sample", "FULL"), "explore": ("explore", "ABSENT"), "shard": ("shard", "ABSENT"),
    "verify": ("verify", "ABSENT"), "equalize": ("equalize", "ABSENT", "ABSENT"),
    "train": ("train", "ABSENT", "--arch", "cnn1"), "evaluate": ("evaluate", "ABSENT"),
    "compare": ("compare", "ABSENT"),
    "experiment clahe": ("experiment", "clahe", "ABSENT", "--yes"), "status": ("status", "ABSENT"),
    "infer": ("infer", "ABSENT", "out.parquet"), "show": ("show", "ABSENT"),
    "summarize": ("summarize", "ABSENT"), "ensemble": ("ensemble", "ABSENT", "-o", "out"),
    "sr": ("sr", "ABSENT", "ABSENT", "out"),
    "export": ("export", "ABSENT", "--format", "keras"), "doctor": ("doctor", "--quick", "-q", "-v"),
    "weights fetch": ("weights", "fetch", "-q", "-v"),
    "weights check": ("weights", "check", "-q", "-v"),
    "slurm": ("slurm", "--tasks", 2, "--time", "1", "--", "show"),
    "k8s": ("k8s", "--tasks", 2, "--image", "x", "--claim", "c", "--", "show"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAVES)
def test_the_last_event_of_a_failure_has_the_exit_code(name: str, tmp_path: Path, invoke: Any) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    places = {"ABSENT": tmp_path / "absent", "FULL": tmp_path / "full"}
    command = [places.get(word, word) for word in _FAILING[name]]
    at = command.index("--") if "--" in command else len(command)
    code, output = invoke(*command[:at], "--log-format", "json", "--json", *command[at:])
    last = _ends(output)[-1]
    assert code in (ExitCode.USAGE, ExitCode.NO_INPUT)
    assert (last["level"], last["event"], last["exit_code"]) == ("error", "end", code)
    assert last["message"].startswith("Error: ")


def test_a_verbose_log_tells_settings_and_where_an_error_comes_from(
    images: Path, tmp_path: Path, invoke: Any
) -> None:
    command = ("equalize", images, tmp_path / "grey", "--workers", 1, "--clahe-clip", 4)
    code, output = invoke(*command, "-v")
    assert code == ExitCode.SOME_ERRORS
    assert re.search(r"--clahe-clip = 4\.0 \(command line\)$", output, re.MULTILINE)
    assert re.search(r"--clahe-grid = 16 \(default\)$", output, re.MULTILINE)
    assert "--clahe-clip" not in invoke(*command)[1]
    code, output = invoke("equalize", tmp_path / "absent", tmp_path / "grey", "-v")
    assert (code, "Traceback" in output, "in clahe" in output) == (ExitCode.NO_INPUT, True, False)


def test_text_and_json_tell_one_time_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
        record = logging.LogRecord("tumorbatch", logging.INFO, "", 0, "here", (), None)
        record.created = 1_800_000_000.25
        assert session._Formatter().format(record) == "2027-01-15T08:00:00Z here"
        entry = json.loads(session._JsonFormatter().format(record))
        assert entry["ts"] == "2027-01-15T08:00:00.250Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_receipts_as_json(images: Path, tmp_path: Path, invoke: Any) -> None:
    out = tmp_path / "out"
    code, output = invoke("shard", images, out, "--json", "--quiet", "--workers", 1)
    result = json.loads(output)
    assert code == ExitCode.SOME_ERRORS
    assert (result["out"], result["files"]["found"], result["errors"]) == (str(out), 17, 1)
    assert sum(sum(split.values()) for split in result["counts"].values()) == 16

    code, output = invoke("verify", out, "--json", "--quiet")
    assert code == ExitCode.OK
    assert (json.loads(output)["problems"], json.loads(output)["records"]) == ([], 16)

    code, output = invoke("equalize", images, tmp_path / "grey", "--json", "--quiet", "--workers", 1)
    assert code == ExitCode.SOME_ERRORS
    result = json.loads(output.splitlines()[-1])  # after a warning for the broken file
    assert (result["written"], result["errors"]) == (16, 1)


@pytest.mark.parametrize("how", [("--log-format", "json"), ("--log-format=json",)])
def test_the_last_event_has_the_exit_code(
    how: tuple[str, ...], images: Path, tmp_path: Path, invoke: Any
) -> None:
    command = ("equalize", images, tmp_path / "grey", "--workers", 1, *how)
    code, output = invoke(*command, "--json")
    lines = output.splitlines()
    (receipt,) = [line for line in lines if line.startswith('{"out"')]
    last = _ends("\n".join(line for line in lines if line != receipt))[-1]
    assert (code, last["event"], last["exit_code"]) == (3, "end", 3)
    assert last["seconds"] >= 0

    code, output = invoke("equalize", tmp_path / "absent", tmp_path / "grey", *how)
    last = _ends(output)[-1]
    assert (code, last["level"], last["event"], last["exit_code"]) == (66, "error", "end", 66)

    code, output = invoke(*command, "--quiet")
    assert output == "" or _ends(output)[-1].get("event") is None  # silent after success


def test_wrong_usage_is_an_event(tmp_path: Path, invoke: Any) -> None:
    for wrong in (("--bogus",), ("--workers", "none"), ("a", "b", "c")):
        code, output = invoke("equalize", "--log-format", "json", *wrong)
        (entry,) = _ends(output)
        assert (code, entry["event"], entry["exit_code"]) == (2, "end", 2)
        assert entry["message"].startswith("Error: ")
    code, output = invoke("equalize", "--bogus")
    assert (code, output.startswith("Usage:")) == (2, True)  # text, also after JSON in this process


def test_a_bug_is_an_event_with_its_traceback(
    images: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(equalize_folder, "run", fail)
    code, output = invoke("equalize", images, tmp_path / "grey", "--log-format", "json")
    entry = _ends(output)[-1]
    assert (code, entry["event"], entry["exit_code"]) == (1, "end", 1)
    assert "in fail" in entry["traceback"]


@pytest.mark.parametrize(
    ("total", "done", "words"),
    [
        (600, 60, ", 9 min left"), (605, 60, ", 10 min left"), (60_000, 60, ", 16 h 39 min left"),
        (None, 60, ""), (60, 60, ""),
    ],
)  # fmt: skip
def test_a_log_line_tells_how_long_it_will_take(
    total: int | None,
    done: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = iter([0.0, 60.0, *[60.0] * 20])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress.log, "propagate", True)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO, "tumorbatch"), progress.Progress("shard", "files", total) as bar:
        bar.advance(done)
    (line,) = caplog.messages
    assert re.search(r"1/s(, [^,]* left)?$", line)
    assert line.endswith(f"1/s{words}")
