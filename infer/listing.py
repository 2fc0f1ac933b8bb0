"""Which files become rows, and under which names."""

import fnmatch
import hashlib
import hmac
import itertools
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tumorbatch import stores
from tumorbatch.errors import ConfigError, InputError, TryAgainError, reason
from tumorbatch.files import (
    FoundFile,
    composed,
    find_files,
    is_dicom,
    marked_encoding,
    printable,
    read_regular,
    walk_files,
)
from tumorbatch.object_path import Location, ObjectPath, identity, is_uri, several
from tumorbatch.status import Status

# A file with such a name is taken for an image; what is read here is decided by its first bytes. The
# others are there so that a folder of them gives rows that say `unsupported`, not silence.
_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".dcm",
        ".dicom", ".ima", ".gif", ".jp2", ".j2k", ".jpx", ".jxl", ".heic", ".heif", ".avif", ".pgm",
        ".pnm", ".ppm", ".nii", ".gz", ".mha", ".mhd", ".nrrd", ".img",
    }
)  # fmt: skip
_MAX_LIST_BYTES = 1 << 30  # ten million paths of the usual length
_WINDOW = 8192  # files that are looked at together, some by requests to a store
_HEAD = 132  # bytes; a DICOM file says what it is at its end
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a folder are meant.

    Attributes:
        include: Patterns (`*`, `?`, `[a-z]`; `*` matches `/` too), one of which must match the path
            below the folder, or the name alone; none: every file.
        exclude: Likewise; none may match.
        all_files: Also files that are not images by their name and first bytes.
        min_age: Seconds; files changed less than so long ago are left for the next run. A file whose
            time lies further ahead than that is not: its size may be final for years by then.
        listed: Only the files in this list ("-": standard input).
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    all_files: bool = False
    min_age: float = 0.0
    listed: str | None = None


class Files(Protocol):
    """Files, sorted by name: a list, or what reads one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[FoundFile]: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds.

    Attributes:
        files: Those that become rows, sorted by name.
        others: Number of files that are not images, or not selected.
        young: Number of files that are left for the next run.
        future: Number of files whose time of change lies in the future; they become rows.
        litter: Number of entries that were skipped, as in `find_files`.
    """

    files: Files
    others: int
    young: int
    future: int = 0
    litter: int = 0


LEFT_OUT = ("others", "young", "future", "litter")  # of `Listing`: the files that have no row


def list_files(
    sources: Location | Sequence[Location],
    selection: Selection,
    own: frozenset[str],
    key: bytes | None,
) -> Listing:
    """Find the files that become rows, as a list.

    Args:
        sources: A folder, which is walked recursively without hidden entries, or a prefix in an object
            store; a file; or several folders and files, see `find_in`.
        selection: Which of their files; files in `sources` need not look like images.
        own: This command's outputs, which are not inputs, by `object_path.identity`.
        key: Names become HMAC-SHA256 of the path with this key, 64 hex digits; None: they stay.

    Raises:
        InputError: A source or the list is missing, or names what is outside; nothing is selected.
        ConfigError: Two of the sources hold the same files; a list goes with several sources.
    """
    left_out: Counter[str] = Counter()
    files = list(stream_files(sources, selection, own, left_out))
    if key is not None:
        files = sorted(
            (replace(file, name=hashed(file.name, key)) for file in files), key=lambda file: file.name
        )
    return Listing(files, **{name: left_out[name] for name in LEFT_OUT})


def stream_files(
    sources: Location | Sequence[Location],
    selection: Selection,
    own: frozenset[str],
    left_out: Counter[str],
) -> Iterator[FoundFile]:
    """Yield the files that become rows, sorted by name; of one folder, the memory does not hold all.

    Args:
        sources, selection, own: As for `list_files`, which raises the same.
        left_out: Gets {name in `LEFT_OUT`: number of files}.

    Raises:
        TryAgainError: A folder was replaced while it was listed.
    """
    litter: list[str] = []
    sources = several(sources)
    if selection.listed and len(sources) > 1:
        raise ConfigError("--files takes paths below one folder: give one FOLDER with it.")
    named = {str(one) for one in sources if isinstance(one, Path) and not one.is_dir()}
    found_files = (
        _listed(sources[0], selection.listed) if selection.listed else find_in(sources, litter)
    )
    any_file = selection.all_files or selection.listed is not None
    current_time, age = time.time_ns(), int(selection.min_age * 1e9)
    last = ""
    coming = iter(found_files)
    while window := list(itertools.islice(coming, _WINDOW)):
        window = [file for file in window if identity(file.path) not in own] if own else window
        selected = [file for file in window if _matches(file.name, selection)]
        if not any_file:
            selected = _images(selected, named)
        left_out["others"] += len(window) - len(selected)
        for file in selected:
            # The clock of a file server may be a little ahead: such a file may still be growing.
            if age and current_time - age < file.mtime_ns <= current_time + age:
                left_out["young"] += 1
                continue
            left_out["future"] += bool(age) and file.mtime_ns > current_time + age
            if file.name < last:
                raise TryAgainError(
                    f"{printable(str(sources[0]))} was changed while it was listed: a folder in it was "
                    "replaced. Run the same command again."
                )
            last = file.name
            yield file
    left_out["litter"] = len(litter)
    if not last:
        raise _no_files(sources, left_out)


