"""Selective accuracy: the errors among the most certain images, each group counted once."""

import numpy as np
import pytest

from tests.answers import answers
from tumorbatch.evaluation.selective import curve, selective


def test_errors_near_the_threshold_disappear_with_the_coverage() -> None:
    logits = np.array([-5, -4, -3, -2, 0.1, 5, 4, 3, 2, -0.1])
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])  # the two nearest to 0 are wrong
    measured = selective(answers(logits, labels))
    accuracy = {row["coverage"]: row["accuracy"]["value"] for row in measured["rows"]}
    assert accuracy[1.0] == pytest.approx(0.8)
    assert accuracy[0.9] == pytest.approx(8 / 9)
    assert accuracy[0.8] == accuracy[0.5] == 1
    coverage, risk = curve(answers(logits, labels))
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(0.2)
    assert measured["area"]["value"] == pytest.approx((1 / 9 + 2 / 10) / 10)


def test_a_group_counts_once_and_the_threshold_decides_what_is_uncertain() -> None:
    logits, labels = np.array([3.0, 3.0, 3.0, -3.0, -3.0]), np.array([1, 1, 1, 0, 1])
    groups = np.array([0, 0, 0, 1, 2])
    measured = selective(answers(logits, labels, groups=groups))
    assert measured["rows"][0]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert measured["rows"][0]["accuracy"]["n"] == 3
    # At a threshold near 1 the high logits are the uncertain ones.
    _, risk = curve(answers(logits, labels, groups=groups, threshold=0.9))
    assert risk[0] in (0, 1)
    assert risk[-1] == pytest.approx(1 / 3)
