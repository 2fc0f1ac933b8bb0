"""A model beside simple baselines on the same images: what it is worth more than they."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tumorbatch.evaluation.answers import Scored
from tumorbatch.evaluation.split_metrics import within_file_kinds
from tumorbatch.statistics.auc import auc_difference, auc_figure, auc_statistic
from tumorbatch.statistics.intervals import REPLICATES, Estimate, bootstrap, proportion


class Baseline(Protocol):
    """What is taken of a baseline; `train/baselines.py` makes them."""

    @property
    def name(self) -> str:
        """Short."""

    @property
    def description(self) -> str:
        """What it sees and does, a sentence."""

    @property
    def test_scores(self) -> NDArray[np.float64]:
        """float64 [n] in [0, 1]; at least 0.5 means Tumor."""

    @property
    def test_labels(self) -> NDArray[np.int64]:
        """int64 [n]."""

    @property
    def test_paths(self) -> Sequence[str]:
        """n paths of the shard set's manifest, in any order."""


def stand_beside(
    test: Scored, baselines: Sequence[Baseline], replicates: int = REPLICATES, seed: int = 0
) -> list[dict[str, Any]]:
    """Each baseline's figures on the test split, and how much higher the model's AUC is.

    Args:
        test: The model's scores.
        baselines: Scored on the same images, and perhaps on others, which do not count.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        For each: name, description; accuracy (at 0.5), auc and auc_difference (model minus baseline,
        paired bootstrap over duplicate groups), `Estimate.to_dict` each; within_file_kinds, see
        `split_metrics.within_file_kinds`; beaten: whether the interval of that difference lies above 0.
        Nothing where the split has one class only: there is no AUC.

    Raises:
        ValueError: A baseline was not scored on one of the images.
    """
    if len(np.unique(test.labels)) < 2:
        return []
    found = []
    for baseline in baselines:
        place = {path: index for index, path in enumerate(baseline.test_paths)}
        if not place.keys() >= set(test.paths):
            raise ValueError(f"{baseline.name} was scored on other images")
        order = np.array([place[path] for path in test.paths])
        scores, labels = baseline.test_scores[order], baseline.test_labels[order]
        if (labels != test.labels).any():
            raise ValueError(f"{baseline.name} was scored with other labels")
        theirs = auc_statistic(scores, labels)
        right = ((scores >= 0.5) == (labels == 1)).astype(np.float64)
        drawn = bootstrap(
            lambda weights, theirs=theirs, right=right: {  # type: ignore[misc]
                "auc": theirs(weights),
                "accuracy": weights @ right / weights.sum(axis=1),
            },
            test.groups,
            replicates,
            seed,
        )
        auc = float(theirs(np.ones((1, test.n)))[0])
        above = auc_difference(test.logits, scores, labels, test.groups, replicates, seed)
        found.append(
            {
                "name": baseline.name,
                "description": baseline.description,
                "accuracy": proportion(int(right.sum()), test.n, drawn["accuracy"]).to_dict(),
                "auc": auc_figure(auc, labels, test.groups, drawn["auc"]).to_dict(),
                "auc_difference": above.to_dict(),
                "within_file_kinds": within_file_kinds(test, scores, replicates, seed),
                "beaten": above.low is not None and above.low > 0,
            }
        )
    return found


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """In words: which baselines the model does not beat, or that it beats all."""
    if not rows:
        return ""
    lost = [row for row in rows if not row["beaten"]]
    if not lost:
        return (
            "The model beats every baseline: the 95 % interval of its AUC minus theirs lies above 0 "
            "each time."
        )
    told = "; ".join(
        f"{row['name']} (AUC of the model minus its: {Estimate.from_dict(row['auc_difference']).text()}"
        f"{': it is WORSE' if (row['auc_difference']['high'] or 0) < 0 else ''})"
        for row in lost
    )
    return (
        f"The model does NOT beat {told}. What it has learned may be no more than what such a baseline "
        "sees; do not take its accuracy for a knowledge of tumours."
    )


def beyond_metadata(within: Mapping[str, Any]) -> str:
    """In words: what the model tells apart where height, width and format of the file cannot.

    Args:
        within: From `split_metrics.within_file_kinds`.
    """
    auc = Estimate.from_dict(within["auc"])
    if auc.value is None:
        return (
            "No height, width and format occurs with both classes in the test split: whether the model "
            "knows more than the file's metadata cannot be seen on it."
        )
    told = (
        "Between images of the same height, width and format, where metadata alone has an AUC of 0.5, "
        f"the model's AUC is {auc.text()} (n = {auc.n:,}: {within['pairs']:,} pairs of "
        f"{within['healthy']:,} Healthy and {within['tumor']:,} Tumor images)"
    )
    if auc.low is None:
        return f"{told}: too few independent ones for an interval."
    if (auc.high or 1.0) < 0.5:
        return f"{told}: it orders them the wrong way round."
    if auc.low <= 0.5:
        return f"{told}: not shown to be more than chance."
    return f"{told}: it knows more than the file's metadata."
