"""`tumorbatch shard` where a finished set is there and the source has changed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.preprocess.sets import (
    by_path,
    content_of,
    image_files,
    records_of,
    small_config,
    write_file,
)
from tumorbatch import shardset
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.preprocess import first_pass, verify, worker
from tumorbatch.preprocess.shard import run
from tumorbatch.preprocess.splits import Fractions
from tumorbatch.shardset import DATASET, MANIFEST
from tumorbatch.status import FileError, Status

if TYPE_CHECKING:
    from tests.preprocess.conftest import Build

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sizes of what is decoded from here on."""
    seen: list[str] = []
    real = worker.process

    def process(data: bytes, preprocessing: Any, **others: Any) -> Any:
        seen.append(data[:4].hex())
        return real(data, preprocessing)

    monkeypatch.setattr(worker, "process", process)
    return seen


@pytest.fixture
def raw(build: "type[Build]", tmp_path: Path) -> Path:
    """49 readable files and a broken one."""
    for name, data in image_files(build, 24).items():
        write_file(tmp_path / "raw" / name, data)
    write_file(tmp_path / "raw" / "Healthy" / "broken.png", b"\x89PNG\r\n\x1a\n but no more")
    return tmp_path / "raw"


@pytest.fixture
def out(raw: Path, tmp_path: Path) -> Path:
    """The shard set of `raw`."""
    run(raw, tmp_path / "tfrecords", small_config(shard_bytes=8_000))
    return tmp_path / "tfrecords"


def _update(raw: Path, out: Path, **changes: Any) -> Any:
    return run(raw, out, small_config(shard_bytes=8_000, **changes))


def _pixels(out: Path) -> dict[str, bytes]:
    return {record.filename: record.pixels for _, _, record in records_of(out, shardset.load(out))}


def _edit(path: Path) -> None:
    """Another content of the same length and age."""
    info, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def _add(path: Path) -> None:
    shutil.copy(path.with_name("001.png"), path.with_name("a copy.png"))


def _move(path: Path) -> None:
    path.rename(path.with_name("moved.png"))


@pytest.mark.parametrize(
    ("change", "changes", "decodes"),
    [
        (_add, {"kept": 50, "new": 1}, 1),
        (_edit, {"kept": 49, "changed": 1}, 1),
        (Path.unlink, {"kept": 49, "gone": 1}, 0),
        (_move, {"kept": 49, "new": 1, "gone": 1}, 1),
    ],
)
def test_what_changed_is_done_and_the_rest_is_kept(
    raw: Path,
    out: Path,
    tmp_path: Path,
    decoded: list[str],
    change: Callable[[Path], None],
    changes: dict[str, int],
    decodes: int,
) -> None:
    before, pixels = by_path(out), _pixels(out)
    change(raw / "Healthy" / "000.png")
    report = _update(raw, out)
    assert (report.changes, report.unchanged) == (changes, False)
    assert len(decoded) == decodes
    after = by_path(out)
    run(raw, tmp_path / "fresh", small_config(shard_bytes=8_000))
    fresh = by_path(tmp_path / "fresh")
    assert after.keys() == fresh.keys()
    free = ("split", "shard", "position")  # the rest of a row is what a fresh run writes
    for path, row in after.items():
        assert {**row, **dict.fromkeys(free)} == {**fresh[path], **dict.fromkeys(free)}
        if path in before and path != "Healthy/000.png":
            assert row["split"] == before[path]["split"]
    assert _pixels(out) == _pixels(tmp_path / "fresh")
    assert pixels.items() - _pixels(out).items() <= {("Healthy/000.png", pixels["Healthy/000.png"])}
    assert verify.run(out).problems == ()
    assert shardset.load(out).updates == 1
    assert not (out / ".partial").exists()
    again = content_of(out)
    assert _update(raw, out).unchanged
    assert content_of(out) == again


