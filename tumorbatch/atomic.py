"""Files that are either whole or absent, whatever kills the process or the machine.

Temporary name in the same folder, write, flush, fsync, `os.replace`, fsync of the folder. Without
the first fsync a rename can reach the disk before the data and leave an empty file after power loss.
"""

import contextlib
import errno
import glob
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tumorbatch.errors import cannot_write

_TEMPORARY = ".tmp-"  # the names start with a dot: Arrow, Spark and our own scan pass them over


def temporary_name(path: Path) -> Path:
    """Return the hidden name beside `path` under which this process writes it."""
    return path.with_name(f".{path.name}{_TEMPORARY}{os.getpid()}")


def remove_temporaries(folder: Path, *names: str) -> None:
    """Delete what killed runs left in `folder`: of any file, or of those with these names.

    Hold the lock of what is named: other files' temporaries may belong to a run that is alive.
    """
    for pattern in [f".{glob.escape(name)}" for name in names] or [".*"]:
        for path in folder.glob(f"{pattern}{_TEMPORARY}*"):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, or raise `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block, which works on `path`, into the `OutputError` for it."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def new_folder(folder: Path) -> None:
    """Create `folder`, whose name is our own, in the place of anything else, or raise `OutputError`.

    A link under its name is deleted, never followed.
    """
    with writing(folder):
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)


@contextlib.contextmanager
def atomic_path(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path; when the block ends well, sync it and move it onto `path`.

    For writers that want to open the file themselves. When the block raises, the temporary file is
    deleted and `path` is as it was; an `OSError` becomes an `OutputError`.

    Args:
        path: Where the file shall be; its folder exists.
        mode: Permission bits, from the first byte on, or None for what the umask gives.
    """
    temporary = temporary_name(path)
    try:
        if mode is not None:
            temporary.touch(mode)
            temporary.chmod(mode)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


@contextlib.contextmanager
def atomic_file(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open `atomic_path` for writing bytes."""
    with atomic_path(path, mode) as temporary, temporary.open("wb") as file:
        yield file


def write_bytes(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a whole file atomically."""
    with atomic_file(path, mode) as file:
        file.write(data)


def write_json(path: Path, value: Any, mode: int | None = None) -> None:
    """Write `value` atomically as indented JSON, in the order given, with a final newline."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode(), mode)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def real_folder(folder: Path) -> Path:
    """Return the folder that a symbolic link points to; any other path unchanged.

    Folders are exchanged by renaming. Renaming a link would leave its folder where it is, and behind.
    """
    if not folder.is_symlink():
        return folder
    real = Path(os.path.realpath(folder))
    if real.is_symlink():
        raise cannot_write(folder, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
    return real


def replace_folder(source: Path, target: Path) -> None:
    """Put a finished folder in the place of another, on the same file system.

    `target` is no symbolic link: see `real_folder`.

    Between the two renames there is no `target`; `recover_folder` mends a crash right there.
    """
    try:
        if target.exists():
            os.replace(target, _aside(target))
        os.replace(source, target)
        sync_folder(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            recover_folder(target)
        raise cannot_write(target, error) from error
    shutil.rmtree(_aside(target), ignore_errors=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; when the block ends well, put it in the place of `target`.

    When the block raises, the new folder is deleted and `target` is as it was. Hold the lock.

    Args:
        target: The folder to write; its parent exists, and it is no symbolic link (`real_folder`).

    Raises:
        OutputError: A folder cannot be created or exchanged.
    """
    folder = target.with_name(f".{target.name}.new")
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed here
    try:
        make_folder(folder)
        yield folder
        try:
            sync_folder(folder)
        except OSError as error:
            raise cannot_write(target, error) from error
        replace_folder(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Undo or finish a `replace_folder` that was killed. Hold the lock."""
    if not target.exists() and _aside(target).exists():
        os.replace(_aside(target), target)
    shutil.rmtree(_aside(target), ignore_errors=True)
