"""Two ways of training side by side: same images, splits and seeds, and one thing different."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumorbatch import bundle, shardset
from tumorbatch.evaluation.answers import Scored, score_split
from tumorbatch.runtime import resolve
from tumorbatch.scoring import probability, scorer
from tumorbatch.statistics.auc import auc_figure, auc_statistic
from tumorbatch.statistics.calibration import (
    DEFAULT_RULE,
    Rule,
    choose_threshold,
    fit_temperature,
)
from tumorbatch.statistics.intervals import (
    REPLICATES,
    Estimate,
    Weights,
    bootstrap,
    bootstrapped,
    proportion,
)
from tumorbatch.statistics.seeds import Spread, over_seeds, over_seeds_and_images

FIGURES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """One training's answers on the test images.

    Attributes:
        seed: Of the training.
        scores: float [n], higher for Tumor.
        called: bool [n], whether the image is called Tumor, by the training's own threshold.
    """

    seed: int
    scores: NDArray[np.floating]
    called: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pair:
    """One figure of one seed, in both arms.

    Attributes:
        seed: Of both trainings.
        first: In the first arm.
        second: In the second.
        difference: First less second, paired: both arms meet the same resampled groups.
    """

    seed: int
    first: Estimate
    second: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure over all seeds.

    Attributes:
        name: A key of `FIGURES`.
        pairs: One a seed.
        first: Mean of the first arm, with an interval for other seeds and other images.
        second: Of the second.
        overall: Mean difference, likewise: the result.
        over_seeds: The same with the images taken as given; None with fewer than three seeds.
    """

    name: str
    pairs: tuple[Pair, ...]
    first: Spread
    second: Spread
    overall: Spread
    over_seeds: Spread | None

    def sentence(self, first: str, second: str) -> str:
        """What was found, as a sentence.

        Args:
            first: Name of the first arm.
            second: Name of the second.
        """
        of, spread = FIGURES[self.name], self.overall
        arms = ", ".join(
            f"{arm.mean:.3f} ({arm.interval()}) {words}"
            for arm, words in ((self.first, first), (self.second, second))
        )
        start = (
            f"Mean {of} over {len(self.pairs)} seed{'s' * (len(self.pairs) > 1)}, n = "
            f"{self.pairs[0].first.n:,}: {arms}; difference {spread.mean:+.3f} "
            f"({spread.interval('+')}); 95 % intervals"
        )
        if spread.mean == 0 and spread.standard_error == 0:
            return f"{start}. Both arms are equal on every sample: these images cannot tell them apart."
        if spread.low is None or spread.high is None:
            return f"{start}. Without an interval nothing is shown."
        if spread.low <= 0 <= spread.high:
            return f"{start}. The interval holds 0: no difference was shown."
        better, worse = (first, second) if spread.mean > 0 else (second, first)
        return f"{start}. The {of} is higher {better} than {worse}."

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "per_seed": [
                {
                    "seed": pair.seed,
                    "first": pair.first.to_dict(),
                    "second": pair.second.to_dict(),
                    "difference": pair.difference.to_dict(),
                }
                for pair in self.pairs
            ],
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "difference": self.overall.to_dict(),
            "difference_over_seeds_alone": self.over_seeds.to_dict() if self.over_seeds else None,
        }


def answered(model: Path, tfrecords: Path, device: str = "auto") -> tuple[Trained, Scored]:
    """Run a bundle over validation and test of the shard set that it was trained on.

    Its threshold is chosen on validation, by the default rule, whatever the bundle itself says: so
    that both arms are treated alike.

    Args:
        model: The bundle.
        tfrecords: The shard set.
        device: "auto", "cpu" or "gpu".

    Returns:
        Its answers on the test split, and that split; images sorted by path.

    Raises:
        InputError: The bundle or the shard set is missing or damaged.
    """
    of, dataset = bundle.load(model), shardset.load(tfrecords)
    schedule = of.training["schedule"]
    runtime = resolve(device)
    network = bundle.load_network(model, of)
    score = scorer(network, schedule["batch_size"], runtime)
    validation, test = (
        score_split(tfrecords, dataset, split, score) for split in ("validation", "test")
    )
    temperature = fit_temperature(validation.logits, validation.labels).value
    rule = Rule.parse(DEFAULT_RULE)
    threshold = choose_threshold(validation.logits, validation.labels, temperature, rule).value
    called = probability(test.logits, temperature) >= np.float32(threshold)
    return Trained(schedule["seed"], test.logits, called), test


