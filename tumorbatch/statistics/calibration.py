"""Temperature and threshold, both chosen on validation; reliability; predictive values."""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.errors import ConfigError
from tumorbatch.scoring import probability
from tumorbatch.statistics.classification import ECE_BINS, ece_edges, pointwise_log_loss
from tumorbatch.statistics.intervals import Estimate, wilson

# A network whose logits are twenty times too large or too small is broken, not uncalibrated.
TEMPERATURES = (0.05, 20.0)
PREVALENCES = (0.5, 0.1, 0.01, 0.001)
DEFAULT_RULE = "sensitivity=0.95"


@dataclass(frozen=True, slots=True)
class Temperature:
    """Outcome of `fit_temperature`.

    Attributes:
        value: Logits are divided by it.
        n: Validation images.
        log_loss_before: Mean, nats, with temperature 1.
        log_loss_after: With `value`.
        note: How it was found, or why it stayed at 1, a sentence.
    """

    value: float
    n: int
    log_loss_before: float
    log_loss_after: float
    note: str


def fit_temperature(
    logits: NDArray[np.float32], labels: NDArray[np.int64], on: str = "validation"
) -> Temperature:
    """Return the temperature with the lowest log loss on validation, never on test.

    It stays 1 where there is no minimum: with one class only; where every logit has the right sign (the
    loss falls on towards temperature 0); where logits do not rise with the label (it falls on towards
    infinity).

    Args:
        logits: float32 [n].
        labels: int64 [n], 0 or 1.
        on: What they are of, for the note.

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML
        2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    x = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return float(pointwise_log_loss(x / math.exp(log_temperature), labels).mean())

    n, before = len(labels), loss(0.0) if len(labels) else math.nan

    def stays(why: str) -> Temperature:
        return Temperature(1.0, n, before, before, f"Not calibrated: {why}.")

    if len(np.unique(labels)) < 2:
        return stays("the validation split has one class only")
    if (x[labels == 1] > 0).all() and (x[labels == 0] < 0).all():
        return stays("every validation logit has the right sign, and the loss has no minimum")
    # Slope of the loss in 1/T at 0: the loss is convex in it, so if it rises there, it always does.
    if ((labels - 0.5) * x).sum() <= 0:
        return stays("the validation logits do not rise with the label")
    low, high = map(math.log, TEMPERATURES)
    minimum = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-8})
    best = min((low, float(minimum.x), high), key=loss)
    value = float(f"{math.exp(best):.6g}")
    note = f"Minimum of the log loss on {on}."
    if value in TEMPERATURES:
        note = f"The log loss on {on} is lowest at the bound of what is allowed, {value:g}."
    return Temperature(value, n, before, loss(math.log(value)), note)


@dataclass(frozen=True, slots=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        kind: "sensitivity": the largest specificity with at least this sensitivity; "specificity": the
            other way round; "youden": the largest sum of both; "f1": the largest F1; "value": as given.
        target: Of "sensitivity", "specificity" and "value"; otherwise None.
    """

    kind: str
    target: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Parse `sensitivity=0.95`, `specificity=0.9`, `youden`, `f1`, or a number.

        Raises:
            ConfigError: It is none of these, or out of range.
        """
        expected = (
            "The threshold must be sensitivity=X, specificity=X, youden, f1, or a number between 0 and "
            f"1. Received: {text}."
        )
        if text in ("youden", "f1"):
            return cls(text)
        match = re.fullmatch(r"(?:(sensitivity|specificity|value)=)?([0-9.eE+-]+)", text)
        try:
            target = float(match[2]) if match else math.nan
        except ValueError:
            raise ConfigError(expected) from None
        kind = (match and match[1]) or "value"
        if not 0 < target <= 1 or (kind == "value" and target == 1):
            raise ConfigError(expected)
        return cls(kind, target)

    def __str__(self) -> str:
        return self.kind if self.target is None else f"{self.kind}={self.target:.12g}"

    def in_words(self) -> str:
        """Return the rule in words."""
        share = "" if self.target is None else f"{self.target:.12g}"
        return {
            "sensitivity": f"the largest specificity with a sensitivity of at least {share}",
            "specificity": f"the largest sensitivity with a specificity of at least {share}",
            "youden": "the largest sum of sensitivity and specificity (Youden's index)",
            "f1": "the largest F1",
            "value": f"{share}, as given",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Outcome of `choose_threshold`.

    Attributes:
        value: A calibrated probability of at least this much is called Tumor.
        rule: As `Rule.parse` takes it.
        reached: Whether the rule's aim was met on validation.
        n: Validation images.
        sensitivity: On validation, where it was chosen (so a little too good), or None without Tumor.
        specificity: Likewise.
        note: A sentence.
    """

    value: float
    rule: str
    reached: bool
    n: int
    sensitivity: float | None
    specificity: float | None
    note: str