def test_a_renamed_file_and_a_copy_stay_in_their_split(raw: Path, out: Path) -> None:
    before = by_path(out)
    for path, row in before.items():
        if row["status"] == "ok" and path.endswith("0.png"):
            (raw / path).rename((raw / path).with_name(f"new {Path(path).name}"))
    _update(raw, out)
    after = by_path(out)
    moved = [path for path in after if "/new " in path]
    assert len({before[path.replace("new ", "")]["split"] for path in moved}) > 1
    for path in moved:
        assert after[path]["split"] == before[path.replace("new ", "")]["split"]


def test_many_new_files_fill_the_splits_by_their_shares(
    raw: Path, out: Path, build: "type[Build]"
) -> None:
    before = by_path(out)
    for k in range(200):
        pixels = build.smooth(40, 48, 5000 + k)
        write_file(raw / ("Healthy", "Brain Tumor")[k % 2] / f"late {k}.png", build.png(pixels))
    dataset = _update(raw, out).dataset
    total = sum(sum(of.values()) for of in dataset.counts.values())
    for split, share in dataset.fractions.items():
        assert sum(dataset.counts[split].values()) == pytest.approx(share * total, abs=4)
    after = by_path(out)
    assert all(after[path]["split"] == row["split"] for path, row in before.items())


def test_linked_groups_go_to_train_first_then_validation(raw: Path, out: Path, tmp_path: Path) -> None:
    of: dict[str, list[str]] = {}
    before = by_path(out)
    for path, row in before.items():
        if row["status"] == "ok":
            of.setdefault(row["split"], []).append(path)
    table = tmp_path / "patients.csv"
    lines = [f"{of['test'][0]},a", f"{of['train'][0]},a", f"{of['test'][-1]},b"]
    lines += [f"{of['validation'][0]},b"]
    table.write_text("path,patient\n" + "\n".join(lines) + "\n")
    report = _update(raw, out, patients=table, allow_unmatched=True)
    assert report.changes == {"kept": 50}  # no file has changed, and yet the set has
    after = by_path(out)
    assert {after[path]["split"] for path in (of["test"][0], of["train"][0])} == {"train"}
    assert {after[path]["split"] for path in (of["test"][-1], of["validation"][0])} == {"validation"}
    joined = {before[path]["duplicate_group"] for path in (of["test"][0], of["test"][-1])}
    for path, row in before.items():
        if row["duplicate_group"] not in joined:
            assert after[path]["split"] == row["split"]
    assert report.dataset.groups["patients"] == 2
    assert verify.run(out).problems == ()
    assert _update(raw, out, patients=table, allow_unmatched=True).unchanged


def test_a_file_that_could_not_be_read_is_tried_again(
    raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker.read_file

    def once(file: Any) -> Any:
        if file.name == "Healthy/000.png":
            raise FileError(Status.IO_ERROR, "cannot be read: Input/output error")
        return real(file)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "read_file", once)
        assert _update(raw, out).changes == {"kept": 49, "changed": 1}
        assert by_path(out)["Healthy/000.png"]["status"] == "io_error"
        assert _update(raw, out).unchanged
    assert _update(raw, out).changes == {"kept": 49, "changed": 1}
    assert by_path(out)["Healthy/000.png"]["status"] == "ok"


def test_an_image_under_both_classes_is_no_change(raw: Path, out: Path) -> None:
    shutil.copy(raw / "Healthy" / "000.png", raw / "Brain Tumor" / "same.png")
    assert _update(raw, out).changes == {"kept": 50, "new": 1}
    rows = by_path(out)
    for path in ("Healthy/000.png", "Brain Tumor/same.png"):
        assert rows[path]["status"] == "label_conflict"
    assert _update(raw, out).unchanged
    (raw / "Brain Tumor" / "same.png").unlink()
    assert _update(raw, out).changes == {"kept": 50, "gone": 1}
    assert by_path(out)["Healthy/000.png"]["status"] == "ok"


