"""One entry of a listing, and its name: what files and objects in stores have in common."""

import contextlib
import os
from dataclasses import dataclass

from tumorbatch.status import Status

MAX_BYTES = 512 << 20  # 512 MiB; no 2-D image that is read here comes near

# Compared in lower case: Windows' own spelling has changed.
_LITTER = frozenset(
    {
        ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",  # file managers
        "__macosx", "$recycle.bin", "system volume information", "lost+found",  # folders
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",  # of network storage
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One directory entry that is to become a row.

    Attributes:
        path: Where it lies, as given by the operating system.
        name: Path relative to the root, `/` between its parts, always valid UTF-8.
        problem: Why it must not be opened ("" when it may be).
        status: What its row says when there is a problem.
        size: Bytes, when it was found.
        mtime_ns: Last change, nanoseconds since 1970, when it was found.
    """

    path: str
    name: str
    problem: str = ""
    status: Status = Status.UNSUPPORTED
    size: int = 0
    mtime_ns: int = 0


def printable(path: str) -> str:
    r"""Return `path` as valid UTF-8, a different text for every path.

    A name that is valid UTF-8 stays what it is. In others, bytes that are not become `\xNN` and `\`
    becomes `\\`; so it does where a name holds a `\x` of its own.
    """
    data = os.fsencode(path)
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode()
        if "\\x" not in text:
            return text
    return data.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def is_litter(name: str) -> bool:
    """Return whether a file was left by a file manager or a network file system."""
    return name.lower() in _LITTER or name.startswith(("._", ".nfs", "@Syno"))
