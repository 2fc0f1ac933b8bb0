"""Folds: each image is held out once, and nothing that belongs together is divided."""

from pathlib import Path

import numpy as np
import pytest

from tumorbatch import shardset
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.fold_images import FoldImages, assign, fold_images
from tumorbatch.folds import GROUP, SHAPE, Fold
from tumorbatch.out_of_fold import OutOfFold, mean, read, to_bytes


def _units(seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    units = random.integers(0, 60, 300)
    labels = (random.random(60) < 0.4).astype(np.int64)[units]
    return units, labels, [f"{number:03}" for number in range(300)]


def test_units_stay_together_and_classes_are_spread_evenly() -> None:
    units, labels, keys = _units(0)
    folds = assign(units, labels, keys, 5, seed=0)
    for unit in np.unique(units):
        assert len(np.unique(folds[units == unit])) == 1
    for label in (0, 1):
        held = np.bincount(folds[labels == label], minlength=5)
        assert held.max() - held.min() <= np.bincount(units).max()


def test_the_order_of_the_images_changes_nothing_and_the_seed_does() -> None:
    units, labels, keys = _units(1)
    folds = assign(units, labels, keys, 4, seed=0)
    order = np.random.default_rng(2).permutation(300)
    again = assign(units[order] + 7, labels[order], [keys[index] for index in order], 4, seed=0)
    assert np.array_equal(again, folds[order])
    assert not np.array_equal(assign(units, labels, keys, 4, seed=1), folds)


@pytest.mark.parametrize("by", [GROUP, SHAPE])
def test_the_folds_of_a_shard_set(shard_set: Path, by: str) -> None:
    dataset = shardset.load(shard_set)
    images = fold_images(shard_set, dataset, 2, by)
    assert list(images.paths) == sorted(images.paths)
    assert len(images.paths) == dataset.records("train") + dataset.records("validation")
    together = images.groups if by == GROUP else np.array(images.shapes)
    for one in np.unique(together):
        assert len(np.unique(images.folds[together == one])) == 1
    for group in np.unique(images.groups):
        assert len(np.unique(images.folds[images.groups == group])) == 1


def test_a_fold_that_holds_far_more_than_its_share_is_named() -> None:
    none = np.zeros(30, np.int64)
    names = tuple(map(str, range(30)))
    equal, unequal = (
        FoldImages(names, np.repeat([0, 1, 2], sizes), none, none, names)
        for sizes in ([15, 8, 7], [16, 7, 7])
    )
    assert not equal.imbalance
    assert "one holds 16 of 30 images" in unequal.imbalance
    assert unequal.imbalance.endswith("is trained on 14")


def test_more_folds_than_groups_are_refused(shard_set: Path) -> None:
    with pytest.raises(ConfigError, match=r"can be divided into \d+ folds only.*smaller --folds"):
        fold_images(shard_set, shardset.load(shard_set), 20, SHAPE)


@pytest.mark.parametrize(("number", "count", "by"), [(0, 1, GROUP), (2, 2, GROUP), (0, 2, "file")])
def test_impossible_folds(number: int, count: int, by: str) -> None:
    with pytest.raises(ConfigError):
        Fold(number, count, by)


def _logits(*index: int) -> OutOfFold:
    numbers = np.array(index, np.int64)
    return OutOfFold(numbers, np.zeros(len(index), np.int32), numbers.astype(np.float32) / 2)


def test_logits_of_folds_are_joined_and_read_back(tmp_path: Path) -> None:
    import hashlib

    joined = OutOfFold.joined([_logits(1, 3), _logits(0, 2)])
    assert joined.logit.tolist() == [0, 0.5, 1, 1.5]
    assert joined.is_complete(4)
    assert not joined.is_complete(5)
    assert mean([joined, OutOfFold(joined.index, joined.fold, -joined.logit)]).logit.tolist() == [0] * 4
    data = to_bytes({SHAPE: joined, GROUP: joined})
    path = tmp_path / "out_of_fold.safetensors"
    path.write_bytes(data)
    by = read(path, hashlib.sha256(data).hexdigest())
    assert set(by) == {GROUP, SHAPE}
    assert np.array_equal(by[SHAPE].logit, joined.logit)


@pytest.mark.parametrize("logit", [np.nan, np.inf])
def test_logits_that_are_no_numbers_or_another_file_are_refused(tmp_path: Path, logit: float) -> None:
    import hashlib

    data = to_bytes({GROUP: OutOfFold(np.arange(1), np.zeros(1, np.int32), np.float32([logit]))})
    path = tmp_path / "out_of_fold.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match="not finite"):
        read(path, hashlib.sha256(data).hexdigest())
    with pytest.raises(InputError, match="its sha256 is another one"):
        read(path, "0" * 64)
