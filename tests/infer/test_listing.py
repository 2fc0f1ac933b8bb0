"""Which files become rows, and under which names."""

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.preprocess.conftest import Build
from tests.preprocess.dicom.test_decode import make
from tumorbatch.errors import ExitCode, InputError
from tumorbatch.files import printable
from tumorbatch.infer import inference
from tumorbatch.infer.config import Config
from tumorbatch.infer.listing import Selection, hashed, list_files
from tumorbatch.infer.predictions import iterate_rows

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
    # The same names in the next run: rows are found again.
    report = inference.run(tree, out, model, Config(workers=1, incremental=True, path_mode="hash"))
    assert report.kept == sum(row["status"] == "ok" for row in rows.values())


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
        if len(calls) == 2:  # between reading and the second look
            os.utime(found.path, (time.time() + 10, time.time() + 10))
        return fstat(descriptor)

    monkeypatch.setattr(files.os, "fstat", later)
    with pytest.raises(FileError, match="written to while being read"):
        files.read_file(found)
