"""What counts once in a measure: each image, or each group of copies.

Public sets hold some images many times over, mirrored, turned or altered. Counted per image, one
original with eighty copies weighs as much as eighty others. Counted per group, every original weighs
the same: an image counts 1 / (images of its group). Either way the bootstrap resamples whole groups.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumorbatch.statistics.intervals import (
    REPLICATES,
    Estimate,
    Statistic,
    Statistics,
    bootstrap,
    bootstrapped,
    proportion,
    resampled,
    wilson,
)

PER_GROUP = "per_group"  # the key of measures of groups, next to those of images


class Weighting:
    """How much each image counts, and which images are resampled together.

    Args:
        groups: [n], the duplicate group of each image: numbers or strings.
        per_group: Count each group once, instead of each image.

    Attributes:
        groups: int64 [n], numbered from 0.
        per_group: As given.
        weights: float64 [n], what each image counts.
    """

    def __init__(self, groups: ArrayLike, per_group: bool = False) -> None:
        _, inverse, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
        self.groups: NDArray[np.int64] = inverse.ravel().astype(np.int64)
        self.per_group = per_group
        self.weights: NDArray[np.float64] = (
            1 / sizes[self.groups] if per_group else np.ones(len(self.groups))
        )

    def subset(self, inside: NDArray[np.bool_]) -> "Weighting":
        """Return the weighting of some of the images, bool [n], as a sample of their own."""
        return Weighting(self.groups[inside], self.per_group)

    def count(self, among: NDArray[np.bool_] | None = None) -> int:
        """Return how many images, or groups, there are (of those `among` bool [n])."""
        groups = self.groups if among is None else self.groups[among]
        return len(np.unique(groups)) if self.per_group else len(groups)

    def value(self, statistic: Statistic) -> float:
        """Return a statistic of the sample itself, nan if it is undefined."""
        return float(statistic(self.weights[np.newaxis])[0])

    def values(self, statistics: Statistics) -> dict[str, float]:
        """Return several statistics of the sample itself: {name: value}."""
        return {name: float(values[0]) for name, values in statistics(self.weights[np.newaxis]).items()}

    def weighted(self, statistic: Statistic) -> Statistic:
        """Return a statistic of resampled images, weights float64 [r, n], by this weighting."""
        return (lambda drawn: statistic(drawn * self.weights)) if self.per_group else statistic

    def bootstrap(
        self, statistics: Statistics, replicates: int = REPLICATES, seed: int = 0
    ) -> dict[str, NDArray[np.float64]]:
        """Return replicates of several statistics from the same draws: {name: float64 [replicates]}."""

        def counted(drawn: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
            return statistics(drawn * self.weights if self.per_group else drawn)

        return bootstrap(counted, self.groups, replicates, seed)

    def estimate(self, value: float, replicates: NDArray[np.float64]) -> Estimate:
        """Return a measure of the whole sample with the percentile interval of its replicates."""
        return bootstrapped(value, self.count(), replicates)

    def share(
        self,
        hits: NDArray[np.bool_],
        among: NDArray[np.bool_],
        replicates: NDArray[np.float64] | None = None,
    ) -> Estimate:
        """Return the share of `hits` among some of the images.

        Per image: with Wilson's interval, and also the bootstrap's over groups. Per group: with
        the bootstrap's; where no replicate differs, because all groups agree, with Wilson's over
        groups, which are independent.

        Args:
            hits: bool [n].
            among: bool [n], the denominator.
            replicates: float64 [replicates] of this share, or None.
        """
        if not self.per_group:
            return proportion(int((hits & among).sum()), int(among.sum()), replicates)
        total = float(self.weights @ among)
        count = self.count(among)
        if not count:
            return Estimate(None, 0, None, None, "bootstrap")
        value = float(self.weights @ (hits & among)) / total
        drawn = np.empty(0) if replicates is None else replicates
        estimate = bootstrapped(value, count, drawn)
        if estimate.low is None and value in (0.0, 1.0):
            return Estimate(value, count, *wilson(round(value * count), count), "wilson over groups")
        return estimate

    def difference(
        self, first: Statistic, second: Statistic, replicates: int = REPLICATES, seed: int = 0
    ) -> Estimate:
        """Return how much larger `first` is than `second` on the same images: the paired bootstrap.

        Both meet the same replicates, so what makes the images hard or easy for both cancels out. Where
        the interval holds 0, or there is none, the data do not separate the two.

        Args:
            first: float64 weights [r, n] -> float64 [r].
            second: Likewise, images in the same order.
            replicates: How many.
            seed: Of the draw.
        """
        drawn = self.bootstrap(
            lambda weights: {"difference": first(weights) - second(weights)}, replicates, seed
        )
        return self.estimate(self.value(first) - self.value(second), drawn["difference"])


def unpaired_difference(
    first: tuple[Statistic, Weighting],
    second: tuple[Statistic, Weighting],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Return how much larger a statistic is on one set of images than on another: two bootstraps.

    The sets are taken as independent. Where they share images the interval is rather too wide.

    Args:
        first: The statistic (float64 weights [r, n] -> float64 [r]), and the weighting of its images.
        second: Likewise, of the other set.
        replicates: How many.
        seed: Of the first draw; the second has its own stream.

    Returns:
        The difference; n: images, or groups, of both sets.
    """
    drawn = []
    for number, (statistic, weighting) in enumerate((first, second)):
        portions = resampled(weighting.groups, replicates, [seed, number])
        drawn.append(np.concatenate(list(map(weighting.weighted(statistic), portions))))
    value = first[1].value(first[0]) - second[1].value(second[0])
    return bootstrapped(value, first[1].count() + second[1].count(), drawn[0] - drawn[1])


def weightings(groups: ArrayLike) -> dict[str, Weighting]:
    """Return both ways to count: {"": per image, `PER_GROUP`: each group once}."""
    return {"": Weighting(groups), PER_GROUP: Weighting(groups, per_group=True)}


def headline(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a split's values that is quoted: each group once.

    Args:
        values: As `evaluation.split_metrics` returns them; older ones have measures per image alone.
    """
    part: Mapping[str, Any] = values.get(PER_GROUP, values)
    return part
