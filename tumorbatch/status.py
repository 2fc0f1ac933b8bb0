"""What became of a file: the words in the `status` columns of manifest and predictions."""

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    """One word a file. `OK` rows carry pixels or a prediction, all others carry a reason."""

    OK = "ok"
    EMPTY = "empty"  # zero bytes
    TRUNCATED = "truncated"  # the file ends before its image does
    DECODE_ERROR = "decode_error"  # the format is known, the content is broken
    UNSUPPORTED = "unsupported"  # not an image format that is read here, or not a regular file
    TOO_LARGE = "too_large"  # above the limit on bytes, pixels, frames or memory
    TOO_SMALL = "too_small"  # too few pixels to hold a brain
    IO_ERROR = "io_error"  # the file system would not hand it over
    VANISHED = "vanished"  # listed, and gone when it was to be read
    DECODER_CRASH = "decoder_crash"  # the process that decoded it crashed
    TIMEOUT = "timeout"  # it was not decoded in time
    NOT_AN_IMAGE = "not_an_image"  # a DICOM object that holds no image by design: a report, a plan
    NOT_FINITE = "not_finite"  # the network gives no finite number for it
    MACHINE_ERROR = "machine_error"  # memory, open files or temporary space were missing
    LABEL_CONFLICT = "label_conflict"  # the same image is in both classes (shard only)


NO_ERRORS = frozenset({Status.OK, Status.NOT_AN_IMAGE})
# Decided by the bytes of the file alone. A file with another status may get a better one the next time.
DECIDED_BY_CONTENT = frozenset(
    {
        *NO_ERRORS, Status.EMPTY, Status.TRUNCATED, Status.DECODE_ERROR, Status.UNSUPPORTED,
        Status.TOO_LARGE, Status.TOO_SMALL,
    }
)  # fmt: skip


def count_errors(statuses: Mapping[str, int]) -> int:
    """Return how many of {status: files} are errors; the entry "found", all files, is not counted."""
    return sum(count for name, count in statuses.items() if name not in NO_ERRORS and name != "found")


class FileError(Exception):
    """Why one file gives no pixels; it becomes a row, never the end of a run."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __reduce__(self) -> tuple[type["FileError"], tuple[Status, str]]:
        return (FileError, (self.status, self.message))
