"""What C decoders print while they decode: some continue after damage, and say so nowhere else.

Where a reader raises at damage, use that reader; this is for the few codecs that only print.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tumorbatch.status import FileError, Status

_STDERR = 2
_MOST_BYTES = 1 << 16  # a pipe holds that many; what comes after the first complaint decides nothing
# Standard error belongs to the process: two threads must not exchange it for each other.
_LOCK = threading.Lock()


@contextmanager
def complaints() -> Iterator[Callable[[], str]]:
    """Catch what is printed to standard error inside the block.

    Through a pipe, never a file: a full or missing temporary folder must not lose a complaint. What
    other threads print at the same time is caught too, so decode in its own process.

    Yields:
        A function that, after the block, returns what was printed, in lower case.

    Raises:
        FileError: `io_error` where there is no pipe to be had. The file is not to blame, and without
            the complaints its pixels cannot be trusted.
    """
    words = bytearray()
    with _LOCK:
        try:
            reader, writer = os.pipe()
        except OSError as error:
            raise _no_channel(error) from None
        with os.fdopen(reader, "rb") as listening:
            try:
                # A decoder that prints more than the pipe holds must not wait for ever.
                os.set_blocking(writer, False)
                os.set_blocking(reader, False)
                saved = os.dup(_STDERR)
                os.dup2(writer, _STDERR)
            except OSError as error:
                raise _no_channel(error) from None
            finally:
                os.close(writer)
            try:
                yield lambda: words.decode("latin-1").lower()
            finally:
                os.dup2(saved, _STDERR)
                os.close(saved)
                words += listening.read(_MOST_BYTES) or b""


def _no_channel(error: OSError) -> FileError:
    return FileError(
        Status.IO_ERROR, f"its decoder's complaints cannot be heard: {error.strerror}; try again"
    )
