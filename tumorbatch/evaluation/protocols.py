"""What a stricter protocol takes away: figures of one protocol less those of the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tumorbatch.evaluation.compare import PROTOCOLS, Comparison, Judged, compare
from tumorbatch.statistics.auc import auc_statistic
from tumorbatch.statistics.classification import share_statistic
from tumorbatch.statistics.intervals import REPLICATES, Estimate, Statistic, unpaired_difference


@dataclass(frozen=True, slots=True)
class Drop:
    """How much one model's or baseline's figures fall from one protocol to the next.

    Attributes:
        name: Of the model or baseline.
        first: Protocol, as in `PROTOCOLS`.
        second: The stricter one.
        auc: First less second, each on its own test images.
        accuracy: Likewise, at threshold 0.5.
    """

    name: str
    first: str
    second: str
    auc: Estimate
    accuracy: Estimate

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name,
            "first": self.first,
            "second": self.second,
            "auc_difference": self.auc.to_dict(),
            "accuracy_at_0.5_difference": self.accuracy.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Protocols:
    """One model and the baselines under every protocol.

    Attributes:
        comparison: One shard set a protocol.
        drops: From each protocol to the next stricter one, of what was judged under both.
    """

    comparison: Comparison
    drops: list[Drop]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**self.comparison.to_dict(), "drops": [drop.to_dict() for drop in self.drops]}


def side_by_side(judged: Sequence[Judged], replicates: int = REPLICATES, seed: int = 0) -> Protocols:
    """Compare under each protocol, and the protocols with each other.

    Args:
        judged: A model and baselines; those of one protocol on the same images.
        replicates: Bootstrap samples.
        seed: Of the bootstrap.
    """
    found = compare(judged, {}, replicates=replicates, seed=seed)
    return Protocols(found, _drops(found, seed))


def _drops(found: Comparison, seed: int) -> list[Drop]:
    names = dict.fromkeys(row.judged.name for row in found.rows)
    judged = {(row.judged.name, row.judged.split_by): row.judged for row in found.rows}
    made = []
    for first, second in pairwise(PROTOCOLS):
        for name in names:
            if (name, first) in judged and (name, second) in judged:
                one, other = judged[name, first], judged[name, second]
                auc, accuracy = (
                    unpaired_difference(
                        (of(one), one.groups), (of(other), other.groups), found.replicates, seed
                    )
                    for of in (_auc, _accuracy_at_half)
                )
                made.append(Drop(name, first, second, auc, accuracy))
    return made


def _auc(of: Judged) -> Statistic:
    return auc_statistic(of.scores, of.labels)


def _accuracy_at_half(of: Judged) -> Statistic:
    return share_statistic(of.called_at_half == (of.labels == 1))
