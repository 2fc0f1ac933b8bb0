"""The area under the ROC curve: of any weights of the images, within strata, and with an interval.

AUC is the probability that a Tumor scores higher than a Healthy image, ties counted half.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumorbatch.statistics.intervals import REPLICATES, Estimate, Statistic, Weights, resampled
from tumorbatch.statistics.weighting import Weighting

_TAIL = 0.025  # of a 95 % interval, on one side


def ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide element by element; nan where `below` is not above 0."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    return np.asarray(np.divide(above, below, out=out, where=below > 0))


class Ranks:
    """Images sorted by score once, for the figures that depend on the order alone.

    Args:
        scores: float [n], higher for Tumor; equal ones are ties.
        labels: int [n], 0 or 1.
    """

    def __init__(self, scores: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
        self._tumor = labels[self._order] == 1

    def by_class(self, weights: Weights) -> tuple[Weights, Weights]:
        """Return the weights of Tumor and Healthy at each distinct score, ascending: [r, distinct]."""
        ordered = weights[:, self._order]
        tumor, healthy = ordered * self._tumor, ordered * ~self._tumor
        if len(self._starts) == ordered.shape[1]:
            return tumor, healthy
        return (
            np.add.reduceat(tumor, self._starts, axis=1),
            np.add.reduceat(healthy, self._starts, axis=1),
        )

    def auc_and_precision(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return AUC and average precision, float64 [r] each; nan in a replicate that lacks a class.

        AUC is the probability that a random Tumor scores higher than a random Healthy image, ties
        counted half (the Mann-Whitney statistic; J. A. Hanley and B. J. McNeil, Radiology 143 (1982),
        29-36). Average precision is the sum of precision times step in recall over the distinct
        scores, without interpolation, as scikit-learn has it.
        """
        tumor, healthy = self.by_class(weights)
        below_tumor, below_healthy = tumor.cumsum(axis=1), healthy.cumsum(axis=1)
        tumors, healthies = below_tumor[:, -1], below_healthy[:, -1]
        wins = (tumor * (below_healthy - healthy / 2)).sum(axis=1)
        called_tumor = tumors[:, np.newaxis] - below_tumor + tumor
        called = called_tumor + healthies[:, np.newaxis] - below_healthy + healthy
        precision = np.divide(called_tumor, called, out=np.zeros_like(called), where=called > 0)
        steps = (tumor * precision).sum(axis=1)
        average = np.where(healthies > 0, ratio(steps, tumors), np.nan)
        return ratio(wins, tumors * healthies), average

    def auc(self, weights: Weights) -> NDArray[np.float64]:
        """Return the AUC alone, float64 [r]; see `auc_and_precision`."""
        tumor, healthy = self.by_class(weights)
        below = healthy.cumsum(axis=1)
        tumors = tumor.sum(axis=1)
        return ratio((tumor * (below - healthy / 2)).sum(axis=1), tumors * below[:, -1])


