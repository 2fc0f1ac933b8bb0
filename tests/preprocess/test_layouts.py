"""Folders that join one class, and folders for splits."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.answers import answers
from tests.preprocess.sets import by_path, records_of, small_config, write_file
from tumorbatch import shardset
from tumorbatch.cli.summaries import shard_summary
from tumorbatch.errors import ConfigError
from tumorbatch.evaluation.answers import score_split
from tumorbatch.evaluation.protocols import dataset_protocol
from tumorbatch.evaluation.split_metrics import by_format_and_size
from tumorbatch.preprocess.classes import find_sources
from tumorbatch.preprocess.shard import Report, run
from tumorbatch.preprocess.verify import run as verify
from tumorbatch.workflows.steps import shard_config

if TYPE_CHECKING:
    from tests.conftest import Invoke
    from tests.preprocess.conftest import Build

KAGGLE = ("glioma", "meningioma", "notumor", "pituitary")


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker processes, and no waiting for the disk."""

    def in_order(function: Callable[..., Any], chunks: Any, *_: Any) -> Iterator[Any]:
        return map(function, chunks)

    monkeypatch.setattr("tumorbatch.preprocess.first_pass.ordered_map", in_order)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def _write(build: "type[Build]", root: Path, each: int, *folders: str) -> Path:
    """Write different images into each folder."""
    for number, folder in enumerate(folders):
        for k in range(each):
            image = build.smooth(40, 48, 1000 * number + k + sum(map(ord, folder)))
            write_file(root / folder / f"{k}.png", build.png(image))
    return root


@pytest.fixture
def kinds(build: "type[Build]", tmp_path: Path) -> Path:
    """Four folders as of a known public data set."""
    return _write(build, tmp_path / "raw", 4, *KAGGLE)


@pytest.fixture
def two_parts(build: "type[Build]", tmp_path: Path) -> Path:
    """`Training` and `Testing`; one test image is a copy of a training image."""
    root = tmp_path / "raw"
    _write(build, root, 6, *(f"Training/{name}" for name in KAGGLE))
    _write(build, root, 2, *(f"Testing/{name}" for name in KAGGLE))
    copied = (root / "Training" / "glioma" / "3.png").read_bytes()
    (root / "Testing" / "glioma" / "0.png").write_bytes(copied)
    return root


# --- joined folders ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [KAGGLE, ("Glioma_Tumor", "meningioma tumor", "No_Tumor", "PITUITARY")]
)
def test_known_kinds_of_tumour_join_one_class(
    build: "type[Build]", tmp_path: Path, names: tuple[str, ...]
) -> None:
    found = find_sources(_write(build, tmp_path, 1, *names), {})
    assert {entry.file.name: (entry.label, entry.subclass) for entry in found} == {
        f"{names[0]}/0.png": (1, "glioma"),
        f"{names[1]}/0.png": (1, "meningioma"),
        f"{names[2]}/0.png": (0, names[2]),
        f"{names[3]}/0.png": (1, "pituitary"),
    }


def test_folders_are_joined_by_name(build: "type[Build]", tmp_path: Path, invoke: "Invoke") -> None:
    root = _write(build, tmp_path / "raw", 8, "controls", "cyst", "abscess", "other")
    code, text = invoke(
        "shard", root, tmp_path / "out", "--size", 32, "--workers", 1,
        "--class", "healthy=controls", "--class", "Tumor=cyst", "--class", "tumor=abscess",
    )  # fmt: skip
    assert code == 0, text
    assert "Subclasses (column subclass of the manifest): abscess 8, controls 8, cyst 8." in text
    rows = by_path(tmp_path / "out").values()
    assert {row["subclass"] for row in rows if row["class"] == "Tumor"} == {"cyst", "abscess"}


def test_a_general_name_beside_a_kind_of_tumour_is_refused(
    build: "type[Build]", tmp_path: Path
) -> None:
    _write(build, tmp_path, 1, "glioma", "Tumor", "Healthy")
    with pytest.raises(ConfigError, match="two folders for Tumor: 'Tumor' and 'glioma'"):
        find_sources(tmp_path, {})
    found = find_sources(tmp_path, {"Tumor": ["glioma", "Tumor"]})  # the advice works
    assert Counter(entry.subclass for entry in found) == {"glioma": 1, "Tumor": 1, "Healthy": 1}


def test_a_folder_around_the_class_folders_is_named(build: "type[Build]", tmp_path: Path) -> None:
    inner = _write(build, tmp_path / "archive" / "images", 1, "yes", "no")
    with pytest.raises(ConfigError, match=rf"but {inner} has: 'no', 'yes'\. Give that folder"):
        find_sources(tmp_path, {})
    assert len(find_sources(inner, {})) == 2  # the advice works
    (inner / "else").mkdir()
    with pytest.raises(ConfigError, match="folder 'archive', which is not a known name"):
        find_sources(tmp_path, {})


def test_one_folder_in_both_classes_is_refused(build: "type[Build]", tmp_path: Path) -> None:
    _write(build, tmp_path, 1, "a", "b")
    with pytest.raises(ConfigError, match="both classes"):
        find_sources(tmp_path, {"Healthy": "a", "Tumor": ["b", "a"]})


