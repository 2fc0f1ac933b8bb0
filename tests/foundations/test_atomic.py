"""Files and folders that are whole or absent, whatever happens to the writer."""

import contextlib
import errno
import os
import random
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import atomic
from tumorbatch.atomic import (
    atomic_file,
    atomic_folder,
    atomic_path,
    discard_folder,
    holds_only_files,
    make_folder,
    real_folder,
    recover_folder,
    remove_temporaries,
    replace_folder,
    temporary_name,
    was_set_aside,
    write_bytes,
    write_json,
)
from tumorbatch.errors import ExitCode, OutputError

Unprivileged = Callable[[], contextlib.AbstractContextManager[None]]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- one file ---------------------------------------------------------------------------------


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for content in (b"first", b"", b"second"):
        write_bytes(path, content)
        assert path.read_bytes() == content
        assert _names(tmp_path) == {"out"}


def test_nothing_is_at_the_path_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("before", [None, b"before"])
def test_an_exception_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], before: bytes | None
) -> None:
    path = tmp_path / "out"
    if before is not None:
        path.write_bytes(before)

    def write() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert (path.read_bytes() if path.exists() else None) == before
    assert _names(tmp_path) == ({"out"} if before is not None else set())


def test_a_block_that_writes_nothing_is_an_output_error(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with pytest.raises(OutputError, match=f"Cannot write {path}"), atomic_path(path):
        pass
    assert path.read_bytes() == b"before"


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.symlink_to("/dev/full")  # whose every write is ENOSPC
            temporary.write_bytes(b"new")

    with pytest.raises(OutputError) as caught:
        write()
    assert str(caught.value) == (
        f"Cannot write {path}: No space left on device. "
        "The disk is full: free some space and run the same command again."
    )
    assert caught.value.exit_code == ExitCode.CANNOT_WRITE == 73
    assert path.read_bytes() == b"before"
    assert _names(tmp_path) == {"out"}


def test_a_file_size_limit_is_a_sentence_and_leaves_the_old_file(tmp_path: Path, python: Any) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    process = python(
        """
import resource, sys
from pathlib import Path
from tumorbatch.atomic import write_bytes
from tumorbatch.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(Path(sys.argv[1]), bytes(100_000))
except OutputError as error:
    print(error)
""",
        path,
    )
    out, err = process.communicate(timeout=60)
    assert (out, err) == (
        f"Cannot write {path}: File too large. A file size limit was reached: "
        "raise `ulimit -f`, or choose another output.\n",
        "",
    )
    assert path.read_bytes() == b"before"
    assert _names(tmp_path) == {"out"}


def test_data_then_name_then_folder_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What no test can show by pulling the plug: the order of the calls that survive it.
    path = tmp_path / "out"
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    written: list[str] = []

    def recorded_replace(source: Path, target: Path) -> None:
        written.append(str(source))
        assert source.read_bytes() == b"all of it"
        calls.append(("replace", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    write_bytes(path, b"all of it")
    assert calls == [
        ("fsync", written[0]),
        ("replace", str(path)),
        ("fsync", str(tmp_path)),
    ]


def test_a_folder_without_write_permission_is_an_output_error(
    open_folder: Path, unprivileged: Unprivileged
) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o555)
    with unprivileged():
        with pytest.raises(OutputError, match="Give this user write permission"):
            write_bytes(closed / "out", b"new")
        with pytest.raises(OutputError, match="Permission denied"):
            make_folder(closed / "inner")
    assert _names(closed) == set()


def test_a_folder_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write_bytes(path, b"new")
    assert _names(tmp_path) == {"out"}


def test_make_folder_under_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        make_folder(tmp_path / "file" / "inner")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


WRITER = """
import itertools, sys
from pathlib import Path
from tumorbatch.atomic import write_bytes
path = Path(sys.argv[1])
print("ready", flush=True)
for letter in itertools.cycle((b"a", b"b")):
    write_bytes(path, letter * 300_000)
"""


def test_sigkill_at_any_moment_leaves_a_whole_file(tmp_path: Path, python: Any) -> None:
    path = tmp_path / "out"
    moments = random.Random(0)
    killed_while_writing = 0
    for _ in range(8):
        process = python(WRITER, path)
        assert process.stdout.readline() == "ready\n"
        while not path.exists():  # the first of all needs a moment
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.wait()
        content = path.read_bytes()
        assert content in (b"a" * 300_000, b"b" * 300_000)
        killed_while_writing += len(_names(tmp_path)) > 1
        remove_temporaries(tmp_path, "out")
        assert _names(tmp_path) == {"out"}
    assert killed_while_writing  # else this has shown nothing


# --- permission bits, JSON, temporaries -------------------------------------------------------


def test_mode_bits(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_bytes(tmp_path / "private", b"x", mode=0o600)
        write_bytes(tmp_path / "shared", b"x", mode=0o666)  # exactly, not what the umask leaves
        write_bytes(tmp_path / "default", b"x")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"private": 0o600, "shared": 0o666, "default": 0o644}


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "private"
    with atomic_file(path, mode=0o600) as file:
        file.write(b"name of a patient")
        file.flush()
        (temporary,) = tmp_path.iterdir()
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


def test_json_keeps_order_and_characters(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"b": "é", "a": [1.5, None, True]})
    assert path.read_text("utf-8") == (
        '{\n  "b": "é",\n  "a": [\n    1.5,\n    null,\n    true\n  ]\n}\n'
    )


def test_json_that_other_readers_refuse_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    assert path.read_bytes() == b"1\n"
    assert _names(tmp_path) == {"value.json"}


def test_temporaries_are_hidden_and_beside_their_file(tmp_path: Path) -> None:
    temporary = temporary_name(tmp_path / "out.parquet")
    assert temporary.parent == tmp_path
    assert temporary.name.startswith(".")


def test_all_stale_temporaries_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = {"out.parquet", ".out.parquet.lock", ".hidden", "a.tmp-1", "notes.tmp"}
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    for name in ("out.parquet", "dataset.json", "train-00000-of-00001.tfrecord"):
        temporary_name(tmp_path / name).write_bytes(b"half")
    remove_temporaries(tmp_path)
    assert _names(tmp_path) == kept


@pytest.mark.parametrize("name", ["out.parquet", "a[1].parquet", "what?", "*"])
def test_stale_temporaries_of_one_file_are_removed(tmp_path: Path, name: str) -> None:
    others = ["out2", "other.parquet", f"{name}2", f"{name}.parquet", f"my{name}", f"my.{name}"]
    for other in others:
        temporary_name(tmp_path / other).write_bytes(b"a run that is alive is writing this")
    alive = _names(tmp_path)
    for own in (name, f"{name}.json"):
        temporary_name(tmp_path / own).write_bytes(b"half")
    remove_temporaries(tmp_path, name, f"{name}.json")
    assert _names(tmp_path) == alive


# --- a whole folder ---------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: no code of the module under test handles it."""


def _folder(path: Path, content: bytes) -> Path:
    path.mkdir(exist_ok=True)
    for name in ("one", "two"):
        (path / name).write_bytes(content)
    return path


def _content(path: Path) -> set[bytes]:
    assert _names(path) == {"one", "two"}
    return {file.read_bytes() for file in path.iterdir()}


def test_replace_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in (b"first", b"second", b"third"):
        replace_folder(_folder(tmp_path / "new", content), target)
        assert _content(target) == {content}
        assert _names(tmp_path) == {"model"}


def test_a_folder_is_written_beside_and_exchanged(tmp_path: Path) -> None:
    target = tmp_path / "model"
    _folder(tmp_path / ".model.new", b"left by a killed run")
    for content in (b"first", b"second"):
        with atomic_folder(target) as folder:
            assert _names(folder) == set()
            for name in ("one", "two"):
                (folder / name).write_bytes(content)
        assert _content(target) == {content}
        assert _names(tmp_path) == {"model"}


def test_a_folder_whose_writer_fails_leaves_the_old_one(tmp_path: Path) -> None:
    target = _folder(tmp_path / "model", b"old")

    def write() -> None:
        with atomic_folder(target) as folder:
            (folder / "one").write_bytes(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert _content(target) == {b"old"}
    assert _names(tmp_path) == {"model"}


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "scratch" / "model", tmp_path / "model"
    real.parent.mkdir()
    link.symlink_to(real)
    for content in (b"first", b"second"):  # a link that dangles, then one that does not
        target = real_folder(link)
        replace_folder(_folder(target.with_name("new"), content), target)
        assert _content(link) == {content}
        assert _names(tmp_path) == {"model", "scratch"}
        assert _names(real.parent) == {"model"}
    assert link.is_symlink()
    assert real_folder(real) == real
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(OutputError, match="Cannot write"):
        real_folder(link)


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_replace_folder_killed_at_a_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """Where the file system cannot exchange two folders."""
    target = _folder(tmp_path / "model", b"old")
    source = _folder(tmp_path / ".model.new", b"new")
    real, done = os.replace, 0

    def replace(*arguments: Any) -> None:
        nonlocal done
        if done == renames:
            raise Killed
        done += 1
        real(*arguments)

    def never(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_exchange", lambda *_: False)
        patch.setattr(atomic, "_sync_tree", lambda _: None)
        patch.setattr(os, "replace", replace)
        patch.setattr(atomic, "sync_folder", never)  # reached with renames == 2 alone
        with pytest.raises(Killed):
            replace_folder(source, target)
    recover_folder(target)
    assert _content(target) == {b"old" if renames < 2 else b"new"}
    assert _names(tmp_path) == {"model"}
    recover_folder(target)  # a second time there is nothing to do
    assert _content(target) == {b"old" if renames < 2 else b"new"}


def test_replace_folder_killed_while_it_deletes_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _folder(tmp_path / "model", b"old")
    source = _folder(tmp_path / ".model.new", b"new")

    def half(folder: Path, **_: Any) -> None:
        (folder / "one").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            replace_folder(source, target)
    assert len(_names(tmp_path)) == 2  # the half-deleted old one is there
    recover_folder(target)
    assert _content(target) == {b"new"}
    assert _names(tmp_path) == {"model"}


@pytest.mark.parametrize("failing", [1, 2])
def test_replace_folder_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    target = _folder(tmp_path / "model", b"old")
    source = _folder(tmp_path / "new", b"new")
    real, calls = os.replace, 0

    def replace(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_exchange", lambda *_: False)
        patch.setattr(os, "replace", replace)
        with pytest.raises(OutputError, match=f"Cannot write {target}: Input/output error"):
            replace_folder(source, target)
    assert _content(target) == {b"old"}


def test_recover_folder_without_anything_to_recover(tmp_path: Path) -> None:
    recover_folder(tmp_path / "model")
    assert _names(tmp_path) == set()


def test_two_folders_are_exchanged_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no moment without a folder: neither of the two is renamed away."""
    target = _folder(tmp_path / "model", b"old")
    if not atomic._exchange(_folder(tmp_path / "other", b"new"), target):
        pytest.skip("this file system cannot exchange two folders")
    assert (_content(target), _content(tmp_path / "other")) == ({b"new"}, {b"old"})
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("renamed one after the other"))
    with atomic_folder(target) as folder:
        _folder(folder, b"newer")
    assert _content(target) == {b"newer"}
    assert _names(tmp_path) == {"model", "other"}


def test_an_error_behind_the_rename_says_that_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(atomic, "sync_folder", fails)
    with pytest.raises(OutputError, match="is in its place and whole, but the last step failed"):
        write_bytes(tmp_path / "out", b"new")
    assert (tmp_path / "out").read_bytes() == b"new"
    assert _names(tmp_path) == {"out"}


def test_hidden_files_of_users_are_not_temporaries(tmp_path: Path) -> None:
    own = temporary_name(tmp_path / "out")
    users = [
        ".notes.tmp-2024",
        ".out.tmp-final",
        ".x.tmp-",
        ".out.tmp-1-zzzzzzzz",
        "out.tmp-1-00000000",
    ]
    for name in (own.name, *users):
        (tmp_path / name).write_bytes(b"")
    remove_temporaries(tmp_path, "out")
    assert _names(tmp_path) == set(users)
    own.write_bytes(b"")
    remove_temporaries(tmp_path)
    assert _names(tmp_path) == set(users)


def test_a_link_under_the_name_of_a_new_folder_is_not_followed(tmp_path: Path) -> None:
    mine = _folder(tmp_path / "mine", b"mine")
    (tmp_path / ".model.new").symlink_to(mine)
    with atomic_folder(tmp_path / "model") as folder:
        _folder(folder, b"new")
    assert _content(mine) == {b"mine"}
    assert _content(tmp_path / "model") == {b"new"}
    assert not (tmp_path / "model").is_symlink()


def test_nothing_is_deleted_through_a_link(tmp_path: Path) -> None:
    """Not by the deletion of a work area, nor of temporaries, nor by the recovery of a folder."""
    mine = _folder(tmp_path / "mine", b"mine")
    for name in (".out.partial", temporary_name(tmp_path / "out").name, ".model.old", ".model.new"):
        (tmp_path / name).symlink_to(mine)
    discard_folder(tmp_path / ".out.partial", first=next(mine.iterdir()).name)
    remove_temporaries(tmp_path, "out")
    assert not was_set_aside(tmp_path / "model")
    recover_folder(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert _content(mine) == {b"mine"}


def test_folders_of_killed_runs_are_temporaries_too(tmp_path: Path) -> None:
    _folder(temporary_name(tmp_path / "sample"), b"left")
    remove_temporaries(tmp_path, "sample")
    assert _names(tmp_path) == set()


def test_what_is_left_of_a_deletion_that_fails_has_no_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rmtree` lets an error of `fstat` pass in spite of `ignore_errors`."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for name in ("plan", "rest"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(shutil, "rmtree", fails)
    discard_folder(tmp_path, first="plan")
    assert _names(tmp_path) == {"rest"}
    monkeypatch.setattr(Path, "is_symlink", fails)
    discard_folder(tmp_path)


def test_a_folder_of_our_own_holds_only_files(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "work", b"x")
    assert holds_only_files(folder)
    (tmp_path / "link").symlink_to(folder)
    assert not holds_only_files(tmp_path / "link")
    assert not holds_only_files(tmp_path / "nothing")
    file = next(folder.iterdir())
    for make in (
        lambda path: path.symlink_to(file),
        lambda path: path.hardlink_to(file),
        os.mkfifo,
        Path.mkdir,
    ):
        stranger = folder / "stranger"
        make(stranger)
        assert not holds_only_files(folder)
        stranger.rmdir() if stranger.is_dir() else stranger.unlink()
    assert holds_only_files(folder)
