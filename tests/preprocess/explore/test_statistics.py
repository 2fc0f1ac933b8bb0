"""Statistics held against NumPy, SciPy, scikit-learn and published examples."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tumorbatch.preprocess.explore.statistics import (
    SHAPIRO_MOST,
    cohens_d,
    compare_classes,
    group_means,
    histogram_statistics,
    interval,
    shapiro_wilk,
    value_statistics,
)
from tumorbatch.statistics.intervals import Statistic

Values = NDArray[np.float64]


def two(healthy: object, tumor: object) -> tuple[Values, NDArray[np.int64]]:
    """Values and labels of two samples."""
    parts = [np.asarray(part, np.float64) for part in (healthy, tumor)]
    return np.concatenate(parts), np.repeat([0, 1], [len(part) for part in parts])


def alone(values: Values) -> NDArray[np.int64]:
    """Every image its own group."""
    return np.arange(len(values))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_histogram_statistics_are_those_of_the_pixels(size: int) -> None:
    pixels = np.random.default_rng(size).integers(3, 250, size)
    expected = {
        "pixels": size,
        "mean": pixels.mean(),
        "median": np.median(pixels),
        "standard_deviation": pixels.std(),
        "minimum": pixels.min(),
        "maximum": pixels.max(),
    }
    assert histogram_statistics(np.bincount(pixels, minlength=256)) == pytest.approx(expected)


def test_the_median_may_lie_between_two_values() -> None:
    counts = np.zeros(256, np.int64)
    counts[[10, 20]] = 5
    assert histogram_statistics(counts)["median"] == 15
    counts[20] = 6
    assert histogram_statistics(counts)["median"] == 20


def test_histograms_of_the_largest_sets_do_not_overflow() -> None:
    counts = np.zeros(256, np.int64)
    counts[[0, 255]] = 100_000 * 64_000_000 // 2  # 100,000 images of 64 megapixels
    found = histogram_statistics(counts)
    assert (found["mean"], found["median"], found["standard_deviation"]) == (127.5, 127.5, 127.5)


def test_no_pixels_have_no_statistics() -> None:
    found = histogram_statistics(np.zeros(256, np.int64))
    assert found["pixels"] == 0
    assert found["mean"] is found["median"] is found["maximum"] is None
    assert value_statistics(np.empty(0))["mean"] is None
    assert value_statistics(np.ones(1))["standard_deviation"] is None


def test_value_statistics_are_numpys() -> None:
    values = np.random.default_rng(0).normal(90, 20, 50)
    found = value_statistics(values)
    assert found["standard_deviation"] == pytest.approx(values.std(ddof=1))
    assert (found["n"], found["median"]) == (50, np.median(values))


def test_shapiro_wilk_gives_the_authors_example() -> None:
    # S. S. Shapiro, M. B. Wilk, Biometrika 52 (1965): the weights of eleven men, W = 0.79.
    weights = [148, 154, 158, 160, 161, 162, 166, 170, 182, 195, 236]
    found = shapiro_wilk(np.array(weights, np.float64), 0)
    assert found["w"] == pytest.approx(0.79, abs=0.005)
    assert found["p_value"] < 0.01
    assert found["normal"] is False


def test_shapiro_wilk_sees_at_most_5000_drawn_by_the_seed() -> None:
    values = np.random.default_rng(0).normal(size=SHAPIRO_MOST + 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # SciPy warns of more
        found = shapiro_wilk(values, 1)
    assert (found["n"], found["tested"]) == (6000, 5000)
    assert found == shapiro_wilk(values, 1)
    assert found["w"] != shapiro_wilk(values, 2)["w"]
    assert found["normal"] is True


@pytest.mark.parametrize("values", [[], [1, 2], [5, 5, 5, 5]])
def test_too_few_or_equal_values_are_not_tested(values: list[float]) -> None:
    assert shapiro_wilk(np.array(values, np.float64), 0)["p_value"] is None
    values_, labels = two(values, [1.0, 2.0, 4.0])
    found = compare_classes(values_, labels, alone(values_), 0)
    assert found["test"] is None
    assert "fewer than three images" in found["reason"]


def test_normal_samples_get_welchs_t() -> None:
    # Two samples of equal size that are nearly normal; expected from SciPy and the textbook formula.
    grid = stats.norm.ppf((np.arange(40) + 0.5) / 40)
    values, labels = two(80 + 5 * grid, 84 + 9 * grid)
    found = compare_classes(values, labels, alone(values), 0)
    expected = stats.ttest_ind(84 + 9 * grid, 80 + 5 * grid, equal_var=False)
    assert found["test"] == "welch_t"
    assert found["statistic"] == pytest.approx(expected.statistic)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert found["effect"]["name"] == "cohens_d"
    # For equal sizes d is the difference in root mean squares of the two standard deviations.
    spread = np.sqrt((grid.var(ddof=1) * (25 + 81)) / 2)
    assert found["effect"]["value"] == pytest.approx(4 / spread)
    low, high = found["effect"]["interval_95"]
    assert low < found["effect"]["value"] < high


def test_other_samples_get_mann_whitney_u() -> None:
    random = np.random.default_rng(0)
    healthy, tumor = random.exponential(10, 80).round(), random.exponential(14, 60).round()  # with ties
    values, labels = two(healthy, tumor)
    found = compare_classes(values, labels, alone(values), 0)
    expected = stats.mannwhitneyu(tumor, healthy, alternative="two-sided")
    assert found["test"] == "mann_whitney_u"
    assert (found["statistic"], found["p_value"]) == (expected.statistic, expected.pvalue)
    effect = found["effect"]
    assert effect["common_language"] == pytest.approx(expected.statistic / (80 * 60))
    assert effect["value"] == pytest.approx(2 * expected.statistic / (80 * 60) - 1)
    low, high = effect["interval_95"]
    assert low < effect["value"] < high


def test_one_class_that_is_not_normal_is_enough_for_mann_whitney() -> None:
    normal = stats.norm.ppf((np.arange(50) + 0.5) / 50)
    values, labels = two(normal, np.exp(normal))
    assert compare_classes(values, labels, alone(values), 0)["test"] == "mann_whitney_u"
    values, labels = two(np.exp(normal), normal)
    assert compare_classes(values, labels, alone(values), 0)["test"] == "mann_whitney_u"


def test_cohens_d_fits_students_t() -> None:
    random = np.random.default_rng(3)
    healthy, tumor = random.normal(0, 1, 30), random.normal(1, 3, 45)
    # J. Cohen (1988), formula 2.5.3: t = d sqrt(n1 n2 / (n1 + n2)).
    t = stats.ttest_ind(tumor, healthy, equal_var=True).statistic
    assert cohens_d(*two(healthy, tumor))(np.ones((1, 75)))[0] == pytest.approx(
        t / np.sqrt(30 * 45 / 75)
    )


def test_weights_count_a_value_several_times() -> None:
    random = np.random.default_rng(4)
    values, labels = two(random.normal(size=20).round(1), random.normal(size=25).round(1))
    weights = random.integers(0, 4, 45)
    repeated = np.repeat(values, weights), np.repeat(labels, weights)
    counted = cohens_d(values, labels)(weights[np.newaxis].astype(float))[0]
    assert counted == pytest.approx(cohens_d(*repeated)(np.ones((1, len(repeated[0]))))[0])


def test_what_cannot_be_computed_is_nan() -> None:
    assert np.isnan(cohens_d(*two([1, 4], []))(np.ones((1, 2)))[0])
    assert np.isnan(cohens_d(*two([2, 2], [2, 2]))(np.ones((1, 4)))[0])


def _mean(values: Values) -> Statistic:
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_the_bootstrap_is_scipys() -> None:
    values = np.random.default_rng(5).exponential(10, 120)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", random_state=1
    ).confidence_interval
    low, high = interval(alone(values), _mean(values), 0)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=0.03)


def test_copies_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(6).exponential(10, 60)
    ten_times, groups = np.tile(values, 10), np.tile(np.arange(60), 10)

    once = interval(alone(values), _mean(values), 0)
    assert interval(groups, _mean(ten_times), 0) == pytest.approx(once)
    low, high = interval(alone(ten_times), _mean(ten_times), 0)
    assert low is not None
    assert high is not None
    assert None not in once
    assert high - low < 0.5 * np.ptp(np.array(once, np.float64))


def test_an_interval_that_cannot_be_drawn_is_none() -> None:
    nothing = interval(np.arange(3), lambda weights: np.full(len(weights), np.nan), 0)
    assert nothing == [None, None]


def test_group_means_are_one_value_a_group_and_class() -> None:
    values = np.array([1.0, 3.0, 10.0, 20.0, 7.0])
    labels = np.array([0, 0, 1, 1, 1])
    groups = np.array([0, 0, 1, 0, 2])  # group 0 holds both classes
    means, of = group_means(values, labels, groups)
    assert sorted(zip(of.tolist(), means.tolist(), strict=True)) == [(0, 2), (1, 7), (1, 10), (1, 20)]