def test_subclasses_are_in_manifest_and_dataset_and_reports(kinds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(kinds, out, small_config())
    rows = by_path(out)
    assert all(row["subclass"] == path.split("/")[0] for path, row in rows.items())
    dataset = shardset.load(out)
    assert dataset == report.dataset
    for split, counts in dataset.subclasses.items():
        in_split = [row["subclass"] for row in rows.values() if row["split"] == split]
        assert {name: count for name, count in counts.items() if count} == Counter(in_split)
    assert not verify(out).problems
    assert "glioma 4, meningioma 4, notumor 4, pituitary 4" in shard_summary(report, out)
    assert shard_config(dataset, out).classes == {
        "Healthy": ["notumor"], "Tumor": ["glioma", "meningioma", "pituitary"],
    }  # fmt: skip
    scored = score_split(out, dataset, "train", lambda images: images.mean(axis=(1, 2)))
    assert scored.images.subclasses == tuple(path.split("/")[0] for path in scored.images.paths)
    assert run(kinds, out, small_config()).unchanged


def test_a_changed_subclass_is_found(kinds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(kinds, out, small_config())
    text = (out / "dataset.json").read_text()
    (out / "dataset.json").write_text(text.replace('"pituitary"', '"cyst"'))
    assert any("wrong about subclasses" in str(problem) for problem in verify(out).problems)


def test_a_plain_set_has_no_subclasses(build: "type[Build]", tmp_path: Path) -> None:
    root = _write(build, tmp_path / "raw", 4, "Healthy", "Tumor")
    report = run(root, tmp_path / "out", small_config())
    assert "subclass" not in next(iter(by_path(tmp_path / "out").values()))
    assert "subclasses" not in report.dataset.to_dict()


def test_errors_are_told_apart_by_subclass() -> None:
    test = answers(
        [3, 3, -3, 3, -3], [1, 1, 1, 0, 0], subclasses=("glioma", "glioma", "pituitary", "no", "no")
    )
    rows = by_format_and_size(test, replicates=20)["by_subclass"]
    accuracy = {row["name"]: (row["n"], row["figures"]["accuracy"]["value"]) for row in rows}
    assert accuracy == {"glioma": (2, 1.0), "no": (2, 0.5), "pituitary": (1, 0.0)}
    assert "by_subclass" not in by_format_and_size(answers([1, -1], [1, 0]), replicates=20)
    assert test.take(np.array([2])).images.subclasses == ("pituitary",)


# --- folders for splits -----------------------------------------------------------------------------


def _splits(out: Path) -> dict[str, str]:
    return {path: row["split"] for path, row in by_path(out).items()}


def test_given_splits_are_kept_and_copies_across_them_reported(two_parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(two_parts, out, small_config(split_by="given"))
    splits = _splits(out)
    assert {split for path, split in splits.items() if path.startswith("Testing/")} == {"test"}
    training = Counter(split for path, split in splits.items() if path.startswith("Training/"))
    assert set(training) == {"train", "validation"}
    assert 3 <= training["validation"] <= 6  # 15 of 85 % of 24 images
    dataset = report.dataset
    assert (dataset.split_by, dataset.leaky, dataset.shared["test_images"]) == ("given", True, 1)
    assert dataset_protocol(dataset).key == "leaky-given"
    text = shard_summary(report, out)
    assert "The splits are those of the source's folders (--splits given)." in text
    assert "1 of 8 test images have a copy in the other splits." in text
    assert "LEAKY" in text
    checked = verify(out)
    assert (checked.problems, checked.leak) == ((), "leaky")
    assert shard_config(dataset, out).split_by == "given"
    assert len(list(records_of(out, dataset))) == 32


def test_given_splits_without_copies_are_not_leaky(
    two_parts: Path, build: "type[Build]", tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (two_parts / "Testing" / "glioma" / "0.png").unlink()
    report = run(two_parts, out, small_config(split_by="given"))
    assert not report.dataset.leaky
    assert dataset_protocol(report.dataset).key == "given"
    before = _splits(out)
    _write(build, two_parts, 9, "Training/glioma")
    assert run(two_parts, out, small_config(split_by="given")).dataset.updates == 1
    after = _splits(out)
    assert {path: after[path] for path in before} == before
    assert not verify(out).problems


def test_a_folder_for_validation_is_kept(two_parts: Path, build: "type[Build]", tmp_path: Path) -> None:
    _write(build, two_parts, 2, "valid/glioma", "valid/notumor")
    run(two_parts, tmp_path / "out", small_config(split_by="given"))
    splits = _splits(tmp_path / "out")
    assert {path for path, split in splits.items() if split == "validation"} == {
        path for path in splits if path.startswith("valid/")
    }


def test_splits_are_pooled_by_default(two_parts: Path, tmp_path: Path) -> None:
    report: Report = run(two_parts, tmp_path / "out", small_config())
    assert not report.dataset.leaky
    assert (
        "Testing and Training were pooled and split anew; --splits given keeps them."
        in shard_summary(report, tmp_path / "out")
    )
    assert any(
        path.startswith("Testing/") and split != "test"
        for path, split in _splits(tmp_path / "out").items()
    )


def test_given_splits_need_folders_for_them(kinds: Path, tmp_path: Path, invoke: "Invoke") -> None:
    with pytest.raises(ConfigError, match="no files in a folder 'Training' or 'Testing'"):
        run(kinds, tmp_path / "out", small_config(split_by="given"))
    code, text = invoke("shard", kinds, tmp_path / "out", "--splits", "given", "--split-by", "shape")
    assert code == 2
    assert "Leave out one of the two" in text.replace("\n", " ")
