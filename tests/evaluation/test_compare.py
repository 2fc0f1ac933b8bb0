"""Comparing models: figures against scikit-learn, pairs by hand, tables against both."""

import csv
import io

import numpy as np
import pytest
from sklearn import metrics

from tests.answers import answers
from tumorbatch.evaluation import compare_csv, compare_page, protocols_page
from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.compare import (
    AT_HALF,
    MEASURES,
    PUBLISHED,
    Comparison,
    compare_models,
    measure,
)
from tumorbatch.evaluation.protocol_drops import side_by_side
from tumorbatch.evaluation.protocols import PROTOCOLS
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.mcnemar import holm

N = 120
GROUPS = np.arange(N) // 2


def _judged(name: str, strength: float, architecture: str = "cnn1", **changes: object) -> Answers:
    random = np.random.default_rng(sum(map(ord, name)))
    labels = (np.arange(N) % 3 == 0).astype(np.int64)
    scores = 1 / (1 + np.exp(-random.normal(size=N) - strength * (labels - 0.5)))
    values = {
        "name": name, "architecture": architecture, "threshold": 0.4, "temperature": None,
        "groups": GROUPS, "scores": scores,
    }  # fmt: skip
    return answers(scores, labels, **(values | changes))


def _plain(html: str) -> str:
    return html.replace("\N{NO-BREAK SPACE}", " ")


STRONG, WEAK = _judged("strong", 6.0), _judged("weak", 0.5, "cnn2")
DUMB = _judged("majority", 0.0, "", scores=np.full(N, 0.4), threshold=0.5)


@pytest.fixture(scope="module")
def found() -> Comparison:
    leaky = _judged("cnn1-file", 9.0, protocol="leaky", dataset="e" * 64)
    return compare_models(
        [WEAK, leaky, STRONG, DUMB], {"broken": "its model.json is damaged"}, replicates=300,
        reference=True,
    )  # fmt: skip


def test_figures_are_scikit_learns() -> None:
    of = measure(WEAK, 200).per_image
    truth, called = WEAK.labels, WEAK.called.astype(int)
    expected = {
        "accuracy": metrics.accuracy_score(truth, called),
        "precision": metrics.precision_score(truth, called),
        "recall": metrics.recall_score(truth, called),
        "f1": metrics.f1_score(truth, called),
        "specificity": metrics.recall_score(truth, called, pos_label=0),
        "auc": metrics.roc_auc_score(truth, WEAK.scores),
    }
    assert of.keys() == {*MEASURES, AT_HALF}
    for name, value in expected.items():
        assert of[name].value == pytest.approx(value), name
        assert of[name].low is not None
        assert of[name].low < value < of[name].high  # type: ignore[operator]
    assert (of["recall"].n, of["specificity"].n) == (truth.sum(), (1 - truth).sum())


def test_undefined_is_not_zero() -> None:
    of = measure(DUMB, 50)
    assert of.per_group["precision"].value is None  # nobody is called Tumor
    assert of.per_group["precision"].text() == "undefined"
    assert of.per_group["recall"].value == 0
    assert of.per_group["auc"].value == 0.5


def test_rows_come_by_protocol_baselines_first(found: Comparison) -> None:
    assert [row.answers.name for row in found.rows] == ["cnn1-file", "majority", "strong", "weak"]
    assert [row.to_dict()["protocol"] for row in found.rows] == [
        PROTOCOLS["leaky"].name, *[PROTOCOLS["group"].name] * 3
    ]  # fmt: skip


def test_only_models_on_the_same_images_are_pairs(found: Comparison) -> None:
    assert [(pair.first.name, pair.second.name) for pair in found.pairs] == [
        ("strong", "majority"), ("weak", "majority"), ("weak", "strong")
    ]  # fmt: skip
    last = found.pairs[-1]
    assert last.test.first_only == (WEAK.decisions.right & ~STRONG.decisions.right).sum()
    assert last.per_image.auc.value == pytest.approx(
        metrics.roc_auc_score(WEAK.labels, WEAK.scores)
        - metrics.roc_auc_score(STRONG.labels, STRONG.scores)
    )
    assert last.per_image.accuracy.value == pytest.approx(
        WEAK.decisions.right.mean() - STRONG.decisions.right.mean()
    )
    assert last.per_group.auc.high is not None
    assert last.per_group.auc.high < 0


def test_holm_as_worked_by_hand() -> None:
    # 0.01 * 4, max(that, 0.02 * 3), max(that, 0.03 * 2), max(that, 0.04 * 1)
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_reports_figures_stand_beside(found: Comparison) -> None:
    by_name = {row.answers.name: row for row in found.rows}
    assert by_name["weak"].published == {
        "accuracy": 0.87,
        "precision": 0.87,
        "recall": 0.86,
        "f1": 0.87,
    }
    assert by_name["majority"].published is None
    assert set(PUBLISHED) == {"cnn1", "cnn2", "resnet50", "mobilenetv2", "densenet121"}


