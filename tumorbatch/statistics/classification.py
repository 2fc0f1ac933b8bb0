"""The measures of a binary classifier, each defined once, for any weights of the images.

The same code gives a measure of a split and its bootstrap replicates (weights: how often each image was
drawn), so that the two cannot differ in their definition.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tumorbatch.scoring import probability
from tumorbatch.statistics.auc import Ranks, auc_estimate, ratio
from tumorbatch.statistics.intervals import Estimate, Statistic, Weights, mirrored
from tumorbatch.statistics.weighting import Weighting

ECE_BINS = 15
_DRAWN = 100  # draws of labels at a time
BINNINGS = ("equal-width", "equal-mass")


def ece_edges(
    probabilities: NDArray[np.floating], binning: str = "equal-width", bins: int = ECE_BINS
) -> NDArray[np.float64]:
    """Return the inner bin edges of a calibration error; a bin holds its upper edge.

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

    def by_chance(self, weighting: Weighting, replicates: int, seed: int) -> NDArray[np.float64]:
        """Return the value if every probability were exact, float64 [replicates].

        Labels are drawn by the probabilities themselves, for the copies of a group together
        (consistency resampling; J. Broecker, L. A. Smith, "Increasing the reliability of reliability
        diagrams", Weather and Forecasting 22 (2007), 651-661).
        """
        group = weighting.groups
        inside = self._inside * weighting.weights[:, np.newaxis]
        total = weighting.weights.sum()
        rng = np.random.default_rng(seed)
        errors = []
        for start in range(0, replicates, _DRAWN):
            drawn = rng.random((min(_DRAWN, replicates - start), int(group.max()) + 1))
            surprise = (drawn[:, group] < self._probabilities) - self._probabilities
            errors.append(np.abs(surprise @ inside).sum(axis=1) / total)
        return np.concatenate(errors)


