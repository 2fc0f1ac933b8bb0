"""Files that are either whole or absent, whatever kills the process or the machine.

Temporary name in the same folder, write, flush, fsync, `os.replace`, fsync of the folder. Without
the first fsync a rename can reach the disk before the data and leave an empty file after power loss.
"""

import contextlib
import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tumorbatch.errors import cannot_write, not_finished

# Permission bits of what is for its owner alone: paths of DICOM files often hold names of patients.
PRIVATE = 0o600
_TEMPORARY = ".tmp-"  # the names start with a dot: Arrow, Spark and our own scan pass them over


def temporary_name(path: Path) -> Path:
    """Return the hidden name next to `path` under which this process writes it.

    Nobody can put a link there in advance.
    """
    return path.with_name(f".{path.name}{_TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")


def remove_temporaries(folder: Path, *names: str) -> None:
    """Delete what killed runs left in `folder`: of any file or folder, or of those with these names.

    Hold the lock of what is named: other files' temporaries may belong to a run that is alive. Without
    names, only what `temporary_name` may have given is deleted: hidden files of users have other names.

    Raises:
        OutputError: The folder cannot be read or changed.
    """
    stems = "|".join(map(re.escape, names)) or ".+"
    # Earlier versions wrote no digits after the process number.
    ending = rf"{re.escape(_TEMPORARY)}\d+" + ("(-[0-9a-f]{8})?" if names else "-[0-9a-f]{8}")
    own = re.compile(rf"\.({stems}){ending}", re.DOTALL)
    with writing(folder):
        for path in list(folder.iterdir()):
            if own.fullmatch(path.name):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
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


def holds_only_files(folder: Path) -> bool:
    """Return whether a folder, itself no link, holds only regular files without another name.

    A work area with anything else in it was made by somebody else. A run that continued in it would
    change a file that a link leads to, or wait for a FIFO.
    """
    if folder.is_symlink() or not folder.is_dir():
        return False
    infos = [path.lstat() for path in folder.iterdir()]
    return all(stat.S_ISREG(info.st_mode) and info.st_nlink <= 1 for info in infos)


def discard_folder(folder: Path, first: str | None = None) -> None:
    """Delete a folder of our own that nobody needs, as far as the file system lets it.

    Args:
        folder: A link under its name is left alone.
        first: Name of the file in it without which the rest, if it stays, is taken for nothing.
    """
    with contextlib.suppress(OSError):  # `rmtree` raises some errors in spite of `ignore_errors`
        if folder.is_symlink():
            return
        if first is not None:
            with contextlib.suppress(OSError):
                (folder / first).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


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
    replaced = False
    try:
        if mode is not None:
            temporary.touch(mode, exist_ok=False)
            temporary.chmod(mode)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        replaced = True
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise (not_finished if replaced else cannot_write)(path, error) from error
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
    write_bytes(path, json_bytes(value), mode)


def json_bytes(value: Any) -> bytes:
    """Return `value` as indented JSON, in the order given, with a final newline."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _new_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def real_folder(folder: Path) -> Path:
    """Return the folder that a symbolic link points to; any other path unchanged.

    Folders are exchanged by renaming. Renaming a link would leave its folder where it is.
    """
    if not folder.is_symlink():
        return folder
    real = Path(os.path.realpath(folder))
    if real.is_symlink():
        raise cannot_write(folder, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
    return real


def replace_folder(source: Path, target: Path) -> None:
    """Put a finished folder in the place of another, on the same file system. Hold the lock.

    The two are exchanged in one step where the kernel and the file system can. Elsewhere there is no
    `target` for a moment between two renames; `recover_folder` repairs a crash at that moment.

    Args:
        source: The new folder.
        target: The old one, or nothing; not a symbolic link, see `real_folder`.

    Raises:
        OutputError: A folder cannot be renamed; the text says which one is in place.
    """
    try:
        _sync_tree(source)
        if not target.exists():
            os.replace(source, target)
        elif not _exchange(source, target):
            os.replace(target, _aside(target))
            os.replace(source, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            if not target.exists():
                os.replace(_aside(target), target)
        raise cannot_write(target, error) from error
    try:
        sync_folder(target.parent)
    except OSError as error:
        raise not_finished(target, error) from error
    for old in (source, _aside(target)):
        discard_folder(old)


def _sync_tree(folder: Path) -> None:
    """Bring all files of a folder to the disk: other libraries write some of them."""
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(root))


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False where that is not possible."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # not Linux, or an old C library
        return False
    at, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(at, os.fsencode(first), at, os.fsencode(second), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder next to `target`; when the block ends well, put it in its place.

    When the block raises, the new folder is deleted and `target` is as it was. Hold the lock.

    Args:
        target: The folder to write; its parent exists, and it is not a symbolic link (`real_folder`).

    Raises:
        OutputError: A folder cannot be created or exchanged.
    """
    folder = _new_folder(target)
    try:
        new_folder(folder)  # a run that was killed here left it
        yield folder
        replace_folder(folder, target)
    finally:
        discard_folder(folder)


def recover_folder(target: Path) -> None:
    """Undo or finish an `atomic_folder` that was killed. Hold the lock.

    Raises:
        OutputError: A folder cannot be renamed.
    """
    with writing(target):
        if was_set_aside(target):
            os.replace(_aside(target), target)
    for folder in (_aside(target), _new_folder(target)):
        discard_folder(folder)


def was_set_aside(target: Path) -> bool:
    """Return whether a killed run left `target` under another name; `recover_folder` brings it back."""
    return not target.exists() and _aside(target).is_dir() and not _aside(target).is_symlink()
