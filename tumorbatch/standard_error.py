"""Standard error, silenced for what native code and starting processes print there."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Send file descriptor 2 to /dev/null inside the block; without such a descriptor do nothing.

    Raises:
        OSError: Too many files are open.
    """
    _flush()
    try:
        os.fstat(2)
    except OSError:  # closed, as in some daemons
        yield
        return
    saved = os.dup(2)
    try:
        send_to_null()
        yield
    finally:
        _flush()
        os.dup2(saved, 2)
        os.close(saved)


def send_to_null() -> None:
    """Send file descriptor 2 to /dev/null from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    if null != 2:  # it was closed, and this was the free number
        os.close(null)


def _flush() -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
