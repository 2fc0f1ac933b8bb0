"""Which files become rows, and under which names."""

import io
import os
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.preprocess.conftest import Build
from tests.preprocess.dicom.test_decode import make
from tumorbatch.errors import ConfigError, ExitCode, InputError
from tumorbatch.files import printable
from tumorbatch.infer import inference
from tumorbatch.infer.config import Config
from tumorbatch.infer.listing import Selection, hashed, list_files
from tumorbatch.infer.predictions import iterate_rows

pytestmark = pytest.mark.usefixtures("in_process")

PNG = Build.encode(".png", Build.smooth(40, 48))
TREE = {
    "a.png": PNG,
    "deep/b.PNG": PNG,
    "deep/T1 c.jpg": b"no picture",
    "deep/mask_d.png": PNG,
    "dicom without suffix": make(Build.smooth(40, 48)),
    "png without suffix": PNG,
    "empty": b"",
    "notes.txt": b"Patient cancelled.\n",
    "really a png.txt": PNG,
    "scan.nii": b"no picture",
    ".hidden.png": PNG,
}
IMAGES = {
    "a.png", "deep/b.PNG", "deep/T1 c.jpg", "deep/mask_d.png", "dicom without suffix",
    "png without suffix", "really a png.txt", "scan.nii",
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "scans"
    for name, data in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def _names(root: Path, **selection: Any) -> set[str]:
    listing = list_files(root, Selection(**selection), frozenset(), None)
    names = [file.name for file in listing.files]
    assert names == sorted(set(names))
    return set(names)


def _paths(*sources: Path, **selection: Any) -> list[str]:
    listing = list_files(sources, Selection(**selection), frozenset(), None)
    return [file.name for file in listing.files]


def test_a_single_file_is_a_source(tree: Path) -> None:
    """By its own name; it was asked for, so it need not look like an image."""
    assert _paths(tree / "deep" / "b.PNG") == ["b.PNG"]
    assert _paths(tree / "notes.txt") == ["notes.txt"]


def test_paths_of_several_sources_cannot_collide(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "more" / "deep"
    other.mkdir(parents=True)
    (other / "b.PNG").write_bytes(PNG)
    assert _paths(tree / "deep", other, tree / "a.png") == [
        "more/deep/b.PNG", "scans/a.png", "scans/deep/T1 c.jpg", "scans/deep/b.PNG",
        "scans/deep/mask_d.png",
    ]  # fmt: skip
    assert _paths(tree / "deep", tree / "a.png", exclude=("*.png",)) == ["deep/T1 c.jpg", "deep/b.PNG"]


def test_a_source_inside_another_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree / "deep")
    for inner in (tree / "deep", tree / "a.png", tree, tmp_path / "link"):
        with pytest.raises(ConfigError, match="its files would be rows twice"):
            _paths(tree, inner)
    with pytest.raises(ConfigError, match="one FOLDER"):
        _paths(tree / "deep", tree / "a.png", listed="list.txt")
    with pytest.raises(InputError, match="does not exist"):
        _paths(tree, tmp_path / "missing")


def test_images_by_suffix_or_first_bytes_and_everything_on_request(tree: Path) -> None:
    os.mkfifo(tree / "pipe")  # must not be waited for
    os.mkfifo(tree / "pipe.png")
    (tree / "round").symlink_to(".")
    (tree / "dangling").symlink_to("nowhere")
    assert _names(tree) == {*IMAGES, "pipe.png", "round", "dangling"}
    every = {*TREE, "pipe", "pipe.png", "round", "dangling"} - {".hidden.png"}
    assert _names(tree, all_files=True) == every
    listing = list_files(tree, Selection(), frozenset(), None)
    assert (listing.others, listing.young) == (3, 0)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"include": ("*.png",)}, {"a.png", "deep/mask_d.png"}),
        ({"include": ("*.[pP][nN][gG]",), "exclude": ("*mask*",)}, {"a.png", "deep/b.PNG"}),
        ({"include": ("deep/*",)}, {"deep/b.PNG", "deep/T1 c.jpg", "deep/mask_d.png"}),
        ({"include": ("T1*", "a.*")}, {"deep/T1 c.jpg", "a.png"}),
        ({"exclude": ("*",), "include": ("*",)}, None),
    ],
)
def test_patterns(tree: Path, selection: dict[str, Any], expected: set[str] | None) -> None:
    if expected is None:
        with pytest.raises(InputError, match="no files to predict"):
            _names(tree, **selection)
    else:
        assert _names(tree, **selection) == expected


