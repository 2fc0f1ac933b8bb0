"""One run per output: a second one stops at once and says who holds it.

On a local file system the kernel's `flock` decides: it is let go when the process dies, however it
dies, so a stale lock file blocks no run. Network file systems may keep such a lock on one machine only
(NFS mounted with nolock) or know none. There the lock file itself decides: the holder touches it every
20 seconds, and another machine takes it over when that has not happened for two minutes.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tumorbatch.errors import OutputError, TryAgainError, cannot_write
from tumorbatch.json_reader import COUNT, TEXT, parse_object

_BEAT = 20.0  # seconds
_STALE = 120.0  # seconds without a beat, by the file server's clock
# `fuse.`: sshfs, s3fs and the like. An unknown type counts as local: the kernel's locks are the rule.
_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "fuse.")
# Each is lost to a run that ended in between; no more than a few ever are. A folder in which no file
# can be made (/proc), or a lock file that is a dangling link, looks the same each time.
_ATTEMPTS = 100
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
# What a link, a folder or a socket under the lock's name gives.
_FOREIGN = (errno.ELOOP, errno.EISDIR, errno.ENXIO)
# `find_holder` has the lock for some microseconds: that must not look like another run.
_GLANCES, _GLANCE = 3, 0.02  # attempts, seconds


class Holder(NamedTuple):
    """Who holds a lock.

    Attributes:
        text: "process 12 on n1, since 2026-11-27 10:00:00 +0000".
        certain: Whether the kernel says so; otherwise only the heartbeat does.
        beat: Time of the last heartbeat, by the file server's clock.
        host: Machine, or "".
        since: When the lock was taken, or "".
    """

    text: str
    certain: bool
    beat: float
    host: str = ""
    since: str = ""


@contextlib.contextmanager
def output_lock(output: Path, lock: Path) -> Iterator[None]:
    """Hold `output` for the length of the block.

    Args:
        output: What is being written; it is named in messages.
        lock: The lock file, from `lock_inside` or `lock_beside`; created if missing, deleted at the
            end.

    Raises:
        TryAgainError: Another process holds it; the text names that process.
        OutputError: The lock file cannot be made or written.
    """
    descriptor = _take(output, lock)
    ended = threading.Event()
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text.encode(), 0)
            os.fsync(descriptor)  # other machines look at it
        except OSError as error:
            raise cannot_write(output, error) from error
        threading.Thread(target=_beat, args=(descriptor, ended), daemon=True).start()
        yield
    finally:
        ended.set()
        try:
            with contextlib.suppress(OSError):  # an empty lock file blocks no run
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def lock_inside(folder: Path) -> Path:
    """Return the lock file of an output folder that is filled in place."""
    return folder / ".lock"


def lock_beside(output: Path) -> Path:
    """Return the lock file of an output that is replaced as a whole, and so cannot hold it."""
    return output.with_name(f".{output.name}.lock")


def find_holder(lock: Path) -> Holder | None:
    """Look who holds a lock, without waiting for it or changing it; None: nobody.

    Raises:
        OSError: The lock file cannot be opened.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        free = _kernel_lock(descriptor, fcntl.LOCK_SH)
        if free:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # at once: it must not be in a run's way
        text = os.pread(descriptor, 4096, 0).decode(errors="replace")
        if free is not False and not (free is None or _network(lock)):
            return None
        if free is not False and not _alive(text, lock, free):
            return None
        holder = _holder(text) or {"host": "", "since": ""}
        beat = os.fstat(descriptor).st_mtime
        return Holder(_format_holder(text), free is False, beat, holder["host"], holder["since"])
    except FileNotFoundError:  # it was let go just now
        return None
    finally:
        os.close(descriptor)


def _beat(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _take(output: Path, lock: Path) -> int:
    """Open the lock file, lock it, and return its descriptor."""
    for attempt in range(_ATTEMPTS):
        try:
            descriptor, created = _open(lock)
        except FileNotFoundError as error:
            if lock.parent.is_dir() and attempt + 1 < _ATTEMPTS:  # it was deleted just now
                continue
            raise cannot_write(output, error) from error
        except OSError as error:
            if error.errno in _FOREIGN:
                raise OutputError(
                    f"Cannot write {output}: {lock} is not a lock file but a link or something else. "
                    "See who put it there, and delete it."
                ) from error
            raise cannot_write(output, error) from error
        try:
            alone = _kernel_lock(descriptor)
            for _ in range(_GLANCES):
                if alone is not False:
                    break
                time.sleep(_GLANCE)
                alone = _kernel_lock(descriptor)
            text = os.pread(descriptor, 4096, 0).decode(errors="replace")
            judged = not created and (alone is None or _network(lock))
            if alone is False or (judged and _alive(text, lock, alone)):
                raise TryAgainError(
                    f"{output} is in use by {_format_holder(text)}. Try again when that run has ended."
                )
            # The holder before us may have deleted the file between our open and our lock.
            if os.path.samestat(os.fstat(descriptor), lock.lstat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise cannot_write(output, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise TryAgainError(f"{output} is in use by other runs, one after another. Try again later.")


def _open(lock: Path) -> tuple[int, bool]:
    """Return a descriptor of the lock file, and whether this process alone created it (NFS too)."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK  # a link could lead to a foreign file
    try:
        return os.open(lock, flags | os.O_CREAT | os.O_EXCL, 0o644), True
    except FileExistsError:
        descriptor = os.open(lock, flags)
    info = os.fstat(descriptor)
    if stat.S_ISREG(info.st_mode) and info.st_nlink <= 1:
        return descriptor, False
    os.close(descriptor)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _kernel_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Return whether the kernel granted the lock; None if the file system knows no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _alive(text: str, lock: Path, alone: bool | None) -> bool:
    """Return whether the process named in a lock file still works, if the kernel does not know."""
    holder = _holder(text)
    if holder is not None and holder["host"] == socket.gethostname():
        if alone:  # on one machine flock can be trusted
            return False
        try:
            os.kill(holder["pid"], 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            pass
    return _age(lock) < _STALE


def _age(lock: Path) -> float:
    """Return seconds since the last beat, by the file server's clock, which stamps both files."""
    probe = lock.with_name(f"{lock.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        os.utime(probe, follow_symlinks=False)
        return probe.stat().st_mtime - lock.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _network(path: Path) -> bool:
    """Return whether `path` is on a network file system."""
    try:
        device = os.stat(path).st_dev
        device_number = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[2] == device_number:
                kind = fields[fields.index("-") + 1]
                return kind.startswith(_NETWORK)
    except (OSError, ValueError, IndexError):
        pass
    return False


def _holder(text: str) -> dict[str, Any] | None:
    try:
        return parse_object(text.encode(), {"pid": COUNT, "host": TEXT, "since": TEXT})
    except ValueError:
        return None


def _format_holder(text: str) -> str:
    holder = _holder(text)
    if holder is None:
        return "another process"
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
