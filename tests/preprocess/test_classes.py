"""Which folder holds which class."""

import os
from pathlib import Path

import pytest

from tumorbatch.errors import ConfigError, InputError, TumorBatchError
from tumorbatch.preprocess.classes import find_sources, refuse_inside
from tumorbatch.status import Status


def _folders(root: Path, *names: str) -> Path:
    """Each with two files."""
    for name in names:
        for file in ("a.png", "sub/b.jpg"):
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    return root


def _found(source: Path, **given: str) -> dict[str, int]:
    return {entry.file.name: entry.label for entry in find_sources(source, given)}


def _refusal(kind: type[TumorBatchError], source: Path, **given: str) -> str:
    with pytest.raises(kind) as caught:
        find_sources(source, given)
    assert type(caught.value) is kind
    return str(caught.value)


# --- spellings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tumor", ["Brain Tumor", "brain_tumor", "BRAIN-TUMOUR", "tumor", "Tumour", "YES"]
)
@pytest.mark.parametrize("healthy", ["Healthy", "no_tumor", "No Tumor", "notumor", "NO", "normal"])
def test_known_spellings(tmp_path: Path, healthy: str, tumor: str) -> None:
    _folders(tmp_path, healthy, tumor)
    assert _found(tmp_path) == {
        f"{healthy}/a.png": 0,
        f"{healthy}/sub/b.jpg": 0,
        f"{tumor}/a.png": 1,
        f"{tumor}/sub/b.jpg": 1,
    }


def test_files_are_sorted_by_name_and_can_be_opened(tmp_path: Path) -> None:
    found = find_sources(_folders(tmp_path, "Tumor", "Healthy"), {})
    names = [entry.file.name for entry in found]
    assert names == sorted(names)
    assert all(Path(entry.file.path).read_bytes() == b"x" for entry in found)
    assert [os.path.relpath(entry.file.path, tmp_path) for entry in found] == names


def test_hidden_entries_and_stray_files_are_passed_over(tmp_path: Path) -> None:
    _folders(tmp_path, "Healthy", "Tumor", ".cache")
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "Tumor" / ".DS_Store").write_text("hidden")
    assert len(_found(tmp_path)) == 4