def auc_statistic(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> Statistic:
    """Return the AUC as a statistic for `intervals.difference`."""
    return Ranks(scores, labels).auc


def auc_within(
    scores: NDArray[np.floating], labels: NDArray[np.int64], strata: NDArray[np.int64]
) -> Statistic:
    """Return the AUC over pairs of images in one stratum: what the stratum itself cannot predict.

    The probability that a Tumor scores higher than a Healthy image of the same stratum, over all such
    pairs, ties counted half: the stratified Mann-Whitney statistic (Ph. van Elteren, Bulletin of the
    International Statistical Institute 37 (1960), 351-361) with pairs of equal weight. A score that
    depends on the stratum alone has 0.5.

    Args:
        scores: float [n], higher for Tumor.
        labels: int64 [n], 0 or 1.
        strata: int64 [n], numbers from 0.

    Returns:
        Of weights [r, n]: float64 [r], nan if no stratum holds both classes.
    """
    place = np.unique(scores, return_inverse=True)[1].ravel()
    # The strata one after another on one scale, so that one running sum serves all of them.
    joint = strata * len(scores) + place
    ranks = Ranks(joint, labels)
    stratum = np.unique(joint) // len(scores)  # of each distinct score in each stratum
    first = np.searchsorted(stratum, stratum)
    last = np.flatnonzero(np.diff(stratum, append=-1))

    def statistic(weights: Weights) -> NDArray[np.float64]:
        tumor, healthy = ranks.by_class(weights)
        below = healthy.cumsum(axis=1)
        below_stratum = (below - healthy)[:, first]
        wins = (tumor * (below - healthy / 2 - below_stratum)).sum(axis=1)
        tumors, healthies = (
            np.diff(weight.cumsum(axis=1)[:, last], axis=1, prepend=0) for weight in (tumor, healthy)
        )
        return ratio(wins, (tumors * healthies).sum(axis=1))

    return statistic


def disjoint_pairs(
    labels: NDArray[np.int64], groups: ArrayLike, strata: NDArray[np.int64] | None = None
) -> int:
    """Pair groups with Tumor and groups with Healthy, each group in one pair at most.

    Args:
        labels: int64 [n].
        groups: [n].
        strata: int64 [n], or None. Both images of a pair are of one stratum then, and a group that lies
            in several strata serves one of them only.
    """
    group_of_image = np.asarray(groups)
    parts = np.zeros(len(group_of_image), np.int64) if strata is None else strata
    paired: set[object] = set()
    pairs = 0
    for part in np.unique(parts):
        tumor, healthy = (
            set(group_of_image[(labels == label) & (parts == part)].tolist()) - paired
            for label in (1, 0)
        )
        pairs += min(len(tumor), len(healthy), len(tumor | healthy) // 2)
        if tumor and healthy:
            paired |= tumor | healthy
    return pairs


def auc_estimate(
    value: float,
    labels: NDArray[np.int64],
    weighting: Weighting,
    replicates: NDArray[np.float64],
    strata: NDArray[np.int64] | None = None,
) -> Estimate:
    """Return an AUC with its interval.

    The bootstrap's, over groups; but where every replicate is the same, because the classes do not
    overlap, the bootstrap knows nothing of the next error. Then an exact bound replaces it: among k
    disjoint pairs of a group with Tumor and a group with Healthy all were won, so that at 97.5 % the
    chance of winning is at least 0.025^(1/k).

    Args:
        value: The AUC; nan becomes undefined.
        labels: int64 [n].
        weighting: Of the images.
        replicates: float64 [replicates], of the bootstrap over groups.
        strata: int64 [n], of an AUC within strata.

    References:
        C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case
        of the binomial", Biometrika 26 (1934), 404-413.
    """
    estimate = weighting.estimate(value, replicates)
    ends = None if estimate.low is not None else _exact_ends(value, labels, weighting.groups, strata)
    return estimate if ends is None else Estimate(value, estimate.n, *ends, "exact")


def _exact_ends(
    value: float, labels: NDArray[np.int64], groups: ArrayLike, strata: NDArray[np.int64] | None = None
) -> tuple[float, float] | None:
    """Return the interval of an AUC of 0 or 1 (see `auc_estimate`); None for any other."""
    pairs = disjoint_pairs(labels, groups, strata) if value in (0.0, 1.0) else 0
    if not pairs:
        return None
    bound = _TAIL ** (1 / pairs)
    return (bound, 1.0) if value else (0.0, 1 - bound)


def auc_difference(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    labels: NDArray[np.int64],
    weighting: Weighting,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Return the AUC of `first` minus that of `second`, by the paired bootstrap over groups.

    Beside scores that are all equal (their AUC is 0.5, whatever is drawn) the interval is that of
    the first AUC less 0.5, so that it has a width where the first is perfect.

    Args:
        first: float [n] scores, higher for Tumor.
        second: float [n], likewise.
        labels: int64 [n].
        weighting: Of the images.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.
    """
    estimate = weighting.difference(
        auc_statistic(first, labels), auc_statistic(second, labels), replicates, seed
    )
    if estimate.low is not None or estimate.value is None or len(np.unique(second)) > 1:
        return estimate
    ends = _exact_ends(estimate.value + 0.5, labels, weighting.groups)
    if ends is None:
        return estimate
    return Estimate(estimate.value, estimate.n, ends[0] - 0.5, ends[1] - 0.5, "exact")


def roc_band(
    scores: NDArray[np.floating],
    labels: NDArray[np.int64],
    weighting: Weighting,
    rates: NDArray[np.float64],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the pointwise 95 % interval of the ROC curve, by the bootstrap over groups.

    Replicates without one of the classes have no curve and are left out.

    Args:
        scores: [n], larger for Tumor.
        labels: int64 [n].
        weighting: What counts once, and what is resampled together.
        rates: float64 [m], false-positive rates, ascending, at which the curve is looked at.
        replicates: How many.
        seed: Of the draw.

    Returns:
        float64 [m] each: 2.5th and 97.5th percentile of the true-positive rate; nan without a curve.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each score
    positive = labels[order] == 1
    curves = []
    for drawn in resampled(weighting.groups, replicates, seed):
        weights = (drawn * weighting.weights)[:, order]
        for row in weights:
            hits, alarms = (np.cumsum(row * one)[last] for one in (positive, ~positive))
            if hits[-1] > 0 and alarms[-1] > 0:
                false, true = (np.append(0.0, part / part[-1]) for part in (alarms, hits))
                curves.append(np.interp(rates, false, true))
    if not curves:
        nothing = np.full(len(rates), np.nan)
        return nothing, nothing
    low, high = np.percentile(np.stack(curves), [2.5, 97.5], axis=0)
    return low, high
