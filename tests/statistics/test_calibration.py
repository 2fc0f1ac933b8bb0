"""Temperature and threshold against scikit-learn and brute force; predictive values as published."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from tumorbatch.errors import ConfigError
from tumorbatch.scoring import probability
from tumorbatch.statistics.calibration import (
    TEMPERATURES,
    Rule,
    choose_threshold,
    fit_temperature,
    predictive_values,
    reliability,
)
from tumorbatch.statistics.calibration_slope import Recalibration
from tumorbatch.statistics.classification import Measures
from tumorbatch.statistics.intervals import proportion, wilson

Logits, Labels = NDArray[np.float32], NDArray[np.int64]


def _drawn(seed: int, n: int, scale: float, digits: int = 6) -> tuple[Logits, Labels]:
    """Log odds of the labels, times `scale`: the right temperature is about `scale`."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal(n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    return np.round(scale * logits, digits).astype(np.float32), labels


# ------------------------------------------------------------------------------------- temperature


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_one_that_was_put_in(scale: float) -> None:
    logits, labels = _drawn(0, 20_000, scale)
    found = fit_temperature(logits, labels)
    assert found.value == pytest.approx(scale, rel=0.05)
    assert found.log_loss_after <= found.log_loss_before


@pytest.mark.parametrize(("seed", "n", "scale"), [(0, 40, 1), (1, 600, 3), (2, 600, 0.2)])
def test_it_is_logistic_regression_without_intercept(seed: int, n: int, scale: float) -> None:
    """1 / T is its coefficient: another implementation of the same minimum."""
    logits, labels = _drawn(seed, n, scale)
    regression = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-10)
    regression.fit(logits.astype(np.float64)[:, np.newaxis], labels)
    assert 1 / fit_temperature(logits, labels).value == pytest.approx(regression.coef_[0, 0], rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels", "why"),
    [
        ([-3, -1, 1, 2], [0, 0, 1, 1], "right sign"),
        ([-3, -1, 1, 2], [1, 1, 1, 1], "one class"),
        ([-3, -1, 1, 2], [1, 1, 0, 0], "do not rise"),
        ([0, 0, 0, 0], [1, 1, 0, 0], "do not rise"),
        ([], [], "one class"),
    ],
)
def test_without_a_minimum_it_stays_1_and_says_why(
    logits: list[float], labels: list[int], why: str
) -> None:
    found = fit_temperature(np.array(logits, np.float32), np.array(labels, np.int64))
    assert found.value == 1
    assert why in found.note


def test_it_ends_at_its_bounds() -> None:
    logits, labels = _drawn(0, 400, 1.0)
    for factor, bound in ((1000, TEMPERATURES[1]), (0.001, TEMPERATURES[0])):
        found = fit_temperature(np.float32(factor) * logits, labels)
        assert found.value == bound
        assert "bound" in found.note


# --------------------------------------------------------------------------------------- threshold


def _brute_force(probabilities: Logits, labels: Labels) -> list[tuple[float, float]]:
    """(sensitivity, specificity) of every way to cut, the ends included."""
    cuts = [*np.unique(probabilities), np.inf]
    return [
        (
            float((probabilities[labels == 1] >= cut).mean()),
            float((probabilities[labels == 0] < cut).mean()),
        )
        for cut in cuts
    ]


