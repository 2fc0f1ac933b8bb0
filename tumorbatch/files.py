"""Finding files, reading them safely, and naming them in tables."""

import codecs
import errno
import os
import re
import stat
import unicodedata
from collections.abc import Collection, Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from tumorbatch.errors import InputError

# This module is where readers look for them.
from tumorbatch.found_file import MAX_BYTES as MAX_BYTES
from tumorbatch.found_file import FoundFile as FoundFile
from tumorbatch.found_file import is_litter as is_litter
from tumorbatch.found_file import printable as printable
from tumorbatch.object_path import Location, ObjectPath, is_uri
from tumorbatch.status import FileError, Status

# Explicit bidirectional controls: a name with one of them can show itself, and what follows it, in
# another order than it is. Unicode Standard Annex 9, table 4, and the marks of its section 2.6.
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
# What must not appear in a page or on a terminal (controls, non-characters, lone surrogates), or
# cannot be seen.
_UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f{_BIDI}\u200b\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")

_MAX_TEXT_BYTES = 1 << 30  # ten million lines of the usual length
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), for comparing.

    One letter with an accent has two spellings: macOS writes decomposed ones, nearly all others do not.
    """
    return unicodedata.normalize("NFC", name)


# The longer mark first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def marked_encoding(data: bytes) -> str | None:
    """Return the encoding that a text's byte order mark names, as `bytes.decode` takes it, or None.

    Raises:
        ValueError: There is no mark, and the bytes are those of UTF-16 or UTF-32.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    # Every letter of the common scripts has a zero byte there, the ends of lines too.
    ends = any(end in data for end in (b"\n\0", b"\0\n", b"\r\0", b"\0\r"))
    if ends and data.count(0) * 3 > len(data):
        raise ValueError("it is in UTF-16 without a byte order mark: save it as UTF-8")
    return None


def read_text(path: Path) -> str:
    """Return a text file's content: UTF-8, or what its byte order mark says, as of PowerShell's `>`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is too large, or in another encoding; the text says which byte shows it.
    """
    data = read_regular(path, _MAX_TEXT_BYTES)
    encoding = marked_encoding(data) or "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start + 1:,} is not {encoding.removesuffix('-sig').upper()}: save it as UTF-8"
        ) from error


