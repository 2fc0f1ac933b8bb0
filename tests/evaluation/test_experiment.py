"""Two arms side by side: every number against an independent computation, and the words that follow."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from tests.answers import answers
from tumorbatch.evaluation import experiment_page
from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.compare_page import signed
from tumorbatch.evaluation.experiment import MEASURES, compare_arms
from tumorbatch.evaluation.protocols import PROTOCOLS
from tumorbatch.report import style
from tumorbatch.statistics.intervals import resampled

N = 90
RANDOM = np.random.default_rng(3)
LABELS = np.arange(N) % 2
GROUPS = np.arange(N) // 3


def _scored(strength: float) -> Answers:
    scores = RANDOM.normal(size=N) + strength * LABELS
    threshold = 1 / (1 + np.exp(-strength / 2))
    return answers(scores.tolist(), LABELS.tolist(), groups=GROUPS, threshold=threshold)


SEEDS = [4, 5, 6]
FIRST = [_scored(2.0) for _ in SEEDS]
SECOND = [_scored(1.0) for _ in SEEDS]


def _value(name: str, trained: Answers, chosen: NDArray[np.intp]) -> float:
    labels, called = LABELS[chosen], trained.called[chosen]
    if name == "auc":
        return float(roc_auc_score(labels, trained.scores[chosen]))
    if name == "accuracy":
        return float(accuracy_score(labels, called))
    return float(recall_score(labels, called, pos_label=1 if name == "sensitivity" else 0))


def test_every_figure_and_difference_is_scikit_learns() -> None:
    everything = np.arange(N)
    for of in compare_arms(SEEDS, FIRST, SECOND, replicates=200).per_image:
        assert [pair.seed for pair in of.pairs] == [4, 5, 6]
        for pair, one, other in zip(of.pairs, FIRST, SECOND, strict=True):
            first, second = _value(of.name, one, everything), _value(of.name, other, everything)
            assert (pair.first.value, pair.second.value) == pytest.approx((first, second))
            assert pair.difference.value == pytest.approx(first - second)
            assert pair.difference.n == pair.first.n
        assert of.overall.mean == pytest.approx(np.mean([pair.difference.value for pair in of.pairs]))


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_intervals_are_those_of_images_drawn_by_group(name: str) -> None:
    found = {
        of.name: of for of in compare_arms(SEEDS, FIRST, SECOND, replicates=100, seed=5).per_image
    }[name]
    drawn = []
    for weights in np.concatenate(list(resampled(GROUPS, 100, 5))).astype(int):
        chosen = np.repeat(np.arange(N), weights)
        drawn.append(
            [_value(name, one, chosen) - _value(name, other, chosen)
             for one, other in zip(FIRST, SECOND, strict=True)]
        )  # fmt: skip
    low, high = np.percentile(np.array(drawn), (2.5, 97.5), axis=0)
    assert [pair.difference.low for pair in found.pairs] == pytest.approx(low)
    assert [pair.difference.high for pair in found.pairs] == pytest.approx(high)
    points = [pair.difference.value for pair in found.pairs]
    covariance = np.cov(np.array(drawn), rowvar=False)
    shared = covariance[~np.eye(3, dtype=bool)].mean()
    expected = np.sqrt(np.var(points, ddof=1) / 3 + max(shared, 0))
    assert found.overall.standard_error == pytest.approx(expected)


def test_an_arm_against_itself_is_no_difference() -> None:
    for of in compare_arms(SEEDS, FIRST, FIRST, replicates=50).per_group:
        assert (of.overall.mean, of.overall.low, of.overall.high) == (0, None, None)
        assert of.sentence("with", "without").endswith("these images cannot separate them.")


def test_the_words_name_the_better_arm() -> None:
    auc = compare_arms(SEEDS, FIRST, SECOND).per_group[0]
    assert auc.overall.low > 0
    assert auc.sentence("with", "without").endswith("The AUC is higher with than without.")
    back = compare_arms(SEEDS, SECOND, FIRST).per_group[0]
    assert back.sentence("with", "without").endswith("The AUC is higher without than with.")
    assert back.overall.mean == pytest.approx(-auc.overall.mean)


def test_other_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="for each seed"):
        compare_arms(SEEDS, FIRST, SECOND[:2])


def test_no_interval_goes_beyond_what_can_be_or_is_without_a_width() -> None:
    perfect = [replace(one, scores=LABELS * 2.0 - 1, threshold=0.5) for one in FIRST]
    for of in compare_arms(SEEDS, perfect, SECOND, replicates=100).per_image:
        assert (of.first.mean, of.first.low, of.first.high) == (1, None, None)
        for spread, least in ((of.second, 0), (of.overall, -1), (of.over_seeds, -1)):
            assert spread is not None
            if spread.low is not None:
                assert least <= spread.low < spread.high <= 1
        assert "1.000 (no interval) with" in of.sentence("with", "without")


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_page_holds_every_seed_and_warns_of_few(seeds: int) -> None:
    found = compare_arms(SEEDS[:seeds], FIRST[:seeds], SECOND[:seeds], replicates=50)
    png = style.png(experiment_page.draw(found.per_group, "with", "without"))
    html = experiment_page.page(
        "A <title>",
        found,
        "with",
        "without",
        PROTOCOLS["shape"],
        [("source", "<b>x</b>")],
        50,
        png,
    )
    html = html.replace("\N{NO-BREAK SPACE}", " ")
    assert ("hardly known" in html) == (seeds < 3)
    assert "<b>x" not in html
    assert "A &lt;title&gt;" in html
    assert "Protocol: held-out shapes." in html
    for of in (*found.per_group, *found.per_image):
        for pair in of.pairs:
            assert signed(pair.difference) in html
