"""Figures of a binary classifier for any weights of the images, many weightings at once.

The same code gives a figure (all weights 1) and its bootstrap replicates (how often each image was
drawn), so that the two cannot differ in their definition.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tumorbatch.scoring import probability
from tumorbatch.statistics import (
    REPLICATES,
    Figure,
    Statistic,
    Weights,
    bootstrap,
    bootstrapped,
    proportion,
)

ECE_BINS = 15
BINNINGS = ("equal-width", "equal-mass")


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    return np.asarray(np.divide(above, below, out=out, where=below > 0))


class Ranks:
    """Images sorted by score once, for the figures that hang on the order alone.

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
        """Weight of Tumor and of Healthy at each distinct score, ascending: [r, distinct] each."""
        ordered = weights[:, self._order]
        tumor, healthy = ordered * self._tumor, ordered * ~self._tumor
        if len(self._starts) == ordered.shape[1]:
            return tumor, healthy
        return (
            np.add.reduceat(tumor, self._starts, axis=1),
            np.add.reduceat(healthy, self._starts, axis=1),
        )

    def both(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """AUC and average precision, float64 [r] each; nan in a replicate that lacks a class.

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
        average = np.where(healthies > 0, _ratio(steps, tumors), np.nan)
        return _ratio(wins, tumors * healthies), average

    def auc(self, weights: Weights) -> NDArray[np.float64]:
        """The first of `both`."""
        tumor, healthy = self.by_class(weights)
        below = healthy.cumsum(axis=1)
        tumors = tumor.sum(axis=1)
        return _ratio((tumor * (below - healthy / 2)).sum(axis=1), tumors * below[:, -1])


def auc_statistic(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> Statistic:
    """AUC as a statistic for `statistics.difference`."""
    return Ranks(scores, labels).auc


def share_statistic(true: NDArray[np.bool_]) -> Statistic:
    """The share of images for which bool [n] is true, as a statistic: of the right ones, accuracy."""
    numbers = true.astype(np.float64)
    return lambda weights: _ratio(weights @ numbers, weights.sum(axis=1))


def auc_within(
    scores: NDArray[np.floating], labels: NDArray[np.int64], strata: NDArray[np.int64]
) -> Statistic:
    """AUC of the pairs whose two images lie in one stratum: what the stratum itself cannot tell.

    The probability that a Tumor scores higher than a Healthy image of its own stratum, over all such
    pairs, ties counted half: the stratified Mann-Whitney statistic (Ph. van Elteren, Bulletin of the
    International Statistical Institute 37 (1960), 351-361) with pairs of equal weight. A score that
    hangs on the stratum alone has 0.5.

    Args:
        scores: float [n], higher for Tumor.
        labels: int64 [n], 0 or 1.
        strata: int64 [n], numbers from 0.

    Returns:
        Of weights [r, n]: float64 [r], nan where no stratum holds both classes.
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
            np.diff(of.cumsum(axis=1)[:, last], axis=1, prepend=0) for of in (tumor, healthy)
        )
        return _ratio(wins, (tumors * healthies).sum(axis=1))

    return statistic


def ece_edges(
    probabilities: NDArray[np.floating], binning: str = "equal-width", bins: int = ECE_BINS
) -> NDArray[np.float64]:
    """Inner edges of the bins of a calibration error; a bin holds its upper edge.

    Args:
        probabilities: float [n] in [0, 1].
        binning: "equal-width" (Guo et al. 2017), or "equal-mass": as many images in each as ties allow
            (Nguyen and O'Connor, EMNLP 2015).
        bins: Their number; with ties, equal-mass bins may be fewer.

    Returns:
        float64 [at most bins - 1], ascending.

    Raises:
        ValueError: Another binning.
    """
    if binning == "equal-width":
        return np.arange(1, bins) / bins
    if binning == "equal-mass":
        ordered = np.sort(probabilities.astype(np.float64))
        last = (np.arange(1, bins) * len(ordered)) // bins - 1  # of each bin but the last
        return np.unique(ordered[last[last >= 0]])
    raise ValueError(f"the binning must be one of {', '.join(BINNINGS)}, not {binning!r}")


class _CalibrationError:
    """Expected calibration error of P(Tumor): sum over bins of share times |observed - predicted|."""

    def __init__(
        self, probabilities: NDArray[np.floating], labels: NDArray[np.int64], edges: NDArray[np.float64]
    ) -> None:
        surprise = labels - probabilities.astype(np.float64)
        bins = np.digitize(probabilities, edges, right=True)
        self._columns = surprise[:, np.newaxis] * (bins[:, np.newaxis] == np.arange(len(edges) + 1))

    def __call__(self, weights: Weights) -> NDArray[np.float64]:
        return _ratio(np.abs(weights @ self._columns).sum(axis=1), weights.sum(axis=1))


