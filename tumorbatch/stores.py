"""Objects in stores (S3, Google Cloud Storage, Azure) through `pyarrow.fs`: list, read, publish."""

import contextlib
import hashlib
import mmap
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tumorbatch.atomic import atomic_path
from tumorbatch.errors import InputError, TryAgainError, TumorBatchError
from tumorbatch.found_file import MAX_BYTES, FoundFile, is_litter, printable
from tumorbatch.object_path import Location, ObjectPath, is_uri
from tumorbatch.signals import deferred
from tumorbatch.status import FileError, Status
from tumorbatch.store_connection import answer, connection, explained, no_container

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = 16  # requests at a time: a store answers each after tens of milliseconds
_PIECE = 8 << 20  # bytes read at a time from an object that is fetched
_PROBE_SECONDS = 5.0  # between two questions whether a store is there at all
_AHEAD_FILES, _AHEAD_BYTES = 16, 64 << 20  # that a worker process reads ahead


def _entries(path: ObjectPath, recursive: bool) -> list[Any]:
    """Return the entries below a prefix, `pyarrow.fs.FileInfo` each; [] where there are none."""
    from pyarrow import fs

    try:
        infos: list[Any] = connection(path).get_file_info(
            fs.FileSelector(path.path, allow_not_found=True, recursive=recursive)
        )
    except OSError as error:
        raise explained(error, path) from error
    # Servers that write a time without its last zeros (rclone) are not understood in a listing.
    return [
        _info(_child(path, info.path)) if _has_no_time(info) and "//" not in info.path else info
        for info in infos
    ]


def _has_no_time(info: Any) -> bool:
    return info.is_file and (info.mtime_ns or 0) <= 0


def _child(folder: ObjectPath, path: str) -> ObjectPath:
    """Return the object that `pyarrow.fs` calls `path`, below `folder`."""
    return folder / path[len(folder.path) + 1 :]


def folders(root: ObjectPath) -> list[str]:
    """Return the names of the folders directly below `root`, sorted; raises as `find_objects`."""
    entries = _entries(root, recursive=False)
    return sorted(entry.base_name for entry in entries if not entry.is_file and entry.path != root.path)


def find_objects(root: ObjectPath, litter: list[str]) -> Iterator[FoundFile]:
    """Yield all objects below `root`, sorted by name, as `find_files` does those of a folder.

    The folders directly below `root` are listed one after another, several ahead: the memory holds
    these, not all of the store.

    Raises:
        InputError: The bucket does not exist, or it cannot be listed.
        ConfigError: There are no credentials, or wrong ones.
        TryAgainError: The store does not answer.
    """
    top = _entries(root, recursive=False)
    if any(entry.path == root.path for entry in top if not entry.is_file):
        # A key with `//`: only the whole listing has it.
        yield from _found(root, _entries(root, recursive=True), litter)
        return
    top.sort(key=lambda entry: entry.path + ("" if entry.is_file else "/"))

    def below(entry: Any) -> list[Any]:
        folder = root / entry.base_name
        return [entry] if entry.is_file else _entries(folder, recursive=True)

    for entries in in_threads(below, top):
        yield from _found(root, entries, litter)


def _found(root: ObjectPath, entries: Iterable[Any], litter: list[str]) -> Iterator[FoundFile]:
    skipped = set(litter)
    for entry in sorted((entry for entry in entries if entry.is_file), key=lambda entry: entry.path):
        key = entry.path[len(root.path) + 1 :]
        parts = key.split("/")
        left = next((number for number, part in enumerate(parts, 1) if is_litter(part)), 0)
        if left:
            place = "/".join(parts[:left])
            if place not in skipped:
                skipped.add(place)
                litter.append(place)
        elif not any(part.startswith(".") for part in parts):
            problem = "" if all(parts) else "its key has an empty part (//), which cannot be read"
            yield FoundFile(
                str(root / key), "/".join(map(printable, parts)), problem,
                size=entry.size or 0, mtime_ns=entry.mtime_ns or 0,
            )  # fmt: skip


