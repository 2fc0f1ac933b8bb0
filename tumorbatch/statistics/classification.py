"""Figures of a binary classifier for any weights of the images, many weightings at once.

The same code gives a figure (all weights 1) and its bootstrap replicates (how often each image was
drawn), so that the two cannot differ in their definition.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumorbatch.scoring import probability
from tumorbatch.statistics.auc import Ranks, auc_figure, ratio
from tumorbatch.statistics.intervals import (
    REPLICATES,
    Estimate,
    Statistic,
    Weights,
    bootstrap,
    bootstrapped,
    mirrored,
    proportion,
)

ECE_BINS = 15
_DRAWN = 100  # draws of labels at a time
BINNINGS = ("equal-width", "equal-mass")


def share_statistic(true: NDArray[np.bool_]) -> Statistic:
    """The share of images for which bool [n] is true, as a statistic: of the right ones, accuracy."""
    numbers = true.astype(np.float64)
    return lambda weights: ratio(weights @ numbers, weights.sum(axis=1))


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
        self._probabilities = probabilities.astype(np.float64)
        self._inside = (bins[:, np.newaxis] == np.arange(len(edges) + 1)).astype(np.float64)
        self._columns = surprise[:, np.newaxis] * self._inside

    def __call__(self, weights: Weights) -> NDArray[np.float64]:
        return ratio(np.abs(weights @ self._columns).sum(axis=1), weights.sum(axis=1))

    def by_chance(self, groups: ArrayLike, replicates: int, seed: int) -> NDArray[np.float64]:
        """What it would be if every probability meant what it says, float64 [replicates].

        Labels are drawn by the probabilities themselves, for the copies of a group together
        (consistency resampling; J. Broecker, L. A. Smith, "Increasing the reliability of reliability
        diagrams", Weather and Forecasting 22 (2007), 651-661).
        """
        _, group = np.unique(np.asarray(groups), return_inverse=True)
        rng = np.random.default_rng(seed)
        found = []
        for start in range(0, replicates, _DRAWN):
            drawn = rng.random((min(_DRAWN, replicates - start), int(group.max()) + 1))
            surprise = (drawn[:, group] < self._probabilities) - self._probabilities
            found.append(np.abs(surprise @ self._inside).sum(axis=1) / len(group))
        return np.concatenate(found)


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
        self._labels = labels
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
            "accuracy": ratio(tn + tp, total),
            "sensitivity": ratio(tp, tp + fn),
            "specificity": ratio(tn, tn + fp),
            "precision": ratio(tp, tp + fp),
            "npv": ratio(tn, tn + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "auc": auc,
            "average_precision": average_precision,
            "brier": ratio(brier, total),
            "log_loss": ratio(loss, total),
            "ece": self._ece(weights),
            "ece_equal_mass": self._ece_mass(weights),
        }

    def figures(
        self, replicates: Mapping[str, NDArray[np.float64]], groups: ArrayLike, seed: int = 0
    ) -> dict[str, Estimate]:
        """Each name's value, n and 95 % interval.

        Args:
            replicates: Of this object, from `statistics.bootstrap`.
            groups: [n], what they were resampled over.
            seed: Of what chance alone would give as a calibration error.
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
        values = {name: float(of[0]) for name, of in self(np.ones((1, self.n))).items()}
        found = {}
        for name in self.NAMES:
            drawn = replicates[name]
            if name in shares:
                found[name] = proportion(*shares[name], drawn)
            elif name == "auc":
                found[name] = auc_figure(values[name], self._labels, groups, drawn)
            elif name in ("ece", "ece_equal_mass"):
                error = self._ece if name == "ece" else self._ece_mass
                chance = error.by_chance(groups, len(drawn), seed)
                found[name] = mirrored(values[name], self.n, drawn, chance)
            else:
                found[name] = bootstrapped(values[name], self.n, drawn)
        return found

    def bootstrap(
        self, groups: object, replicates: int = REPLICATES, seed: int = 0
    ) -> dict[str, NDArray[np.float64]]:
        """Replicates of all figures, resampled over `groups` [n]: {name: float64 [replicates]}."""
        return bootstrap(self, np.asarray(groups), replicates, seed)