def test_a_damaged_record_is_not_taken_over(raw: Path, out: Path) -> None:
    shard = shardset.load(out).split("train")[0]
    data = bytearray((out / shard.name).read_bytes())
    data[len(data) // 2] ^= 1
    (out / shard.name).write_bytes(data)
    _add(raw / "Healthy" / "000.png")
    before = content_of(out)
    with pytest.raises(InputError, match="is damaged at position") as caught:
        _update(raw, out)
    assert shard.name in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert content_of(out) == before
    assert not _update(raw, out, overwrite=True).changes
    assert verify.run(out).problems == ()


def test_records_of_two_decoders_are_not_mixed(
    raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = {**shardset.load(out).versions, "opencv-python-headless": "99.0", "python": "3.99"}
    monkeypatch.setattr("tumorbatch.preprocess.shard.software", lambda: newer)
    assert _update(raw, out).unchanged
    _add(raw / "Healthy" / "000.png")
    before = content_of(out)
    with pytest.raises(ConfigError, match=r"opencv-python-headless .*, now 99\.0\)"):
        _update(raw, out)
    assert content_of(out) == before


def test_the_same_update_gives_the_same_bytes_from_any_history_of_kills(
    raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped behind each chunk of the first pass."""
    other = out.with_name("other")
    shutil.copytree(out, other)
    for k in range(3):
        shutil.copy(raw / "Healthy" / f"00{k}.png", raw / "Healthy" / f"00{k} copy.png")
    _update(raw, out)
    monkeypatch.setattr(first_pass, "CHUNK", 6)

    def one_chunk(function: Any, chunks: Any, *_: Any) -> Any:
        yield function(next(iter(chunks)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(first_pass, "ordered_map", one_chunk)
        for _ in range(8):
            with pytest.raises(KeyboardInterrupt):
                _update(raw, other)
    assert _update(raw, other).taken_over == 48
    assert content_of(other) == content_of(out)


def test_the_manifest_of_another_version_is_refused(raw: Path, out: Path) -> None:
    (out / MANIFEST).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="is damaged, or not the one"):
        _update(raw, out)


def test_a_split_by_file_keeps_each_file_in_its_split(
    raw: Path, tmp_path: Path, build: "type[Build]"
) -> None:
    out = tmp_path / "by file"
    run(raw, out, small_config(split_by="file"))
    before = by_path(out)
    write_file(raw / "Healthy" / "late.png", build.png(build.smooth(40, 48, 4711)))
    run(raw, out, small_config(split_by="file"))
    after = by_path(out)
    assert all(after[path]["split"] == row["split"] for path, row in before.items())
    assert len({row["split"] for row in after.values()} - {None}) == 3


def test_splits_of_shapes_share_nothing(tmp_path: Path, build: "type[Build]") -> None:
    rng = np.random.default_rng(3)
    for k in range(120):
        height, width = 40 + int(rng.integers(0, 9)), 40 + int(rng.integers(0, 2))
        pixels = build.smooth(height, width, k)
        name = f"{('Healthy', 'Brain Tumor')[k % 2]}/{k:03}"
        write_file(tmp_path / "raw" / f"{name}.png", build.png(pixels))
        if k % 10 == 0:  # a near duplicate of another shape joins two shapes
            write_file(tmp_path / "raw" / f"{name}.tif", build.tiff(pixels[:, :-1].copy()))
    out = tmp_path / "out"
    dataset = run(tmp_path / "raw", out, small_config(split_by="shape")).dataset
    assert dataset.shared == {"sha256": 0, "pixels": 0, "groups": 0, "copies": 0, "shapes": 0}
    assert not dataset.leaky
    of: dict[tuple[int, int], set[str]] = {}
    groups: dict[int, set[str]] = {}
    for row in by_path(out).values():
        of.setdefault((row["height"], row["width"]), set()).add(row["split"])
        groups.setdefault(row["duplicate_group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in (*of.values(), *groups.values()))
    assert {split for splits in of.values() for split in splits} == set(shardset.SPLITS)
    assert len(of) > 9
    assert verify.run(out).problems == ()


def _stop_after(monkeypatch: pytest.MonkeyPatch, chunks: int, size: int) -> None:
    """End the first pass behind some chunks, as a kill would."""

    def some(function: Any, work: Any, *_: Any) -> Any:
        for _ in range(chunks):
            yield function(next(iter(work)))
        raise KeyboardInterrupt

    monkeypatch.setattr(first_pass, "CHUNK", size)
    monkeypatch.setattr(first_pass, "ordered_map", some)


@pytest.mark.parametrize("fresh", [True, False])
def test_killed_and_then_the_source_changed(
    raw: Path, out: Path, fresh: bool, build: "type[Build]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done of unchanged files is kept, and the set is that of an undisturbed run."""
    other = out.with_name("other")
    if fresh:
        shutil.rmtree(out)
    else:
        shutil.copytree(out, other)
        for k in range(6):
            write_file(raw / "Healthy" / f"late {k}.png", build.png(build.smooth(40, 48, 800 + k)))
    with monkeypatch.context() as patch:
        _stop_after(patch, 3, 10)
        with pytest.raises(KeyboardInterrupt):
            _update(raw, out)
    write_file(raw / "Brain Tumor" / "000 first.png", build.png(build.smooth(40, 48, 900)))
    (raw / "Brain Tumor" / "001.png").unlink()
    _edit(raw / "Brain Tumor" / "002.png")
    os.utime(raw / "Brain Tumor" / "002.png")
    report = _update(raw, out)
    assert report.taken_over == 30 - 2
    _update(raw, other)
    assert content_of(out) == content_of(other)
    assert verify.run(out).problems == ()


def test_no_group_changes_its_split_when_a_killed_update_goes_on(
    raw: Path, out: Path, build: "type[Build]", monkeypatch: pytest.MonkeyPatch
) -> None:
    before = by_path(out)
    for k in range(40):
        write_file(raw / "Healthy" / f"late {k}.png", build.png(build.smooth(40, 48, 800 + k)))
    with monkeypatch.context() as patch:
        _stop_after(patch, 2, 10)
        with pytest.raises(KeyboardInterrupt):
            _update(raw, out)
    write_file(raw / "Healthy" / "later.png", build.png(build.smooth(40, 48, 900)))
    for overwrite in (False, True):
        _update(raw, out, overwrite=overwrite)
        after = by_path(out)
        assert all(after[path]["split"] == row["split"] for path, row in before.items())


def test_a_row_that_the_bytes_did_not_decide_is_not_kept(
    raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that could not be read, or whose worker was killed, before the run itself was."""
    expected = content_of(out)
    shutil.rmtree(out)
    real = worker.read_file

    def once(file: Any) -> Any:
        if file.name.endswith("0.png"):
            raise FileError(Status.IO_ERROR, "cannot be read: Input/output error")
        return real(file)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "read_file", once)
        _stop_after(patch, 3, 10)
        with pytest.raises(KeyboardInterrupt):
            _update(raw, out)
    _update(raw, out)
    assert content_of(out) == expected


def _splits(out: Path) -> dict[str, str]:
    return {path: row["split"] for path, row in by_path(out).items()}


def test_overwrite_keeps_the_splits_of_a_set_that_has_grown(
    raw: Path, out: Path, build: "type[Build]", tmp_path: Path
) -> None:
    for k in range(40):
        write_file(raw / "Healthy" / f"late {k}.png", build.png(build.smooth(40, 48, 800 + k)))
    _update(raw, out)
    _update(raw, tmp_path / "new")
    before, content = _splits(out), content_of(out)
    assert before != _splits(tmp_path / "new")
    _update(raw, out, overwrite=True)
    assert content_of(out) == content
    for name in (MANIFEST, DATASET):  # the shards still know
        (out / name).write_bytes(b"?")
        _update(raw, out, overwrite=True)
        assert _splits(out) == before
    _update(raw, out, overwrite=True, new_splits=True)
    assert content_of(out) == content_of(tmp_path / "new")


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"split_by": "file"}, {"fractions": Fractions(0.6, 0.2, 0.2)}]
)
def test_other_splits_need_a_flag_of_their_own(raw: Path, out: Path, other: dict[str, Any]) -> None:
    before = content_of(out)
    with pytest.raises(ConfigError, match=r"held out would be trained on\. .* --new-splits"):
        _update(raw, out, overwrite=True, **other)
    assert content_of(out) == before
    report = _update(raw, out, overwrite=True, new_splits=True, **other)
    assert report.dataset.updates == 0
    with pytest.raises(ConfigError, match="--overwrite as well"):
        small_config(new_splits=True)
