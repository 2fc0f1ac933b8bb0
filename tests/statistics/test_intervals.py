"""Intervals and tests against published numbers, scipy, and what follows from the theory."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tumorbatch.statistics.intervals import (
    Estimate,
    Statistic,
    bootstrap,
    bootstrapped,
    percentile_interval,
    proportion,
    resampled,
    wilson,
)
from tumorbatch.statistics.mcnemar import mcnemar
from tumorbatch.statistics.weighting import Weighting, unpaired_difference

Floats = NDArray[np.float64]

# ------------------------------------------------------------------------------------------ Wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3 (score)."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize("n", [1, 3, 1000, 10**9])
def test_wilson_solves_its_equation(n: int) -> None:
    """Its ends are the p at which the observed share lies 1.96 standard errors of p away."""
    successes = n // 3
    for end in wilson(successes, n):
        distance = 1.959963984540054 * math.sqrt(end * (1 - end) / n)
        assert abs(successes / n - end) == pytest.approx(distance, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 9), (3, 10), (555, 607), (607, 607)])
def test_wilson_is_that_of_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_stays_within_0_and_1_and_refuses_nothing_at_all() -> None:
    for n in range(1, 50):
        assert 0 <= wilson(0, n)[0] < 1e-12
        assert 1 - 1e-12 < wilson(n, n)[1] <= 1
    with pytest.raises(ValueError, match="nothing"):
        wilson(0, 0)


# --------------------------------------------------------------------------------------- bootstrap


def test_weights_count_whole_groups() -> None:
    groups = np.array(["b", "a", "b", "c", "b"])
    weights = np.concatenate(list(resampled(groups, 400, seed=3)))
    assert weights.shape == (400, 5)
    assert (weights == np.round(weights)).all()
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()  # as many groups as there are
    # Each group is drawn once on average; binomial(3, 1/3) has variance 2/3.
    assert weights.mean(axis=0) == pytest.approx(np.ones(5), abs=4 * math.sqrt(2 / 3 / 400))
    assert weights[:, 1].var() == pytest.approx(2 / 3, abs=0.15)


def test_the_draw_depends_on_the_seed_and_not_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.arange(37) // 2
    whole = np.concatenate(list(resampled(groups, 50, seed=1)))
    monkeypatch.setattr("tumorbatch.statistics.intervals._CELLS", 37 * 7)
    portions = list(resampled(groups, 50, seed=1))
    assert len(portions) == 8
    assert (np.concatenate(portions) == whole).all()
    assert (np.concatenate(list(resampled(groups, 50, seed=2))) != whole).any()
    assert whole[0, :16].tolist() == [
        1,
        1,
        1,
        1,
        1,
        1,
        0,
        0,
        2,
        2,
        2,
        2,
        0,
        0,
        1,
        1,
    ]  # golden: the same on every machine


def _mean(values: Floats) -> object:
    return lambda weights: {"mean": (weights @ values) / weights.sum(axis=1)}


def test_without_duplicates_it_is_the_bootstrap_of_scipy() -> None:
    values = np.random.default_rng(0).gamma(2, size=300)
    ours = percentile_interval(bootstrap(_mean(values), np.arange(300), 8000, seed=1)["mean"])
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=8000, method="percentile", random_state=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


def test_copies_do_not_make_an_interval_narrower() -> None:
    """Each of 200 values 9 times over says no more than once; counted as images, a third as wide."""
    values = np.random.default_rng(0).standard_normal(200)

    def width(times: int, by_group: bool) -> float:
        copies = np.repeat(values, times)
        groups = np.repeat(np.arange(200), times) if by_group else np.arange(200 * times)
        low, high = percentile_interval(bootstrap(_mean(copies), groups, 4000, seed=0)["mean"])
        return high - low

    once = width(1, by_group=True)
    assert width(9, by_group=True) == pytest.approx(once, rel=1e-9)  # exactly the same draws
    assert width(9, by_group=False) == pytest.approx(once / 3, rel=0.06)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Clusters of 1 to 5 equal values, known mean: about 95 of 100 intervals hold it."""
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(400):
        sizes = rng.integers(1, 6, 80)
        groups = np.repeat(np.arange(80), sizes)
        values = np.repeat(rng.standard_normal(80), sizes)
        low, high = percentile_interval(bootstrap(_mean(values), groups, 400, seed=1)["mean"])
        covered.append(low <= 0 <= high)
    assert 0.91 <= np.mean(covered) <= 0.98  # the percentile interval is a little narrow at 80


def test_undefined_replicates_are_left_out_and_too_many_leave_no_interval() -> None:
    values = np.arange(100.0)
    some = np.where(values < 4, np.nan, values)
    assert percentile_interval(some) == pytest.approx(tuple(np.percentile(values[4:], [2.5, 97.5])))
    assert percentile_interval(np.where(values < 6, np.nan, values)) is None
    assert percentile_interval(np.array([])) is None


def test_nothing_cannot_be_resampled() -> None:
    with pytest.raises(ValueError, match="nothing"):
        next(resampled([], 5))


# ----------------------------------------------------------------------------------------- figures