def pointwise_log_loss(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Binary cross-entropy of each image in nats, from logits and without overflow, float64 [n]."""
    x = logits.astype(np.float64)
    return np.asarray(np.maximum(x, 0) - x * labels + np.log1p(np.exp(-np.abs(x))))


class Measures:
    """All figures of one model on one split, at one threshold and temperature.

    Calling it gives {name: float64 [r]} for weights [r, n]; a name's definition:

    - accuracy, sensitivity (= recall), specificity, precision (= PPV at this split's prevalence), npv;
    - f1: harmonic mean of precision and recall;
    - auc, average_precision: see `Ranks.both`; the temperature does not change them;
    - brier: mean squared difference between P(Tumor) and label; log_loss: mean binary cross-entropy in
      nats;
    - ece: over 15 bins of equal width of P(Tumor); ece_equal_mass: over 15 bins of as many images each,
      whose edges the whole split sets.

    Args:
        logits: float32 [n].
        labels: int64 [n], 0 Healthy, 1 Tumor.
        threshold: A probability of at least this much counts as Tumor.
        temperature: Divides the logits.
        ranks: Of these logits and labels, or None: they are sorted here.
    """

    PROPORTIONS = ("accuracy", "sensitivity", "specificity", "precision", "npv")
    NAMES = (
        *PROPORTIONS, "f1", "auc", "average_precision", "brier", "log_loss", "ece", "ece_equal_mass",
    )  # fmt: skip

    def __init__(
        self,
        logits: NDArray[np.float32],
        labels: NDArray[np.int64],
        threshold: float,
        temperature: float,
        ranks: Ranks | None = None,
    ) -> None:
        self.n = len(labels)
        self.probabilities = probability(logits, temperature)
        self.called = self.probabilities >= np.float32(threshold)
        truth = labels == 1
        outcomes = (~self.called & ~truth, self.called & ~truth, ~self.called & truth)
        brier = (self.probabilities.astype(np.float64) - labels) ** 2
        loss = pointwise_log_loss(logits.astype(np.float64) / temperature, labels)
        self._columns = np.column_stack([*outcomes, self.called & truth, brier, loss])
        self.ranks = Ranks(logits, labels) if ranks is None else ranks
        self._ece, self._ece_mass = (
            _CalibrationError(self.probabilities, labels, ece_edges(self.probabilities, binning))
            for binning in BINNINGS
        )

    @property
    def confusion(self) -> dict[str, int]:
        """{tn, fp, fn, tp}: numbers of images."""
        counts = self._columns[:, :4].sum(axis=0)
        return {name: int(count) for name, count in zip(("tn", "fp", "fn", "tp"), counts, strict=True)}

    def __call__(self, weights: Weights) -> Mapping[str, NDArray[np.float64]]:
        """{name: float64 [r]} for weights [r, n], nan where undefined."""
        return self.given(weights, *self.ranks.both(weights))

    def given(
        self,
        weights: Weights,
        auc: NDArray[np.float64],
        average_precision: NDArray[np.float64],
    ) -> Mapping[str, NDArray[np.float64]]:
        """The same, where `Ranks.both` of these weights is known: its two results are passed on.

        They cost most, and are the same at any threshold and temperature.
        """
        tn, fp, fn, tp, brier, loss = (weights @ self._columns).T
        total = weights.sum(axis=1)
        return {
            "accuracy": _ratio(tn + tp, total),
            "sensitivity": _ratio(tp, tp + fn),
            "specificity": _ratio(tn, tn + fp),
            "precision": _ratio(tp, tp + fp),
            "npv": _ratio(tn, tn + fn),
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "auc": auc,
            "average_precision": average_precision,
            "brier": _ratio(brier, total),
            "log_loss": _ratio(loss, total),
            "ece": self._ece(weights),
            "ece_equal_mass": self._ece_mass(weights),
        }

    def figures(self, replicates: Mapping[str, NDArray[np.float64]]) -> dict[str, Figure]:
        """Each name's value, n and 95 % interval.

        Args:
            replicates: Of this object, from `statistics.bootstrap`.
        """
        counts = self.confusion
        tn, fp, fn, tp = (counts[name] for name in ("tn", "fp", "fn", "tp"))
        shares = {
            "accuracy": (tn + tp, self.n),
            "sensitivity": (tp, tp + fn),
            "specificity": (tn, tn + fp),
            "precision": (tp, tp + fp),
            "npv": (tn, tn + fn),
        }
        values = self(np.ones((1, self.n)))
        return {
            name: proportion(*shares[name], replicates[name])
            if name in shares
            else bootstrapped(float(values[name][0]), self.n, replicates[name])
            for name in self.NAMES
        }

    def bootstrap(
        self, groups: object, replicates: int = REPLICATES, seed: int = 0
    ) -> dict[str, NDArray[np.float64]]:
        """Replicates of all figures, resampled over `groups` [n]: {name: float64 [replicates]}."""
        return bootstrap(self, np.asarray(groups), replicates, seed)
