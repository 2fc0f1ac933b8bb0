"""A difference between two ways of training, repeated over seeds and judged on the same images.

Two things are drawn by chance: the seed, and the test images. An interval over the seeds alone says
nothing of other images; one over the images alone nothing of the next training. Radiology knows the
design as multi-reader multi-case: the seeds are the readers, and the groups of duplicates the cases.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tumorbatch.statistics.intervals import DEFINED, interval

LEVEL = 0.95
MIN_SEEDS = 3  # for an interval over seeds alone: two have one degree of freedom, and say nothing
_ROUNDING = 1e-12  # standard error that is one of rounding alone
_NORMAL = 1e6  # degrees of freedom from which on Student's t is the normal distribution


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds with a 95 % interval.

    Attributes:
        mean: Over the seeds.
        low: Lower end; None without a interval.
        high: Upper end, or None.
        standard_error: Of the mean, or None.
        degrees_of_freedom: Of Student's t that the ends come from; None: the normal distribution.
        method: How, a sentence.
    """

    mean: float
    low: float | None
    high: float | None
    standard_error: float | None
    degrees_of_freedom: float | None
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def interval(self, sign: str = "") -> str:
        """Format as `0.893 to 0.937`, or say that there is none; `sign` "+": each end with its sign."""
        return interval(self.low, self.high, sign=sign)


def over_seeds(
    differences: NDArray[np.float64], bounds: tuple[float, float] = (-1.0, 1.0)
) -> Spread | None:
    """Return Student's t interval of the mean over seeds, for other seeds and the same images.

    Args:
        differences: float64 [seeds].
        bounds: What a value can be at the least and at the most; no interval goes beyond.

    Returns:
        None with fewer than `MIN_SEEDS` seeds.
    """
    seeds = len(differences)
    if seeds < MIN_SEEDS:
        return None
    error = float(differences.std(ddof=1)) / math.sqrt(seeds)
    return _spread(
        float(differences.mean()), error, seeds - 1.0, bounds,
        f"Student's t over {seeds} seeds; the test images are taken as given",
    )  # fmt: skip


def over_seeds_and_images(
    differences: NDArray[np.float64],
    resampled: NDArray[np.float64],
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> Spread:
    """Return the interval of a mean over seeds, for other seeds and other images.

    Obuchowski and Rockette's model with both factors random, and Hillis' degrees of freedom. For two
    treatments, with d_j the difference of seed j, r seeds, s^2 their variance, and c the covariance
    that the images give to the differences of two seeds (2 (Cov2 - Cov3) in the model's terms):

        variance of the mean = s^2 / r + max(c, 0)
        degrees of freedom = (r - 1) (variance of the mean * r / s^2)^2

    c is the mean of the covariances between all pairs of seeds, from one bootstrap over groups that
    all seeds and both treatments share. With one seed nothing is known of seeds: the interval is
    that of the images alone, and its method says so.

    Args:
        differences: float64 [seeds]; or any figure, one value a seed.
        resampled: float64 [rounds, seeds], the same on each bootstrap sample of groups; nan if a
            sample has no such figure. With more than 5 % of such samples there is no interval, nor
            where nothing varies.
        bounds: What a value can be at the least and at the most; no interval goes beyond.

    References:
        N. A. Obuchowski, H. E. Rockette, "Hypothesis testing of diagnostic accuracy for multiple
        readers and multiple tests: an ANOVA approach with dependent observations", Communications in
        Statistics - Simulation and Computation 24 (1995), 285-308.
        S. L. Hillis, "A comparison of denominator degrees of freedom methods for multiple observer
        ROC analysis", Statistics in Medicine 26 (2007), 596-619.
    """
    seeds = len(differences)
    mean = float(differences.mean())
    whole = np.isfinite(resampled).all(axis=1)
    if not np.isfinite(mean) or whole.mean() < DEFINED:
        method = "none: the figure is undefined in too many samples of the images"
        return Spread(mean, None, None, None, None, method)
    covariance = np.atleast_2d(np.cov(resampled[whole], rowvar=False))
    if seeds == 1:
        return _spread(
            mean, math.sqrt(covariance[0, 0]), None, bounds,
            "bootstrap standard error over groups of images; one seed says nothing of other seeds",
        )  # fmt: skip
    between = float(covariance[~np.eye(seeds, dtype=bool)].mean())
    own = float(differences.var(ddof=1)) / seeds
    variance = own + max(between, 0.0)
    freedom = (seeds - 1) * (variance / own) ** 2 if own > 0 else math.inf
    return _spread(
        mean, math.sqrt(variance), freedom if freedom < _NORMAL else None, bounds,
        f"Obuchowski-Rockette over {seeds} seeds and the groups of images, both random; Hillis' "
        "degrees of freedom",
    )  # fmt: skip


def _spread(
    mean: float, error: float, freedom: float | None, bounds: tuple[float, float], method: str
) -> Spread:
    if error <= _ROUNDING:
        return Spread(mean, None, None, 0.0, None, "none: it is the same for every seed and sample")
    at = (1 + LEVEL) / 2
    quantile = float(stats.norm.ppf(at) if freedom is None else stats.t.ppf(at, freedom))
    half = quantile * error
    low, high = max(bounds[0], mean - half), min(bounds[1], mean + half)
    return Spread(mean, low, high, error, freedom, method)