def compare(
    first: Sequence[Trained],
    second: Sequence[Trained],
    labels: NDArray[np.int64],
    groups: ArrayLike,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Compared]:
    """Differences between two arms, seed by seed and over the seeds.

    All trainings of both arms meet the same bootstrap samples of groups, so that what makes images
    hard or easy for all of them cancels out of the differences, and what the seeds share can be told
    from what they do not.

    Args:
        first: A training a seed, images in the order of `labels`.
        second: The same seeds in the same order.
        labels: int64 [n], 0 Healthy, 1 Tumor.
        groups: [n], the duplicate group of each image.
        replicates: Bootstrap samples.
        seed: Of the bootstrap.

    Raises:
        ValueError: The arms have other seeds.
    """
    seeds = [one.seed for one in first]
    if seeds != [one.seed for one in second] or not seeds:
        raise ValueError("both arms must have the same seeds, in the same order")
    arms = [[_Statistics(one, labels, groups) for one in arm] for arm in (first, second)]

    def all_of(weights: Weights) -> dict[str, NDArray[np.float64]]:
        return {
            f"{arm} {number} {name}": values
            for arm in (0, 1)
            for number, one in enumerate(arms[arm])
            for name, values in one(weights).items()
        }

    drawn = bootstrap(all_of, groups, replicates, seed)
    found = []
    for name in FIGURES:
        pairs = []
        columns: list[list[NDArray[np.float64]]] = [[], []]
        for number, of in enumerate(seeds):
            one, other = (drawn[f"{arm} {number} {name}"] for arm in (0, 1))
            figures = arms[0][number].figure(name, one), arms[1][number].figure(name, other)
            values = [math.nan if figure.value is None else figure.value for figure in figures]
            difference = bootstrapped(values[0] - values[1], figures[0].n, one - other)
            pairs.append(Pair(of, *figures, difference))
            columns[0].append(one)
            columns[1].append(other)
        means = np.array([[pair.first.value, pair.second.value] for pair in pairs], np.float64).T
        of_arms = [np.stack(of, axis=1) for of in columns]
        points = means[0] - means[1]
        made = Compared(
            name,
            tuple(pairs),
            first=over_seeds_and_images(means[0], of_arms[0], (0.0, 1.0)),
            second=over_seeds_and_images(means[1], of_arms[1], (0.0, 1.0)),
            overall=over_seeds_and_images(points, of_arms[0] - of_arms[1]),
            over_seeds=over_seeds(points),
        )
        found.append(made)
    return found


class _Statistics:
    """All figures of one training for any weights [r, n] of the images."""

    def __init__(self, trained: Trained, labels: NDArray[np.int64], groups: ArrayLike) -> None:
        self._labels, self._groups = labels, groups
        self._right = (trained.called == (labels == 1)).astype(np.float64)
        self._of = {
            "accuracy": np.ones(len(labels)),
            "sensitivity": (labels == 1).astype(np.float64),
            "specificity": (labels == 0).astype(np.float64),
        }
        self._auc = auc_statistic(trained.scores, labels)

    def __call__(self, weights: Weights) -> Mapping[str, NDArray[np.float64]]:
        values = {"auc": self._auc(weights)}
        for name, among in self._of.items():
            total = weights @ among
            share = np.full(len(total), np.nan)
            np.divide(weights @ (among * self._right), total, out=share, where=total > 0)
            values[name] = share
        return values

    def figure(self, name: str, replicates: NDArray[np.float64]) -> Estimate:
        """Value, n and interval."""
        if name == "auc":
            value = float(self._auc(np.ones((1, len(self._right))))[0])
            return auc_figure(value, self._labels, self._groups, replicates)
        among = self._of[name]
        return proportion(int((among * self._right).sum()), int(among.sum()), replicates)
