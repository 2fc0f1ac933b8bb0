"""Intervals over seeds and images, against a published worked example and against simulation."""

import numpy as np
import pytest
from scipy import stats

from tumorbatch.statistics.seeds import over_seeds, over_seeds_and_images

# The Van Dyke study, 5 readers, 2 tests, 114 cases, as analysed in the documentation of Smith and
# Hillis' MRMCaov (covariances by the unbiased method): AUC of each reader, Cov2 and Cov3; and what it
# finds: difference -0.0438, standard error 0.020672, df 15.034, interval -0.087852 to 0.0002513.
FIRST = np.array([0.91965, 0.85878, 0.90386, 0.97311, 0.82979])
SECOND = np.array([0.94783, 0.90531, 0.92174, 0.99936, 0.92995])
COV2, COV3 = 0.00033906, 0.00023561


def _with_covariance(covariance: np.ndarray, rounds: int = 50) -> np.ndarray:
    """Numbers [rounds, seeds] whose sample covariance is the one that is asked for, to rounding."""
    raw = np.random.default_rng(0).normal(size=(rounds, len(covariance)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T


def test_van_dykes_study() -> None:
    shared = 2 * (COV2 - COV3)
    covariance = np.full((5, 5), shared) + np.eye(5) * 0.0005
    found = over_seeds_and_images(FIRST - SECOND, _with_covariance(covariance))
    assert found.mean == pytest.approx(-0.0438, abs=5e-5)
    assert found.standard_error == pytest.approx(0.020672, abs=2e-6)
    assert found.degrees_of_freedom == pytest.approx(15.034, abs=2e-3)
    assert (found.low, found.high) == pytest.approx((-0.087852, 0.0002513), abs=5e-6)


def test_without_what_the_images_share_it_is_students_t() -> None:
    differences = np.array([0.01, 0.03, -0.01, 0.02])
    negative = np.full((4, 4), -0.0001) + np.eye(4) * 0.001  # taken as 0, as in the model
    found = over_seeds_and_images(differences, _with_covariance(negative))
    alone = over_seeds(differences)
    assert alone is not None
    assert found.degrees_of_freedom == pytest.approx(3)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (alone.low, alone.high) == pytest.approx((expected.low, expected.high))


def test_two_seeds_are_too_few_for_an_interval_of_their_own() -> None:
    assert over_seeds(np.array([0.1, 0.2])) is None
    found = over_seeds_and_images(np.array([0.1, 0.2]), _with_covariance(np.diag([0.01, 0.01])))
    assert found.degrees_of_freedom is not None
    assert found.degrees_of_freedom >= 1
    assert found.low < 0 < found.high  # one degree of freedom: wide


def test_one_seed_has_the_images_alone_and_says_so() -> None:
    resampled = np.random.default_rng(1).normal(0.1, 0.02, (4000, 1))
    found = over_seeds_and_images(np.array([0.1]), resampled)
    assert found.degrees_of_freedom is None
    assert (found.low, found.high) == pytest.approx((0.1 - 1.96 * 0.02, 0.1 + 1.96 * 0.02), abs=2e-3)
    assert "nothing of other seeds" in found.method


def test_seeds_that_agree_to_the_bit_leave_the_images() -> None:
    covariance = np.full((3, 3), 0.0004) + np.eye(3) * 1e-9
    found = over_seeds_and_images(np.full(3, 0.05), _with_covariance(covariance))
    assert found.degrees_of_freedom is None
    assert found.standard_error == pytest.approx(0.02)


def test_samples_without_the_figure_are_left_out() -> None:
    resampled = _with_covariance(np.diag([0.01, 0.02]))
    holes = np.concatenate([resampled, [[np.nan, 0.0], [0.0, np.nan]]])
    differences = np.array([0.1, 0.3])
    assert over_seeds_and_images(differences, holes) == over_seeds_and_images(differences, resampled)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    """Seeds and images drawn anew 2,000 times: 95 % of the intervals hold the true difference."""
    random = np.random.default_rng(7)
    seeds, images = 4, 60
    hit = 0
    for _ in range(2000):
        of_seed = random.normal(0, 0.2, (seeds, 1))
        of_image = random.normal(0, 1.5, (1, images))
        values = 0.3 + of_seed + of_image + random.normal(0, 0.7, (seeds, images))
        drawn = random.multinomial(images, np.full(images, 1 / images), 200) / images
        found = over_seeds_and_images(values.mean(axis=1), drawn @ values.T)
        hit += found.low <= 0.3 <= found.high
    assert 0.93 <= hit / 2000 <= 0.98
