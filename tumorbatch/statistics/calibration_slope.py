"""Calibration slope and calibration-in-the-large: whether probabilities are too bold, or too high."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tumorbatch.statistics.intervals import Weights

_STEPS = 60  # of Newton's method, or of halving; it takes about eight where all goes well
_CLOSE = 1e-8  # change of a coefficient, relative to the spread of the logits


class Recalibration:
    """The two figures of logistic recalibration, for any weights of the images.

    Calling it gives {name: float64 [r]} for weights [r, n]:

    - calibration_slope: b of the logistic regression logit P(Tumor) = a + b x on the logits x; 1 is
      right, below 1 the probabilities are too extreme;
    - calibration_in_the_large: a with b fixed at 1; 0 is right, above 0 the probabilities of Tumor are
      too low on average. In logits.

    Both are nan in a replicate without one of the classes; the slope also where the two classes do not
    overlap, since the regression has no finite solution there.

    Args:
        logits: float [n], already divided by the temperature that is asked about.
        labels: int64 [n], 0 Healthy, 1 Tumor.

    References:
        D. R. Cox, "Two further applications of a model for binary regression", Biometrika 45 (1958),
        562-565. B. Van Calster et al., "Calibration: the Achilles heel of predictive analytics", BMC
        Medicine 17 (2019), 230.
    """

    NAMES = ("calibration_slope", "calibration_in_the_large")

    def __init__(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
        self._logits = logits.astype(np.float64)
        self._labels = labels.astype(np.float64)
        # The regression is solved on standardised logits, so that its steps know no scale.
        self._centre, self._spread = float(self._logits.mean()), float(self._logits.std())
        self._spread = self._spread or 1.0

    def __call__(self, weights: Weights) -> Mapping[str, NDArray[np.float64]]:
        """Return {name: float64 [r]}."""
        # Not by the sum of all: weights of groups are rounded, and a sum of zeros is exact.
        two_classes = (weights @ self._labels > 0) & (weights @ (1 - self._labels) > 0)
        values = {
            "calibration_slope": np.full(len(weights), np.nan),
            "calibration_in_the_large": np.full(len(weights), np.nan),
        }
        values["calibration_slope"][two_classes] = self._slope(weights[two_classes])
        values["calibration_in_the_large"][two_classes] = self._in_the_large(weights[two_classes])
        return values

    def _slope(self, weights: Weights) -> NDArray[np.float64]:
        x = (self._logits - self._centre) / self._spread
        a, b = np.zeros((2, len(weights)))
        last = np.full(len(weights), np.inf)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for _ in range(_STEPS):
                p = _sigmoid(a[:, np.newaxis] + np.outer(b, x))
                surprise, curvature = weights * (self._labels - p), weights * p * (1 - p)
                g_a, g_b = surprise.sum(axis=1), surprise @ x
                h_aa, h_ab, h_bb = curvature.sum(axis=1), curvature @ x, curvature @ x**2
                determinant = h_aa * h_bb - h_ab**2
                step_a = (h_bb * g_a - h_ab * g_b) / determinant
                step_b = (h_aa * g_b - h_ab * g_a) / determinant
                a, b, last = a + step_a, b + step_b, np.maximum(np.abs(step_a), np.abs(step_b))
                if (~(last > _CLOSE)).all():
                    break
        return np.where(last <= _CLOSE, b / self._spread, np.nan)

    def _in_the_large(self, weights: Weights) -> NDArray[np.float64]:
        # The mean of sigmoid(a + x) rises with a. At the odds of the share of Tumor less the largest
        # x it lies below that share, less the smallest x above: the one root is in between.
        odds = np.log((weights @ self._labels) / (weights @ (1 - self._labels)))
        low, high = odds - self._logits.max(), odds - self._logits.min()
        a = np.clip(np.zeros(len(weights)), low, high)
        for _ in range(_STEPS):
            p = _sigmoid(a[:, np.newaxis] + self._logits)
            excess = (weights * (p - self._labels)).sum(axis=1)
            slope = (weights * p * (1 - p)).sum(axis=1)
            low, high = np.where(excess < 0, a, low), np.where(excess > 0, a, high)
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = a - excess / slope
            # Where Newton's step leaves the bracket, as it does on the sigmoid's flat ends: halve it.
            after = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
            after = np.where(excess == 0, a, after)
            converged = np.abs(after - a) <= _CLOSE
            a = after
            if converged.all():
                break
        return a


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))  # does not overflow
