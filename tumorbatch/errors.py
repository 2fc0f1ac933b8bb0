"""What can go wrong, as sentences for the user and exit codes for schedulers.

Everything that a user can cause is a `TumorBatchError`; the command line prints its text and exits
with its code. Any other exception is a bug and exits 1 with a traceback.
"""

import errno
import os
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes of every command. Those above 63 are the ones of BSD's sysexits.h."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_ERRORS = 3
    TOO_MANY_ERRORS = 4
    NO_INPUT = 66
    CANNOT_WRITE = 73
    TRY_AGAIN = 75


class TumorBatchError(Exception):
    """Base of all errors that a user can cause and correct; its text is a whole sentence."""

    exit_code = ExitCode.BUG


class ConfigError(TumorBatchError):
    """An option is out of range, or does not fit what is already there."""

    exit_code = ExitCode.USAGE


class InputError(TumorBatchError):
    """The input is missing, empty, unfinished or damaged."""

    exit_code = ExitCode.NO_INPUT


class OutputError(TumorBatchError):
    """The output cannot be written."""

    exit_code = ExitCode.CANNOT_WRITE


class TooManyErrorsError(TumorBatchError):
    """More files failed than `--max-error-rate` allows; nothing was published."""

    exit_code = ExitCode.TOO_MANY_ERRORS


class TryAgainError(TumorBatchError):
    """Somebody else holds the output, or the run was interrupted: the same command later works."""

    exit_code = ExitCode.TRY_AGAIN


def reason(error: Exception) -> str:
    """Return why a file could not be used, without the file's name and a final full stop."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).rstrip(".")


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Return the error for an `OSError` that occurred while writing `path`."""
    hints = {
        errno.ENOSPC: "The disk is full: free some space and run the same command again.",
        errno.EDQUOT: "Your disk quota is used up: free some space and run the same command again.",
        errno.EACCES: "Give this user write permission there, or choose another output.",
        errno.EPERM: "Give this user write permission there, or choose another output.",
        errno.EROFS: "That file system is read-only: choose another output.",
        errno.ENOTDIR: "A part of that path is a file, not a folder: choose another output.",
        errno.EEXIST: "A file, or a link that leads nowhere, is in its way: choose another output.",
        errno.ELOOP: "The links in that path lead in a circle: choose another output.",
        errno.EFBIG: "A file size limit was reached: raise `ulimit -f`, or choose another output.",
    }
    hint = hints.get(error.errno or 0, "What was at that path before is unchanged.")
    return OutputError(f"Cannot write {path}: {error.strerror or error}. {hint}")


def failed_call(error: OSError) -> TumorBatchError:
    """Return the error for an `OSError` that no stage expected where it came up."""
    path = Path(os.fsdecode(error.filename)) if error.filename is not None else Path()
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return cannot_write(path, error)
    return InputError(
        f"{path}: {error.strerror or error}. The file system failed there: run the same command again "
        "when it works."
    )


def not_finished(path: Path, error: OSError) -> OutputError:
    """Return the error for an `OSError` met after the new `path` had taken its place."""
    return OutputError(
        f"The new {path} is in its place and whole, but the last step failed: "
        f"{error.strerror or error}. Run the same command again to finish it."
    )
