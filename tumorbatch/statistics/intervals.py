"""Intervals: Wilson's, the bootstrap over duplicate groups, and estimates that carry them.

The bootstrap resamples groups, not images: copies and near copies of one image are not independent
observations, and an interval that counts them as such is too narrow. A replicate is a vector of integer
weights, how often each image was drawn; a statistic takes many of them at once. So 2,000 replicates of
an AUC cost two thousand passes over sorted scores, and no sorting.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

REPLICATES = 2_000
_TAILS = (2.5, 97.5)  # per cent
_CELLS = 1 << 17  # weights at once: 1 MiB, which stays in a core's cache
# An interval of replicates that are mostly undefined would be one of the lucky ones.
DEFINED = 0.95
_ROUNDING = 1e-12  # relative: replicates that differ by rounding alone are the same

Weights = NDArray[np.float64]
Statistic = Callable[[Weights], NDArray[np.float64]]
Statistics = Callable[[Weights], Mapping[str, NDArray[np.float64]]]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a proportion.

    Raises:
        ValueError: `n` is 0.

    References:
        E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
        Journal of the American Statistical Association 22 (1927), 209-212.
    """
    from scipy.stats import binomtest

    if n < 1:
        raise ValueError("a proportion of nothing has no interval")
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def resampled(
    groups: ArrayLike, replicates: int = REPLICATES, seed: int | Sequence[int] = 0
) -> Iterator[Weights]:
    """Yield bootstrap weights, drawn by group.

    As many groups as there are, drawn with replacement; all images of a group come with it, each time.
    The weights depend on the groups' pattern, the number of replicates and the seed alone: two models
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
    """Return values of several statistics in the same replicates.

    Args:
        statistics: float64 weights [r, n] -> {name: float64 [r]}, nan if undefined.
        groups: [n].
        replicates: How many.
        seed: Of the draw.

    Returns:
        {name: float64 [replicates]}.
    """
    parts = [statistics(weights) for weights in resampled(groups, replicates, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of bootstrap replicates.

    Args:
        values: float64 [replicates]; nan if the statistic was undefined, in a replicate without one
            of the classes, say. Those are left out.

    Returns:
        2.5th and 97.5th percentile; or None if more than 5 % of the replicates are undefined, or all
        are the same: a sample without a single error, say, from which no error can be drawn, does not
        make the figure certain.
    """
    defined = values[~np.isnan(values)]
    if (
        not len(values)
        or len(defined) < DEFINED * len(values)
        or np.ptp(defined) <= _ROUNDING * np.abs(defined).max()
    ):
        return None
    low, high = np.percentile(defined, _TAILS)
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that is never shown without its n and its 95 % interval.

    Attributes:
        value: None if it is undefined: a precision without a single image called Tumor, say.
        n: Images it was computed from (of a proportion: its denominator).
        low: Lower end of the interval, or None.
        high: Upper end, or None.
        method: "wilson" (images counted as independent); "bootstrap" (over duplicate groups);
            "bootstrap, mirrored" (see `mirrored`); "exact"; "wilson over groups"; "ends" (of the
            intervals of other measures).
        low_by_group: Of a proportion, in addition to Wilson's: lower end by the bootstrap over groups.
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
        """Return JSON values."""
        value = asdict(self)
        if self.method != "wilson":
            del value["low_by_group"], value["high_by_group"]
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Estimate":
        """Build from the values of `to_dict`; other members are ignored."""
        return cls(**{field.name: value[field.name] for field in fields(cls) if field.name in value})

    def text(self, digits: int = 3) -> str:
        """Format as `0.918 (0.893 to 0.937)`, or say what is missing."""
        if self.value is None:
            return "undefined"
        return f"{self.value:.{digits}f} ({self.interval(digits)})"

    @property
    def over_groups(self) -> "Estimate":
        """Return the estimate with its interval over groups, in place of Wilson's over images."""
        if self.method != "wilson":
            return self
        return Estimate(self.value, self.n, self.low_by_group, self.high_by_group, "bootstrap")

    def interval(self, digits: int = 3, sign: str = "") -> str:
        """Format as `0.893 to 0.937`, or say that there is none; `sign` "+": each end with its sign."""
        return interval(self.low, self.high, digits, sign)


def interval(low: float | None, high: float | None, digits: int = 3, sign: str = "") -> str:
    """Format an interval; -0.000 is below 0, +0.000 is not."""
    if low is None or high is None:
        return "no interval"
    return f"{low + 0.0:{sign}.{digits}f} to {high + 0.0:{sign}.{digits}f}"  # + 0.0: no -0


def proportion(successes: int, n: int, by_group: NDArray[np.float64] | None = None) -> Estimate:
    """Return a share with Wilson's interval, and the interval over resampled groups.

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
    """Return a value with the percentile interval of its replicates; nan means undefined."""
    low, high = percentile_interval(replicates) or (None, None)
    if math.isnan(value):
        return Estimate(None, n, None, None, "bootstrap")
    return Estimate(value, n, low, high, "bootstrap")


def mirrored(
    value: float, n: int, replicates: NDArray[np.float64], by_chance: NDArray[np.float64]
) -> Estimate:
    """Return an estimate of a non-negative metric that is biased upwards: a calibration error.

    Their percentile interval can lie above the figure itself. Here it is joined with its mirror image
    about the value (the "basic" bootstrap interval). And if the value is not larger than what
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
    estimate = bootstrapped(value, n, replicates)
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    low = max(0.0, min(estimate.low, 2 * value - estimate.high))
    high = max(estimate.high, 2 * value - estimate.low)
    if value <= np.percentile(by_chance, _TAILS[1]):
        low = 0.0
    return Estimate(value, n, low, high, "bootstrap, mirrored")
