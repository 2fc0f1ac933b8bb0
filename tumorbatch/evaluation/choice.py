"""Temperature and threshold of a new bundle, and its measures with them."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.freeze import frozen
from tumorbatch.evaluation.held_out import to_choose_on
from tumorbatch.evaluation.split_metrics import split_metrics
from tumorbatch.folds import GROUP, SHAPE
from tumorbatch.statistics.calibration import DEFAULT_RULE, Rule, calibrate
from tumorbatch.statistics.intervals import REPLICATES
from tumorbatch.statistics.weighting import headline

log = logging.getLogger(__name__)

HOME, ELSEWHERE = "home", "elsewhere"
PLACES = {
    HOME: "at home (images like those of this set: folds by group)",
    ELSEWHERE: "elsewhere (image shapes that were not trained on: folds by shape)",
}
# Measured: docs/recipes.md, "Folds, and a threshold that travels".
CAVEAT = (
    "Elsewhere is not one place: the intervals do not include how one source of images differs from "
    "the next. On a public set, shapes that were set aside gave a sensitivity of 0.82 where 0.94 (0.92 "
    "to 0.96) was expected. Measure it on labelled images of your own source."
)
_PLACES = {GROUP: HOME, SHAPE: ELSEWHERE}
_EXPECTED = ("sensitivity", "specificity", "accuracy", "auc")


def choose(
    validation: Answers,
    by_folds: Mapping[str, Answers],
    rule: Rule,
    dataset_sha256: str,
    replicates: int = REPLICATES,
) -> dict[str, Any]:
    """Choose temperature and threshold; return them and how they were chosen, `Bundle.calibration`.

    Args:
        validation: Answers on the validation split, used where there are no folds.
        by_folds: {how the folds were made: out-of-fold answers}, or {}.
        rule: Of the threshold.
        dataset_sha256: Of the dataset.json that all are of, hex.
        replicates: Of the bootstrap, for what the folds let expect.
    """
    chosen_on, words = to_choose_on(dict(by_folds)) if by_folds else (validation, "validation")
    temperature, threshold = calibrate(chosen_on.scores, chosen_on.labels, rule, words)
    log.info("temperature %g: %s", temperature.value, temperature.note)
    log.info("threshold %g: %s", threshold.value, threshold.note)
    calibration = frozen(asdict(temperature), asdict(threshold), dataset_sha256)
    if by_folds:
        calibration["split"] = chosen_on.images.split
        calibration["expected"] = {
            _PLACES[by]: _expected(answers.at(threshold.value, temperature.value), replicates)
            for by, answers in by_folds.items()
        }
    return calibration


def _expected(answers: Answers, replicates: int) -> dict[str, Any]:
    """Return what is to be expected of other images, each group of copies counted once."""
    figures = headline(split_metrics(answers, replicates))["figures"]
    return {name: figures[name] for name in _EXPECTED}


def choose_and_measure(
    answers: Mapping[str, Answers],
    dataset_sha256: str,
    by_folds: Mapping[str, Answers] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose temperature and threshold, and measure validation and test with them.

    Args:
        answers: {"validation": ..., "test": ...} at temperature 1.
        dataset_sha256: Of the dataset.json that they are of, hex.
        by_folds: See `choose`.

    Returns:
        The content of the bundle's metrics.json, and its `Bundle.calibration`.
    """
    rule = Rule.parse(DEFAULT_RULE)
    calibration = choose(answers["validation"], by_folds or {}, rule, dataset_sha256)
    threshold, temperature = (calibration[name]["value"] for name in ("threshold", "temperature"))
    metrics = {name: split_metrics(each.at(threshold, temperature)) for name, each in answers.items()}
    return metrics, calibration
