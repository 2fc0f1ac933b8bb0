"""Finding files, naming them, and reading them safely."""

import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tumorbatch.errors import InputError
from tumorbatch.files import FoundFile, find_files, printable, read_file, walk_files
from tumorbatch.status import FileError, Status

Unprivileged = Callable[[], contextlib.AbstractContextManager[None]]


def _write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _names(root: Path) -> list[str]:
    return [file.name for file in find_files(root)]


def _one(root: Path) -> FoundFile:
    (file,) = find_files(root)
    return file


def _status_of(file: FoundFile, max_bytes: int = 1 << 20) -> tuple[Status, str]:
    with pytest.raises(FileError) as caught:
        read_file(file, max_bytes)
    return caught.value.status, caught.value.message


# --- finding ----------------------------------------------------------------------------------


def test_everything_is_found_sorted_by_name(tmp_path: Path) -> None:
    names = ["b.png", "a/z.png", "a.png", "a/b/c", "a b.png", "B.png", "10.png", "9.png", "é.png"]
    for name in names:
        _write(tmp_path / name)
    (tmp_path / "empty folder").mkdir()
    assert _names(tmp_path) == sorted(names)
    for file in find_files(tmp_path):
        assert file.problem == ""
        assert Path(file.path) == tmp_path / file.name


def test_the_order_of_creation_does_not_matter(tmp_path: Path) -> None:
    names = [f"{number % 5}/{number * 7919 % 100:03}" for number in range(60)]
    for folder, order in (("one", names), ("two", names[::-1])):
        for name in order:
            _write(tmp_path / folder / name)
    assert _names(tmp_path / "one") == _names(tmp_path / "two") == sorted(names)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in (".DS_Store", ".git/config", "a/.b.png", "a/c.png"):
        _write(tmp_path / name)
    assert _names(tmp_path) == ["a/c.png"]


def test_the_root_itself_may_be_hidden_a_link_or_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / ".hidden" / "a.png")
    (tmp_path / "link").symlink_to(".hidden")
    monkeypatch.chdir(tmp_path)
    for root in (".hidden", "link", "./link/"):
        assert _names(Path(root)) == ["a.png"]
        assert read_file(_one(Path(root)))[0] == b"x"


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    _write(tmp_path / "elsewhere" / "inner" / "a.png", b"linked")
    root = tmp_path / "root"
    root.mkdir()
    (root / "file.png").symlink_to(tmp_path / "elsewhere" / "inner" / "a.png")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "twice").symlink_to(tmp_path / "elsewhere")  # no loop: another name for the same
    files = find_files(root)
    assert [file.name for file in files] == ["file.png", "folder/inner/a.png", "twice/inner/a.png"]
    assert {read_file(file)[0] for file in files} == {b"linked"}


@pytest.mark.parametrize("target", ["root", "root/a", "root/a/b"])
def test_a_link_to_a_folder_above_becomes_one_row(tmp_path: Path, target: str) -> None:
    _write(tmp_path / "root" / "a" / "b" / "c.png")
    (tmp_path / "root" / "a" / "b" / "loop").symlink_to(tmp_path / target)
    files = find_files(tmp_path / "root")
    assert [(file.name, file.problem) for file in files] == [
        ("a/b/c.png", ""),
        ("a/b/loop", "symbolic link loop"),
    ]
    assert _status_of(files[1]) == (Status.UNSUPPORTED, "symbolic link loop")


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "1.png")
    _write(tmp_path / "b" / "2.png")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert [(file.name, bool(file.problem)) for file in find_files(tmp_path)] == [
        ("a/1.png", False),
        ("a/to_b/2.png", False),
        ("a/to_b/to_a", True),
        ("b/2.png", False),
        ("b/to_a/1.png", False),
        ("b/to_a/to_b", True),
    ]


