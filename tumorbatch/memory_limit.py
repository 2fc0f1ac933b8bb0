"""How much memory one file may take in a worker process.

An image within the other limits (512 MiB, 64 million pixels) is read in at most 3 GiB, the file itself
included, whatever its format and depth. A file that takes more than `LIMIT` is made for that. The
kernel then refuses memory to the process (RLIMIT_DATA, Linux 4.7 and later: private memory that can be
written), the decoder gives up, and the file gets a row `too_large`.

Two limits must not be mixed up. `LIMIT` is the same on every machine, so a file that exceeds it does so
everywhere: that is the file's fault. A machine that has less than that free gives less to a file, and
says so in a row `machine_error`, which another machine, or the same one later, tries again.
"""

import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tumorbatch.runtime import free_memory

LIMIT = 4 << 30  # bytes for one file, beyond what its process holds before
_LEAST = 1 << 30  # given also where less is free: the estimate knows of no swap
_USAGE = Path("/proc/self/statm")
_DATA = 5  # field of `_USAGE`: pages of data and stack, which is what RLIMIT_DATA counts

_budget: int | None = None  # bytes for one file in this process; None: no limit
_ceiling = 0  # bytes at which this process meets the limit
_before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)  # RLIMIT_DATA without it


def budget() -> int:
    """Return the bytes that this machine can give to one file, at most `LIMIT`."""
    free = free_memory()
    return LIMIT if free is None else min(LIMIT, max(_LEAST, free))


def start(size: int) -> None:
    """Let `for_one_file` limit this process, a worker, from now on; not where the kernel cannot.

    Args:
        size: Bytes for one file.
    """
    global _budget
    _budget = size if _USAGE.exists() else None


@contextmanager
def for_one_file() -> Iterator[None]:
    """Limit what the block may add to the memory of this process, if `start` was called in it."""
    global _before, _ceiling
    if _budget is None:
        yield
        return
    _before = resource.getrlimit(resource.RLIMIT_DATA)
    _ceiling = _in_use() + _budget
    # A limit of the user's that is lower stays what it is.
    bounds = [bound for bound in _before if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([_ceiling, *bounds]), _before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, _before)


def was_reached() -> bool:
    """Return whether memory was refused because of `LIMIT`, inside `for_one_file`.

    It was if without the limit there is memory enough to exceed it. Otherwise the machine is short of
    memory, and nobody knows how much the file would have taken.
    """
    if _budget != LIMIT:
        return False
    limited = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, _before)
    try:
        return enough_memory(_ceiling - _in_use() + mmap.PAGESIZE)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limited)


def enough_memory(size: int) -> bool:
    """Return whether `size` more bytes can be had now."""
    try:
        # Asked for, and not touched; private, so that it counts as a decoder's own memory does.
        mmap.mmap(-1, max(1, size), mmap.MAP_PRIVATE).close()
    except (OSError, MemoryError):
        return False
    return True


def _in_use() -> int:
    return int(_USAGE.read_bytes().split()[_DATA]) * mmap.PAGESIZE
