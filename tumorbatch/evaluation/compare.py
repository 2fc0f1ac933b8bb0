"""Compare models and baselines on the same images: measures of each, and of every pair."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.protocols import PROTOCOLS
from tumorbatch.statistics.auc import auc_difference
from tumorbatch.statistics.classification import Decisions
from tumorbatch.statistics.intervals import REPLICATES, Estimate
from tumorbatch.statistics.mcnemar import McNemar, holm, mcnemar
from tumorbatch.statistics.weighting import PER_GROUP, Weighting, weightings

# Columns of a table: the report's four, then what else a reader needs.
MEASURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall = sensitivity",
    "f1": "F1",
    "specificity": "specificity",
    "auc": "AUC",
}
AT_HALF = "accuracy_at_0.5"
PUBLISHED_MEASURES = ("accuracy", "precision", "recall", "f1")
# A. Öztüner, "Deep Learning Approaches for Brain Tumor Classification": on its own validation split,
# per cent, without n or interval.
PUBLISHED = {
    "cnn1": (95, 95, 95, 95),
    "cnn2": (87, 87, 86, 87),
    "resnet50": (92, 93, 93, 93),
    "mobilenetv2": (91, 93, 91, 92),
    "densenet121": (92, 93, 91, 92),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        answers: Of the model or baseline.
        per_group: {name in `MEASURES` or `AT_HALF`: estimate}, each group counted once: the headline.
        per_image: The same with each image counted once.
        reference: Whether the report's own measures stand beside.
    """

    answers: Answers
    per_group: dict[str, Estimate]
    per_image: dict[str, Estimate]
    reference: bool = False

    @property
    def published(self) -> dict[str, float] | None:
        """Return the report's measures of this architecture, shares; None if none shall stand here."""
        percent = PUBLISHED.get(self.answers.architecture) if self.reference else None
        if percent is None:
            return None
        return {name: value / 100 for name, value in zip(PUBLISHED_MEASURES, percent, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        answers = self.answers
        return {
            "name": answers.name,
            "baseline": answers.is_baseline,
            "architecture": answers.architecture or None,
            "model_id": answers.model_id or None,
            "protocol": answers.protocol.name,
            "protocol_key": answers.protocol.key,
            "leaky": answers.protocol.leaky,
            "dataset_sha256": answers.images.dataset,
            "n": answers.images.n,
            "groups": answers.images.group_count,
            "threshold": answers.threshold,
            **_json(self.per_image),
            PER_GROUP: _json(self.per_group),
            "report": self.published,
        }


def _json(estimates: dict[str, Estimate]) -> dict[str, Any]:
    figures = {name: estimate.to_dict() for name, estimate in estimates.items()}
    return {AT_HALF: figures.pop(AT_HALF), "figures": figures}


@dataclass(frozen=True, slots=True)
class Difference:
    """How much the first of a pair is better than the second, by the paired bootstrap over groups.

    Attributes:
        auc: Difference of the AUC.
        accuracy: Of the accuracy, each at its own threshold.
    """

    auc: Estimate
    accuracy: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "auc_difference": self.auc.to_dict(),
            "accuracy_difference": self.accuracy.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models, or a model and a baseline, on the same images.

    Attributes:
        first: The first of the pair.
        second: The second.
        per_group: First less second, each group counted once: the headline.
        per_image: Likewise, each image counted once.
        test: McNemar's, on right and wrong at each one's own threshold.
        p_adjusted: Its p, adjusted for all pairs on these images by Holm's method.
    """

    first: Answers
    second: Answers
    per_group: Difference
    per_image: Difference
    test: McNemar
    p_adjusted: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "first": self.first.name,
            "second": self.second.name,
            "protocol": self.first.protocol.name,
            "dataset_sha256": self.first.images.dataset,
            "n": self.first.images.n,
            **self.per_image.to_dict(),
            PER_GROUP: self.per_group.to_dict(),
            "only_first_right": self.test.first_only,
            "only_second_right": self.test.second_only,
            "mcnemar_p": self.test.p,
            "mcnemar_p_holm": self.p_adjusted,
            "mcnemar_method": self.test.method,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows and pairs.

    Attributes:
        rows: Baselines and models, protocol by protocol.
        pairs: Of what was judged on the same images; two baselines are not a pair.
        missing: What could not be compared, and why.
        alone: Models without baselines, with the reason.
        replicates: Bootstrap samples.
    """

    rows: list[Row]
    pairs: list[Pair]
    missing: dict[str, str] = field(default_factory=dict)
    alone: dict[str, str] = field(default_factory=dict)
    replicates: int = REPLICATES

    @property
    def has_reference(self) -> bool:
        """Return whether the report's own measures stand in a row."""
        return any(row.published is not None for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "replicates": self.replicates,
            "rows": [row.to_dict() for row in self.rows],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "missing": self.missing,
            "without_baselines": self.alone,
        }


def compare_models(
    judged: Sequence[Answers],
    missing: dict[str, str],
    alone: dict[str, str] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    reference: bool = False,
) -> Comparison:
    """Measure each, and the differences of every pair that was judged on the same images.

    Args:
        judged: Answers of models and baselines on their test splits.
        missing: {name: why} of what is left out.
        alone: {names: why} of models without baselines.
        replicates: Bootstrap samples.
        seed: Of the bootstrap.
        reference: Put the report's own measures beside those of its networks.
    """
    by_dataset: dict[str, list[Answers]] = defaultdict(list)
    order = list(PROTOCOLS)
    for answers in sorted(
        judged, key=lambda answers: (order.index(answers.protocol.key), answers.images.dataset)
    ):
        by_dataset[answers.images.dataset].append(answers)
    rows, pairs = [], []
    for members in by_dataset.values():
        members.sort(key=_baselines_first)
        measured = (measure(answers, replicates, seed) for answers in members)
        rows += [replace(row, reference=reference) for row in measured]
        pairs += _pairs(members, replicates, seed)
    return Comparison(rows, pairs, missing, alone or {}, replicates)


def _baselines_first(answers: Answers) -> tuple[bool, str]:
    """Return the key by which rows are sorted: baselines as they come, then models by name."""
    return not answers.is_baseline, "" if answers.is_baseline else answers.name


def measure(answers: Answers, replicates: int = REPLICATES, seed: int = 0) -> Row:
    """Return all measures of one, each with n and a 95 % interval."""
    per_image, per_group = (
        _measured(answers, weighting, replicates, seed)
        for weighting in weightings(answers.groups).values()
    )
    return Row(answers, per_group, per_image)


def _measured(
    answers: Answers, weighting: Weighting, replicates: int, seed: int
) -> dict[str, Estimate]:
    measures = answers.core_measures
    at_half = Decisions(answers.called_at(0.5), answers.labels)
    drawn = weighting.bootstrap(
        lambda weights: {**measures(weights), AT_HALF: at_half(weights)["accuracy"]},
        replicates,
        seed,
    )
    estimates = {name: measures.estimate(name, drawn[name], weighting) for name in measures.NAMES}
    estimates["recall"] = estimates["sensitivity"]
    half = at_half.estimate("accuracy", drawn[AT_HALF], weighting)
    return {**{name: estimates[name] for name in MEASURES}, AT_HALF: half}


def _pairs(members: Sequence[Answers], replicates: int, seed: int) -> list[Pair]:
    together = [
        (first, second)
        for number, first in enumerate(members)
        for second in members[:number]
        if not (first.is_baseline and second.is_baseline)
    ]
    tests = [mcnemar(first.decisions.right, second.decisions.right) for first, second in together]
    pairs = []
    for (first, second), test, p in zip(together, tests, holm([test.p for test in tests]), strict=True):
        per_image, per_group = (
            Difference(
                auc_difference(first.scores, second.scores, first.labels, weighting, replicates, seed),
                weighting.difference(
                    first.decisions.statistic("accuracy"),
                    second.decisions.statistic("accuracy"),
                    replicates,
                    seed,
                ),
            )
            for weighting in weightings(first.groups).values()
        )
        pairs.append(Pair(first, second, per_group, per_image, test, p))
    return pairs