def test_a_list_of_files(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "line\nend.png").write_bytes(PNG)
    listed = tmp_path / "list.txt"
    listed.write_text(f"a.png\r\n\n./deep/../deep/b.PNG\n{tree}/notes.txt\ngone.png\na.png\ndeep\n")
    files = list_files(tree, Selection(listed=str(listed)), frozenset(), None).files
    # What is listed is a row, whatever it is.
    assert [file.name for file in files] == ["a.png", "deep", "deep/b.PNG", "gone.png", "notes.txt"]
    assert files[1].problem == "a folder"
    assert files[0].size == len(PNG)

    class Input:
        buffer = io.BytesIO(b"line\nend.png\0a.png\0")

    monkeypatch.setattr(sys, "stdin", Input)
    assert _names(tree, listed="-") == {"line\nend.png", "a.png"}
    for outside in ("../other.png", "/etc/passwd", ".."):
        listed.write_text(f"a.png\n{outside}\n")
        with pytest.raises(InputError, match=r"Line 2 of the list.*is not below"):
            _names(tree, listed=str(listed))
    with pytest.raises(InputError, match="cannot be read"):
        _names(tree, listed=str(tmp_path / "absent"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
def test_lists_of_notepad_and_powershell(tree: Path, tmp_path: Path, encoding: str, end: str) -> None:
    (tree / "Müller.png").write_bytes(PNG)
    listed = tmp_path / "list.txt"
    listed.write_bytes(f"a.png{end}Müller.png{end}".encode(encoding))
    assert _names(tree, listed=str(listed)) == {"a.png", "Müller.png"}
    listed.write_bytes(f"a.png{end}deep/b.PNG{end}".encode("utf-16-le"))
    with pytest.raises(InputError, match="is in UTF-16 without a byte order mark"):
        _names(tree, listed=str(listed))


def test_names_of_one_letter_between_zero_bytes_are_no_utf_16(tree: Path, tmp_path: Path) -> None:
    for name in "abc":
        (tree / name).write_bytes(PNG)
    (tmp_path / "list").write_bytes(b"a\0b\0c\0")
    assert _names(tree, listed=str(tmp_path / "list")) == {"a", "b", "c"}


def test_a_list_relative_to_the_current_folder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ls scans/*.png > list` writes it. What lies below FOLDER goes first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text("scans/a.png\n./scans/deep/b.PNG\nscans/gone.png\n")
    assert _names(Path("scans"), listed="list") == {"a.png", "deep/b.PNG", "scans/gone.png"}
    (tree / "scans").mkdir()
    (tree / "scans" / "a.png").write_bytes(PNG)
    (tmp_path / "list").write_text("scans/a.png\n")
    assert _names(tree, listed="list") == {"scans/a.png"}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_listed_names_in_the_other_unicode_form(tree: Path, tmp_path: Path, forms: Any) -> None:
    on_disk, in_list = (unicodedata.normalize(form, "Müller/é.png") for form in forms)
    (tree / on_disk).parent.mkdir()
    (tree / on_disk).write_bytes(PNG)
    (tmp_path / "list").write_text(f"{in_list}\nMüller/gone.png\n")
    found = _names(tree, listed=str(tmp_path / "list"))
    assert found == {on_disk, "Müller/gone.png"}


def test_a_file_from_the_future_is_not_young(tree: Path) -> None:
    """A scanner's clock may run years ahead: its files would be left for the next run for ever."""
    now = time.time()
    for name, changed in {"a.png": now + 1e9, "deep/b.PNG": now + 30, "scan.nii": now - 3600}.items():
        os.utime(tree / name, (changed, changed))
    selection = Selection(include=("a.png", "*.PNG", "*.nii"), min_age=600)
    listing = list_files(tree, selection, frozenset(), None)
    assert [file.name for file in listing.files] == ["a.png", "scan.nii"]
    assert (listing.young, listing.future) == (1, 1)  # the clock of a file server may be a bit ahead
    listing = list_files(tree, Selection(include=("a.png",)), frozenset(), None)
    assert (len(listing.files), listing.future) == (1, 0)  # nobody has asked


def test_litter_is_passed_over_and_counted(tree: Path) -> None:
    for name in (
        "Thumbs.db",
        "deep/desktop.ini",
        "__MACOSX/a.png",
        "@eaDir/a.png@SynoEAStream",
        "._a.png",
    ):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(PNG)
    listing = list_files(tree, Selection(all_files=True), frozenset(), None)
    assert {file.name for file in listing.files} == TREE.keys() - {".hidden.png"}
    assert listing.litter == 5


def test_listed_files_through_the_command(tree: Path, model: Path, tmp_path: Path, invoke: Any) -> None:
    listed, out = tmp_path / "list.txt", tmp_path / "out.parquet"
    listed.write_text("a.png\ngone.png\nnotes.txt\n")
    command = ("infer", tree, out, "--model", model, "--workers", 1, "--files", listed)
    assert invoke(*command)[0] == ExitCode.SOME_ERRORS
    statuses = {row["path"]: row["status"] for row in iterate_rows(out)}
    assert statuses == {"a.png": "ok", "gone.png": "vanished", "notes.txt": "unsupported"}


def test_names_that_are_not_utf_8_or_turn_around_stay_apart(tmp_path: Path) -> None:
    names = [b"caf\xe9.png", b"caf\\xe9.png", b"caf\\\xe9.png", b"caf\\\\xe9.png", b"a\\b.png"]
    names += ["\u202egnp.rtl.png".encode(), b"\xf0\x9f.png", "Zürich\n.png".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(PNG)
    found = _names(tmp_path)
    assert len(found) == len(names)
    assert {"a\\b.png", "\u202egnp.rtl.png", "Zürich\n.png", "caf\\xe9.png"} <= found
    for name in found:
        name.encode()  # all of them can be written to a table
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert printable("caf\\xe9") == "caf\\\\xe9"


def test_hidden_paths(tree: Path, model: Path, tmp_path: Path, invoke: Any) -> None:
    out = tmp_path / "out.parquet"
    command = ("infer", tree, out, "--model", model, "--workers", 1, "--path-mode", "hash")
    assert invoke(*command, "--quiet") == (ExitCode.SOME_ERRORS, "")
    rows = {row["path"]: row for row in iterate_rows(out)}
    key = (tmp_path / ".out.parquet.key").read_bytes()
    assert (tmp_path / ".out.parquet.key").stat().st_mode & 0o777 == 0o600
    assert rows.keys() == {hashed(name, key) for name in IMAGES}
    written = out.read_bytes() + (tmp_path / "out.parquet.json").read_bytes()
    assert not any(name.encode() in written for name in IMAGES)
    assert str(tree).encode() not in written
    # The same names in the next run: rows are found again.
    report = inference.run(tree, out, model, Config(workers=1, incremental=True, path_mode="hash"))
    assert report.files_kept == sum(row["status"] == "ok" for row in rows.values())


def test_ten_thousand_files_in_one_folder_and_two_hundred_levels(
    quick: Any, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for index in range(10_000):
        (folder / f"{index:05}.png").touch()
    deep = folder / "/".join(["d"] * 200)
    deep.mkdir(parents=True)
    (deep / "deep.png").write_bytes(PNG)
    out = tmp_path / "out.parquet"
    process = quick("infer", folder, out, "--model", model, "--quiet", part_rows=4096)
    assert process.communicate(timeout=200) == ("", "")
    statuses = [row["status"] for row in iterate_rows(out)]
    assert (statuses.count("empty"), statuses.count("ok"), len(statuses)) == (10_000, 1, 10_001)


def test_a_file_that_is_being_written_is_a_row(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tumorbatch import files
    from tumorbatch.status import FileError

    (found,) = list_files(tree, Selection(include=("a.png",)), frozenset(), None).files
    fstat = os.fstat
    calls = []

    def later(descriptor: int) -> os.stat_result:
        calls.append(descriptor)
        if len(calls) == 3:  # between reading and the last look; the first is that of `open_regular`
            os.utime(found.path, (time.time() + 10, time.time() + 10))
        return fstat(descriptor)

    monkeypatch.setattr(files.os, "fstat", later)
    with pytest.raises(FileError, match="written to while being read"):
        files.read_file(found)


def test_a_list_that_is_no_file_is_not_opened(tree: Path, tmp_path: Path) -> None:
    """A device has no end, and a FIFO may have no beginning; what a shell opened for us is read."""
    os.mkfifo(tmp_path / "fifo")
    for listed in (tmp_path / "fifo", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="not a regular file"):
            list_files(tree, Selection(listed=str(listed)), frozenset(), None)
    reading, writing = os.pipe()
    os.write(writing, b"a.png\n")
    os.close(writing)
    selection = Selection(listed=f"/dev/fd/{reading}")
    assert [file.name for file in list_files(tree, selection, frozenset(), None).files] == ["a.png"]
    os.close(reading)
