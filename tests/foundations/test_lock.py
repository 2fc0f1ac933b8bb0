"""One run per output."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import lock as locking
from tumorbatch.errors import ExitCode, OutputError, TryAgainError
from tumorbatch.lock import find_holder, lock_beside, lock_inside, output_lock

HOLDER = """
import sys
from pathlib import Path
from tumorbatch.lock import output_lock
with output_lock(Path("out"), Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_file_is_hidden_and_belongs_to_one_output() -> None:
    assert lock_inside(Path("tfrecords")) == Path("tfrecords/.lock")
    assert lock_beside(Path("models/cnn1")) == Path("models/.cnn1.lock")
    assert lock_beside(Path("out.parquet")) == Path(".out.parquet.lock")


def _take(lock: Path) -> None:
    with output_lock(Path("out"), lock):
        assert lock.exists()


def test_a_second_process_fails_at_once_and_names_the_holder(tmp_path: Path, python: Any) -> None:
    lock = tmp_path / "lock"
    holder = python(HOLDER, lock)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(TryAgainError) as caught:
        _take(lock)
    assert holder.poll() is None  # it was not waited for: it ends when this test says so
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


def test_a_folder_that_takes_no_files_is_no_endless_loop(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "nowhere" / "lock")  # FileNotFoundError each time
    with pytest.raises(OutputError, match="Cannot write out"):
        _take(tmp_path / "lock")


def test_a_lock_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write out: No such file or directory"):
        _take(tmp_path / "missing" / "lock")


# --- where the kernel's locks do not reach -----------------------------------------------------


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no locks."""

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def _left_by(lock: Path, host: str, pid: int, seconds_ago: float) -> None:
    lock.write_text(json.dumps({"pid": pid, "host": host, "since": "then"}))
    then = time.time() - seconds_ago
    os.utime(lock, (then, then))


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_file_decides(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        output_lock(Path("out"), lock),
        pytest.raises(TryAgainError, match=f"process {os.getpid()} on"),
    ):
        _take(lock)
    assert list(tmp_path.iterdir()) == []
    _left_by(lock, socket.gethostname(), os.getpid(), 3600)  # alive, but without a beat for an hour
    _take(lock)
    gone = subprocess.Popen(["true"])
    gone.wait()
    _left_by(lock, socket.gethostname(), gone.pid, 0)
    _take(lock)


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("seconds_ago", [0, 119, 121])
def test_another_machine_holds_it_as_long_as_it_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: bool, seconds_ago: float
) -> None:
    """On a network file system; on a local one its name is that of a container that is gone."""
    monkeypatch.setattr(locking, "_network", lambda _: network)
    _left_by(tmp_path / "lock", "another-machine", 1, seconds_ago)
    if network and seconds_ago < 120:
        with pytest.raises(TryAgainError, match="process 1 on another-machine, since then"):
            _take(tmp_path / "lock")
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    else:
        _take(tmp_path / "lock")


@pytest.mark.usefixtures("no_locks")
def test_one_that_has_not_written_its_name_yet_is_not_robbed(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with pytest.raises(TryAgainError, match="another process"):
        _take(tmp_path / "lock")


def test_the_holder_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_BEAT", 0.01)
    lock = tmp_path / "lock"
    with output_lock(Path("out"), lock):
        os.utime(lock, (0, 0))
        deadline = time.monotonic() + 20
        while lock.stat().st_mtime < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_type_of_the_file_system_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locking._network(tmp_path) is False
    device = tmp_path.stat().st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    line = f"36 35 {numbers} / /mnt rw,noatime shared:1 - nfs4 server:/export rw,local_lock=all\n"
    monkeypatch.setattr(Path, "read_text", lambda _: line)
    assert locking._network(tmp_path) is True


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


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_what_is_no_lock_file_is_neither_followed_nor_emptied(tmp_path: Path, kind: str) -> None:
    """Somebody put it there, in a folder that others may write to."""
    mine, lock = tmp_path / "thesis.tex", tmp_path / ".out.lock"
    mine.write_text("years of work")
    if kind == "link":
        lock.symlink_to(mine)
    elif kind == "hard link":
        lock.hardlink_to(mine)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with (
        pytest.raises(OutputError, match=r"out\.lock is not a lock file"),
        output_lock(tmp_path / "out", lock),
    ):
        pass
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 3000, b'{"pid": 1e999, "host": "h", "since": "s"}', b"null", b"\xff",
        b'{"pid": -1, "host": "h", "since": "s"}',
        b'{"pid": 9000000000000000000, "host": "h", "since": "s"}',
        b'{"pid": [], "host": {}, "since": null}',
    ],
)  # fmt: skip
def test_whatever_a_lock_file_holds_the_lock_is_taken(tmp_path: Path, content: bytes) -> None:
    lock = tmp_path / ".lock"
    lock.write_bytes(content)
    with output_lock(tmp_path, lock):
        assert lock.exists()


def test_the_holder_is_seen_without_disturbing_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert find_holder(lock) is None
    lock.write_text('{"pid": 1, "host": "x", "since": "y"}')  # of a run that was killed
    assert find_holder(lock) is None
    assert lock.exists()
    with output_lock(tmp_path / "out", lock):
        holder = find_holder(lock)
        assert holder is not None
        assert (holder.certain, holder.host) == (True, socket.gethostname())
        assert holder.text.startswith(f"process {os.getpid()} on ")
    assert find_holder(lock) is None


def test_a_glance_is_not_taken_for_a_run(tmp_path: Path) -> None:
    """Another process looks who holds the lock, at the moment at which this one takes it."""
    lock = tmp_path / "lock"
    lock.touch()
    descriptor = os.open(lock, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    threading.Timer(0.03, os.close, [descriptor]).start()
    with output_lock(tmp_path / "out", lock):
        pass
