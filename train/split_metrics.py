"""All figures of one model on one split, each with its n and its 95 % interval, as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.labels import CLASS_NAMES, HEALTHY, TUMOR
from tumorbatch.progress import Progress
from tumorbatch.statistics import REPLICATES, Figure, Weights, bootstrap
from tumorbatch.train.calibration import predictive_values, reliability
from tumorbatch.train.measures import BINNINGS, Measures
from tumorbatch.train.metrics import binary_metrics
from tumorbatch.train.scored import Scored

PLAIN_THRESHOLD = 0.5  # beside the chosen one: what most papers use
# Of a part of a split: the others are too uncertain on a handful of images.
_PART_FIGURES = ("accuracy", "sensitivity", "specificity", "auc")
# Longer side of the file, in pixels; 256 and 512 are the usual matrix sizes of MRI.
SIZE_EDGES = (224, 256, 384, 512)
_PART_REPLICATES = 2_000

METHOD = {
    "proportions": "accuracy, sensitivity, specificity, precision, npv: Wilson's score interval, "
    "images counted as independent; low_by_group and high_by_group: the bootstrap below",
    "others": "percentile interval of a bootstrap that resamples duplicate groups with replacement",
    "ece": "expected calibration error of the probability of Tumor: 15 bins of equal width (ece), or "
    "of as many images each (ece_equal_mass); it leans upwards on few images, and so does its interval",
    "log_loss": "nats",
    "level": 0.95,
}


@dataclass(frozen=True, slots=True)
class SplitMetrics:
    """Figures of one split.

    Attributes:
        values: JSON values; see `split_metrics`.
        measures: At the chosen threshold and temperature.
        replicates: Of `measures`, {name: float64 [replicates]}.
    """

    values: dict[str, Any]
    measures: Measures
    replicates: Mapping[str, NDArray[np.float64]]


def split_metrics(
    scored: Scored, threshold: float, temperature: float, replicates: int = REPLICATES, seed: int = 0
) -> SplitMetrics:
    """Everything that is told of one split.

    Args:
        scored: The split.
        threshold: On the calibrated probability.
        temperature: Divides the logits.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        With the values: n, healthy, tumor, groups; the bare numbers of `binary_metrics`, for programs
        (auc is missing with one class only); figures {name: `Figure`} of `Measures.NAMES`; the same at
        threshold 0.5 under "at_0.5"; brier, log_loss, ece and ece_equal_mass without temperature under
        "uncalibrated"; predictive_values; reliability {before, after} x binning.
    """
    chosen = Measures(scored.logits, scored.labels, threshold, temperature)
    plain, raw = (
        Measures(scored.logits, scored.labels, PLAIN_THRESHOLD, divisor, chosen.ranks)
        for divisor in (temperature, 1.0)
    )
    drawn, of_plain, of_raw = _drawn((chosen, plain, raw), scored, replicates, seed)
    before = raw.figures(of_raw)
    figures = chosen.figures(drawn)
    both = len(np.unique(scored.labels)) == 2
    bare = binary_metrics(scored.logits, scored.labels, threshold, temperature) if both else {}
    values = {
        **bare,
        "n": scored.n,
        "healthy": int((scored.labels == HEALTHY).sum()),
        "tumor": int((scored.labels == TUMOR).sum()),
        "groups": scored.group_count,
        **_told(chosen, threshold, drawn),
        "at_0.5": _told(plain, PLAIN_THRESHOLD, of_plain),
        "uncalibrated": {
            name: before[name].to_dict() for name in ("brier", "log_loss", "ece", "ece_equal_mass")
        },
        "predictive_values": predictive_values(figures["sensitivity"], figures["specificity"], drawn),
        "reliability": {
            when: {
                binning: reliability(measures.probabilities, scored.labels, binning)
                for binning in BINNINGS
            }
            for when, measures in (("before", raw), ("after", chosen))
        },
    }
    return SplitMetrics(values, chosen, drawn)


def _drawn(
    many: Sequence[Measures], scored: Scored, replicates: int, seed: int
) -> list[dict[str, NDArray[np.float64]]]:
    """Each one's replicates, all from the same draws."""
    with Progress(f"bootstrap {scored.split}", "replicates", replicates) as progress:

        def all_of_them(weights: Weights) -> dict[str, NDArray[np.float64]]:
            both = many[0].ranks.both(weights)
            progress.advance(len(weights))
            return {
                f"{index} {name}": values
                for index, measures in enumerate(many)
                for name, values in measures.given(weights, *both).items()
            }

        found = bootstrap(all_of_them, scored.groups, replicates, seed)
    return [{name: found[f"{index} {name}"] for name in Measures.NAMES} for index in range(len(many))]


def _told(
    measures: Measures, threshold: float, drawn: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    figures = measures.figures(drawn)
    return {
        "threshold": threshold,
        "confusion": measures.confusion,
        "figures": {name: figure.to_dict() for name, figure in figures.items()},
    }


def figure(of: Mapping[str, Any], name: str) -> Figure:
    """One figure of a split's values (or of its "at_0.5")."""
    return Figure.from_dict(of["figures"][name])


def size_bucket(width: int, height: int) -> str:
    """The bucket of a file by its longer side, in words."""
    longer = max(width, height)
    below = 0
    for edge in SIZE_EDGES:
        if longer <= edge:
            return f"{below + 1} to {edge}" if below else f"up to {edge}"
        below = edge
    return f"above {below}"


def size_buckets() -> list[str]:
    """All buckets, ascending."""
    return [size_bucket(edge, edge) for edge in (*SIZE_EDGES, SIZE_EDGES[-1] + 1)]


def parts(
    scored: Scored,
    names: Sequence[str],
    order: Sequence[str],
    threshold: float,
    temperature: float,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Figures of a split's parts: by format, by size.

    Args:
        scored: The split.
        names: [n], each image's part.
        order: All parts, in the order in which they are told; those without an image are left out.
        threshold: On the calibrated probability.
        temperature: Divides the logits.
        seed: Of the bootstrap.

    Returns:
        For each part its name, n, groups, the number of each class, and figures: accuracy, sensitivity,
        specificity and auc, `Figure.to_dict` each, undefined where a class is missing.
    """
    place = np.array(names)
    found = []
    for name in order:
        inside = place == name
        if not inside.any():
            continue
        labels, groups = scored.labels[inside], scored.groups[inside]
        measures = Measures(scored.logits[inside], labels, threshold, temperature)
        figures = measures.figures(measures.bootstrap(groups, _PART_REPLICATES, seed))
        found.append(
            {
                "name": name,
                "n": int(inside.sum()),
                "groups": len(np.unique(groups)),
                **{cls: int((labels == label).sum()) for label, cls in enumerate(CLASS_NAMES)},
                "figures": {which: figures[which].to_dict() for which in _PART_FIGURES},
            }
        )
    return found
