"""One run per output: a second one stops at once and says who holds it."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tumorbatch.errors import TryAgainError, cannot_write


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


@contextlib.contextmanager
def output_lock(output: Path, lock: Path) -> Iterator[None]:
    """Hold `output` for the length of the block.

    The lock is taken with `flock`: the kernel lets go of it when the process dies, however it dies,
    so a stale lock file blocks nobody.

    Args:
        output: What is being written; it is named in messages.
        lock: The lock file; made when it is not there, deleted at the end.

    Raises:
        TryAgainError: Another process holds it; the text names that process.
        OutputError: The lock file cannot be made, locked or written.
    """
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise cannot_write(output, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = os.pread(descriptor, 4096, 0).decode(errors="replace")
            os.close(descriptor)
            raise TryAgainError(
                f"{output} is in use by {_holder(text)}. Try again when that run has ended."
            ) from error
        except OSError as error:  # some network file systems know no locks
            os.close(descriptor)
            raise cannot_write(output, error) from error
        # The holder before us may have deleted the file between our open and our flock.
        try:
            same = os.path.samestat(os.fstat(descriptor), lock.stat())
        except FileNotFoundError:
            same = False
        if same:
            break
        os.close(descriptor)
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text.encode(), 0)
        except OSError as error:
            raise cannot_write(output, error) from error
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