DATA = st.lists(st.tuples(st.integers(-30, 30), st.integers(0, 1)), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@settings(max_examples=150, deadline=None)
@given(
    rows=DATA, target=st.sampled_from([0.5, 0.9, 0.95, 1.0]), temperature=st.sampled_from([1.0, 2.5])
)
def test_no_cut_fulfils_a_rule_better(
    rows: list[tuple[int, int]], target: float, temperature: float
) -> None:
    logits = np.array([score / 4 for score, _ in rows], np.float32)
    labels = np.array([label for _, label in rows])
    possible = _brute_force(probability(logits, temperature), labels)
    tumors = int(labels.sum())

    def f1(pair: tuple[float, float]) -> float:
        tp, fp = pair[0] * tumors, (1 - pair[1]) * (len(labels) - tumors)
        return 2 * tp / (tp + fp + tumors)

    for text, goal, allowed in (
        (f"sensitivity={target}", lambda pair: pair[1], lambda pair: pair[0] >= target),
        (f"specificity={target}", lambda pair: pair[0], lambda pair: pair[1] >= target),
        ("youden", sum, lambda _: True),
        ("f1", f1, lambda _: True),
    ):
        found = choose_threshold(logits, labels, temperature, Rule.parse(text))
        assert 0 < found.value < 1
        assert found.reached
        pair = (found.sensitivity, found.specificity)
        assert pair in possible  # computed with the threshold itself, as `infer` does
        assert allowed(pair)
        best = max(goal(other) for other in possible if allowed(other))
        assert goal(pair) == pytest.approx(best, abs=1e-12)
        if text == "youden":  # of equals, the one that misses fewer tumours
            equals = [other for other in possible if goal(other) == pytest.approx(best, abs=1e-12)]
            assert pair[0] == max(sensitivity for sensitivity, _ in equals)


def test_youden_is_that_of_scikit_learn() -> None:
    logits, labels = _drawn(5, 500, 1.0)
    found = choose_threshold(logits, labels, 1.0, Rule("youden"))
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, logits)
    best = (true_positive_rate - false_positive_rate).max()
    assert found.sensitivity + found.specificity - 1 == pytest.approx(best)


def test_a_threshold_between_two_images_has_few_digits() -> None:
    logits = np.float32([-2, -1, 0.2, 1])
    found = choose_threshold(logits, np.array([0, 0, 1, 1]), 1.0, Rule("youden"))
    assert found.value == 0.41  # between sigmoid(-1) = 0.269 and sigmoid(0.2) = 0.550
    assert found.note == (
        "Chosen on validation: the largest sum of sensitivity and specificity (Youden's index)."
    )


def test_neighbouring_float32_probabilities_are_still_told_apart() -> None:
    first = second = np.float32(math.log(0.3 / 0.7))
    while probability(second[np.newaxis], 1.0) == probability(first[np.newaxis], 1.0):
        second = np.nextafter(second, np.float32(1))
    logits = np.array([first, first, second, second])
    low, _, high, _ = probability(logits, 1.0)
    assert high == np.nextafter(low, np.float32(1))
    found = choose_threshold(logits, np.array([0, 0, 1, 1]), 1.0, Rule("youden"))
    assert (found.sensitivity, found.specificity) == (1, 1)


def test_what_cannot_be_reached_is_said() -> None:
    """A Healthy image with probability exactly 1: no threshold below 1 has specificity 1."""
    logits = np.float32([40, -1, 1, 50])
    found = choose_threshold(logits, np.array([0, 0, 1, 1]), 1.0, Rule("specificity", 0.9))
    assert not found.reached
    assert found.specificity == 0.5
    assert found.sensitivity == 1
    assert "Not reachable" in found.note
    assert "specificity 0.500" in found.note


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_no_choice(label: int) -> None:
    found = choose_threshold(np.float32([1, 2]), np.full(2, label), 1.0, Rule.parse("youden"))
    assert (found.value, found.reached) == (0.5, False)
    assert "one class" in found.note
    assert None in (found.sensitivity, found.specificity)


def test_a_given_threshold_is_kept() -> None:
    logits, labels = _drawn(5, 100, 1.0)
    found = choose_threshold(logits, labels, 1.0, Rule.parse("0.37"))
    assert (found.value, found.rule) == (0.37, "value=0.37")
    assert Rule.parse(found.rule) == Rule.parse("0.37")


@pytest.mark.parametrize(
    "text",
    ["", "sensitivity", "sensitivity=", "sensitivity=1.2", "specificity=0", "0", "1", "-0.1", "nan",
     "value=2", "best", "sensitivity=0.9.5", "1e"],
)  # fmt: skip
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Received"):
        Rule.parse(text)


# ------------------------------------------------------------------------------------- reliability


def test_reliability_rows_add_up_to_the_calibration_error() -> None:
    logits, labels = _drawn(6, 400, 3.0)
    measures = Measures(logits, labels, 0.5, 1.0)
    for binning, name in (("equal-width", "ece"), ("equal-mass", "ece_equal_mass")):
        rows = reliability(measures.probabilities, labels, binning)
        assert sum(row["n"] for row in rows) == 400
        error = sum(row["n"] * abs(row["predicted"] - row["observed"]) for row in rows) / 400
        assert error == pytest.approx(measures(np.ones((1, 400)))[name][0])
        for row in rows:
            assert row["from"] <= row["predicted"] <= row["to"]
            assert (row["low"], row["high"]) == wilson(round(row["observed"] * row["n"]), row["n"])