def _no_files(sources: Sequence[Location], left_out: Counter[str]) -> InputError:
    others, young = left_out["others"], left_out["young"]
    reasons = f"{others:,} that are not images or not selected" if others else "none at all"
    reasons += f", {young:,} younger than --min-age" if young else ""
    return InputError(
        f"{', '.join(printable(str(source)) for source in sources)} holds no files to predict "
        f"({reasons}). Give the folder with the images; --all-files makes a row for every file."
    )


def find_in(sources: Sequence[Location], litter: list[str]) -> Iterable[FoundFile]:
    """Find the files of one source, or of several under names that cannot collide; sorted by name.

    The names of a single folder's files are relative to it. Those of several sources are relative to
    the deepest folder that holds all of them, so that each begins with the name of its source.

    Args:
        sources: Folders and files.
        litter: As for `find_files`.

    Raises:
        InputError: A source is missing or cannot be listed.
        ConfigError: One source lies in another: its files would be rows twice.
    """
    first = sources[0]
    if len(sources) == 1 and (isinstance(first, ObjectPath) or not first.is_file()):
        return walk_files(first, litter)
    paths = [source for source in sources if isinstance(source, Path)]
    if len(paths) < len(sources):
        raise ConfigError("Of an object store, one FOLDER is read at a time: give it alone.")
    return _find_in_several(paths, litter)


def _find_in_several(sources: Sequence[Path], litter: list[str]) -> list[FoundFile]:
    real = [os.path.realpath(source) for source in sources]
    for inner, outer in itertools.permutations(range(len(real)), 2):
        if real[inner] == real[outer] or real[inner].startswith(real[outer].rstrip("/") + "/"):
            raise ConfigError(
                f"{printable(str(sources[inner]))} lies in {printable(str(sources[outer]))}, or is the "
                "same: its files would be rows twice. Leave out one of the two."
            )
    places = [os.path.abspath(source) for source in sources]
    top = os.path.commonpath([os.path.dirname(place) for place in places])
    files: list[FoundFile] = []
    for source, place in zip(sources, places, strict=True):
        name = printable(os.path.relpath(place, top))
        if source.is_file():
            files.append(found_file(os.fspath(source), name))
            continue
        for file in find_files(source, litter):
            files.append(replace(file, name="/".join(filter(None, (name, file.name)))))
    return sorted(files, key=lambda file: file.name)


def hashed(name: str, key: bytes) -> str:
    """Return the name of a path in a table that hides paths: HMAC-SHA256, 64 hex digits."""
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()


def _matches(name: str, selection: Selection) -> bool:
    base = name.rpartition("/")[2]

    def one_of(patterns: Sequence[str]) -> bool:
        return any(
            fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(base, pattern)
            for pattern in patterns
        )

    return (not selection.include or one_of(selection.include)) and not one_of(selection.exclude)


def _images(files: list[FoundFile], named: Set[str]) -> list[FoundFile]:
    """Return the files whose suffix or first bytes suggest an image, or that cannot be opened.

    Args:
        files: To choose from.
        named: Paths that are taken in any case.
    """
    others = [
        file
        for file in files
        if os.path.splitext(file.name)[1].lower() not in _SUFFIXES and file.path not in named
    ]
    in_store = any(is_uri(file.path) for file in others)  # each costs a request
    guesses = stores.in_threads(_begins_as_image, others) if in_store else map(_begins_as_image, others)
    no_images = {file.name for file, image in zip(others, guesses, strict=True) if not image}
    return [file for file in files if file.name not in no_images]


def _begins_as_image(file: FoundFile) -> bool:
    """Return whether the first bytes suggest an image; True if it cannot be opened."""
    if file.problem:  # a pipe or device that is not called like an image is none
        return file.problem != "not a regular file"
    try:
        if is_uri(file.path):
            head = stores.read_head(file.path, _HEAD)
        else:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                head = os.read(descriptor, _HEAD)
            finally:
                os.close(descriptor)
    except OSError:
        return True
    return head.startswith(_MAGIC) or is_dicom(head) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _read_list(listed: str) -> bytes:
    """Return a list's content: of a regular file, or of a pipe that the shell has opened for us."""
    if listed == "-":
        return sys.stdin.buffer.read(_MAX_LIST_BYTES)
    if listed.startswith(("/dev/fd/", "/dev/stdin")):  # a shell's <(find ...)
        with open(listed, "rb") as pipe:
            return pipe.read(_MAX_LIST_BYTES)
    return read_regular(listed, _MAX_LIST_BYTES)