def test_a_link_to_itself_becomes_a_row(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to("self")
    assert _status_of(_one(tmp_path)) == (Status.UNSUPPORTED, "symbolic link loop")


def test_a_link_to_nothing_becomes_a_row(tmp_path: Path) -> None:
    (tmp_path / "dangling.png").symlink_to("nothing")
    file = _one(tmp_path)
    assert file.name == "dangling.png"
    assert _status_of(file)[0] == Status.VANISHED


def test_fifos_sockets_and_devices_become_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        files = find_files(tmp_path)
    assert [file.name for file in files] == ["fifo", "socket", "zero"]
    for file in files:
        assert _status_of(file) == (Status.UNSUPPORTED, "not a regular file")


def test_a_folder_that_cannot_be_listed_becomes_one_row(
    open_folder: Path, unprivileged: Unprivileged
) -> None:
    _write(open_folder / "a.png")
    _write(open_folder / "closed" / "b.png")
    _write(open_folder / "secret.png").chmod(0o000)
    (open_folder / "closed").chmod(0o000)
    with unprivileged():
        files = find_files(open_folder)
        assert [file.name for file in files] == ["a.png", "closed", "secret.png"]
        assert _status_of(files[1]) == (
            Status.IO_ERROR,
            "the folder cannot be listed: Permission denied",
        )
        assert _status_of(files[2]) == (Status.IO_ERROR, "cannot be read: Permission denied")
        with pytest.raises(InputError, match="closed cannot be read: Permission denied"):
            find_files(open_folder / "closed")
    (open_folder / "closed").chmod(0o755)


def test_a_folder_without_search_permission_gives_rows(
    open_folder: Path, unprivileged: Unprivileged
) -> None:
    # Its names can be listed, and nothing else can be known of them.
    _write(open_folder / "listed" / "b.png")
    (open_folder / "listed").chmod(0o744)
    with unprivileged():
        file = _one(open_folder)
        assert file.name == "listed/b.png"
        assert _status_of(file) == (Status.IO_ERROR, "cannot be read: Permission denied")


def test_a_walk_gives_names_in_their_order(tmp_path: Path) -> None:
    """What lies in `a` is called `a/...` and comes after `a-b`; `a` itself, if it is a row, before."""
    for name in ("a/z.png", "a/b/c.png", "a-b/c.png", "a.png", "ab.png", "é/a.png", "z/.x/a.png"):
        _write(tmp_path / name)
    _write(tmp_path / os.fsdecode(b"a\xff") / "x.png")
    (tmp_path / "a-b" / "up").symlink_to("..")
    (tmp_path / "a-b" / "up-0.png").symlink_to("c.png")
    names = [file.name for file in walk_files(tmp_path, [])]
    assert names == sorted(names)
    assert len(names) == 9
    assert "a-b/up" in names


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/f\xfclder/caf\xe9\n.png"
    os.mkdir(os.path.dirname(raw))
    with open(raw, "wb") as stream:
        stream.write(b"latin-1")
    file = _one(tmp_path)
    assert file.name == "f\\xfclder/caf\\xe9\n.png"
    assert file.name.encode("utf-8")
    assert os.fsencode(file.path) == raw
    assert read_file(file)[0] == b"latin-1"
    assert printable("é/ü") == "é/ü"


def test_two_hundred_nested_folders(tmp_path: Path) -> None:
    name = "/".join(["d"] * 200) + "/deep.png"
    _write(tmp_path / name, b"deep")
    assert _names(tmp_path) == [name]
    assert read_file(_one(tmp_path))[0] == b"deep"


def test_a_root_that_is_no_folder_is_an_input_error(tmp_path: Path) -> None:
    file = _write(tmp_path / "file.png")
    with pytest.raises(InputError, match="is not a folder"):
        find_files(file)
    with pytest.raises(InputError, match="does not exist"):
        find_files(tmp_path / "missing")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be read"):
        find_files(tmp_path / "loop")
    with pytest.raises(InputError, match="cannot be read"):
        find_files(file / "inner")


# --- reading ----------------------------------------------------------------------------------


def test_content_and_facts_of_a_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.png", bytes(range(256)))
    os.utime(path, ns=(1, 1_234_567_891_000_000_000))
    data, info = read_file(_one(tmp_path))
    assert data == bytes(range(256))
    assert (info.size, info.mtime_ns) == (256, 1_234_567_891_000_000_000)


def test_an_empty_file(tmp_path: Path) -> None:
    _write(tmp_path / "a.png", b"")
    assert _status_of(_one(tmp_path)) == (Status.EMPTY, "the file has no bytes")


def test_the_largest_file_and_one_byte_more(tmp_path: Path) -> None:
    _write(tmp_path / "a.png", bytes(1000))
    assert len(read_file(_one(tmp_path), max_bytes=1000)[0]) == 1000
    assert _status_of(_one(tmp_path), max_bytes=999) == (
        Status.TOO_LARGE,
        "1,000 bytes; the limit is 999",
    )


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: 1 TiB that occupies nothing
    assert _status_of(_one(tmp_path), max_bytes=512 << 20)[0] == Status.TOO_LARGE


def test_memory_is_taken_for_the_file_not_for_the_limit(tmp_path: Path) -> None:
    _write(tmp_path / "a.png", bytes(1000))
    # As much as no machine has: asking for it would be a MemoryError.
    assert len(read_file(_one(tmp_path), max_bytes=1 << 60)[0]) == 1000


def test_a_file_that_vanished(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.png")
    file = _one(tmp_path)
    path.unlink()
    assert _status_of(file)[0] == Status.VANISHED


@pytest.mark.parametrize("change", [1, 1_000_000, -1, -10])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    path = _write(tmp_path / "a.png", bytes(10))
    file = _one(tmp_path)
    fstat, calls = os.fstat, itertools.count()

    def fstat_then_change(descriptor: int) -> os.stat_result:
        info = fstat(descriptor)
        if next(calls) == 1:  # the first call is that of `open_regular`
            os.truncate(path, 10 + change)
        return info

    monkeypatch.setattr(os, "fstat", fstat_then_change)
    status, message = _status_of(file)
    assert status == Status.IO_ERROR
    assert "10 bytes" in message


def test_what_took_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("fifo", "folder", "device"):
        _write(tmp_path / name)
    device, fifo, folder = find_files(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    # Somebody writes to the FIFO in the end, so that waiting for it fails this test, and ends.
    came = threading.Event()
    writer = threading.Timer(30, lambda: (came.set(), os.open(tmp_path / "fifo", os.O_WRONLY)))
    writer.daemon = True
    writer.start()
    assert _status_of(fifo)[0] == Status.UNSUPPORTED
    assert not came.is_set()
    writer.cancel()
    assert _status_of(device)[0] == Status.UNSUPPORTED
    assert _status_of(folder)[0] == Status.UNSUPPORTED


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    _write(tmp_path / "a.png")
    (tmp_path / "folder").mkdir()
    before = os.listdir("/proc/self/fd")
    read_file(_one(tmp_path))
    for limit in (0, 1 << 20):
        _status_of(FoundFile(str(tmp_path / "folder"), "folder"), limit)
        _status_of(FoundFile(str(tmp_path / "missing"), "missing"), limit)
    assert os.listdir("/proc/self/fd") == before