def pointwise_log_loss(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the binary cross-entropy of each image in nats, from logits, float64 [n]."""
    x = logits.astype(np.float64)
    return np.asarray(np.maximum(x, 0) - x * labels + np.log1p(np.exp(-np.abs(x))))


class Decisions:
    """Accuracy and the like, of answers that are Healthy or Tumor.

    Calling it gives {name: float64 [r]} for weights [r, n], nan if undefined:

    - accuracy, sensitivity (= recall), specificity, precision (= PPV at this split's prevalence), npv;
    - f1: harmonic mean of precision and recall.

    Args:
        called: bool [n], whether the image is called Tumor.
        labels: int64 [n], 0 Healthy, 1 Tumor.
    """

    SHARES = ("accuracy", "sensitivity", "specificity", "precision", "npv")
    NAMES = (*SHARES, "f1")

    def __init__(self, called: NDArray[np.bool_], labels: NDArray[np.int64]) -> None:
        tumor = labels == 1
        self.right: NDArray[np.bool_] = called == tumor
        self._among = {
            "accuracy": np.ones(len(labels), bool),
            "sensitivity": tumor,
            "specificity": ~tumor,
            "precision": called,
            "npv": ~called,
        }
        outcomes = (~called & ~tumor, called & ~tumor, ~called & tumor, called & tumor)
        self._outcomes = np.column_stack(outcomes).astype(np.float64)

    @property
    def confusion(self) -> dict[str, int]:
        """Return {tn, fp, fn, tp}: numbers of images."""
        counts = self._outcomes.sum(axis=0)
        return {name: int(count) for name, count in zip(("tn", "fp", "fn", "tp"), counts, strict=True)}

    def __call__(self, weights: Weights) -> dict[str, NDArray[np.float64]]:
        """Return {name: float64 [r]} for weights [r, n]."""
        tn, fp, fn, tp = (weights @ self._outcomes).T
        return {
            "accuracy": ratio(tn + tp, tn + fp + fn + tp),
            "sensitivity": ratio(tp, tp + fn),
            "specificity": ratio(tn, tn + fp),
            "precision": ratio(tp, tp + fp),
            "npv": ratio(tn, tn + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
        }

    def statistic(self, name: str) -> Statistic:
        """Return one of the measures as a statistic."""
        return lambda weights: self(weights)[name]

    def estimate(self, name: str, replicates: NDArray[np.float64], weighting: Weighting) -> Estimate:
        """Return one of the measures with its n and 95 % interval.

        Args:
            name: One of `NAMES`.
            replicates: float64 [replicates] of it, from `Weighting.bootstrap`.
            weighting: The one that they were made by.
        """
        if name in self._among:
            return weighting.share(self.right, self._among[name], replicates)
        return weighting.estimate(weighting.value(self.statistic(name)), replicates)


class CoreMeasures:
    """Accuracy and the like, and the AUC, of one model on one split.

    Calling it gives {name: float64 [r]} for weights [r, n]: those of `Decisions`, and auc.

    Args:
        called: bool [n], whether the image is called Tumor.
        scores: float [n], higher for Tumor.
        labels: int64 [n], 0 Healthy, 1 Tumor.
    """

    NAMES = (*Decisions.NAMES, "auc")

    def __init__(
        self, called: NDArray[np.bool_], scores: NDArray[np.floating], labels: NDArray[np.int64]
    ) -> None:
        self._labels = labels
        self._decisions = Decisions(called, labels)
        self._ranks = Ranks(scores, labels)

    def __call__(self, weights: Weights) -> dict[str, NDArray[np.float64]]:
        """Return {name: float64 [r]} for weights [r, n], nan if undefined."""
        return {**self._decisions(weights), "auc": self._ranks.auc(weights)}

    def estimate(self, name: str, replicates: NDArray[np.float64], weighting: Weighting) -> Estimate:
        """Return one of the measures with its n and 95 % interval; arguments as for `Decisions`."""
        if name != "auc":
            return self._decisions.estimate(name, replicates, weighting)
        return auc_estimate(weighting.value(self._ranks.auc), self._labels, weighting, replicates)


class Measures:
    """All measures of one model on one split, at one threshold and temperature.

    Calling it gives {name: float64 [r]} for weights [r, n]; a name's definition:

    - those of `Decisions`;
    - auc, average_precision: see `Ranks.auc_and_precision`; the temperature does not change them;
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

    NAMES = (
        *Decisions.NAMES, "auc", "average_precision", "brier", "log_loss", "ece", "ece_equal_mass",
    )  # fmt: skip

    def __init__(
        self,
        logits: NDArray[np.floating],
        labels: NDArray[np.int64],
        threshold: float,
        temperature: float,
        ranks: Ranks | None = None,
    ) -> None:
        self._labels = labels
        self.probabilities = probability(logits, temperature)
        self.decisions = Decisions(self.probabilities >= np.float32(threshold), labels)
        brier = (self.probabilities.astype(np.float64) - labels) ** 2
        loss = pointwise_log_loss(logits.astype(np.float64) / temperature, labels)
        self._losses = np.column_stack([brier, loss])
        self.ranks = Ranks(logits, labels) if ranks is None else ranks
        self._errors = {
            name: _CalibrationError(self.probabilities, labels, ece_edges(self.probabilities, binning))
            for name, binning in zip(("ece", "ece_equal_mass"), BINNINGS, strict=True)
        }

    def __call__(self, weights: Weights) -> dict[str, NDArray[np.float64]]:
        """Return {name: float64 [r]} for weights [r, n], nan if undefined."""
        return self.with_ranks(weights, *self.ranks.auc_and_precision(weights))

    def with_ranks(
        self,
        weights: Weights,
        auc: NDArray[np.float64],
        average_precision: NDArray[np.float64],
    ) -> dict[str, NDArray[np.float64]]:
        """Return the same, from the two results of `Ranks.auc_and_precision` for these weights.

        These two cost most, and are the same at any threshold and temperature.
        """
        brier, loss = (weights @ self._losses).T
        total = weights.sum(axis=1)
        return {
            **self.decisions(weights),
            "auc": auc,
            "average_precision": average_precision,
            "brier": ratio(brier, total),
            "log_loss": ratio(loss, total),
            **{name: error(weights) for name, error in self._errors.items()},
        }

    def estimates(
        self, replicates: Mapping[str, NDArray[np.float64]], weighting: Weighting, seed: int = 0
    ) -> dict[str, Estimate]:
        """Return each measure with its n and 95 % interval.

        Args:
            replicates: Of this object, from `Weighting.bootstrap`.
            weighting: The one that they were made by.
            seed: Of what chance alone would give as a calibration error.
        """
        values = weighting.values(self)
        estimates = {name: weighting.estimate(values[name], replicates[name]) for name in self.NAMES}
        for name in self.decisions.NAMES:
            estimates[name] = self.decisions.estimate(name, replicates[name], weighting)
        estimates["auc"] = auc_estimate(values["auc"], self._labels, weighting, replicates["auc"])
        for name, error in self._errors.items():
            by_chance = error.by_chance(weighting, len(replicates[name]), seed)
            estimates[name] = mirrored(values[name], weighting.count(), replicates[name], by_chance)
        return estimates
