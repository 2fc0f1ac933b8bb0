"""What size and format give away: found where it was planted, and only there."""

from typing import Any

import numpy as np
import pytest

from tumorbatch.preprocess.explore import metadata as module
from tumorbatch.preprocess.explore.metadata import metadata_baseline


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TREES", 15)


def baseline(heights: Any, widths: Any, labels: Any, groups: Any = None, **more: Any) -> dict[str, Any]:
    n = len(labels)
    values: dict[str, Any] = {"formats": ["png"] * n, "seed": 0, "workers": 1, **more}
    return metadata_baseline(
        np.asarray(heights, np.int64), np.asarray(widths, np.int64), values["formats"],
        np.asarray(labels, np.int64), np.arange(n) if groups is None else np.asarray(groups, np.int64),
        values["seed"], values["workers"],
    )  # fmt: skip


def test_a_size_that_goes_with_the_class_is_found() -> None:
    labels = np.arange(200) % 2
    found = baseline(np.where(labels, 512, 225), 300 + np.arange(200) % 7, labels)
    assert found["grouped"]["accuracy"] == 1
    assert found["grouped"]["auc"] == 1
    assert found["grouped"]["folds"] == 5
    assert found["majority"]["accuracy"] == 0.5
    assert (found["n"], found["of"]) == (200, 200)


def test_a_format_that_goes_with_the_class_is_found() -> None:
    labels = np.arange(100) % 2
    found = baseline(
        [64] * 100, [64] * 100, labels, formats=["tiff" if one else "png" for one in labels]
    )
    assert found["grouped"]["accuracy"] == 1


def test_sizes_by_chance_tell_nothing() -> None:
    random = np.random.default_rng(0)
    found = baseline(random.integers(100, 900, 400), random.integers(100, 900, 400), np.arange(400) % 2)
    low, high = found["grouped"]["interval_95"]
    assert low < 0.5 < high
    low, high = found["grouped"]["auc_interval_95"]
    assert low < 0.5 < high


def test_copies_are_never_in_two_folds() -> None:
    # Each group has its own size and a class by chance: only who saw a copy could know it.
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 6)
    sides, labels = random.permutation(np.arange(100, 160))[groups], random.integers(0, 2, 60)[groups]
    assert baseline(sides, sides, labels)["grouped"]["accuracy"] > 0.95  # not known to be copies
    honest = baseline(sides, sides, labels, groups)["grouped"]
    low, high = honest["group_interval_95"]
    assert low < 0.5 < high
    wilson_low, wilson_high = honest["interval_95"]
    assert high - low > 1.5 * (wilson_high - wilson_low)  # 60 groups, not 360 images


def test_whole_sizes_can_be_held_out() -> None:
    random = np.random.default_rng(2)
    sides, of_size = np.arange(100, 140), random.integers(0, 2, 40)
    which = np.repeat(np.arange(40), 10)
    found = baseline(sides[which], sides[which], of_size[which])
    assert found["grouped"]["accuracy"] > 0.95
    assert found["shapes_held_out"]["accuracy"] < 0.8
    assert found["shapes_held_out"]["groups"] == 40


def test_the_result_does_not_depend_on_the_workers() -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(100, 120, (2, 150))
    labels = random.integers(0, 2, 150)
    assert baseline(*sizes, labels, workers=1) == baseline(*sizes, labels, workers=3)
    assert baseline(*sizes, labels, seed=1) != baseline(*sizes, labels, seed=2)


def test_of_large_sets_whole_groups_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 100)
    groups = np.repeat(np.arange(100), 5)
    labels = groups % 2
    found = baseline(np.where(labels, 512, 225), np.full(500, 300), labels, groups)
    assert (found["n"], found["of"]) == (100, 500)
    assert found["grouped"]["groups"] == 20
    assert found["grouped"]["accuracy"] == 1


@pytest.mark.parametrize("labels", [[0] * 6, [0, 0, 0, 1, 1]])
def test_too_few_groups_are_not_cross_validated(labels: list[int]) -> None:
    groups = np.minimum(np.arange(len(labels)), 3)  # the two of Tumor are copies
    found = baseline(range(20, 20 + len(labels)), [30] * len(labels), labels, groups)
    assert found["grouped"] is None
    assert found["shapes_held_out"] is None
    assert found["majority"]["accuracy"] == labels.count(0) / len(labels)
