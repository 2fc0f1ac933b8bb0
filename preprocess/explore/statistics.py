"""Statistics of grey values: exact from histograms, and tests between the two classes.

The rule of the report: Shapiro-Wilk in each class; where neither rejects normality, a t-test (Welch's,
which needs no equal variances), else Mann-Whitney U. An effect size stands beside each p-value: with
thousands of images a difference of no importance has a small p-value too.

Copies of an image are not independent, as both tests want their values to be. So `compare` is also
given one value a duplicate group, and its intervals come from resampling whole groups.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tumorbatch.labels import HEALTHY, TUMOR
from tumorbatch.statistics.intervals import percentile_interval, resampled

ALPHA = 0.05  # a smaller Shapiro-Wilk p-value rejects normality
SHAPIRO_MOST = 5000  # SciPy's p-value may be inaccurate for more values
RESAMPLES = 2000

Weighted = Callable[[NDArray[np.int64]], float]


def histogram_statistics(counts: NDArray[np.int64]) -> dict[str, Any]:
    """Exact statistics of all pixels behind a histogram.

    Args:
        counts: int64 [level], pixels of each grey value 0, 1, ...

    Returns:
        pixels, mean, median (mean of the middle two), standard_deviation (of the population: divided
        by n), minimum and maximum, in grey levels; None for all of them but pixels where there are no
        pixels.
    """
    # Python's integers: squares of 6e12 grey values, of 100,000 large images, come near int64's end.
    table = [(value, count) for value, count in enumerate(counts.tolist()) if count]
    n = sum(count for _, count in table)
    if n == 0:
        names = ("mean", "median", "standard_deviation", "minimum", "maximum")
        return {"pixels": 0, **dict.fromkeys(names)}
    total = sum(value * count for value, count in table)
    squares = sum(value * value * count for value, count in table)
    ends = np.cumsum(counts)
    low, high = (int(np.searchsorted(ends, place, side="right")) for place in ((n - 1) // 2, n // 2))
    return {
        "pixels": n,
        "mean": total / n,
        "median": (low + high) / 2,
        "standard_deviation": ((squares * n - total * total) / (n * n)) ** 0.5,
        "minimum": table[0][0],
        "maximum": table[-1][0],
    }


def value_statistics(values: NDArray[np.float64]) -> dict[str, Any]:
    """n, mean, median, standard_deviation (of the sample: n - 1), minimum and maximum of values [n].

    What cannot be computed of so few values is None.
    """
    n = len(values)
    return {
        "n": n,
        "mean": float(values.mean()) if n else None,
        "median": float(np.median(values)) if n else None,
        "standard_deviation": float(values.std(ddof=1)) if n > 1 else None,
        "minimum": float(values.min()) if n else None,
        "maximum": float(values.max()) if n else None,
    }


def shapiro_wilk(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Shapiro-Wilk test of normality.

    Args:
        values: float64 [n].
        seed: Of the choice where n is above `SHAPIRO_MOST`.

    Returns:
        n (of the values), tested (of those, how many were taken), w, p_value and normal (p_value is at
        least `ALPHA`); the last three None where there are fewer than three values, or all are equal.

    References:
        S. S. Shapiro, M. B. Wilk, "An analysis of variance test for normality", Biometrika 52 (1965).
    """
    taken = values
    if len(values) > SHAPIRO_MOST:
        taken = np.random.default_rng(seed).choice(values, SHAPIRO_MOST, replace=False)
    result: dict[str, Any] = {"n": len(values), "tested": len(taken)}
    if len(taken) < 3 or np.ptp(taken) == 0:
        return {**result, "w": None, "p_value": None, "normal": None}
    w, p_value = map(float, stats.shapiro(taken))
    return {**result, "w": w, "p_value": p_value, "normal": p_value >= ALPHA}


