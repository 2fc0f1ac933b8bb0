"""All figures of one model on one split, each with its n and its 95 % interval, as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.evaluation.answers import Scored
from tumorbatch.labels import CLASS_NAMES, HEALTHY, TUMOR
from tumorbatch.progress import Progress
from tumorbatch.statistics.auc import auc_figure, auc_within
from tumorbatch.statistics.calibration import predictive_values, reliability
from tumorbatch.statistics.calibration_slope import Recalibration
from tumorbatch.statistics.classification import BINNINGS, Measures
from tumorbatch.statistics.intervals import (
    REPLICATES,
    Estimate,
    Weights,
    bootstrap,
    bootstrapped,
)

PLAIN_THRESHOLD = 0.5  # beside the chosen one: what most papers use
# Of a part of a split: the others are too uncertain on a handful of images.
_PART_FIGURES = ("accuracy", "sensitivity", "specificity", "auc")
# Longer side of the file, in pixels; 256 and 512 are the usual matrix sizes of MRI.
SIZE_EDGES = (224, 256, 384, 512)

METHOD = {
    "proportions": "accuracy, sensitivity, specificity, precision, npv: Wilson's score interval, "
    "images counted as independent; low_by_group and high_by_group: the bootstrap below",
    "others": "percentile interval of a bootstrap that resamples duplicate groups with replacement; "
    "none where all replicates are the same. auc where the classes do not overlap: exact bound "
    "(Clopper and Pearson) from disjoint pairs of groups",
    "predictive_values": "from the ends of the intervals of sensitivity and specificity, the wider of "
    "Wilson's and the bootstrap's: rather too wide",
    "fixed": "weights, temperature and threshold are taken as given: what another training, or another "
    "validation split, would choose is in no interval",
    "ece": "expected calibration error of the probability of Tumor: 15 bins of equal width (ece), or "
    "of as many images each (ece_equal_mass); it leans upwards on few images, and so do "
    "its replicates: the percentile interval is joined with its mirror image about the figure, and "
    "reaches to 0 where chance alone gives as much",
    "log_loss": "nats",
    "calibration_slope": "of the logistic regression of the class on the logit; 1 is right, below 1 "
    "the probabilities are too extreme",
    "calibration_in_the_large": "its intercept with a slope of 1, in logits; 0 is right, above 0 the "
    "probabilities of Tumor are too low on average",
    "within_file_kinds": "AUC of the pairs of a Tumor and a Healthy image of one height, width and "
    "format, which the file's metadata cannot tell apart; n: images of such kinds",
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
        With the values: n, healthy, tumor, groups; bootstrap {replicates, seed}; figures {name:
        `Estimate`} of `Measures.NAMES`, with threshold and confusion; the same at threshold 0.5 under
        "at_0.5"; recalibration {name: `Estimate`} of `Recalibration.NAMES`; brier, log_loss, ece,
        ece_equal_mass and recalibration without temperature under "uncalibrated"; within_file_kinds,
        predictive_values (see these functions); reliability {before, after} x binning.
    """
    chosen = Measures(scored.logits, scored.labels, threshold, temperature)
    plain, raw = (
        Measures(scored.logits, scored.labels, PLAIN_THRESHOLD, divisor, chosen.ranks)
        for divisor in (temperature, 1.0)
    )
    after, before = (
        Recalibration(scored.logits / np.float32(divisor), scored.labels)
        for divisor in (temperature, 1.0)
    )
    drawn, of_plain, of_raw = _drawn((chosen, plain, raw), (after, before), scored, replicates, seed)
    figures, of_before = (
        of.figures(by, scored.groups, seed) for of, by in ((chosen, drawn), (raw, of_raw))
    )
    values = {
        "n": scored.n,
        "healthy": int((scored.labels == HEALTHY).sum()),
        "tumor": int((scored.labels == TUMOR).sum()),
        "groups": scored.group_count,
        "bootstrap": {"replicates": replicates, "seed": seed},
        **_told(chosen, threshold, figures),
        "at_0.5": _told(plain, PLAIN_THRESHOLD, plain.figures(of_plain, scored.groups, seed)),
        "recalibration": _lines(after, drawn, scored.n),
        "uncalibrated": {
            **{
                name: of_before[name].to_dict()
                for name in ("brier", "log_loss", "ece", "ece_equal_mass")
            },
            **_lines(before, of_raw, scored.n),
        },
        "within_file_kinds": within_file_kinds(scored, scored.logits, replicates, seed),
        "predictive_values": predictive_values(figures["sensitivity"], figures["specificity"]),
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
    many: Sequence[Measures],
    lines: tuple[Recalibration, Recalibration],
    scored: Scored,
    replicates: int,
    seed: int,
) -> list[dict[str, NDArray[np.float64]]]:
    """Replicates of each of `many`, all from the same draws; `lines` are of the first and the last."""
    with Progress(f"bootstrap {scored.split}", "replicates", replicates) as progress:

        def all_of_them(weights: Weights) -> dict[str, NDArray[np.float64]]:
            ranked = many[0].ranks.both(weights)
            found = [dict(measures.given(weights, *ranked)) for measures in many]
            for of, line in zip((found[0], found[-1]), lines, strict=True):
                of.update(line(weights))
            progress.advance(len(weights))
            return {f"{at} {name}": of[name] for at, of in enumerate(found) for name in of}

        drawn = bootstrap(all_of_them, scored.groups, replicates, seed)
    parts: list[dict[str, NDArray[np.float64]]] = [{} for _ in many]
    for key, values in drawn.items():
        at, name = key.split(" ", 1)
        parts[int(at)][name] = values
    return parts


