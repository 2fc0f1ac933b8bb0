"""Models and baselines judged on the same images: figures of each, and differences of every pair."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.statistics.auc import auc_difference, auc_figure, auc_statistic
from tumorbatch.statistics.classification import share_statistic
from tumorbatch.statistics.intervals import (
    REPLICATES,
    Estimate,
    McNemar,
    Weights,
    bootstrap,
    bootstrapped,
    difference,
    mcnemar,
    proportion,
)

# Column of a table: the report's four, then what else a reader needs. Recall is sensitivity.
FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall = sensitivity",
    "f1": "F1",
    "specificity": "specificity",
    "auc": "AUC",
}
REPORT_FIGURES = ("accuracy", "precision", "recall", "f1")
# A. Oeztuener, "Deep Learning Approaches for Brain Tumor Classification": on its own validation split,
# per cent, without n or interval.
REPORT = {
    "cnn1": (95, 95, 95, 95),
    "cnn2": (87, 87, 86, 87),
    "resnet50": (92, 93, 93, 93),
    "mobilenetv2": (91, 93, 91, 92),
    "densenet121": (92, 93, 91, 92),
}
PROTOCOLS = {  # as `split_by` of a shard set has them, from the least to the most honest
    "file": "leaky (random by file)",
    "group": "grouped (duplicates together)",
    "shape": "held-out shapes",
}
LEAKY_GROUPS = "leaky"  # a split by group or shape whose proof failed
PROTOCOL_TEXTS = {
    "file": "Leaky: the split was drawn file by file: copies and near copies of test images were "
    "trained on. This is what most papers do; the figures are too good.",
    "group": "Grouped: byte-identical, pixel-identical and nearly identical images stay in one split. "
    "This is the headline.",
    "shape": "Held-out shapes: no test image has a height and width that was trained on: a stand-in, "
    "no more, for other scanners and sources. This is the stress test.",
}


def protocol(split_by: str, leaky: bool) -> str:
    """A split in a few words, for a table."""
    if leaky and split_by != "file":
        return LEAKY_GROUPS
    return PROTOCOLS[split_by]


@dataclass(frozen=True, slots=True)
class Judged:
    """One model or baseline, with its answers on the test images.

    Attributes:
        name: Of the bundle's folder, or of the baseline.
        architecture: Of the network; "" for a baseline.
        model_id: Of the bundle; "" for a baseline.
        split_by: Protocol of its shard set.
        leaky: Whether copies of test images were trained on.
        dataset: sha256 of its shard set's dataset.json: equal, and the images are the same.
        threshold: A score of at least this much is called Tumor.
        paths: n paths of the test images, sorted.
        labels: int64 [n], 0 Healthy, 1 Tumor.
        groups: int64 [n], duplicate group.
        scores: float [n], higher for Tumor.
        called: bool [n], at the threshold.
        called_at_half: bool [n], at 0.5, as the report and most papers have it.
    """

    name: str
    architecture: str
    model_id: str
    split_by: str
    leaky: bool
    dataset: str
    threshold: float
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    scores: NDArray[np.floating]
    called: NDArray[np.bool_]
    called_at_half: NDArray[np.bool_]

    @property
    def is_baseline(self) -> bool:
        """Whether it is no network."""
        return not self.architecture

    @property
    def right(self) -> NDArray[np.bool_]:
        """bool [n], whether the answer is the label."""
        return np.asarray(self.called == (self.labels == 1), np.bool_)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        judged: Whose.
        figures: {name in `FIGURES`: figure}, at its own threshold.
        accuracy_at_half: At threshold 0.5.
    """

    judged: Judged
    figures: dict[str, Estimate]
    accuracy_at_half: Estimate

    @property
    def report(self) -> dict[str, float] | None:
        """The report's own figures of this architecture, shares; None where it has none."""
        known = REPORT.get(self.judged.architecture)
        if known is None:
            return None
        return {name: value / 100 for name, value in zip(REPORT_FIGURES, known, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        of = self.judged
        return {
            "name": of.name,
            "baseline": of.is_baseline,
            "architecture": of.architecture or None,
            "model_id": of.model_id or None,
            "protocol": protocol(of.split_by, of.leaky),
            "split_by": of.split_by,
            "leaky": of.leaky,
            "dataset_sha256": of.dataset,
            "n": len(of.labels),
            "groups": len(np.unique(of.groups)),
            "threshold": of.threshold,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "accuracy_at_0.5": self.accuracy_at_half.to_dict(),
            "report": self.report,
        }


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two of them on the same images.

    Attributes:
        first: Name.
        second: Name.
        protocol: Of both.
        dataset: Of both, as in `Judged`.
        auc: First less second, paired bootstrap over groups.
        accuracy: Likewise, each at its own threshold.
        test: McNemar's, on right and wrong at each one's own threshold.
        p_adjusted: Its p, adjusted for all pairs on these images by Holm's method.
    """

    first: str
    second: str
    protocol: str
    dataset: str
    auc: Estimate
    accuracy: Estimate
    test: McNemar
    p_adjusted: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "first": self.first,
            "second": self.second,
            "protocol": self.protocol,
            "dataset_sha256": self.dataset,
            "n": self.auc.n,
            "auc_difference": self.auc.to_dict(),
            "accuracy_difference": self.accuracy.to_dict(),
            "only_first_right": self.test.first_only,
            "only_second_right": self.test.second_only,
            "mcnemar_p": self.test.p,
            "mcnemar_p_holm": self.p_adjusted,
            "mcnemar_method": self.test.method,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it.

    Attributes:
        rows: Baselines and models, protocol by protocol.
        pairs: Of what was judged on the same images; two baselines are no pair.
        missing: What could not be compared, and why.
        alone: Models without baselines beside them, and why.
        replicates: Bootstrap samples.
    """

    rows: list[Row]
    pairs: list[PairRow]
    missing: dict[str, str] = field(default_factory=dict)
    alone: dict[str, str] = field(default_factory=dict)
    replicates: int = REPLICATES

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "replicates": self.replicates,
            "rows": [row.to_dict() for row in self.rows],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "missing": self.missing,
            "without_baselines": self.alone,
        }


def compare(
    judged: Sequence[Judged],
    missing: dict[str, str],
    alone: dict[str, str] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Comparison:
    """Figures of each, and differences of every pair that was judged on the same images.

    Args:
        judged: Models and baselines.
        missing: {name: why} of what is left out.
        alone: {names: why} of models without baselines.
        replicates: Bootstrap samples.
        seed: Of the bootstrap.
    """
    on: dict[str, list[Judged]] = defaultdict(list)
    order = list(PROTOCOLS)
    for one in sorted(judged, key=lambda of: (order.index(of.split_by), of.dataset)):
        on[one.dataset].append(one)
    rows, pairs = [], []
    for members in on.values():
        members.sort(key=lambda of: (not of.is_baseline, of.name if of.architecture else ""))
        rows += [row(one, replicates, seed) for one in members]
        pairs += _pairs(members, replicates, seed)
    return Comparison(rows, pairs, missing, alone or {}, replicates)


def row(of: Judged, replicates: int = REPLICATES, seed: int = 0) -> Row:
    """All figures of one, each with n and a 95 % interval."""
    truth = of.labels == 1
    cells = np.column_stack(
        [of.called & truth, of.called & ~truth, ~of.called & truth, ~of.called & ~truth]
    ).astype(np.float64)
    auc_of = auc_statistic(of.scores, of.labels)
    right_at_half = (of.called_at_half == truth).astype(np.float64)

    def all_of(weights: Weights) -> dict[str, NDArray[np.float64]]:
        tp, fp, fn, tn = (weights @ cells).T
        with np.errstate(invalid="ignore"):  # 0 / 0: undefined
            return {
                "accuracy": (tp + tn) / weights.sum(axis=1),
                "precision": tp / (tp + fp),
                "recall": tp / (tp + fn),
                "f1": 2 * tp / (2 * tp + fp + fn),
                "specificity": tn / (tn + fp),
                "auc": auc_of(weights),
                "at half": weights @ right_at_half / weights.sum(axis=1),
            }

    drawn = bootstrap(all_of, of.groups, replicates, seed)
    ones = all_of(np.ones((1, len(truth))))
    tp, fp, fn, tn = (int(count) for count in cells.sum(axis=0))
    n = len(truth)
    shares = {
        "accuracy": (tp + tn, n),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "specificity": (tn, tn + fp),
    }
    figures = {}
    for name in FIGURES:
        if name in shares:
            figures[name] = proportion(*shares[name], drawn[name])
        elif name == "auc":
            figures[name] = auc_figure(float(ones[name][0]), of.labels, of.groups, drawn[name])
        else:
            figures[name] = bootstrapped(float(ones[name][0]), n, drawn[name])
    return Row(of, figures, proportion(int(right_at_half.sum()), n, drawn["at half"]))


def _pairs(members: Sequence[Judged], replicates: int, seed: int) -> list[PairRow]:
    found = []
    for number, first in enumerate(members):
        for second in members[:number]:
            if not (first.is_baseline and second.is_baseline):
                found.append((first, second, mcnemar(first.right, second.right)))
    adjusted = holm([test.p for _, _, test in found])
    rows = []
    for (first, second, test), p in zip(found, adjusted, strict=True):
        auc = auc_difference(first.scores, second.scores, first.labels, first.groups, replicates, seed)
        accuracy = difference(
            share_statistic(first.right), share_statistic(second.right), first.groups, replicates, seed
        )
        named = protocol(first.split_by, first.leaky)
        rows.append(PairRow(first.name, second.name, named, first.dataset, auc, accuracy, test, p))
    return rows


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: at any level, the chance of one false finding is kept.

    References:
        S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
        Statistics 6 (1979), 65-70.
    """
    count = len(p_values)
    adjusted = [0.0] * count
    largest = 0.0
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