def test_the_ends_are_in_a_bin() -> None:
    rows = reliability(np.float32([0, 1, 0.5]), np.array([0, 1, 1]))
    assert [(row["n"], row["observed"]) for row in rows] == [(1, 0), (1, 1), (1, 1)]


# ------------------------------------------------------------------------------- predictive values


def test_predictive_values_are_the_published_ones() -> None:
    """D. G. Altman and J. M. Bland, "Diagnostic tests 2: predictive values", BMJ 309 (1994), 102.

    Liver scans: 231 of 258 with, 54 of 86 without the disease are right. They print 0.88 at the
    prevalence of that study, 0.75, and 0.45 and 0.95 at 0.25.
    """
    sensitivity, specificity = proportion(231, 258), proportion(54, 86)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tumorbatch.statistics.calibration.PREVALENCES", (0.75, 0.25))
        study, rare = predictive_values(sensitivity, specificity)
    assert study["ppv"]["value"] == pytest.approx(231 / 263, abs=1e-9)
    assert study["npv"]["value"] == pytest.approx(54 / 81, abs=1e-9)
    assert (round(rare["ppv"]["value"], 2), round(rare["npv"]["value"], 2)) == (0.45, 0.95)


def test_their_intervals_are_made_of_the_ends_of_both() -> None:
    """By hand, at a prevalence of 10 %; the wider of Wilson's ends and the bootstrap's."""
    by_group = np.r_[np.full(50, 0.5), np.full(50, 0.9)]  # sensitivity: 0.5 to 0.9, wider than Wilson's
    sensitivity, specificity = proportion(85, 100, by_group), proportion(92, 100)
    rows = predictive_values(sensitivity, specificity)
    spec = specificity.low, specificity.high
    low = 0.5 * 0.1 / (0.5 * 0.1 + (1 - spec[0]) * 0.9)
    sens = max(sensitivity.high, 0.9)
    high = sens * 0.1 / (sens * 0.1 + (1 - spec[1]) * 0.9)
    assert (rows[1]["ppv"]["low"], rows[1]["ppv"]["high"]) == pytest.approx((low, high))
    assert rows[1]["npv"]["low"] == pytest.approx(spec[0] * 0.9 / (spec[0] * 0.9 + 0.5 * 0.1))
    assert [row["prevalence"] for row in rows] == [0.5, 0.1, 0.01, 0.001]
    for row in rows:
        for figure in (row["ppv"], row["npv"]):
            assert figure["low"] < figure["value"] < figure["high"]
            assert figure["n"] == 200
    values = [row["ppv"]["value"] for row in rows]
    assert values == sorted(values, reverse=True)


def test_a_test_that_calls_nobody_has_no_ppv() -> None:
    row = predictive_values(proportion(0, 5), proportion(5, 5))[0]
    assert (row["ppv"]["value"], row["ppv"]["low"], row["ppv"]["high"]) == (None, None, None)
    assert row["npv"]["value"] == 0.5


def test_a_perfect_split_leaves_predictive_values_a_width() -> None:
    """Six of six Healthy are right; where tumours are rare that says little of a positive answer."""
    row = predictive_values(proportion(6, 6), proportion(6, 6))[-1]
    assert row["ppv"]["value"] == row["ppv"]["high"] == 1
    assert row["ppv"]["low"] < 0.01


def test_a_resample_of_one_class_has_no_slope_whatever_its_weights_sum_to() -> None:
    """Each group counts once, so that each of its images has a share, whose sum is rounded."""
    labels = np.array([0] * 8 + [1] * 60)
    logits = np.linspace(-2, 2, labels.size)
    for size in range(3, 50):
        weights = np.where(labels, 1 / size, 0.0)[np.newaxis] * [[3.0], [1.0]]
        values = Recalibration(logits, labels)(weights)
        assert all(np.isnan(of).all() for of in values.values())