def test_litter_is_passed_over_and_counted(tmp_path: Path) -> None:
    """A zip from a Mac, a Synology, Windows: none of it is an image, or a class."""
    _folders(tmp_path, "Healthy", "Tumor", "__MACOSX", "@eaDir", "Healthy/@eaDir")
    for name in ("Healthy/Thumbs.db", "Tumor/desktop.ini", "Tumor/._a.png", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0")
    litter: list[str] = []
    found = find_sources(tmp_path, {}, litter)
    assert {entry.file.name for entry in found} == {
        "Healthy/a.png", "Healthy/sub/b.jpg", "Tumor/a.png", "Tumor/sub/b.jpg",
    }  # fmt: skip
    assert sorted(os.path.relpath(path, tmp_path) for path in litter) == [
        ".DS_Store", "@eaDir", "Healthy/@eaDir", "Healthy/Thumbs.db", "Thumbs.db", "Tumor/._a.png",
        "Tumor/desktop.ini", "__MACOSX",
    ]  # fmt: skip


def test_what_cannot_be_read_is_still_a_row(tmp_path: Path) -> None:
    _folders(tmp_path, "Healthy", "Tumor")
    os.mkfifo(tmp_path / "Tumor" / "pipe.png")
    (tmp_path / "Tumor" / "loop").symlink_to(tmp_path / "Tumor")
    problems = {
        entry.file.name: (entry.label, entry.file.status)
        for entry in find_sources(tmp_path, {})
        if entry.file.problem
    }
    assert problems == {
        "Tumor/loop": (1, Status.UNSUPPORTED),
        "Tumor/pipe.png": (1, Status.UNSUPPORTED),
    }


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    _folders(tmp_path / "elsewhere", "patients")
    source = _folders(tmp_path / "raw", "Healthy")
    (source / "Tumor").symlink_to(tmp_path / "elsewhere" / "patients")
    assert _found(source)["Tumor/a.png"] == 1


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    _folders(tmp_path, "Healthy", "Tumor")
    (tmp_path / "Tumor" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    assert _found(tmp_path)["Tumor/caf\\xe9.png"] == 1


# --- given folders ----------------------------------------------------------------------------------


def test_folders_can_be_named(tmp_path: Path) -> None:
    _folders(tmp_path, "controls", "patients", "notes")
    assert _found(tmp_path, Healthy="controls", tumor="patients") == {
        "controls/a.png": 0,
        "controls/sub/b.jpg": 0,
        "patients/a.png": 1,
        "patients/sub/b.jpg": 1,
    }


def test_given_folders_win_over_spellings(tmp_path: Path) -> None:
    _folders(tmp_path, "Healthy", "Tumor", "yes")
    assert set(_found(tmp_path, Healthy="Tumor", Tumor="Healthy").items()) >= {
        ("Tumor/a.png", 0),
        ("Healthy/a.png", 1),
    }
    assert set(_found(tmp_path, Tumor="yes")) == {
        "Healthy/a.png", "Healthy/sub/b.jpg", "yes/a.png", "yes/sub/b.jpg",
    }  # fmt: skip


def test_only_the_unknown_folder_needs_naming(tmp_path: Path) -> None:
    _folders(tmp_path, "controls", "Brain Tumor")
    found = _found(tmp_path, Healthy="controls")
    assert found["controls/a.png"] == 0
    assert found["Brain Tumor/a.png"] == 1


def test_a_given_class_leaves_no_other_folder_unexplained(tmp_path: Path) -> None:
    _folders(tmp_path, "controls", "Tumor", "misc")
    text = _refusal(ConfigError, tmp_path, Healthy="controls")
    assert "'misc'" in text


def test_a_given_folder_that_is_not_there(tmp_path: Path) -> None:
    _folders(tmp_path, "Healthy", "Tumor")
    text = _refusal(ConfigError, tmp_path, Healthy="control")
    assert "--class Healthy=control" in text
    assert "Found: 'Healthy', 'Tumor'." in text


def test_a_given_class_that_does_not_exist(tmp_path: Path) -> None:
    _folders(tmp_path, "Healthy", "Tumor")
    text = _refusal(ConfigError, tmp_path, Cyst="Tumor")
    assert "Healthy or Tumor" in text
    assert "Cyst" in text


def test_one_folder_for_both_classes(tmp_path: Path) -> None:
    _folders(tmp_path, "all")
    assert "both classes" in _refusal(ConfigError, tmp_path, Healthy="all", Tumor="all")


# --- what is refused --------------------------------------------------------------------------------


def test_an_unknown_folder_is_named_with_all_that_was_found(tmp_path: Path) -> None:
    _folders(tmp_path, "Healthy", "Cyst", "Tumor")
    text = _refusal(ConfigError, tmp_path)
    assert "'Cyst'" in text
    assert "Found: 'Cyst', 'Healthy', 'Tumor'." in text
    assert "--class Healthy=FOLDER" in text


def test_two_folders_for_one_class(tmp_path: Path) -> None:
    _folders(tmp_path, "Healthy", "no", "Tumor")
    text = _refusal(ConfigError, tmp_path)
    assert "two folders for Healthy: 'Healthy' and 'no'" in text
    assert "--class" in text
    assert _found(tmp_path, Healthy="no")["no/a.png"] == 0  # the advice works


@pytest.mark.parametrize(("present", "missing"), [("Healthy", "Tumor"), ("Tumor", "Healthy")])
def test_one_class_only(tmp_path: Path, present: str, missing: str) -> None:
    text = _refusal(ConfigError, _folders(tmp_path, present))
    assert f"no folder for {missing}" in text
    assert f"--class {missing}=FOLDER" in text


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for missing in (tmp_path / "raw", tmp_path / "file" / "raw"):
        text = _refusal(InputError, missing)
        assert f"{missing} is not there" in text
        assert f"tumorbatch sample {missing}" in text
    assert f"{tmp_path / 'file'} is a file" in _refusal(InputError, tmp_path / "file")


def test_an_output_among_the_images_is_refused(tmp_path: Path) -> None:
    """Also by way of a class folder that is a link, and where the output is one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    source = tmp_path / "raw"
    (source / "Tumor").mkdir(parents=True)
    (source / "Healthy").symlink_to(elsewhere)
    for folder in (source / "Tumor", elsewhere):
        (folder / "a.png").write_bytes(b"x")
    (tmp_path / "link").symlink_to(elsewhere / "out")
    files = find_sources(source, {})
    refuse_inside(tmp_path / "out", source, files, {})
    refuse_inside(tmp_path / "raw-out", source, files, {})
    refuse_inside(source / ".hidden" / "out", source, files, {})
    both = {"Healthy": "Healthy", "Tumor": "Tumor"}
    refuse_inside(source / "out", source, files, both)
    for out in (source / "out", source, elsewhere / "a" / "out", tmp_path / "link"):
        with pytest.raises(ConfigError, match="is among the images"):
            refuse_inside(out, source, files, {})
    with pytest.raises(ConfigError, match="is among the images"):
        refuse_inside(source / "Tumor" / "out", source, files, both)


def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    text = _refusal(InputError, tmp_path / ("n" * 300))
    assert "cannot be read: File name too long" in text


def test_an_empty_source(tmp_path: Path) -> None:
    text = _refusal(InputError, tmp_path)
    assert "Found: no folders" in text
    (tmp_path / "Healthy").mkdir()
    (tmp_path / "Tumor").mkdir()
    text = _refusal(InputError, tmp_path)
    assert "no files in its class folders 'Healthy' and 'Tumor'" in text


def test_one_empty_class_folder_is_found_out_later(tmp_path: Path) -> None:
    """With files of one class alone, the split says what is missing."""
    _folders(tmp_path, "Healthy")
    (tmp_path / "Tumor").mkdir()
    assert set(_found(tmp_path).values()) == {0}