def _lines(
    line: Recalibration, drawn: Mapping[str, NDArray[np.float64]], n: int
) -> dict[str, dict[str, Any]]:
    values = line(np.ones((1, n)))
    return {name: bootstrapped(float(values[name][0]), n, drawn[name]).to_dict() for name in line.NAMES}


def within_file_kinds(
    scored: Scored, scores: NDArray[np.floating], replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Any]:
    """Whether scores tell the classes apart where the file's metadata cannot.

    Args:
        scored: Gives labels, groups, and height, width and format of each image.
        scores: float [n], higher for Tumor: the logits, or what a baseline says.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        auc: `Estimate.to_dict` of `measures.auc_within`, undefined where no kind of file holds both
        classes; kinds, healthy, tumor and pairs: how many there are that hold both.
    """
    kinds, labels = scored.file_kinds, scored.labels
    table = np.stack(
        [np.bincount(kinds[labels == label], minlength=kinds.max() + 1) for label in (0, 1)]
    )
    mixed = table.min(axis=0) > 0
    inside = mixed[kinds]
    about = {
        "kinds": int(mixed.sum()),
        "healthy": int(table[HEALTHY, mixed].sum()),
        "tumor": int(table[TUMOR, mixed].sum()),
        "pairs": int(table[:, mixed].prod(axis=0).sum()),
    }
    if not inside.any():
        return {"auc": Estimate(None, 0, None, None, "bootstrap").to_dict(), **about}
    auc = auc_within(scores[inside], labels[inside], kinds[inside])
    # Groups are drawn from the whole split, as for every other figure.
    drawn = bootstrap(lambda weights: {"": auc(weights[:, inside])}, scored.groups, replicates, seed)[
        ""
    ]
    value = float(auc(np.ones((1, int(inside.sum()))))[0])
    figure = auc_figure(value, labels[inside], scored.groups[inside], drawn, kinds[inside])
    return {"auc": figure.to_dict(), **about}


def _told(measures: Measures, threshold: float, figures: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        "threshold": threshold,
        "confusion": measures.confusion,
        "figures": {name: figure.to_dict() for name, figure in figures.items()},
    }


def figure(of: Mapping[str, Any], name: str) -> Estimate:
    """One figure of a split's values (or of its "at_0.5")."""
    return Estimate.from_dict(of["figures"][name])


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
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Figures of a split's parts: by format, by size.

    Args:
        scored: The split.
        names: [n], each image's part.
        order: All parts, in the order in which they are told; those without an image are left out.
        threshold: On the calibrated probability.
        temperature: Divides the logits.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        For each part its name, n, groups, the number of each class, and figures: accuracy, sensitivity,
        specificity and auc, `Estimate.to_dict` each, undefined where a class is missing.
    """
    place = np.array(names)
    found = []
    for name in order:
        inside = place == name
        if not inside.any():
            continue
        labels, groups = scored.labels[inside], scored.groups[inside]
        measures = Measures(scored.logits[inside], labels, threshold, temperature)
        figures = measures.figures(measures.bootstrap(groups, replicates, seed), groups, seed)
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