def choose_threshold(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    temperature: float,
    rule: Rule,
    on: str = "validation",
) -> Threshold:
    """Choose the threshold on validation by `rule`.

    Between two neighbouring probabilities any threshold decides the same; it is put near their middle,
    with as few digits as fit there. Of several that fulfil a rule equally well, the one with the
    higher sensitivity: a tumour that is missed weighs more.

    Args:
        logits: float32 [n].
        labels: int64 [n], 0 or 1.
        temperature: Divides the logits.
        rule: See there.
        on: What the logits are of, for the note.
    """
    probabilities = probability(logits, temperature)
    tumors, healthies = int((labels == 1).sum()), int((labels == 0).sum())

    def threshold_at(value: float, reached: bool, note: str) -> Threshold:
        called = probabilities >= np.float32(value)
        sensitivity = float(called[labels == 1].mean()) if tumors else None
        specificity = float((~called[labels == 0]).mean()) if healthies else None
        return Threshold(value, str(rule), reached, len(labels), sensitivity, specificity, note)

    if rule.kind == "value" and rule.target is not None:
        return threshold_at(rule.target, True, f"Given, not chosen: {rule.target:.12g}.")
    if not (tumors and healthies):
        return threshold_at(
            0.5, False, "0.5: no choice is possible, because the validation split has one class only."
        )
    values, tp, fp = _candidates(probabilities, labels)
    sensitivity, specificity = tp / tumors, 1 - fp / healthies
    goal = {
        "sensitivity": specificity,
        "specificity": sensitivity,
        "youden": sensitivity + specificity,
        "f1": 2 * tp / (tp + fp + tumors),
    }[rule.kind]
    allowed = np.ones(len(values), bool)
    reached = True
    if rule.target is not None:
        bound = sensitivity if rule.kind == "sensitivity" else specificity
        allowed = bound >= rule.target - 1e-12
        if not allowed.any():
            reached = False
            allowed = bound == bound.max()
    # By goal, then sensitivity, then specificity: 12 digits, so that rounding decides no tie.
    keys = np.where(allowed, np.round(goal, 12), -1.0), sensitivity, specificity
    best = np.lexsort(keys[::-1])[-1]
    note = f"Chosen on {on}: {rule.in_words()}."
    if not reached:
        note = (
            f"Not reachable on {on}: {rule.in_words()}. The nearest there is was taken: "
            f"{rule.kind} {bound.max():.3f}."
        )
    if tp[best] + fp[best] in (0, len(labels)):
        note += f" It calls {'no' if not tp[best] + fp[best] else 'every'} validation image Tumor."
    return threshold_at(float(values[best]), reached, note)


