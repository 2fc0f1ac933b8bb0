"""Statistics of grey values: exact from histograms, and tests between the two classes.

The rule of the report: Shapiro-Wilk in each class; where neither rejects normality, a t-test (Welch's,
which needs no equal variances), else Mann-Whitney U. Each p-value comes with an effect size: with
thousands of images a difference of no importance has a small p-value too.

Copies of an image are not independent, as both tests want their values to be. So `compare_classes` is
also given one value a duplicate group, and its intervals come from resampling whole groups.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tumorbatch.labels import HEALTHY, TUMOR
from tumorbatch.statistics.auc import auc_statistic, ratio
from tumorbatch.statistics.intervals import Statistic, Weights, percentile_interval
from tumorbatch.statistics.weighting import Weighting

ALPHA = 0.05  # a smaller Shapiro-Wilk p-value rejects normality
SHAPIRO_MOST = 5000  # SciPy's p-value may be inaccurate for more values
RESAMPLES = 2000


def histogram_statistics(counts: NDArray[np.int64]) -> dict[str, Any]:
    """Compute exact statistics of all pixels of a histogram.

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
    """Return n, mean, median, standard_deviation (n - 1), minimum and maximum of values [n].

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
    """Test for normality (Shapiro-Wilk).

    Args:
        values: float64 [n].
        seed: Of the choice where n is above `SHAPIRO_MOST`.

    Returns:
        n (of the values), tested (of those, how many were taken), w, p_value and normal (p_value is at
        least `ALPHA`); the last three None if there are fewer than three values, or all are equal.

    References:
        S. S. Shapiro, M. B. Wilk, "An analysis of variance test for normality", Biometrika 52 (1965).
    """
    sample = values
    if len(values) > SHAPIRO_MOST:
        sample = np.random.default_rng(seed).choice(values, SHAPIRO_MOST, replace=False)
    result: dict[str, Any] = {"n": len(values), "tested": len(sample)}
    if len(sample) < 3 or np.ptp(sample) == 0:
        return {**result, "w": None, "p_value": None, "normal": None}
    w, p_value = map(float, stats.shapiro(sample))
    return {**result, "w": w, "p_value": p_value, "normal": p_value >= ALPHA}


def compare_classes(
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
    values_of = {label: values[labels == label] for label in (HEALTHY, TUMOR)}
    normal = {
        name: shapiro_wilk(values_of[label], seed)
        for name, label in (("healthy", HEALTHY), ("tumor", TUMOR))
    }
    if any(one["p_value"] is None for one in normal.values()):
        reason = "a class has fewer than three images, or all its values are equal"
        return {"shapiro_wilk": normal, "test": None, "reason": reason}
    weighting = Weighting(groups)
    if all(one["normal"] for one in normal.values()):
        name, result = "welch_t", stats.ttest_ind(values_of[TUMOR], values_of[HEALTHY], equal_var=False)
        statistic = cohens_d(values, labels)
        effect: dict[str, Any] = {"name": "cohens_d", "value": weighting.value(statistic)}
    else:
        name, result = "mann_whitney_u", stats.mannwhitneyu(values_of[TUMOR], values_of[HEALTHY])
        statistic = rank_biserial(values, labels)
        value = weighting.value(statistic)
        effect = {"name": "rank_biserial", "value": value, "common_language": (value + 1) / 2}
    return {
        "shapiro_wilk": normal,
        "test": name,
        "statistic": float(result.statistic),
        "p_value": float(result.pvalue),
        "effect": {**effect, "interval_95": interval(groups, statistic, seed)},
    }


def group_means(
    values: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the mean over the images of each group and class: values [m] and labels [m]."""
    keys, inverse = np.unique(np.stack([groups, labels], axis=1), axis=0, return_inverse=True)
    inverse = inverse.ravel()
    return np.bincount(inverse, weights=values) / np.bincount(inverse), keys[:, 1]


def rank_biserial(values: NDArray[np.float64], labels: NDArray[np.int64]) -> Statistic:
    """Return the rank-biserial correlation, -1 to 1: twice the AUC of the values, less 1.

    The AUC, P(Tumor > Healthy) + P(Tumor = Healthy) / 2, is the common language effect size.

    Args:
        values: float64 [n].
        labels: int64 [n].

    References:
        K. O. McGraw, S. P. Wong, "A common language effect size statistic", Psychological Bulletin 111
        (1992). A. Vargha, H. D. Delaney, J. Educational and Behavioral Statistics 25 (2000).
    """
    auc = auc_statistic(values, labels)
    return lambda weights: 2 * auc(weights) - 1


def cohens_d(values: NDArray[np.float64], labels: NDArray[np.int64]) -> Statistic:
    """Return the difference of the means, Tumor less Healthy, in pooled standard deviations.

    Args:
        values: float64 [n].
        labels: int64 [n].

    Returns:
        For weights [r, n], how often each value counts: float64 [r], nan if it is undefined.

    References:
        J. Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed., 1988, 2.2 and 2.5.
    """
    centred = values - values.mean()  # so that squares lose no digits
    columns = [
        np.stack([inside, inside * centred, inside * centred**2], axis=1)
        for inside in (labels == HEALTHY, labels == TUMOR)
    ]

    def statistic(weights: Weights) -> NDArray[np.float64]:
        means, squares, counts = [], [], []
        for of_class in columns:
            count, total, square = (weights @ of_class).T
            mean = ratio(total, count)
            means.append(mean)
            squares.append(square - count * mean**2)
            counts.append(count)
        pooled = ratio(squares[0] + squares[1], counts[0] + counts[1] - 2)
        return ratio(means[1] - means[0], np.sqrt(np.maximum(pooled, 0)))

    return statistic


def interval(groups: NDArray[np.int64], statistic: Statistic, seed: int) -> list[float | None]:
    """Return the 95 % interval of a statistic by resampled groups: two ends, or two times None."""
    drawn = Weighting(groups).bootstrap(lambda weights: {"": statistic(weights)}, RESAMPLES, seed)
    return list(percentile_interval(drawn[""]) or (None, None))
