"""One run per output."""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tumorbatch.errors import ExitCode, OutputError, TryAgainError
from tumorbatch.lock import output_lock

HOLDER = """
import sys
from pathlib import Path
from tumorbatch.lock import output_lock
with output_lock(Path("out"), Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _take(lock: Path) -> None:
    with output_lock(Path("out"), lock):
        assert lock.exists()


def test_a_second_process_fails_at_once_and_names_the_holder(tmp_path: Path, python: Any) -> None:
    lock = tmp_path / "lock"
    holder = python(HOLDER, lock)
    assert holder.stdout.readline() == "held\n"
    started = time.monotonic()
    with pytest.raises(TryAgainError) as caught:
        _take(lock)
    assert time.monotonic() - started < 1
    assert f"out is in use by process {holder.pid} on {socket.gethostname()}" in str(caught.value)
    assert caught.value.exit_code == ExitCode.TRY_AGAIN == 75
    assert lock.exists()  # the loser does not delete what is not its own
    holder.communicate("", timeout=60)
    assert not lock.exists()
    _take(lock)


def test_the_lock_holds_within_one_process_too(tmp_path: Path) -> None:
    with (
        output_lock(Path("out"), tmp_path / "lock"),
        pytest.raises(TryAgainError, match=f"process {os.getpid()} on"),
    ):
        _take(tmp_path / "lock")


def test_a_killed_holder_frees_it(tmp_path: Path, python: Any) -> None:
    lock = tmp_path / "lock"
    holder = python(HOLDER, lock)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    assert lock.exists()
    _take(lock)
    assert not lock.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xff", b'{"pid": 1}'])
def test_a_holder_that_has_not_written_its_name(tmp_path: Path, content: bytes) -> None:
    lock = tmp_path / "lock"
    lock.write_bytes(content)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TryAgainError, match="in use by another process"):
            _take(lock)


def test_the_file_is_gone_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_lock(Path("out"), tmp_path / "lock"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


COUNTER = """
import sys
from pathlib import Path
from tumorbatch.errors import TryAgainError
from tumorbatch.lock import output_lock
counter, lock = map(Path, sys.argv[1:])
sys.stdin.readline()
done = 0
while done < 100:
    try:
        with output_lock(Path("out"), lock):
            counter.write_text(str(int(counter.read_text()) + 1))
            done += 1
    except TryAgainError:
        continue
"""


def test_never_two_holders_though_each_deletes_the_file(tmp_path: Path, python: Any) -> None:
    counter, lock = tmp_path / "counter", tmp_path / "lock"
    counter.write_text("0")
    processes = [python(COUNTER, counter, lock) for _ in range(3)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=60) == ("", "")
    assert counter.read_text() == "300"
    assert not lock.exists()


def test_a_lock_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write out: No such file or directory"):
        _take(tmp_path / "missing" / "lock")


def test_a_file_system_without_locks_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OutputError, match="Cannot write out: No locks available"):
        _take(tmp_path / "lock")


def test_a_full_disk_is_an_output_error(tmp_path: Path, python: Any) -> None:
    process = python(
        """
import resource, sys
from pathlib import Path
from tumorbatch.errors import OutputError
from tumorbatch.lock import output_lock
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    with output_lock(Path("out"), Path(sys.argv[1])):
        pass
except OutputError as error:
    print(error)
""",
        tmp_path / "lock",
    )
    out, err = process.communicate(timeout=60)
    assert out.startswith("Cannot write out: File too large.")
    assert err == ""
    assert list(tmp_path.iterdir()) == []
