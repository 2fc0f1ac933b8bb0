"""McNemar's test on pairs of answers, and Holm's adjustment for several tests."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_EXACT_BELOW = 25  # discordant pairs; fewer, and the chi-square approximation is poor (see `mcnemar`)


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
    """Test whether two models err equally often on the same images.

    With fewer than 25 discordant pairs the exact binomial test, otherwise the chi-square with
    continuity correction (a common rule; the exact test is right for any number). It counts images as
    independent: with many copies of one image its p-value is too small, and `Weighting.difference` the
    better answer.

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


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: the chance of one false finding stays the level.

    References:
        S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
        Statistics 6 (1979), 65-70.
    """
    count = len(p_values)
    adjusted = [0.0] * count
    largest = 0.0
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
