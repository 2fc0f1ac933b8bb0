"""Weighted figures against scikit-learn's sample weights, a published example, and plain loops."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from tumorbatch.statistics.auc import (
    Ranks,
    auc_difference,
    auc_estimate,
    auc_statistic,
    auc_within,
    disjoint_pairs,
    roc_band,
)
from tumorbatch.statistics.calibration_slope import Recalibration
from tumorbatch.statistics.classification import Decisions, Measures, ece_edges
from tumorbatch.statistics.intervals import resampled
from tumorbatch.statistics.weighting import Weighting


def _drawn(seed: int, n: int, digits: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits that know something of the labels; with few digits, many of them tie."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    return np.round(rng.standard_normal(n) + labels, digits).astype(np.float32), labels


@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("digits", [0, 1, 6])
@pytest.mark.parametrize("n", [12, 300])
def test_every_replicate_is_that_of_scikit_learn(
    n: int, digits: int, temperature: float, threshold: float
) -> None:
    logits, labels = _drawn(n + digits, n, digits)
    measures = Measures(logits, labels, threshold, temperature)
    weights = np.concatenate(list(resampled(np.arange(n) // 2, 12, seed=5)))
    got = measures(weights)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64) / temperature))
    called = probabilities.astype(np.float32) >= np.float32(threshold)
    for row, weight in enumerate(weights):
        if min(weight[labels == 1].sum(), weight[labels == 0].sum()) == 0:
            assert math.isnan(got["auc"][row])
            continue
        of = {"sample_weight": weight}
        lossy = {"labels": [0, 1], **of}
        expected = {
            "accuracy": sklearn_metrics.accuracy_score(labels, called, **of),
            "sensitivity": sklearn_metrics.recall_score(labels, called, **of),
            "specificity": sklearn_metrics.recall_score(labels, called, pos_label=0, **of),
            "precision": sklearn_metrics.precision_score(labels, called, zero_division=np.nan, **of),
            "npv": sklearn_metrics.precision_score(
                labels, called, pos_label=0, zero_division=np.nan, **of
            ),
            "f1": sklearn_metrics.f1_score(labels, called, **of),
            "auc": sklearn_metrics.roc_auc_score(labels, logits, **of),
            "average_precision": sklearn_metrics.average_precision_score(labels, logits, **of),
            "brier": sklearn_metrics.brier_score_loss(labels, probabilities, **of),
            "log_loss": sklearn_metrics.log_loss(labels, probabilities, **lossy),
        }
        assert {name: got[name][row] for name in expected} == pytest.approx(
            expected, rel=1e-5, nan_ok=True
        )


# J. A. Hanley and B. J. McNeil, "The meaning and use of the area under a receiver operating
# characteristic (ROC) curve", Radiology 143 (1982), table I: 58 normal and 51 abnormal CT images, rated
# from 1, definitely normal, to 5, definitely abnormal.
NORMAL, ABNORMAL = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)


def test_auc_is_the_published_one() -> None:
    scores = np.repeat([1.0, 2, 3, 4, 5] * 2, [*NORMAL, *ABNORMAL])
    labels = np.repeat([0, 1], [58, 51])
    assert Ranks(scores, labels).auc(np.ones((1, 109)))[0] == pytest.approx(0.893, abs=5e-4)
    # The same from the ten different answers with their numbers as weights.
    few = auc_statistic(np.array([1.0, 2, 3, 4, 5] * 2), np.repeat([0, 1], 5))
    assert few(np.array([[*NORMAL, *ABNORMAL]], float))[0] == pytest.approx(0.893, abs=5e-4)


def test_the_bootstraps_spread_is_the_published_standard_error() -> None:
    """Hanley and McNeil give 0.032 for the AUC above; no duplicates, so each image is a group."""
    scores = np.repeat([1.0, 2, 3, 4, 5] * 2, [*NORMAL, *ABNORMAL])
    auc = auc_statistic(scores, np.repeat([0, 1], [58, 51]))
    values = np.concatenate([auc(weights) for weights in resampled(np.arange(109), 4000, seed=0)])
    assert values.std() == pytest.approx(0.032, abs=0.002)


def _calibration_error(probabilities: list[float], labels: list[int], ends: list[float]) -> float:
    """A plain loop over bins ]from, to]."""
    total = 0.0
    for low, high in zip([-1.0, *ends], [*ends, 1.0], strict=True):
        inside = [(p, y) for p, y in zip(probabilities, labels, strict=True) if low < p <= high]
        if inside:
            share = len(inside) / len(labels)
            predicted = sum(p for p, _ in inside) / len(inside)
            total += share * abs(predicted - sum(y for _, y in inside) / len(inside))
    return total


@pytest.mark.parametrize("binning", ["equal-width", "equal-mass"])
@pytest.mark.parametrize("digits", [1, 6])
def test_calibration_error_is_that_of_a_plain_loop(binning: str, digits: int) -> None:
    logits, labels = _drawn(8, 211, digits)
    measures = Measures(logits, labels, 0.5, 0.4)
    edges = ece_edges(measures.probabilities, binning)
    name = {"equal-width": "ece", "equal-mass": "ece_equal_mass"}[binning]
    weights = np.concatenate(list(resampled(np.arange(211), 3, seed=1)))
    for weight, got in zip(weights, measures(weights)[name], strict=True):
        times = weight.astype(int)
        expected = _calibration_error(
            np.repeat(measures.probabilities, times).tolist(), np.repeat(labels, times).tolist(),
            edges.tolist(),
        )  # fmt: skip
        assert got == pytest.approx(expected, abs=1e-9)


def test_calibration_error_worked_out_by_hand() -> None:
    # Two in the bin up to 14/15 (0.9 both, one right): |0.9 - 0.5|; two at 0.1, both Healthy: 0.1.
    logits = np.float32([math.log(9), math.log(9), -math.log(9), -math.log(9)])
    measures = Measures(logits, np.array([1, 0, 0, 0]), 0.5, 1.0)
    assert measures(np.ones((1, 4)))["ece"][0] == pytest.approx(0.5 * 0.4 + 0.5 * 0.1, abs=1e-6)


def test_equal_mass_bins_hold_as_many_images_each() -> None:
    probabilities = np.random.default_rng(0).random(300)
    edges = ece_edges(probabilities, "equal-mass")
    assert np.bincount(np.digitize(probabilities, edges, right=True)).tolist() == [20] * 15
    assert ece_edges(np.full(50, 0.3), "equal-mass").tolist() == [0.3]  # ties are not torn apart
    assert ece_edges(np.array([0.2, 0.4]), "equal-mass").tolist() == [0.2]
    with pytest.raises(ValueError, match="equal-width"):
        ece_edges(probabilities, "equal")


def test_figures_have_their_own_n_and_an_interval() -> None:
    logits, labels = _drawn(1, 200, 6)
    measures = Measures(logits, labels, 0.5, 1.0)
    weighting = Weighting(np.arange(200))
    figures = measures.estimates(weighting.bootstrap(measures, 300), weighting)
    counts = measures.decisions.confusion
    assert tuple(figures) == Measures.NAMES
    assert figures["sensitivity"].n == counts["tp"] + counts["fn"] == labels.sum()
    assert figures["precision"].n == counts["tp"] + counts["fp"]
    for name, figure in figures.items():
        other = "bootstrap, mirrored" if name.startswith("ece") else "bootstrap"
        assert figure.method == ("wilson" if name in Decisions.SHARES else other)
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < figure.value < figure.high
    for name in Decisions.SHARES:  # the two ways agree where nothing is duplicated
        figure = figures[name]
        assert figure.low_by_group == pytest.approx(figure.low, abs=0.03)


def test_one_class_has_no_auc_and_never_tumor_no_precision() -> None:
    logits = np.float32([-1, -2, -3])
    only_healthy = Measures(logits, np.zeros(3, int), 0.5, 1.0)
    weighting = Weighting(np.arange(3))
    figures = only_healthy.estimates(weighting.bootstrap(only_healthy, 50), weighting)
    for name in ("auc", "average_precision", "sensitivity", "precision", "f1"):
        assert figures[name].value is None, name
    assert figures["specificity"].value == 1


def test_a_paired_difference_of_auc() -> None:
    """The same scores cannot differ; a worse scorer differs by what scikit-learn says."""
    logits, labels = _drawn(3, 400, 6)
    worse = logits + np.random.default_rng(0).standard_normal(400)
    first, second = auc_statistic(logits, labels), auc_statistic(worse, labels)
    got = Weighting(np.arange(400)).difference(first, second, 500)
    expected = sklearn_metrics.roc_auc_score(labels, logits) - sklearn_metrics.roc_auc_score(
        labels, worse
    )
    assert got.value == pytest.approx(expected)
    assert 0 < got.low < got.value < got.high


def test_a_perfect_auc_is_not_certain() -> None:
    """Six disjoint pairs of groups, all won: Clopper and Pearson's bound of 6 of 6, by scipy."""
    from scipy.stats import binomtest

    labels, groups = np.repeat([0, 1], [6, 20]), np.r_[np.arange(6), np.arange(20) // 2 + 6]
    replicates, weighting = np.ones(100), Weighting(groups)
    exact = binomtest(6, 6).proportion_ci(method="exact")
    found = auc_estimate(1.0, labels, weighting, replicates)
    assert (found.low, found.high) == pytest.approx((exact.low, 1.0))
    assert found.method == "exact"
    worst = auc_estimate(0.0, labels, weighting, np.zeros(100))
    assert (worst.low, worst.high) == pytest.approx((0.0, 1 - exact.low))
    mixed = auc_estimate(1.0, np.array([0, 1, 0, 1]), Weighting([0, 0, 1, 1]), replicates)
    assert mixed.low == pytest.approx(0.025)  # two groups give one pair, whatever they hold
    assert auc_estimate(1.0, np.array([0, 1]), Weighting([0, 0]), replicates).low is None
    # Within strata both of a pair lie in one, and a group serves one of them.
    strata = np.repeat([0, 1], 13)
    within = auc_estimate(1.0, np.arange(26) % 2, Weighting(np.arange(26)), replicates, strata)
    assert within.low == pytest.approx(0.025 ** (1 / 12))
    assert disjoint_pairs(np.array([0, 1, 0, 1]), np.array([5, 6, 5, 6]), np.array([0, 0, 1, 1])) == 1
    assert disjoint_pairs(np.array([0, 0, 1, 1]), np.arange(4), np.array([0, 0, 1, 1])) == 0
    assert auc_estimate(0.9, labels, weighting, np.full(100, 0.9)).low is None  # not perfect: no bound
    # Beside what says the same of every image, the difference is that AUC less one half.
    scores = np.r_[np.zeros(6), np.ones(20)]
    difference_to_majority = auc_difference(scores, np.full(26, 0.3), labels, weighting, 100)
    assert difference_to_majority.value == 0.5
    assert difference_to_majority.low == pytest.approx(exact.low - 0.5)
    assert auc_difference(scores, scores, labels, weighting, 100).low is None


def test_the_interval_of_a_calibration_error_holds_the_error() -> None:
    """Perfectly calibrated answers: the replicates are biased upwards; alone they would miss 0."""
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, 600).astype(np.float32)
    labels = (rng.random(600) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    for scale in (1, 4):  # four times too sure: no chance gives that
        measures = Measures(scale * logits, labels, 0.5, 1.0)
        weighting = Weighting(np.arange(600))
        drawn = weighting.bootstrap(measures, 500)
        figure = measures.estimates(drawn, weighting)["ece"]
        assert np.percentile(drawn["ece"], 2.5) > 0.5 * figure.value
        assert figure.low < figure.value < figure.high
        assert (figure.low == 0) == (scale == 1)


def test_chance_alone_gives_a_calibration_error_that_copies_make_larger() -> None:
    """One bin: the mean of n fair coins' distance from one half; with copies there are fewer coins."""
    measures = Measures(np.zeros(400, np.float32), np.arange(400) % 2, 0.5, 1.0)
    for groups, coins in ((np.arange(400), 400), (np.arange(400) // 10, 40)):
        found = measures._errors["ece"].by_chance(Weighting(groups), 3000, seed=0)
        expected = math.sqrt(2 / math.pi) * 0.5 / math.sqrt(coins)  # mean of a half-normal
        assert found.mean() == pytest.approx(expected, rel=0.05)


# ------------------------------------------------------------------------------------- edge cases


def _values(logits: list[float], labels: list[int], threshold: float = 0.5) -> dict[str, float]:
    measures = Measures(np.float32(logits), np.array(labels), threshold, 1.0)
    return {name: float(of[0]) for name, of in measures(np.ones((1, len(labels)))).items()}


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([-1, -2, -3, -4], {"precision": math.nan, "sensitivity": 0, "f1": 0, "accuracy": 0.5}),
        ([1, 2, 3, 4], {"precision": 0.5, "sensitivity": 1, "f1": 2 / 3, "npv": math.nan}),
        ([2, 1, -1, -2], {"precision": 0, "sensitivity": 0, "f1": 0, "auc": 0}),  # all wrong
        ([-2, -1, 1, 2], {"precision": 1, "sensitivity": 1, "f1": 1, "auc": 1}),  # all right
        ([3, 3, 3, 3], {"auc": 0.5}),  # no order at all
    ],
)
def test_edge_cases(logits: list[float], expected: dict[str, float]) -> None:
    got = _values(logits, [0, 0, 1, 1])
    assert {name: got[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_a_probability_of_exactly_the_threshold_is_tumor() -> None:
    assert _values([0, 0], [0, 1])["sensitivity"] == 1
    assert _values([0, 0], [0, 1], threshold=0.5000001)["sensitivity"] == 0


def test_extreme_logits_neither_overflow_nor_warn() -> None:
    """sigmoid is exactly 0 and 1 there; a loss computed from it would be infinite."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        got = _values([-1000, 1000, -1000, 1000], [1, 0, 0, 1])
    assert (got["log_loss"], got["brier"]) == (pytest.approx(500), 0.5)


def test_log_loss_worked_out_by_hand() -> None:
    # -ln(3/4) for a probability of 3/4 under label 1, -ln(1/2) for one of 1/2 under either.
    expected = (math.log(4 / 3) + 2 * math.log(2)) / 3
    assert _values([math.log(3), 0, 0], [1, 0, 1])["log_loss"] == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------------------------- within strata


@pytest.mark.parametrize("digits", [0, 6])
def test_auc_within_strata_counts_the_pairs_of_a_stratum(digits: int) -> None:
    """Against a loop over all pairs."""
    scores, labels = _drawn(3, 60, digits)
    strata = np.random.default_rng(1).integers(0, 9, 60)
    for weights in np.concatenate(list(resampled(np.arange(60) // 3, 5, seed=2))):
        won = pairs = 0.0
        for tumor in np.flatnonzero(labels == 1):
            for healthy in np.flatnonzero((labels == 0) & (strata == strata[tumor])):
                times = weights[tumor] * weights[healthy]
                pairs += times
                won += times * (
                    float(scores[tumor] > scores[healthy]) + float(scores[tumor] == scores[healthy]) / 2
                )
        got = auc_within(scores, labels, strata)(weights[np.newaxis])[0]
        assert got == pytest.approx(won / pairs)


def test_what_hangs_on_the_stratum_alone_tells_nothing_within_it() -> None:
    labels = np.array([0, 0, 1, 0, 1, 1])
    strata = np.array([0, 0, 0, 1, 1, 1])
    ones = np.ones((1, 6))
    assert auc_within(strata * 1.5, labels, strata)(ones)[0] == 0.5
    assert auc_statistic(strata * 1.5, labels)(ones)[0] == pytest.approx(6 / 9)
    alone = auc_within(labels.astype(float), labels, labels)(ones)[0]
    assert math.isnan(alone)  # no stratum with both classes


# ---------------------------------------------------------------------------------- recalibration


def _line(logits: object, labels: object, weights: object = None) -> tuple[float, float]:
    x, y = np.asarray(logits, np.float32), np.asarray(labels)
    rows = np.ones((1, len(y))) if weights is None else np.asarray(weights, float)[np.newaxis]
    slope, large = (Recalibration(x, y)(rows)[name][0] for name in Recalibration.NAMES)
    return float(slope), float(large)


@pytest.mark.parametrize("scale", [0.3, 1.0, 12.0])
def test_the_slope_is_that_of_an_unpenalised_logistic_regression(scale: float) -> None:
    """The maximum of the likelihood: there its gradient is zero. A solver's stopping point is not it.

    scikit-learn's lbfgs stops up to 3e-4 away, and where depends on the processor.
    """
    logits, labels = _drawn(4, 300, 6)
    x = scale * logits.astype(np.float64)
    weights = np.random.default_rng(0).integers(0, 4, 300)
    slope, _ = _line(scale * logits, labels, weights)

    def gradient(intercept: float) -> tuple[float, float]:
        surprise = weights * (labels - 1 / (1 + np.exp(-(intercept + slope * x))))
        return float(surprise.sum()), float(surprise @ x)

    low, high = -50.0, 50.0  # the first part falls with the intercept: its one zero by halving
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if gradient(middle)[0] > 0 else (low, middle)
    # At the best intercept for this slope, the other part is zero too.
    curvature = float(weights @ x**2)
    assert abs(gradient((low + high) / 2)[1]) < 1e-6 * curvature


def test_calibration_in_the_large_makes_the_mean_probability_the_share() -> None:
    """Its defining property: shifted by it, predicted and observed shares agree."""
    logits, labels = _drawn(4, 300, 6)
    _, large = _line(8 * logits + 3, labels)
    shifted = 1 / (1 + np.exp(-(8 * logits + 3 + large)))
    assert shifted.mean() == pytest.approx(labels.mean(), abs=1e-6)


@pytest.mark.parametrize("scale", [1, 60, 1000])
def test_in_the_large_has_a_root_however_extreme_the_logits(scale: float) -> None:
    """Against scipy's bracketing root finder."""
    from scipy.optimize import brentq

    rng = np.random.default_rng(3)
    logits = (scale * rng.normal(0.5, 1, 80)).astype(np.float32)
    labels = rng.integers(0, 2, 80)
    x = logits.astype(float)
    root = brentq(lambda a: (0.5 * (1 + np.tanh((a + x) / 2)) - labels).sum(), -5e4, 5e4, xtol=1e-9)
    assert _line(logits, labels)[1] == pytest.approx(root, abs=1e-4)


def test_recalibration_of_two_by_two_tables_by_hand() -> None:
    """Two answers, +-ln 3: of those called Tumor 3 in 4 are, of the others 1 in 4: calibrated."""
    logits = np.repeat([math.log(3), -math.log(3)], 4)
    assert _line(logits, [1, 1, 1, 0, 0, 0, 0, 1]) == pytest.approx((1, 0), abs=1e-6)
    # Twice as sure with the same answers: half the slope.
    assert _line(2 * logits, [1, 1, 1, 0, 0, 0, 0, 1])[0] == pytest.approx(0.5)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_no_slope_where_there_is_none(labels: list[int]) -> None:
    with np.errstate(all="raise"):
        slope, large = _line([-2, -1, 1, 2], labels)
    assert math.isnan(slope)
    assert math.isnan(large) == (len(set(labels)) == 1)


def test_the_band_of_a_roc_curve_is_that_of_its_replicates() -> None:
    logits, labels = _drawn(3, 60, 1)
    weighting = Weighting(np.arange(60) // 2, per_group=True)
    rates = np.array([0.05, 0.33, 0.71])
    low, high = roc_band(logits, labels, weighting, rates, replicates=50, seed=4)
    curves = []
    for drawn in resampled(weighting.groups, 50, 4):
        for weights in drawn * weighting.weights:
            false, true, _ = sklearn_metrics.roc_curve(
                labels, logits, sample_weight=weights, drop_intermediate=False
            )
            curves.append(np.interp(rates, false, true))
    expected = np.percentile(curves, [2.5, 97.5], axis=0)
    assert low == pytest.approx(expected[0])
    assert high == pytest.approx(expected[1])
    alone = roc_band(logits, np.ones(60, np.int64), weighting, rates, replicates=5)
    assert np.isnan(alone).all()