def found_object(path: ObjectPath, name: str) -> FoundFile:
    """Return a single object as a listing would have found it; raises as `find_objects`."""
    info = _info(path)
    if not info.is_file:
        return FoundFile(str(path), name)  # its row says that it is not there
    return FoundFile(str(path), name, size=info.size or 0, mtime_ns=info.mtime_ns or 0)


def _info(path: ObjectPath) -> Any:
    try:
        return connection(path).get_file_info(path.path)
    except OSError as error:
        raise explained(error, path) from error


def exists(path: ObjectPath) -> bool:
    """Return whether there is such an object; raises as `find_objects`."""
    return bool(_info(path).is_file)


def size(path: ObjectPath) -> int:
    """Return the bytes of an object, 0 where there is none; raises as `find_objects`."""
    return int(_info(path).size or 0)


def check_prefix(root: ObjectPath) -> None:
    """Raise as `find_objects`, or `InputError` where nothing is below `root`."""
    try:
        missing = _info(root).type.name == "NotFound"
    except InputError:
        missing = not _entries(root, recursive=False)  # which says why: a refused HEAD has no body
    if missing:
        check_container(root)
        raise InputError(f"{printable(str(root))} does not exist, or is empty. Correct the name.")


def check_container(path: ObjectPath) -> None:
    """Raise `InputError` where the bucket of an object does not exist; otherwise as `find_objects`.

    Credentials that may use the object alone are not asked for more.
    """
    container = ObjectPath(path.scheme, path.container, "")
    try:
        info = connection(path).get_file_info(container.path)
    except OSError as error:
        if not isinstance(explained(error, path), InputError):
            raise explained(error, path) from error
        return
    if info.type.name == "NotFound":
        raise no_container(path)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `function` of each item, in order, with several requests under way."""
    with ThreadPoolExecutor(_THREADS) as threads:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) >= 2 * _THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


class OutageWatch:
    """Tells a store that is gone from an object that cannot be read.

    Args:
        folder: What is being read; of a folder on disk nothing is asked.
    """

    def __init__(self, folder: Location | str) -> None:
        self._folder = ObjectPath.parse(str(folder)) if is_uri(str(folder)) else None
        self._asked = 0.0

    def after(self, status: str) -> None:
        """Ask whether the store is still there, after a row with this status.

        Raises:
            TumorBatchError: It is not: the rows that would follow are not the files' fault.
        """
        if status != Status.IO_ERROR or self._folder is None:
            return
        if time.monotonic() - self._asked >= _PROBE_SECONDS:
            _info(self._folder)
            self._asked = time.monotonic()


def watched(
    results: Generator[list[Result]], path: str, status: Callable[[Result], str]
) -> Generator[list[Result]]:
    """Pass on results, and raise as `OutageWatch` where an object store is gone.

    Args:
        results: Of chunks of files.
        path: Of one of the files; of those on disk nothing is asked.
        status: Gives the status of a result.
    """
    return _watched(results, path, status) if is_uri(path) else results


def _watched(
    results: Generator[list[Result]], path: str, status: Callable[[Result], str]
) -> Generator[list[Result]]:
    watch = OutageWatch(path.rpartition("/")[0])
    with contextlib.closing(results):
        for some in results:
            for result in some:
                watch.after(status(result))
            yield some


class _ReadAhead:
    """Objects of a chunk that are being read while an earlier one is decoded; one per process."""

    def __init__(self) -> None:
        self._coming: deque[FoundFile] = deque()
        self._reading: dict[str, tuple[Future[bytes], int]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._max_bytes = 0

    def begin(self, files: Sequence[FoundFile], max_bytes: int) -> None:
        self._coming = deque(file for file in files if not file.problem)
        self._reading.clear()
        self._max_bytes = max_bytes
        self._submit()

    def take(self, uri: str) -> bytes | None:
        future, _ = self._reading.pop(uri, (None, 0))
        self._submit()
        return None if future is None else future.result()

    def _submit(self) -> None:
        if self._coming and self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS)
        while self._coming and self._threads is not None and len(self._reading) < _AHEAD_FILES:
            waiting = sum(size for _, size in self._reading.values())
            if self._reading and waiting + self._coming[0].size > _AHEAD_BYTES:
                break
            file = self._coming.popleft()
            future = self._threads.submit(_read, file.path, self._max_bytes)
            self._reading[file.path] = (future, file.size)


_read_ahead = _ReadAhead()


def begin_reading(files: Sequence[FoundFile], max_bytes: int = MAX_BYTES) -> None:
    """Read objects ahead, in the order in which `read_object` will be asked for them.

    A store answers after tens of milliseconds, in which a worker would wait. Files are left alone.
    """
    if len(files) > 1 and is_uri(files[0].path):
        _read_ahead.begin(files, max_bytes)


def read_object(uri: str, max_bytes: int) -> bytes:
    """Return the whole content of an object.

    Raises:
        FileError: It is empty, too large, gone, or the store does not hand it over.
    """
    data = _read_ahead.take(uri)
    return _read(uri, max_bytes) if data is None else data


def _read(uri: str, max_bytes: int) -> bytes:
    path = ObjectPath.parse(uri)
    try:
        with connection(path).open_input_file(path.path) as stream:
            expected: int = stream.size()
            if expected == 0:
                raise FileError(Status.EMPTY, "the file has no bytes")
            if expected > max_bytes:
                raise FileError(Status.TOO_LARGE, f"{expected:,} bytes; the limit is {max_bytes:,}")
            data: bytes = stream.read(expected)
    except FileNotFoundError as error:
        raise FileError(Status.VANISHED, "the file was gone when it was to be read") from error
    except (OSError, ValueError, TumorBatchError) as error:
        raise FileError(Status.IO_ERROR, f"the store does not hand it over: {answer(error)}") from error
    if len(data) != expected:
        raise FileError(Status.IO_ERROR, f"{len(data):,} of {expected:,} bytes came")
    return data


def read_head(uri: str, count: int) -> bytes:
    """Return the first bytes of an object.

    Raises:
        OSError: The store does not hand them over.
    """
    path = ObjectPath.parse(uri)
    with connection(path).open_input_file(path.path) as stream:
        data: bytes = stream.read(min(count, stream.size()))
    return data


def read_small(path: ObjectPath, max_bytes: int) -> bytes:
    """Return the content of a description; raises `FileNotFoundError`, or as `find_objects`."""
    try:
        with connection(path).open_input_file(path.path) as stream:
            if stream.size() > max_bytes:
                raise InputError(f"{path} has {stream.size():,} bytes; the limit is {max_bytes:,}.")
            data: bytes = stream.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise explained(error, path) from error
    return data


def fetch(path: ObjectPath, target: Path) -> str:
    """Copy an object to a file, whole or not at all; return its sha256 (hex).

    Raises:
        FileNotFoundError: There is no such object.
        OutputError: The file cannot be written.
        TumorBatchError: As `find_objects`.
    """
    digest = hashlib.sha256()
    try:
        stream = connection(path).open_input_stream(path.path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise explained(error, path) from error
    with contextlib.closing(stream), atomic_path(target) as temporary, temporary.open("wb") as file:
        while True:
            try:
                piece = stream.read(_PIECE)
            except OSError as error:
                raise explained(error, path) from error
            if not piece:
                break
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def publish(source: Path, target: ObjectPath) -> None:
    """Make the content of a finished file the object `target`, at once or not at all.

    The store shows an object when its upload is complete. pyarrow completes an upload also when its
    stream is given up half-way (apache/arrow #40502), so the whole file is written in one call, and
    a signal waits for its end. After a kill, or an upload that failed, the old object is there. The
    file must not be empty.

    Raises:
        TumorBatchError: As `explained`; the old object is still there.
    """
    import pyarrow as pa

    try:
        with deferred(), source.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            stream = connection(target).open_output_stream(target.path)
            stream.write(pa.py_buffer(mapped))
            stream.close()
    except (OSError, pa.ArrowException) as error:
        raise explained(error, target, writing=True) from error
    written = size(target)
    if written != source.stat().st_size:
        raise TryAgainError(
            f"{target} has {written:,} bytes after its upload and should have "
            f"{source.stat().st_size:,}: does something else write it? Run the same command again."
        )
