"""Intervals and tests: Wilson, the bootstrap over duplicate groups, McNemar, paired differences.

The bootstrap resamples groups, not images: copies and near copies of one image are no independent
observations, and an interval that counts them as such is too narrow. A replicate is a vector of integer
weights, how often each image was drawn; a statistic takes many of them at once. So 2,000 replicates of
an AUC cost two thousand passes over sorted scores, and no sorting.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

REPLICATES = 2_000
_Z = 1.959963984540054  # 97.5th percentile of the normal distribution: 95 % intervals
_TAILS = (2.5, 97.5)  # per cent
_CELLS = 1 << 17  # weights at once: 1 MiB, which stays in a core's cache
_EXACT_BELOW = 25  # discordant pairs; fewer, and the chi-square approximation is poor (see `mcnemar`)
# An interval of replicates that are mostly undefined would be one of the lucky ones.
DEFINED = 0.95
_SAME = 1e-12  # relative: replicates that differ by rounding alone are the same

Weights = NDArray[np.float64]
Statistic = Callable[[Weights], NDArray[np.float64]]
Statistics = Callable[[Weights], Mapping[str, NDArray[np.float64]]]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion.

    Raises:
        ValueError: `n` is 0.

    References:
        E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
        Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if n < 1:
        raise ValueError("a proportion of nothing has no interval")
    share = successes / n
    centre = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    low, high = (centre - half) / scale, (centre + half) / scale
    return (low if successes else 0.0), (high if successes < n else 1.0)  # but for rounding


def resampled(
    groups: ArrayLike, replicates: int = REPLICATES, seed: int | Sequence[int] = 0
) -> Iterator[Weights]:
    """Bootstrap weights, drawn by group.

    As many groups as there are, drawn with replacement; all images of a group come with it, each time.
    The weights hang on the groups' pattern, the number of replicates and the seed alone: two models
    scored on the same images, in the same order, meet the same replicates.

    Args:
        groups: [n], which group each image belongs to: numbers or strings.
        replicates: How many.
        seed: Of the draw; several numbers make a stream of their own.

    Yields:
        float64 [r, n], whole numbers, in portions of r replicates that fit into memory.

    Raises:
        ValueError: There is no image.

    References:
        A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their Application", Cambridge 1997,
        section 3.8: resampling of clusters.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    if not len(group):
        raise ValueError("nothing to resample")
    count = int(group.max()) + 1
    rng = np.random.default_rng(seed)
    portion = max(1, _CELLS // max(len(group), count))
    for start in range(0, replicates, portion):
        drawn = rng.integers(0, count, (min(portion, replicates - start), count))
        times = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
        yield times[:, group]


def bootstrap(
    statistics: Statistics, groups: ArrayLike, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Values of several statistics in the same replicates.

    Args:
        statistics: float64 weights [r, n] -> {name: float64 [r]}, nan where undefined.
        groups: [n].
        replicates: How many.
        seed: Of the draw.

    Returns:
        {name: float64 [replicates]}.
    """
    parts = [statistics(weights) for weights in resampled(groups, replicates, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """95 % percentile interval of bootstrap replicates.

    Args:
        values: float64 [replicates]; nan where the statistic was undefined, in a replicate without one
            of the classes, say. Those are left out.

    Returns:
        2.5th and 97.5th percentile; or None where more than 5 % of the replicates are undefined, or all
        are the same: a sample without a single error, say, from which no error can be drawn, does not
        make the figure certain.
    """
    defined = values[~np.isnan(values)]
    if (
        not len(values)
        or len(defined) < DEFINED * len(values)
        or np.ptp(defined) <= _SAME * np.abs(defined).max()
    ):
        return None
    low, high = np.percentile(defined, _TAILS)
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that is never told without its n and its 95 % interval.

    Attributes:
        value: None where it is undefined: a precision without a single image called Tumor, say.
        n: Images it was computed from (of a proportion: its denominator).
        low: Lower end of the interval, or None.
        high: Upper end, or None.
        method: "wilson" (images counted as independent); "bootstrap" (over duplicate groups);
            "bootstrap, mirrored" (see `mirrored`); "exact"; "ends" (of other figures' intervals).
        low_by_group: Of a proportion, beside Wilson's: lower end by the bootstrap over groups.
        high_by_group: Upper end likewise.
    """

    value: float | None
    n: int
    low: float | None
    high: float | None
    method: str
    low_by_group: float | None = None
    high_by_group: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        value = asdict(self)
        if self.method != "wilson":
            del value["low_by_group"], value["high_by_group"]
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Estimate":
        """Inverse of `to_dict`."""
        return cls(**value)

    def text(self, digits: int = 3) -> str:
        """`0.918 (0.893 to 0.937)`, or what is missing of it."""
        if self.value is None:
            return "undefined"
        return f"{self.value:.{digits}f} ({self.interval(digits)})"

    def interval(self, digits: int = 3, sign: str = "") -> str:
        """`0.893 to 0.937`, or that there is none; `sign` "+": each end with its sign."""
        return interval(self.low, self.high, digits, sign)


def interval(low: float | None, high: float | None, digits: int = 3, sign: str = "") -> str:
    """As `Estimate.interval` tells it. An end told as -0.000 lies below 0, as +0.000 not."""
    if low is None or high is None:
        return "no interval"
    return f"{low + 0.0:{sign}.{digits}f} to {high + 0.0:{sign}.{digits}f}"  # + 0.0: no -0


def proportion(successes: int, n: int, by_group: NDArray[np.float64] | None = None) -> Estimate:
    """A share with Wilson's interval, and beside it the one by resampled groups.

    Args:
        successes: Of them.
        n: Of all; with none the share is undefined.
        by_group: float64 [replicates], or None.
    """
    around = None if by_group is None else percentile_interval(by_group)
    low_by_group, high_by_group = around or (None, None)
    if n < 1:
        return Estimate(None, 0, None, None, "wilson")
    low, high = wilson(successes, n)
    return Estimate(successes / n, n, low, high, "wilson", low_by_group, high_by_group)


def bootstrapped(value: float, n: int, replicates: NDArray[np.float64]) -> Estimate:
    """A figure with the percentile interval of its replicates; nan is told as undefined."""
    low, high = percentile_interval(replicates) or (None, None)
    if math.isnan(value):
        return Estimate(None, n, None, None, "bootstrap")
    return Estimate(value, n, low, high, "bootstrap")


def mirrored(
    value: float, n: int, replicates: NDArray[np.float64], by_chance: NDArray[np.float64]
) -> Estimate:
    """A figure of at least 0 that leans upwards, and its replicates more so: a calibration error.

    Their percentile interval can lie above the figure itself. Here it is joined with its mirror image
    about the figure (the "basic" bootstrap interval). And where the figure is no larger than what
    chance alone gives, 0 is in the interval.

    Args:
        value: The figure.
        n: Images.
        replicates: float64 [replicates], of the bootstrap.
        by_chance: float64 [replicates], the figure where its true value is 0.

    References:
        A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their Application", Cambridge 1997,
        section 5.2: basic and percentile limits.
    """
    found = bootstrapped(value, n, replicates)
    if found.value is None or found.low is None or found.high is None:
        return found
    low = max(0.0, min(found.low, 2 * value - found.high))
    high = max(found.high, 2 * value - found.low)
    if value <= np.percentile(by_chance, _TAILS[1]):
        low = 0.0
    return Estimate(value, n, low, high, "bootstrap, mirrored")


def difference(
    first: Statistic,
    second: Statistic,
    groups: ArrayLike,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """How much larger `first` is than `second` on the same images: the paired bootstrap.

    Both meet the same replicates, so what makes the images hard or easy for both cancels out. Where the
    interval holds 0, or there is none, the data do not tell the two apart.

    Args:
        first: float64 weights [r, n] -> float64 [r].
        second: Likewise, images in the same order.
        groups: [n].
        replicates: How many.
        seed: Of the draw.
    """
    ones = np.ones((1, len(np.asarray(groups))))
    values = bootstrap(lambda weights: {"": first(weights) - second(weights)}, groups, replicates, seed)
    return bootstrapped(float((first(ones) - second(ones))[0]), ones.shape[1], values[""])


def unpaired_difference(
    first: tuple[Statistic, ArrayLike],
    second: tuple[Statistic, ArrayLike],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """How much larger a statistic is on one set of images than on another: two separate bootstraps.

    The sets are taken as independent. Where they share images the interval is rather too wide.

    Args:
        first: The statistic (float64 weights [r, n] -> float64 [r]), and the groups [n] of its images.
        second: Likewise, of the other set.
        replicates: How many.
        seed: Of the first draw; the second has a stream of its own.

    Returns:
        The difference; n: images of both sets.
    """
    values, drawn, n = [], [], 0
    for number, (statistic, groups) in enumerate((first, second)):
        count = len(np.asarray(groups))
        values.append(float(statistic(np.ones((1, count)))[0]))
        parts = resampled(groups, replicates, [seed, number])
        drawn.append(np.concatenate([statistic(weights) for weights in parts]))
        n += count
    return bootstrapped(values[0] - values[1], n, drawn[0] - drawn[1])


@dataclass(frozen=True, slots=True)
class McNemar:
    """Outcome of McNemar's test.

    Attributes:
        first_only: Images that only the first model got right.
        second_only: Images that only the second got right.
        p: Two-sided.
        method: "exact binomial" or "chi-square with continuity correction".
        statistic: The chi-square with one degree of freedom; None for the exact test.
    """

    first_only: int
    second_only: int
    p: float
    method: str
    statistic: float | None


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> McNemar:
    """Whether two models err equally often on the same images.

    With fewer than 25 discordant pairs the exact binomial test, otherwise the chi-square with
    continuity correction (a common rule; the exact test is right for any number). It counts images as
    independent: with many copies of one image its p-value is too small, and `difference` the better
    answer.

    Args:
        first_right: bool [n], whether the first model was right.
        second_right: bool [n], the second, images in the same order.

    References:
        Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12 (1947), 153-157. A. L. Edwards, "Note on the 'correction for
        continuity' in testing the significance of the difference between correlated proportions",
        Psychometrika 13 (1948), 185-187.
    """
    from scipy.stats import binomtest, chi2

    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.shape != second.shape:
        raise ValueError("the two models must have answered for the same images")
    ours, theirs = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = ours + theirs
    if discordant < _EXACT_BELOW:
        p = float(binomtest(ours, discordant, 0.5).pvalue) if discordant else 1.0
        return McNemar(ours, theirs, p, "exact binomial", None)
    statistic = max(0, abs(ours - theirs) - 1) ** 2 / discordant
    method = "chi-square with continuity correction"
    return McNemar(ours, theirs, float(chi2.sf(statistic, 1)), method, statistic)
