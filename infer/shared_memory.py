"""Memory that the decoding processes write their images into, and the parent reads them from.

Sent through a pipe, each image would be copied four times and pickled on the way.
"""

import contextlib
import fcntl
import functools
import math
import os
import secrets
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tumorbatch.workers import safe_import_path

_SHARED = "/dev/shm"  # noqa: S108  # where Linux keeps it; the name is SharedMemory's

_PREFIX = "tumorbatch-"
_JUST_MADE = 60.0  # seconds, in which its maker has not locked it yet


class Place(NamedTuple):
    """Where a worker may put one image.

    Attributes:
        name: Of the shared memory.
        number: Of the image in it.
    """

    name: str
    number: int


class Ring:
    """Room for so many images, used round and round, as a context manager.

    Args:
        count: Images.
        shape: Of an image, see `Preprocessing.shape`.
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self._count = count
        self._shape = shape
        self._memory: SharedMemory | None = None
        self._held: int | None = None

    def __enter__(self) -> "Ring":
        with contextlib.suppress(OSError):  # no /dev/shm, or too small: containers often give 64 MiB
            _remove_stale()
            name = f"{_PREFIX}{secrets.token_hex(8)}"
            with safe_import_path():  # it starts Python's resource tracker
                memory = SharedMemory(name, create=True, size=self._count * math.prod(self._shape))
            try:
                self._held = _reserve(memory)
                self._memory = memory
            except OSError:
                memory.close()
                memory.unlink()
        return self

    def place(self, index: int) -> Place | None:
        """Return the place of image `index`, modulo the room; None if memory cannot be shared."""
        return Place(self._memory.name, index % self._count) if self._memory else None

    def read(self, place: Place) -> NDArray[np.uint8]:
        """Return the image at `place`, uint8 [size, size, ...], valid until its place is used again."""
        if self._memory is None:
            raise ValueError("no memory is shared")
        return _image(self._memory, place.number, self._shape)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._memory is not None:
            with contextlib.suppress(BufferError):  # an image is still looked at: freed with it
                self._memory.close()
            self._memory.unlink()
        if self._held is not None:
            os.close(self._held)


def write(place: Place, image: NDArray[np.uint8]) -> bool:
    """Put uint8 [size, size, ...] into its place, in a worker process; False where that fails."""
    try:
        memory = _attach(place.name)
    except OSError:  # too many open files, say: the image can be sent instead
        return False
    _image(memory, place.number, image.shape)[:] = image
    return True


def _image(memory: SharedMemory, index: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.ndarray(shape, np.uint8, memory.buf, offset=index * math.prod(shape))


@functools.lru_cache(maxsize=1)
def _attach(name: str) -> SharedMemory:
    return SharedMemory(name)


def _reserve(memory: SharedMemory) -> int | None:
    """Reserve the memory now: without it, a later write would kill the writer (SIGBUS).

    Returns:
        A descriptor to keep open: its lock says that the memory is in use.
    """
    if not (hasattr(os, "posix_fallocate") and os.path.isdir(_SHARED)):
        return None
    descriptor = os.open(os.path.join(_SHARED, memory.name), os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.posix_fallocate(descriptor, 0, memory.size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_stale() -> None:
    """Free the memory of runs that were killed together with all their processes.

    Python's resource tracker frees it where only the parent is killed. A job's end on a cluster may
    take the tracker as well, and no number of a process means anything in another container.
    """
    for path in Path(_SHARED).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(descriptor).st_mtime > _JUST_MADE:
                    path.unlink()
            finally:
                os.close(descriptor)