def _candidates(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return thresholds between neighbouring probabilities, with true and false positives."""
    distinct, place = np.unique(probabilities, return_inverse=True)
    at = np.zeros((2, len(distinct) + 1), np.int64)
    np.add.at(at, (labels, place), 1)
    fp, tp = at[:, ::-1].cumsum(axis=1)[:, ::-1]  # with all from here upwards called Tumor
    lower = np.r_[np.float32(0), distinct]
    upper = np.r_[distinct, np.float32(1)]
    # No threshold of a bundle is 0 or 1: with a probability of exactly 0 or 1 an end is missing.
    real = upper > lower
    values = [_between(low, high) for low, high in zip(lower[real], upper[real], strict=True)]
    return np.array(values), tp[real], fp[real]


def _between(low: np.float32, high: np.float32) -> float:
    """Return a number with few digits, at most `high`, above `low`, below 1."""
    middle = (float(low) + float(high)) / 2
    for digits in range(2, 9):
        value = float(f"{middle:.{digits}g}")
        if low < np.float32(value) <= high and value < 1:
            return value
    return middle if low < np.float32(middle) <= high and middle < 1 else float(high)


def reliability(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    binning: str = "equal-width",
    bins: int = ECE_BINS,
) -> list[dict[str, Any]]:
    """Return the reliability diagram as numbers: one row per bin that holds an image.

    Args:
        probabilities: float32 [n], of Tumor.
        labels: int64 [n].
        binning: One of `measures.BINNINGS`; a bin holds its upper edge, the first also 0.
        bins: Their number.

    Returns:
        Rows with from and to (edges), n, predicted (mean probability), observed (share of Tumor) with
        low and high (Wilson, 95 %).
    """
    edges = ece_edges(probabilities, binning, bins)
    place = np.digitize(probabilities, edges, right=True)
    ends = [0.0, *map(float, edges), 1.0]
    rows = []
    for index in range(len(ends) - 1):
        inside = place == index
        n, tumors = int(inside.sum()), int(labels[inside].sum())
        if n:
            low, high = wilson(tumors, n)
            rows.append(
                {
                    "from": ends[index],
                    "to": ends[index + 1],
                    "n": n,
                    "predicted": float(probabilities[inside].mean(dtype=np.float64)),
                    "observed": tumors / n,
                    "low": low,
                    "high": high,
                }
            )
    return rows


def predictive_values(sensitivity: Estimate, specificity: Estimate) -> list[dict[str, Any]]:
    """Return PPV and NPV at stated prevalences of Tumor, by Bayes' theorem.

        PPV = sens prev / (sens prev + (1 - spec) (1 - prev))
        NPV = spec (1 - prev) / (spec (1 - prev) + (1 - sens) prev)

    Both rise with sensitivity and with specificity. So their intervals are made of the lower ends of
    both, and of the upper ends, of Wilson's interval or the bootstrap's, whichever reaches further:
    rather too wide, and never without a width, also where no error was seen.

    Args:
        sensitivity: On the split, from `statistics.proportion`.
        specificity: On the split, likewise.

    Returns:
        For each of `PREVALENCES`: prevalence, ppv and npv (each `Estimate.to_dict`).
    """
    n = sensitivity.n + specificity.n
    limits = [_limits(figure) for figure in (sensitivity, specificity)]
    rows = []
    for prevalence in PREVALENCES:
        value: dict[str, Any] = {"prevalence": prevalence}
        for name, function in (("ppv", _ppv), ("npv", _npv)):
            point, low, high = (
                function(sens, spec, prevalence) for sens, spec in zip(*limits, strict=True)
            )
            if point is None:
                low = high = None
            value[name] = Estimate(point, n, low, high, "ends").to_dict()
        rows.append(value)
    return rows


def _limits(figure: Estimate) -> tuple[float | None, float | None, float | None]:
    """Return value, lowest and highest end."""
    lows = [end for end in (figure.low, figure.low_by_group) if end is not None]
    highs = [end for end in (figure.high, figure.high_by_group) if end is not None]
    return figure.value, min(lows, default=None), max(highs, default=None)


def _ppv(sensitivity: float | None, specificity: float | None, prevalence: float) -> float | None:
    if sensitivity is None or specificity is None:
        return None
    called = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    return sensitivity * prevalence / called if called else None  # no image is called so


def _npv(sensitivity: float | None, specificity: float | None, prevalence: float) -> float | None:
    return _ppv(specificity, sensitivity, 1 - prevalence)  # with the classes exchanged


def calibrate(
    logits: NDArray[np.float32], labels: NDArray[np.int64], rule: Rule, on: str = "validation"
) -> tuple[Temperature, Threshold]:
    """Return temperature and threshold, chosen on logits [n] and labels [n]; `on`: of what.

    Raises:
        ValueError: A logit is not finite: no comparison with it means anything.
    """
    if not np.isfinite(logits).all():
        raise ValueError("some logits are not finite")
    temperature = fit_temperature(logits, labels, on)
    return temperature, choose_threshold(logits, labels, temperature.value, rule, on)
