"""What the user sees: exit codes, statuses, sentences, and signs of life."""

import errno
import logging
import os
import pickle  # noqa: TID251 - as multiprocessing uses it
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import errors
from tumorbatch.errors import TumorBatchError, cannot_write
from tumorbatch.progress import LOG_INTERVAL_S, Progress
from tumorbatch.status import FileError, Status


def test_exit_codes_are_those_of_the_contract() -> None:
    codes = {
        kind.__name__: int(kind.exit_code)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, TumorBatchError)
    }
    assert codes == {
        "TumorBatchError": 1,
        "ConfigError": 2,
        "TooManyErrorsError": 4,
        "InputError": 66,
        "OutputError": 73,
        "TryAgainError": 75,
    }
    assert (errors.ExitCode.OK, errors.ExitCode.SOME_ERRORS) == (0, 3)


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "write permission"),
        (errno.EROFS, "read-only"),
        (errno.EEXIST, "a link that leads nowhere, is in its way"),
        (errno.ELOOP, "lead in a circle"),
        (errno.EIO, "What was at that path before is unchanged."),
    ],
)
def test_what_cannot_be_written_is_a_sentence_with_a_way_out(number: int, hint: str) -> None:
    text = str(cannot_write(Path("out.parquet"), OSError(number, os.strerror(number))))
    assert text.startswith(f"Cannot write out.parquet: {os.strerror(number)}. ")
    assert hint in text
    assert text.endswith(".")


def test_an_os_error_without_a_number() -> None:
    assert str(cannot_write(Path("out"), OSError("odd"))).startswith("Cannot write out: odd. ")


def test_the_words_of_the_contract_are_statuses() -> None:
    words = "ok decode_error truncated unsupported too_large empty io_error vanished decoder_crash"
    assert set(words.split()) <= {status.value for status in Status}


def test_a_file_error_comes_back_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(FileError(Status.TRUNCATED, "ends early")))
    assert isinstance(error, FileError)
    assert (error.status, error.message, str(error)) == (
        Status.TRUNCATED,
        "ends early",
        "ends early",
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `time.monotonic` tells, in the list's only element."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_every_thirty_seconds(
    clock: list[float], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "tumorbatch"), Progress("infer", "images", 10_000) as progress:
        for _ in range(100):
            clock[0] += 1
            progress.advance(50)
    assert [record.getMessage() for record in caplog.records] == [
        f"infer: {50 * seconds:,} of 10,000 images, 50/s, {minutes} min left"
        for seconds, minutes in ((30, 3), (60, 3), (90, 2))
    ]
    assert LOG_INTERVAL_S == 30
    assert capsys.readouterr() == ("", "")


def test_an_unknown_total_and_a_note(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tumorbatch"), Progress("scan", "files") as progress:
        clock[0] += 40
        progress.advance(80, "loss 0.5")
    assert [record.getMessage() for record in caplog.records] == ["scan: 80 files, 2/s, loss 0.5"]


class _Terminal:
    """Standard error on a pseudo-terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._master, slave = pty.openpty()
        self._stream = os.fdopen(slave, "w")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", self._stream)

    def shown(self) -> str:
        self._stream.write("|end")
        self._stream.close()
        text = b""
        while not text.endswith(b"|end"):
            text += os.read(self._master, 65_536)
        os.close(self._master)
        return text.decode()


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_on_a_terminal_a_bar_and_with_quiet_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    terminal: Any = _Terminal(monkeypatch)
    with caplog.at_level(level, "tumorbatch"), Progress("infer", "images", 64) as progress:
        progress.advance(64)
    text = terminal.shown()
    if level == logging.INFO:
        assert "infer" in text
        assert "64/64" in text
    else:
        assert text == "|end"
    assert caplog.records == []


SAYS = """
import sys
from tumorbatch.cli.console import output, say
from tumorbatch.cli.session import session
from tumorbatch.cli import streams
streams.guard()
console = output(80)
with session(False, ""):
    for _ in range(20_000):  # more than a pipe holds
        {print}
    print("continued", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("by", ["say('a line')", "console.print('a line')"])
@pytest.mark.parametrize("target", ["full", "closed"])
def test_a_standard_output_that_takes_nothing_is_no_bug(by: str, target: str) -> None:
    """A full disk is an error of output; a reader that has seen enough (`| head`) is none."""
    command = [sys.executable, "-c", SAYS.format(print=by)]
    if target == "full":
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert "continued" in done.stderr
        assert (done.returncode, "standard output could not be written" in done.stderr) == (73, True)
        assert "Traceback" not in done.stderr
    else:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdout is not None
            assert reader.stderr is not None
            reader.stdout.readline()
            reader.stdout.close()
            told = reader.stderr.read()
        assert (reader.returncode, told) == (3, "continued\n")