def counted(count: int, noun: str) -> str:
    """Return a count with its noun in the right number: "1 file", "2,000 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def visible(text: str) -> str:
    """Return `text` with control, bidirectional and lone surrogate characters written as `\\uNNNN`.

    Tabs and line ends too: in a file name they are not a space between words.
    """
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def visible_lines(text: str) -> str:
    """Return `visible` text that keeps its line ends: what is printed on a terminal."""
    return "\n".join(map(visible, text.split("\n")))


# Of a bare DICOM data set: the last element that may be its first one (SOPInstanceUID), how long the
# value of such an element may be, and their types of value (PS3.6).
_LAST_FIRST, _LONGEST_FIRST = 0x18, 256
_FIRST_TYPES = (b"UL", b"OB", b"SH", b"CS", b"DA", b"TM", b"UI")


def is_empty(folder: Path) -> bool:
    """Return whether a folder holds nothing but litter."""
    return all(is_litter(path.name) for path in folder.iterdir())


def foreign_entries(folder: Path, own: Collection[str]) -> str:
    """Return the first names in a folder that are neither `own` nor litter, for a message; or ""."""
    names = {path.name for path in folder.iterdir() if not is_litter(path.name)}
    return printable(", ".join(sorted(names - set(own))[:5]))


def is_dicom(data: bytes) -> bool:
    """Return whether bytes are those of a DICOM file (PS3.10 7.1), which may name a patient.

    Either a file (PS3.10 7.1), or the bare data set that some archives and consoles write: it begins
    with group 2 or 8, an element from there, and its length or type of value.
    """
    if data[128:132] == b"DICM":
        return True
    for order in ("little", "big"):
        group, element = (int.from_bytes(data[at : at + 2], order) for at in (0, 2))
        if group in (2, 8) and element <= _LAST_FIRST and len(data) >= 8:
            length = int.from_bytes(data[4:8], order)
            longest = _LONGEST_FIRST if element else 4  # element 0 is the group's own length
            return data[4:6] in _FIRST_TYPES or (0 < length <= longest and length % 2 == 0)
    return False


def may_name_patient(file: "FoundFile") -> bool:
    """Return whether a file is DICOM by its name or first bytes, also where nothing can decode it."""
    return file.name.lower().endswith(_DICOM_SUFFIXES) or starts_as_dicom(file.path)


def starts_as_dicom(path: str) -> bool:
    """Return whether a file begins as a DICOM file; False if it cannot be read."""
    return is_dicom(read_head(path, 132))


def read_head(path: str, count: int) -> bytes:
    """Return the first bytes of a regular file or an object; none if it cannot be read."""
    try:
        if is_uri(path):
            from tumorbatch import stores  # `--help` does not pay for it

            return stores.read_head(path, count)
        with open_regular(path) as stream:
            return stream.read(count)
    except OSError:
        return b""


def check_source(source: Location) -> None:
    """Raise `InputError` if `source` is neither a file nor a folder that can be listed."""
    if isinstance(source, ObjectPath) or not source.is_file():
        check_folder(source)


def check_folder(root: Location) -> None:
    """Raise `InputError` if `root` is not a folder, or cannot be listed."""
    if isinstance(root, ObjectPath):
        from tumorbatch import stores

        stores.check_prefix(root)
        return
    try:
        if not stat.S_ISDIR(os.stat(root).st_mode):
            raise InputError(f"{root} is not a folder. Give the folder that holds the images.")
        os.listdir(root)
    except FileNotFoundError as error:
        raise InputError(f"{root} does not exist. Give the folder that holds the images.") from error
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error.strerror}.") from error


def find_files(root: Location, litter: list[str] | None = None) -> list[FoundFile]:
    """Return all entries below `root` except hidden ones (a leading dot), sorted by name.

    Symbolic links are followed; a link into a folder that is being walked, or lies above, is a row
    with a problem, and so are FIFOs, sockets, devices and folders that cannot be listed.

    Args:
        root: The folder, or a prefix in an object store, whose keys are the names.
        litter: Gets the paths of the entries that were skipped as litter, see `is_litter`.

    Raises:
        InputError: `root` is not a folder, or cannot be listed.
    """
    return sorted(walk_files(root, [] if litter is None else litter), key=lambda file: file.name)


def walk_files(root: Location, litter: list[str]) -> Iterator[FoundFile]:
    """Yield what `find_files` returns, sorted by name; the memory holds the folders on the way.

    Raises:
        InputError: `root` is not a folder, or cannot be listed.
    """
    if isinstance(root, ObjectPath):
        from tumorbatch import stores

        return stores.find_objects(root, litter)
    check_folder(root)
    # A link to a folder above the root leads back to it: a loop, and all its neighbours would be rows.
    above = tuple(map(_identity, map(os.stat, (root, *root.resolve().parents))))
    return _walk(os.fspath(root), above, litter)


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


class _Folder(NamedTuple):
    """A folder that is being walked: its path, its name, which folders it is in, what is to come."""

    path: str
    prefix: str
    above: tuple[tuple[int, int], ...]
    entries: Iterator[tuple[str, str]]


def _walk(root: str, above: tuple[tuple[int, int], ...], litter: list[str]) -> Iterator[FoundFile]:
    try:
        # A stack: deep trees must not meet the recursion limit.
        pending = [_open(root, "", above, litter)]
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error.strerror}.") from error
    while pending:
        folder = pending[-1]
        _, entry = next(folder.entries, ("", ""))
        if not entry:
            pending.pop()
            continue
        path, name = os.path.join(folder.path, entry), folder.prefix + printable(entry)
        try:
            info = os.stat(path)
        except OSError as error:
            loop = error.errno == errno.ELOOP
            yield FoundFile(path, name, "symbolic link loop" if loop else "")
            continue
        if stat.S_ISREG(info.st_mode):
            yield FoundFile(path, name, size=info.st_size, mtime_ns=info.st_mtime_ns)
        elif not stat.S_ISDIR(info.st_mode):
            yield FoundFile(path, name, "not a regular file")
        elif _identity(info) in folder.above:
            yield FoundFile(path, name, "symbolic link loop")
        else:
            try:
                pending.append(_open(path, name + "/", (*folder.above, _identity(info)), litter))
            except OSError as error:
                problem = f"the folder cannot be listed: {error.strerror}"
                yield FoundFile(path, name, problem, Status.IO_ERROR)


def _open(folder: str, prefix: str, above: tuple[tuple[int, int], ...], litter: list[str]) -> _Folder:
    """Read a folder's names, in the order of what lies below them.

    Everything in `a` is called `a/...`, and comes after `a-b`. What cannot be entered is one row, `a`.
    """
    entries = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if is_litter(entry.name):
                litter.append(entry.path)
            elif not entry.name.startswith("."):
                slash = "/" if _can_be_entered(entry, above) else ""
                entries.append((printable(entry.name) + slash, entry.name))
    return _Folder(folder, prefix, above, iter(sorted(entries)))


def _can_be_entered(entry: "os.DirEntry[str]", above: tuple[tuple[int, int], ...]) -> bool:
    """Return whether an entry is a folder that can be listed, and in which the walk is not yet."""
    try:
        if not entry.is_dir() or (entry.is_symlink() and _identity(entry.stat()) in above):
            return False
        os.scandir(entry.path).close()
    except OSError:
        return False
    return True


class NotRegularError(OSError):
    """A path names a folder, FIFO, socket or device, where only a regular file can be read."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "not a regular file", path)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file, or a symbolic link to one, for reading bytes; every reader starts here.

    Opening a FIFO waits for a writer, and opening a device can do something. So what is not a regular
    file is refused without being opened.

    Raises:
        NotRegularError: It is something else.
        OSError: It is missing or unreadable.
    """
    name = os.fspath(path)
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise NotRegularError(name)
    # O_NONBLOCK: a FIFO that took the file's place just now must not wait either.
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(name)
    return os.fdopen(descriptor, "rb")


def read_regular(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the whole content of a regular file.

    Raises:
        OSError: See `open_regular`.
        ValueError: It has more than `max_bytes` bytes.
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1) if os.fstat(file.fileno()).st_size <= max_bytes else None
    if data is None or len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes, and no such file is so large")
    return data


def is_file_name(name: str) -> bool:
    """Return whether `name` leads to a file in the same folder, and can be shown as it is."""
    return bool(name) and name not in (".", "..") and "/" not in name and visible(name) == name


class FileState(NamedTuple):
    """What a row says of a file beside its content, as in `FoundFile`."""

    size: int
    mtime_ns: int


def read_file(file: FoundFile, max_bytes: int = MAX_BYTES) -> tuple[bytes, FileState]:
    """Return the whole content of a regular file or an object, and its state when it was read.

    Raises:
        FileError: It is empty, too large, not a regular file, gone, or unreadable.
        OSError: The machine has no memory, or no room for another open file.
    """
    if file.problem:
        raise FileError(file.status, file.problem)
    if is_uri(file.path):
        from tumorbatch import stores

        data = stores.read_object(file.path, max_bytes)
        return data, FileState(len(data), file.mtime_ns)
    try:
        with open_regular(file.path) as stream:
            info = os.fstat(stream.fileno())
            if info.st_size == 0:
                raise FileError(Status.EMPTY, "the file has no bytes")
            if info.st_size > max_bytes:
                raise FileError(Status.TOO_LARGE, f"{info.st_size:,} bytes; the limit is {max_bytes:,}")
            data = stream.read(info.st_size + 1)  # it may be growing
            after = os.fstat(stream.fileno())
    except NotRegularError as error:
        raise FileError(Status.UNSUPPORTED, "not a regular file") from error
    except FileNotFoundError as error:
        raise FileError(Status.VANISHED, "the file was gone when it was to be read") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # the machine's fault, see `machine.blamed`
        raise FileError(Status.IO_ERROR, f"cannot be read: {error.strerror}") from error
    if len(data) != info.st_size:
        raise FileError(
            Status.IO_ERROR, f"it changed from {info.st_size:,} bytes while being read: still written?"
        )
    if after.st_mtime_ns != info.st_mtime_ns:
        raise FileError(Status.IO_ERROR, "it was written to while being read")
    return data, FileState(info.st_size, info.st_mtime_ns)