def test_a_proportion_has_both_intervals() -> None:
    by_group = np.linspace(0.8, 0.9, 1001)
    figure = proportion(85, 100, by_group)
    assert (figure.low, figure.high) == wilson(85, 100)
    assert (figure.low_by_group, figure.high_by_group) == pytest.approx((0.8025, 0.8975))
    assert figure.text() == "0.850 (0.767 to 0.907)"
    assert Estimate.from_dict(figure.to_dict()) == figure


def test_what_is_undefined_is_told_so() -> None:
    assert proportion(0, 0).text() == "undefined"
    assert bootstrapped(math.nan, 7, np.array([0.1, 0.2])).to_dict() == {
        "value": None, "n": 7, "low": None, "high": None, "method": "bootstrap",
    }  # fmt: skip
    assert bootstrapped(0.5, 7, np.array([math.nan, 0.2])).text() == "0.500 (no interval)"


# --------------------------------------------------------------------------------- paired questions


def test_a_paired_difference_is_that_of_the_paired_values() -> None:
    """The mean of differences: its percentile interval by scipy, on the pairs."""
    rng = np.random.default_rng(4)
    first = rng.standard_normal(250)
    second = first + 0.1 + 0.2 * rng.standard_normal(250)

    def mean(values: Floats) -> object:
        return lambda weights: (weights @ values) / weights.sum(axis=1)

    got = Weighting(np.arange(250)).difference(mean(first), mean(second), 6000, seed=1)
    theirs = stats.bootstrap(
        (first - second,),
        np.mean,
        n_resamples=6000,
        method="percentile",
        random_state=np.random.default_rng(2),
    ).confidence_interval
    assert got.value == pytest.approx((first - second).mean())
    assert (got.low, got.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert got.high - got.low < 0.1  # far narrower than the spread of either mean, 0.25
    same = Weighting(np.arange(250)).difference(mean(first), mean(first), 100)
    assert (same.value, same.low, same.high) == (0, None, None)  # nothing was drawn that could differ


def test_an_unpaired_difference_is_that_of_the_values_and_as_wide_as_both() -> None:
    """Of two means of independent images: the standard errors add up in squares."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(3, 1, 300), rng.normal(1, 2, 200)

    def mean(values: Floats) -> Statistic:
        return lambda weights: weights @ values / weights.sum(axis=1)

    of_first, of_second = Weighting(np.arange(300)), Weighting(np.arange(200))
    got = unpaired_difference((mean(first), of_first), (mean(second), of_second), 4000)
    assert got.value == pytest.approx(first.mean() - second.mean())
    assert got.n == 500
    error = math.sqrt(first.var() / 300 + second.var() / 200)
    assert got.low is not None
    assert got.high is not None
    assert (got.high - got.low) / (2 * 1.96) == pytest.approx(error, rel=0.05)
    # The same images twice: the two draws are not the same, or the interval would have no width.
    twice = unpaired_difference((mean(first), of_first), (mean(first), of_first))
    assert twice.low is not None
    assert twice.value == 0 > twice.low


def _pairs(
    both: int, first: int, second: int, neither: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_mcnemar_exact() -> None:
    """2 * P(X <= 1) for X of binomial(12, 1/2): 26/4096, by hand; and scipy's binomial test."""
    got = mcnemar(*_pairs(80, 11, 1, 8))
    assert (got.first_only, got.second_only, got.method) == (11, 1, "exact binomial")
    assert got.p == pytest.approx(26 / 4096)
    assert got.statistic is None
    for first, second in ((0, 24), (5, 9), (12, 12), (1, 0)):
        expected = stats.binomtest(first, first + second, 0.5).pvalue
        assert mcnemar(*_pairs(3, first, second, 3)).p == pytest.approx(expected)


def test_mcnemar_with_continuity_correction() -> None:
    """A. Agresti, "Categorical Data Analysis", 1990, page 350: 794, 150, 86, 570 voters.

    (|150 - 86| - 1) squared over 236 is 16.818, for which R's mcnemar.test prints p = 4.115e-05.
    """
    got = mcnemar(*_pairs(794, 150, 86, 570))
    assert got.method == "chi-square with continuity correction"
    assert got.statistic == pytest.approx(63**2 / 236)
    assert got.p == pytest.approx(4.115e-05, rel=1e-3)


def test_mcnemar_changes_its_method_at_25_pairs_and_not_its_answer() -> None:
    exact, approximate = mcnemar(*_pairs(9, 17, 7, 9)), mcnemar(*_pairs(9, 17, 8, 9))
    assert (exact.method, approximate.method[:10]) == ("exact binomial", "chi-square")
    assert approximate.p == pytest.approx(stats.binomtest(17, 25).pvalue, abs=0.005)


@pytest.mark.parametrize("equal", [(0, 0), (20, 20)])
def test_mcnemar_without_any_difference(equal: tuple[int, int]) -> None:
    assert mcnemar(*_pairs(5, *equal, 5)).p == 1


def test_mcnemar_wants_the_same_images() -> None:
    with pytest.raises(ValueError, match="same images"):
        mcnemar([True], [True, False])
