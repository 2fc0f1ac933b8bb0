"""How much a stricter protocol lowers the measures: one protocol less the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.compare import Comparison, Difference, compare_models
from tumorbatch.evaluation.protocols import PROTOCOLS
from tumorbatch.statistics.auc import auc_statistic
from tumorbatch.statistics.classification import Decisions
from tumorbatch.statistics.intervals import REPLICATES
from tumorbatch.statistics.weighting import PER_GROUP, unpaired_difference, weightings


@dataclass(frozen=True, slots=True)
class Drop:
    """How much one model's or baseline's measures fall from one protocol to the next.

    Attributes:
        name: Of the model or baseline.
        first: Key of a protocol.
        second: Key of the stricter protocol.
        per_group: First less second, each on its own test images, each group once; accuracy at 0.5.
        per_image: Likewise, each image once.
    """

    name: str
    first: str
    second: str
    per_group: Difference
    per_image: Difference

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "first": self.first,
            "second": self.second,
            **_json(self.per_image),
            PER_GROUP: _json(self.per_group),
        }


def _json(difference: Difference) -> dict[str, Any]:
    return {
        "auc_difference": difference.auc.to_dict(),
        "accuracy_at_0.5_difference": difference.accuracy.to_dict(),
    }


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One model and the baselines under every protocol.

    Attributes:
        comparison: One shard set for each protocol.
        drops: From each protocol to the next stricter one, of models evaluated under both.
    """

    comparison: Comparison
    drops: list[Drop]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**self.comparison.to_dict(), "drops": [drop.to_dict() for drop in self.drops]}


def side_by_side(judged: Sequence[Answers], replicates: int = REPLICATES, seed: int = 0) -> SideBySide:
    """Compare under each protocol, and the protocols with each other.

    Args:
        judged: A model and baselines; those of one protocol on the same images.
        replicates: Bootstrap samples.
        seed: Of the bootstrap.
    """
    comparison = compare_models(judged, {}, replicates=replicates, seed=seed)
    return SideBySide(comparison, _drops(judged, replicates, seed))


def protocols_of(comparison: Comparison) -> list[str]:
    """Return the keys of the protocols that have a row, from the least to the most honest."""
    present = {row.answers.protocol.key for row in comparison.rows}
    return [key for key in PROTOCOLS if key in present]


def _drops(judged: Sequence[Answers], replicates: int, seed: int) -> list[Drop]:
    places = {(answers.name, answers.protocol.key): answers for answers in judged}
    present = [key for key in PROTOCOLS if key in {key for _, key in places}]
    # Baselines first, as in every table.
    names = dict.fromkeys(
        answers.name for answers in sorted(judged, key=lambda answers: not answers.is_baseline)
    )
    return [
        Drop(
            name,
            first,
            second,
            *_difference(places[name, first], places[name, second], replicates, seed),
        )
        for first, second in pairwise(present)
        for name in names
        if (name, first) in places and (name, second) in places
    ]


def _difference(
    first: Answers, second: Answers, replicates: int, seed: int
) -> tuple[Difference, Difference]:
    """Return the differences per group and per image."""
    statistics = [
        (
            auc_statistic(answers.scores, answers.labels),
            Decisions(answers.called_at(0.5), answers.labels).statistic("accuracy"),
        )
        for answers in (first, second)
    ]
    per_image, per_group = (
        Difference(
            *(
                unpaired_difference((ours, first_weights), (theirs, second_weights), replicates, seed)
                for ours, theirs in zip(*statistics, strict=True)
            )
        )
        for first_weights, second_weights in zip(
            weightings(first.groups).values(), weightings(second.groups).values(), strict=True
        )
    )
    return per_group, per_image
