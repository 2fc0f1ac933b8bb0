"""What a machine may lack: memory, open files, processes, temporary space.

None of it is a file's fault. In a worker process it becomes the row `machine_error`, which a rerun
tries again; in the command's own process the exit code 75. docs/operations.md has the table.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from tumorbatch import memory_limit
from tumorbatch.memory_limit import enough_memory
from tumorbatch.status import FileError, Status

_MEMORY = "there is not enough memory"
_SHORT_OF = {
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: "too many files are open (raise `ulimit -n`)",
    errno.ENFILE: "too many files are open on this machine",
}
_SHARED = "/dev/shm"  # noqa: S108 - not for files of ours
_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem
# How the dynamic linker says it when a library is loaded.
_LINKER = {
    "cannot allocate memory": _MEMORY,
    "failed to map segment": _MEMORY,
    "too many open files": _SHORT_OF[errno.EMFILE],
}


def shortage(error: BaseException) -> str:
    """Return what the machine lacks, as a clause, where that is why `error` was raised; else "".

    Native libraries raise kinds of their own: OpenCV, the dynamic linker, TensorFlow.
    """
    text = str(error)
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT and "usable temporary directory" in text:
            return "no temporary folder can be written (set TMPDIR)"
        return _SHORT_OF.get(error.errno or 0, "")
    if isinstance(error, ImportError):
        return next(
            (explanation for words, explanation in _LINKER.items() if words in text.lower()), ""
        )
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return "no more threads may be started (raise `ulimit -u`)"
    kind = type(error)
    if kind.__module__ == "cv2" and getattr(error, "code", 0) == _OPENCV_NO_MEMORY:
        return _MEMORY
    if kind.__name__ == "ResourceExhaustedError":  # TensorFlow's
        return f"{_MEMORY} for a batch (a smaller --batch-size needs less)"
    return shortage(error.__cause__) if error.__cause__ is not None else ""


def is_machines(error: BaseException) -> bool:
    """Return whether an error met while a file's bytes are decoded is the machine's, not the file's.

    The decoders read from memory. An `OSError` of the operating system (one with a number) is
    therefore about temporary space or the libraries' own files, and never about the image.
    """
    return bool(shortage(error)) or (isinstance(error, OSError) and error.errno is not None)


@contextlib.contextmanager
def blamed() -> Iterator[None]:
    """Around the work on one file: what the machine lacks becomes a row that says so.

    Raises:
        FileError: `machine_error`; `too_large` where the file takes more memory than any file may.
    """
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        if not is_machines(error):
            raise
        if shortage(error) == _MEMORY and memory_limit.was_reached():
            limit = f"{memory_limit.LIMIT >> 20:,} MiB"
            reason = f"decoding it takes more memory than a file may have; the limit is {limit}"
            raise FileError(Status.TOO_LARGE, reason) from error
        why = getattr(error, "strerror", None)
        reason = shortage(error) or f"temporary space or software cannot be used: {why}"
        message = f"the machine could not decode it: {reason}"
        raise FileError(Status.MACHINE_ERROR, message) from error


@contextlib.contextmanager
def believed(size: int) -> Iterator[None]:
    """Believe a decoder that calls a file broken only where it could have had its memory.

    Native decoders say the same of both, or nothing.

    Args:
        size: Bytes that decoding takes, about.

    Raises:
        MemoryError: So many cannot be had.
    """
    try:
        yield
    except FileError as error:
        if error.status == Status.DECODE_ERROR and not enough_memory(size):
            raise MemoryError from error
        raise


def start_problem(error: BaseException) -> str:
    """Return why no process can be started, as a clause, after `error`; "" where that is not known.

    Processes meet at semaphores, which the C library keeps in /dev/shm.
    """
    if isinstance(error, OSError) and error.errno == errno.EAGAIN:
        return "no more processes may be started (raise `ulimit -u`)"
    missing = shortage(error)
    if missing or not isinstance(error, OSError):
        return missing
    return shared_memory_problem(error)


def shared_memory_problem(error: OSError | None = None) -> str:
    """Return what is wrong with the place where processes meet, as a clause; "" where nothing is.

    Args:
        error: Met when it was to be used; None: try it now.
    """
    if not os.path.isdir(_SHARED):
        return f"{_SHARED} is missing: mount a tmpfs there"
    if error is None:
        import multiprocessing  # costs `tumorbatch --help` time

        try:
            multiprocessing.get_context("spawn").Lock()
        except OSError as met:
            error = met
        else:
            return ""
    return {
        errno.ENOSPC: f"{_SHARED} is full: free it, or make it larger (docker run --shm-size=1g)",
        errno.EROFS: f"{_SHARED} is read-only: mount a tmpfs there",
        errno.EACCES: f"{_SHARED} cannot be written by this user",
        errno.EPERM: f"{_SHARED} cannot be written by this user",
    }.get(error.errno or 0, error.strerror or "")