def test_csv_reads_back(found: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(compare_csv.models_csv(found))))
    assert [line["name"] for line in lines] == [row.answers.name for row in found.rows]
    for line, of in zip(lines, found.rows, strict=True):
        for name, figure in of.per_image.items():
            if figure.value is None:
                assert line[name] == ""
            else:
                assert float(line[name]) == pytest.approx(figure.value, abs=1e-6)
                ends = [line[f"{name}_{end}"] for end in ("low", "high")]
                if figure.low is None:  # of an AUC that no resample can change
                    assert ends == ["", ""]
                else:
                    assert float(ends[0]) <= float(line[name]) <= float(ends[1])
                assert int(line[f"{name}_n"]) == figure.n
            if figure.low_by_group is not None:
                low = float(line[f"{name}_low_by_group"])
                assert low == pytest.approx(figure.low_by_group, abs=1e-6)
    pairs = list(csv.DictReader(io.StringIO(compare_csv.pairs_csv(found))))
    assert [float(line["mcnemar_p_holm"]) for line in pairs] == pytest.approx(
        [pair.p_adjusted for pair in found.pairs], rel=1e-3
    )


def test_the_page_has_every_row_and_escapes_names() -> None:
    nasty = _judged("<script>alert(1)</script>", 2.0)
    without = compare_models([nasty, DUMB], {"<b>": "gone"}, replicates=50)
    html = _plain(compare_page.page(without))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "&lt;b&gt;: gone" in html
    assert measure(nasty, 50).per_group["auc"].text() in html
    assert measure(nasty, 50).per_image["accuracy"].text() in html
    assert "the report" not in html
    assert "report_accuracy" not in compare_csv.models_csv(without)
    assert without.rows[0].to_dict()["report"] is None


def test_the_reports_measures_stand_in_page_and_table_on_request(found: Comparison) -> None:
    html = _plain(compare_page.page(found))
    assert "95 / 95 / 95 / 95" in html
    assert "without n or interval" in html
    assert "report_accuracy" in compare_csv.models_csv(found)


def test_what_beats_no_baseline_is_told_in_words(found: Comparison) -> None:
    assert compare_page.not_beaten(found.pairs) == []
    coin = _judged("coin", 0.0)
    few = compare_models([coin, DUMB], {}, replicates=200)
    (sentence,) = compare_page.not_beaten(few.pairs)
    assert sentence.startswith("coin is not shown to be better than: majority (AUC ")
    assert sentence in _plain(compare_page.page(few))


def test_an_interval_that_ends_below_zero_shows_it() -> None:
    def told(value: float, low: float, high: float) -> str:
        return compare_page.signed(Estimate(value, 9, low, high, "bootstrap"))

    assert told(0.007, -0.00004, 0.016) == "+0.007 (-0.000 to +0.016)"
    assert told(-0.0002, -0.004, 0.0001) == "+0.000 (-0.004 to +0.000)"
    assert told(0.0, -0.0, 0.0) == "+0.000 (+0.000 to +0.000)"


def test_what_a_stricter_protocol_takes_away_is_the_difference_of_its_rows() -> None:
    leaky = _judged("cnn1", 9.0, protocol="leaky", dataset="e" * 64)
    grouped = _judged("cnn1", 3.0)
    shapes = _judged("cnn1", 0.5, protocol="shape", dataset="f" * 64)
    found = side_by_side([grouped, shapes, leaky, DUMB], 300)
    rows = {
        row.answers.protocol.key: row for row in found.comparison.rows if row.answers.name == "cnn1"
    }
    assert [(drop.name, drop.first, drop.second) for drop in found.drops] == [
        ("cnn1", "leaky", "group"),
        ("cnn1", "group", "shape"),
    ]  # the baseline was judged under one protocol alone
    for drop in found.drops:
        first, second = rows[drop.first], rows[drop.second]
        values = [row.per_group["auc"].value or 0.0 for row in (first, second)]
        assert drop.per_group.auc.value == pytest.approx(values[0] - values[1])
        halves = [row.per_group[AT_HALF].value or 0.0 for row in (first, second)]
        assert drop.per_group.accuracy.value == pytest.approx(halves[0] - halves[1])
        assert drop.per_group.auc.n == N  # groups of two images
        assert drop.per_image.auc.n == 2 * N
        assert drop.per_group.auc.low is not None
        assert drop.per_group.auc.low <= drop.per_group.auc.value <= (drop.per_group.auc.high or 0.0)
    html = _plain(protocols_page.page("cnn1", found))
    assert compare_page.signed(found.drops[0].per_group.auc) in html
