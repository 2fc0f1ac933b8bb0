"""Figures against scikit-learn and against published numbers."""

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from tumorbatch.statistics import wilson
from tumorbatch.train.metrics import binary_metrics, log_loss


def _drawn(seed: int, n: int, scale: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits that know something of the labels; rounded, so that some of them tie."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    logits = scale * (rng.standard_normal(n) + labels - 0.5)
    return np.round(logits, 1).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.7])
@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.93])
@pytest.mark.parametrize(("seed", "n", "scale"), [(0, 2, 1), (1, 37, 1), (2, 400, 4), (3, 400, 0.1)])
def test_all_figures_are_those_of_scikit_learn(
    seed: int, n: int, scale: float, threshold: float, temperature: float
) -> None:
    logits, labels = _drawn(seed, n, scale)
    got = binary_metrics(logits, labels, threshold, temperature)

    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64) / temperature))
    called = (probabilities >= threshold).astype(int)
    tn, fp, fn, tp = sklearn_metrics.confusion_matrix(labels, called).ravel()
    assert got["confusion"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
    assert got["n"] == n == tn + fp + fn + tp
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, called),
        "precision": sklearn_metrics.precision_score(labels, called, zero_division=0),
        "recall": sklearn_metrics.recall_score(labels, called, zero_division=0),
        "f1": sklearn_metrics.f1_score(labels, called, zero_division=0),
        "auc": sklearn_metrics.roc_auc_score(labels, probabilities),
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    # These two see the probabilities themselves, which are float32 here.
    assert got["log_loss"] == pytest.approx(sklearn_metrics.log_loss(labels, probabilities), rel=1e-5)
    brier = sklearn_metrics.brier_score_loss(labels, probabilities)
    assert got["brier"] == pytest.approx(brier, rel=1e-5)
    assert tuple(got["accuracy_95"]) == wilson(tn + tp, n)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([-1, -2, -3, -4], {"precision": 0, "recall": 0, "f1": 0, "accuracy": 0.5}),  # never Tumor
        ([1, 2, 3, 4], {"precision": 0.5, "recall": 1, "f1": 2 / 3, "accuracy": 0.5}),  # always
        ([2, 1, -1, -2], {"precision": 0, "recall": 0, "f1": 0, "auc": 0}),  # all wrong
        ([-2, -1, 1, 2], {"precision": 1, "recall": 1, "f1": 1, "auc": 1}),  # all right
        ([3, 3, 3, 3], {"auc": 0.5}),  # no order at all
    ],
)
def test_edge_cases(logits: list[float], expected: dict[str, float]) -> None:
    got = binary_metrics(np.float32(logits), np.array([0, 0, 1, 1]), 0.5, 1.0)
    assert {name: got[name] for name in expected} == pytest.approx(expected)


def test_a_probability_of_exactly_the_threshold_is_tumor() -> None:
    logits, labels = np.float32([0.0, 0.0]), np.array([0, 1])
    assert binary_metrics(logits, labels, 0.5, 1.0)["confusion"]["tp"] == 1
    assert binary_metrics(logits, labels, 0.5000001, 1.0)["confusion"]["tp"] == 0


def test_extreme_logits_neither_overflow_nor_warn() -> None:
    """sigmoid is exactly 0 and 1 there; a loss computed from it would be infinite."""
    labels = np.array([1, 0, 1, 0])
    logits = np.float32([-1000, 1000, 1e30, -1e30])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        got = binary_metrics(logits, labels, 0.5, 1.0)
    assert got["log_loss"] == pytest.approx(500)
    assert got["brier"] == 0.5


def test_all_figures_are_plain_json() -> None:
    got = binary_metrics(*_drawn(5, 50, 1), threshold=0.5, temperature=1.0)
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_log_loss_worked_out_by_hand() -> None:
    # -ln(3/4) for a probability of 3/4 under label 1, -ln(1/2) for one of 1/2 under either.
    logits = np.float32([math.log(3), 0, 0])
    expected = (math.log(4 / 3) + 2 * math.log(2)) / 3
    assert log_loss(logits, np.array([1, 0, 1])) == pytest.approx(expected, rel=1e-6)
