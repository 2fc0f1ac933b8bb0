"""Selective accuracy: how many errors remain where the least certain images are left to a person."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.evaluation.answers import Answers
from tumorbatch.report.html import Column, Page
from tumorbatch.statistics.intervals import REPLICATES, Estimate, Weights, wilson
from tumorbatch.statistics.weighting import Weighting

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares that are answered
FIGURE = "selective"
_ROUNDING = 1e-9  # of sums of weights


class Selective:
    """Errors among the most certain images, for any weights of the images.

    Certainty is the distance of the logit from that of the threshold.

    Args:
        answers: A network's, at its threshold and temperature.
    """

    def __init__(self, answers: Answers) -> None:
        threshold = np.log(answers.threshold / (1 - answers.threshold)) * (answers.temperature or 1.0)
        certainty = np.abs(answers.scores.astype(np.float64) - threshold)
        self._order = np.argsort(-certainty, kind="stable")
        self._wrong = ~answers.decisions.right[self._order]

    def risks(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coverage and share of errors behind each image, float64 [r, n] both.

        Args:
            weights: float64 [r, n], what each image counts.
        """
        ordered = weights[:, self._order]
        held = ordered.cumsum(axis=1)
        errors = (ordered * self._wrong).cumsum(axis=1)
        risk = np.divide(errors, held, out=np.zeros_like(held), where=held > 0)
        return held / held[:, -1:], risk

    def __call__(self, weights: Weights) -> dict[str, NDArray[np.float64]]:
        """Return {name of a coverage: accuracy, float64 [r]}, and the area under risk as "area"."""
        coverage, risk = self.risks(weights)
        rows = np.arange(len(weights))
        values = {}
        for share in COVERAGES:
            last = np.maximum((coverage <= share + _ROUNDING).sum(axis=1) - 1, 0)
            values[f"{share:g}"] = 1 - risk[rows, last]
        steps = np.diff(coverage, axis=1, prepend=0.0)
        values["area"] = (risk * steps).sum(axis=1)
        return values


def selective(answers: Answers, replicates: int = REPLICATES, seed: int = 0) -> dict[str, Any]:
    """Return the accuracy by coverage, each group of copies counted once.

    Args:
        answers: A network's, at its threshold and temperature.
        replicates: Of the bootstrap over groups.
        seed: Of the bootstrap.

    Returns:
        JSON values: rows {coverage, accuracy (`Estimate.to_dict`)}, and area: the mean share of errors
        over all coverages, likewise.
    """
    weighting, measure = Weighting(answers.groups, per_group=True), Selective(answers)
    drawn = weighting.bootstrap(measure, replicates, seed)
    values = weighting.values(measure)
    estimates = {
        name: weighting.estimate(value, drawn[name]).to_dict() for name, value in values.items()
    }
    for share in COVERAGES:
        row, n = estimates[f"{share:g}"], max(1, round(share * weighting.count()))
        row["n"] = n
        if row["low"] is None and row["value"] in (0.0, 1.0):  # no replicate differs
            row["low"], row["high"] = wilson(round(row["value"] * n), n)
            row["method"] = "wilson over groups"
    return {
        "rows": [{"coverage": share, "accuracy": estimates[f"{share:g}"]} for share in COVERAGES],
        "area": estimates["area"],
    }


def curve(answers: Answers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coverage and share of errors of a sample, float64 [n] both, each group counted once."""
    weighting = Weighting(answers.groups, per_group=True)
    coverage, risk = Selective(answers).risks(weighting.weights[np.newaxis])
    return coverage[0], risk[0]


def add_selective(page: Page, about: Mapping[str, Any], drawn: Mapping[str, bytes]) -> None:
    """Add the section on selective accuracy to a report."""
    measured = about["selective"]
    page.section("Selective accuracy")
    area = Estimate.from_dict(measured["area"])
    page.paragraph(
        "How accurate the model is where it is certain, if the images whose logit is nearest to the "
        "threshold go to a person. A model that knows what it does not know makes most of its errors "
        f"there. The mean share of errors over all coverages is {area.text()} (lower is better)."
    )
    page.table(
        ["answered", Column("accuracy", True), Column("n (groups)", True)],
        [
            [f"{row['coverage']:.0%}", estimate.text(), estimate.n]
            for row in measured["rows"]
            for estimate in [Estimate.from_dict(row["accuracy"])]
        ],
        "Test split, each group of copies counted once; in brackets: 95 % intervals over groups.",
    )
    if FIGURE in drawn:
        page.figure(drawn[FIGURE], "Share of errors among the most certain images, by their share.")