def _listed(folder: Location, listed: str) -> list[FoundFile]:
    """Return the files of a list, sorted by name, each once."""
    try:
        data = _read_list(listed)
        encoding = marked_encoding(data)
        if encoding is not None:  # else names are bytes, which need not be UTF-8
            data = data.decode(encoding).encode("utf-8", "surrogatepass")
    except OSError as error:
        raise InputError(f"The list {listed} cannot be read: {reason(error)}.") from error
    except ValueError as error:
        raise InputError(f"The list {listed} cannot be read: {error}.") from error
    # `find -print0` writes names that may hold line ends.
    lines = data.split(b"\0") if b"\0" in data else data.replace(b"\r\n", b"\n").split(b"\n")
    if isinstance(folder, ObjectPath):
        return _listed_objects(folder, lines)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give the folder that contains the listed files.")
    files = {file.name: file for file in _each_listed(os.fsencode(folder), lines)}
    return sorted(files.values(), key=lambda file: file.name)


def _listed_objects(folder: ObjectPath, lines: Sequence[bytes]) -> list[FoundFile]:
    """Return the objects of a list of keys below `folder`, or of URIs, sorted by name, each once."""
    names = set()
    for number, line in enumerate(lines, 1):
        name = line.decode("utf-8", "backslashreplace")
        if is_uri(name) and not name.startswith(f"{folder}/"):
            raise InputError(
                f"Line {number} of the list, {printable(name)}, is not below {printable(str(folder))}: "
                "keys are relative to that prefix, or whole URIs."
            )
        if name.strip():
            names.add(name.removeprefix(f"{folder}/"))

    def found(name: str) -> FoundFile:
        return stores.found_object(folder / name, printable(name))

    return list(stores.in_threads(found, sorted(names)))


def _each_listed(folder: bytes, lines: Sequence[bytes]) -> Iterator[FoundFile]:
    root = os.path.abspath(folder)
    spellings = _Spellings()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        below = _below(root, line)
        if below is not None and not os.path.lexists(os.path.join(root, below)):
            # Relative to the current folder, as `ls scans/*.png` writes it; or spelt in another form.
            resolved = None if os.path.isabs(line) else _below(root, os.path.abspath(line))
            if resolved is not None and os.path.lexists(os.path.join(root, resolved)):
                below = resolved
            else:
                below = spellings.find(root, below) or below
        if below is None:
            raise InputError(
                f"Line {number} of the list, {printable(os.fsdecode(line))}, is not below "
                f"{printable(os.fsdecode(folder))}: paths are relative to that folder, or absolute."
            )
        yield found_file(os.fsdecode(os.path.join(folder, below)), printable(os.fsdecode(below)))


def _below(root: bytes, path: bytes) -> bytes | None:
    """Return `path` relative to the folder `root`, normalised; None if it is not inside."""
    below = os.path.normpath(os.path.relpath(os.path.join(root, path), root))
    return None if below.startswith(b"../") or below in (b"..", b".") else below


class _Spellings:
    """Finds names by their composed Unicode form; each folder is read once."""

    def __init__(self) -> None:
        self._names: dict[bytes, dict[str, bytes]] = {}

    def find(self, root: bytes, below: bytes) -> bytes | None:
        """Return the path below `root` that differs from `below` in its Unicode form alone, or None."""
        path = b""
        for part in below.split(b"/"):
            name = self._in(os.path.join(root, path)).get(composed(os.fsdecode(part)))
            if name is None:
                return None
            path = os.path.join(path, name)
        return path

    def _in(self, folder: bytes) -> dict[str, bytes]:
        if folder not in self._names:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            self._names[folder] = {composed(os.fsdecode(name)): name for name in names}
        return self._names[folder]


def found_file(path: str, name: str) -> FoundFile:
    """Return a single file as a walk would have found it."""
    try:
        info = os.stat(path)
    except OSError:
        return FoundFile(path, name)  # its row says why it cannot be read
    if stat.S_ISREG(info.st_mode):
        return FoundFile(path, name, size=info.st_size, mtime_ns=info.st_mtime_ns)
    kind = "a folder" if stat.S_ISDIR(info.st_mode) else "not a regular file"
    return FoundFile(path, name, kind, Status.UNSUPPORTED)