def compare(
    values: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Test whether a number differs between the classes, by the rule above, with an effect size.

    Args:
        values: float64 [n], one an image.
        labels: int64 [n].
        groups: int64 [n]; whole groups are resampled for the interval.
        seed: Of what is drawn.

    Returns:
        shapiro_wilk {healthy, tumor}; test ("welch_t" or "mann_whitney_u"), statistic, p_value (two
        sides); effect {name, value, interval_95}: "cohens_d", or "rank_biserial" with its
        common_language. Positive: Tumor has the larger values. test is None, with the reason, where
        a class has fewer than three different values.
    """
    of = {label: values[labels == label] for label in (HEALTHY, TUMOR)}
    normal = {
        name: shapiro_wilk(of[label], seed) for name, label in (("healthy", HEALTHY), ("tumor", TUMOR))
    }
    if any(one["p_value"] is None for one in normal.values()):
        reason = "a class has fewer than three images, or all its values are equal"
        return {"shapiro_wilk": normal, "test": None, "reason": reason}
    if all(one["normal"] for one in normal.values()):
        name, done = "welch_t", stats.ttest_ind(of[TUMOR], of[HEALTHY], equal_var=False)
        value = cohens_d(values, labels)
        effect: dict[str, Any] = {"name": "cohens_d", "value": value}
        low, high = bootstrap(groups, lambda weights: cohens_d(values, labels, weights), seed)
    else:
        name, done = "mann_whitney_u", stats.mannwhitneyu(of[TUMOR], of[HEALTHY])
        ranked = Superiority(values, labels)
        value = 2 * ranked() - 1
        effect = {"name": "rank_biserial", "value": value, "common_language": (value + 1) / 2}
        low, high = bootstrap(groups, lambda weights: 2 * ranked(weights) - 1, seed)
    return {
        "shapiro_wilk": normal,
        "test": name,
        "statistic": float(done.statistic),
        "p_value": float(done.pvalue),
        "effect": {**effect, "interval_95": [low, high]},
    }


def group_means(
    values: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """One value for each group and class: the mean over its images. Values [m] and labels [m]."""
    keys, inverse = np.unique(np.stack([groups, labels], axis=1), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    return np.bincount(inverse, weights=values) / np.bincount(inverse), keys[:, 1]


def cohens_d(
    values: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.int64] | None = None
) -> float:
    """Difference of the means, Tumor less Healthy, in pooled standard deviations.

    Args:
        values: float64 [n].
        labels: int64 [n].
        weights: int64 [n], how often each value counts; None: once. NaN where it is undefined.

    References:
        J. Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed., 1988, 2.2 and 2.5.
    """
    weights = np.ones(len(values), np.int64) if weights is None else weights
    n, mean, square = np.zeros(2), np.zeros(2), np.zeros(2)
    for label in (HEALTHY, TUMOR):
        here, count = values[labels == label], weights[labels == label]
        n[label] = count.sum()
        if n[label] == 0:
            return float("nan")
        mean[label] = here @ count / n[label]
        square[label] = (here - mean[label]) ** 2 @ count
    if n.sum() <= 2 or square.sum() == 0:
        return float("nan")
    return float((mean[TUMOR] - mean[HEALTHY]) / np.sqrt(square.sum() / (n.sum() - 2)))


class Superiority:
    """The common language effect size: P(Tumor > Healthy) + P(Tumor = Healthy) / 2, 0 to 1.

    It is the area under the ROC curve of the values, and U / (n1 n2) of the Mann-Whitney test; twice
    its distance from one half is the rank-biserial correlation.

    Args:
        values: float64 [n].
        labels: int64 [n].

    References:
        K. O. McGraw, S. P. Wong, "A common language effect size statistic", Psychological Bulletin 111
        (1992). A. Vargha, H. D. Delaney, J. Educational and Behavioral Statistics 25 (2000).
    """

    def __init__(self, values: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        _, self._rank = np.unique(values, return_inverse=True)
        self._rank = self._rank.ravel()
        self._tumor = labels == TUMOR

    def __call__(self, weights: NDArray[np.int64] | None = None) -> float:
        """Its value when each of the values counts `weights` [n] times; NaN without one of a class."""
        weights = np.ones(len(self._rank), np.int64) if weights is None else weights
        tumor = np.bincount(self._rank, weights=weights * self._tumor)
        healthy = np.bincount(self._rank, weights=weights * ~self._tumor)
        pairs = tumor.sum() * healthy.sum()
        if pairs == 0:
            return float("nan")
        return float(tumor @ (np.cumsum(healthy) - healthy / 2) / pairs)


def bootstrap(
    groups: NDArray[np.int64], statistic: Weighted, seed: int, resamples: int = RESAMPLES
) -> tuple[float | None, float | None]:
    """95 % percentile interval of a statistic, by `resampled` groups.

    Args:
        groups: int64 [n], numbered from 0 without gaps.
        statistic: Of weights int64 [n], how often each image was drawn; NaN draws are left out.
        seed: The same seed gives the same interval.
        resamples: Draws.
    """
    drawn = [
        statistic(weights.astype(np.int64))
        for portion in resampled(groups, resamples, seed)
        for weights in portion
    ]
    return percentile_interval(np.array(drawn)) or (None, None)
