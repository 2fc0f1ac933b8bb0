"""What a file's size and format alone give away of its class.

A random forest that never sees a pixel. If it separates the classes, a network may do so in the
same road: by where an image comes from, and not by what it shows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.labels import TUMOR
from tumorbatch.preprocess.duplicates import renumber, unite
from tumorbatch.preprocess.explore.statistics import interval
from tumorbatch.statistics.auc import auc_statistic
from tumorbatch.statistics.classification import Decisions
from tumorbatch.statistics.intervals import Statistic, wilson
from tumorbatch.statistics.metadata_forest import fit_forest, metadata_features, tumor_scores
from tumorbatch.statistics.weighting import Weighting

FOLDS = 5
TREES = 100
MOST = 20_000  # images; of larger sets, whole groups are drawn until there are so many


def metadata_baseline(
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    formats: list[str],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int,
    workers: int,
) -> dict[str, Any]:
    """Cross-validate a random forest on height, width and format, and the majority class.

    Args:
        heights: int64 [n], pixels.
        widths: int64 [n], pixels.
        formats: n names.
        labels: int64 [n].
        groups: int64 [n]; no group lies in two folds.
        seed: Of folds, trees, and the choice of images where there are more than `MOST`.
        workers: Threads.

    Returns:
        features, trees; n, of (of how many images); majority {accuracy, interval_95 (Wilson),
        group_interval_95 (bootstrap over groups)}; grouped and shapes_held_out: the same with folds,
        groups (or shapes), auc and auc_interval_95 (bootstrap over groups). In the second, all images
        of one height and width lie in one fold too. They are None if a class has fewer than two
        groups.
    """
    chosen = _choose(groups, seed)
    labels, groups = labels[chosen], renumber(groups[chosen])
    heights, widths = heights[chosen], widths[chosen]
    names = np.array(formats)[chosen]
    kinds = np.unique(names)
    features = metadata_features(heights, widths, names.tolist(), kinds.tolist())
    common = int(np.bincount(labels).argmax())
    shapes = unite(groups, heights << 32 | widths)
    return {
        "features": ["height", "width", "format"],
        "trees": TREES,
        "n": len(labels),
        "of": len(formats),
        "majority": _accuracy(np.full(len(labels), common == TUMOR), labels, groups, seed),
        "grouped": _cross_validated(features, labels, groups, seed, workers),
        "shapes_held_out": _cross_validated(features, labels, shapes, seed, workers),
    }


def _accuracy(
    called: NDArray[np.bool_], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Return the accuracy of calling bool [n] Tumor, with Wilson's interval and the one over groups.

    Wilson's takes copies as independent images.
    """
    decisions = Decisions(called, labels)
    return {
        "accuracy": float(decisions.right.mean()),
        "interval_95": list(wilson(int(decisions.right.sum()), len(labels))),
        "group_interval_95": interval(groups, decisions.statistic("accuracy"), seed),
    }


def interval_to_tell(accuracy: Mapping[str, Any]) -> list[float]:
    """Return the 95 % interval of an accuracy: over groups, or Wilson's if no resample has an error.

    Args:
        accuracy: With `interval_95` and `group_interval_95`, as in `metadata_baseline`.
    """
    over_groups: list[float] = accuracy["group_interval_95"]
    return over_groups if over_groups[0] is not None else list(accuracy["interval_95"])


def _choose(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return indices of all images, or of those of drawn groups, about `MOST` in total."""
    if len(groups) <= MOST:
        return np.arange(len(groups))
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    total = np.cumsum(np.bincount(groups)[order])
    return np.flatnonzero(np.isin(groups, order[: np.searchsorted(total, MOST) + 1]))


def _cross_validated(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int,
    workers: int,
) -> dict[str, Any] | None:
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(groups[labels == label])) for label in (0, 1))
    folds = min(FOLDS, fewest)
    if folds < 2:
        return None
    scores = np.full(len(labels), np.nan)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(features, labels, groups):
        if len(np.unique(labels[train])) < 2:
            return None
        forest = fit_forest(features[train], labels[train], TREES, seed, workers)
        scores[test] = tumor_scores(forest, features[test])
    auc: Statistic = auc_statistic(scores, labels)
    return {
        "folds": folds,
        "groups": len(np.unique(groups)),
        **_accuracy(scores >= 0.5, labels, groups, seed),
        "auc": Weighting(groups).value(auc),
        "auc_interval_95": interval(groups, auc, seed),
    }
