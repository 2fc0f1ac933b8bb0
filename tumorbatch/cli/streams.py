"""Standard input, output and error: always there, and never the reason why work is lost.

A program may be started with any of them closed (`ssh host 'cmd <&- >&- 2>&-'`, some schedulers). The
next file that is opened then gets the free number, and whatever a library prints lands in that file.
`fill` puts /dev/null there first.

Writing to standard output or error may also fail: the disk is full, or the reader has closed the pipe
(`| head`). `guard` lets the work continue, and `failure` reports at the end what was lost.
"""

import contextlib
import io
import os
import select
import sys
from typing import Any, TextIO

_guarded: "list[_Unfailing]" = []


def fill() -> None:
    """Open /dev/null in place of each of the descriptors 0 to 2 that is closed."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is this one: those below it are open by now.
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
        if getattr(sys, name) is None:  # closed when Python started
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays
            setattr(sys, name, stream)


def guard() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that never raise when they cannot be written."""
    _guarded.clear()
    for name in ("stdout", "stderr"):
        stream: TextIO = getattr(sys, name)
        with contextlib.suppress(OSError):
            stream.flush()
        raw = _Unfailing(stream.fileno(), "wb", closefd=False)
        _guarded.append(raw)
        text = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors="backslashreplace" if stream.errors == "strict" else stream.errors,
            line_buffering=name == "stderr" or raw.isatty(),
        )
        setattr(sys, name, text)


def failure() -> OSError | None:
    """Return what kept standard output from taking all of its text, or None.

    A reader that has closed the pipe is not a failure.
    """
    if not _guarded:
        return None
    sys.stdout.flush()
    error = _guarded[0].error
    return None if isinstance(error, BrokenPipeError) else error


def lost() -> str:
    """Return the sentence for what `failure` found."""
    error = failure()
    return (
        f"standard output could not be written: {error.strerror if error else ''}. All files were "
        "written; only the printed text is lost."
    )


class _Unfailing(io.FileIO):
    """A file whose first failed write is remembered; it and all later ones count as done."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes; return how many were accepted."""
        size = memoryview(data).nbytes
        try:
            while self.error is None:
                count = super().write(data)
                if count is not None:
                    return count
                select.select([], [self.fileno()], [])  # set to non-blocking by its other end
        except OSError as error:
            self.error = error
        return size
