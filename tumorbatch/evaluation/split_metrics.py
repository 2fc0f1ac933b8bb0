"""All measures of one model on one split, each with its n and its 95 % interval, as JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.evaluation.answers import Answers
from tumorbatch.labels import CLASS_NAMES, HEALTHY, TUMOR
from tumorbatch.progress import Progress
from tumorbatch.statistics.auc import auc_estimate, auc_within
from tumorbatch.statistics.calibration import predictive_values, reliability
from tumorbatch.statistics.calibration_slope import Recalibration
from tumorbatch.statistics.classification import BINNINGS, Measures
from tumorbatch.statistics.intervals import REPLICATES, Estimate, Weights, bootstrap
from tumorbatch.statistics.weighting import Weighting, weightings

PLAIN_THRESHOLD = 0.5  # in addition to the chosen one: most papers use it
# Of a subgroup: the others are too uncertain on a handful of images.
_SUBGROUP_FIGURES = ("accuracy", "sensitivity", "specificity", "auc")
# Longer side of the file, in pixels; 256 and 512 are the usual matrix sizes of MRI.
SIZE_EDGES = (224, 256, 384, 512)

METHOD = {
    "per_group": "each duplicate group counted once: an image counts 1 / (images of its group in the "
    "split); the headline. n: groups; intervals: the bootstrap below. Where all groups agree, a share "
    "has Wilson's interval over groups",
    "proportions": "accuracy, sensitivity, specificity, precision, npv, per image: Wilson's score "
    "interval, images counted as independent; low_by_group and high_by_group: the bootstrap below",
    "others": "percentile interval of a bootstrap that resamples duplicate groups with replacement; "
    "none where all replicates are equal. auc where the classes do not overlap: exact bound "
    "(Clopper and Pearson) from disjoint pairs of groups",
    "predictive_values": "from the ends of the intervals of sensitivity and specificity, the wider of "
    "Wilson's and the bootstrap's: conservative (too wide)",
    "fixed": "weights, temperature and threshold are taken as given: the intervals do not include the "
    "variation between training runs or validation splits",
    "ece": "expected calibration error of the probability of Tumor: 15 bins of equal width (ece), or "
    "with equal numbers of images (ece_equal_mass). It is biased upwards on few images, and so are its "
    "replicates: the percentile interval is joined with its mirror image about the value, and "
    "reaches to 0 where chance alone gives as much",
    "log_loss": "nats",
    "calibration_slope": "of the logistic regression of the class on the logit; 1 is right, below 1 "
    "the probabilities are too extreme",
    "calibration_in_the_large": "its intercept with a slope of 1, in logits; 0 is right, above 0 the "
    "probabilities of Tumor are too low on average",
    "within_file_kinds": "AUC of the pairs of a Tumor and a Healthy image of one height, width and "
    "format, which the file's metadata cannot separate; n: images of such kinds",
    "level": 0.95,
}


def split_metrics(answers: Answers, replicates: int = REPLICATES, seed: int = 0) -> dict[str, Any]:
    """Return everything that is reported of one split, per image and with each group counted once.

    Args:
        answers: A network's, at its threshold and temperature.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        JSON values: n, healthy, tumor, groups; bootstrap {replicates, seed}; reliability {before,
        after} x binning. Per image: threshold, confusion and figures {name: `Estimate`} of
        `Measures.NAMES`; the same at threshold 0.5 under "at_0.5"; recalibration {name: `Estimate`} of
        `Recalibration.NAMES`; brier, log_loss, ece, ece_equal_mass and recalibration without
        temperature under "uncalibrated"; within_file_kinds, predictive_values (see these functions).
        Under "per_group" the latter with each group counted once: the headline.
    """
    scores, labels = answers.scores, answers.labels
    temperature = answers.temperature or 1.0
    chosen = Measures(scores, labels, answers.threshold, temperature)
    measures = {
        "chosen": chosen,
        "plain": Measures(scores, labels, PLAIN_THRESHOLD, temperature, chosen.ranks),
        "raw": Measures(scores, labels, PLAIN_THRESHOLD, 1.0, chosen.ranks),
    }
    lines = {
        "chosen": Recalibration(scores / np.float32(temperature), labels),
        "raw": Recalibration(scores, labels),
    }
    values = {
        name: _measured(answers, measures, lines, weighting, replicates, seed)
        for name, weighting in weightings(answers.groups).items()
    }
    return {
        "n": answers.images.n,
        "healthy": int((labels == HEALTHY).sum()),
        "tumor": int((labels == TUMOR).sum()),
        "groups": answers.images.group_count,
        "bootstrap": {"replicates": replicates, "seed": seed},
        **values.pop(""),
        "reliability": {
            when: {
                binning: reliability(measures[name].probabilities, labels, binning)
                for binning in BINNINGS
            }
            for when, name in (("before", "raw"), ("after", "chosen"))
        },
        **values,
    }


def _measured(
    answers: Answers,
    measures: Mapping[str, Measures],
    lines: Mapping[str, Recalibration],
    weighting: Weighting,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """Return the measures by one weighting, all of them from the same draws."""
    ranks = measures["chosen"].ranks
    with Progress(f"bootstrap {answers.images.split}", "replicates", replicates) as progress:

        def statistics(weights: Weights) -> dict[str, NDArray[np.float64]]:
            ranked = ranks.auc_and_precision(weights)
            values = {name: dict(each.with_ranks(weights, *ranked)) for name, each in measures.items()}
            for name, line in lines.items():
                values[name] |= line(weights)
            progress.advance(len(weights))
            return {
                f"{at} {name}": value for at, named in values.items() for name, value in named.items()
            }

        drawn = weighting.bootstrap(statistics, replicates, seed)
    replicated: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in measures}
    for key, column in drawn.items():
        at, name = key.split(" ", 1)
        replicated[at][name] = column
    estimates = {
        name: each.estimates(replicated[name], weighting, seed) for name, each in measures.items()
    }
    slopes = {name: _lines(line, replicated[name], weighting) for name, line in lines.items()}
    uncalibrated = ("brier", "log_loss", "ece", "ece_equal_mass")
    confusion = {
        name: {} if weighting.per_group else {"confusion": each.decisions.confusion}
        for name, each in measures.items()
    }
    return {
        "threshold": answers.threshold,
        **confusion["chosen"],
        "figures": _json(estimates["chosen"]),
        "at_0.5": {
            "threshold": PLAIN_THRESHOLD,
            **confusion["plain"],
            "figures": _json(estimates["plain"]),
        },
        "recalibration": slopes["chosen"],
        "uncalibrated": {
            **_json({name: estimates["raw"][name] for name in uncalibrated}),
            **slopes["raw"],
        },
        "within_file_kinds": within_file_kinds(answers, weighting, replicates, seed),
        "predictive_values": predictive_values(
            estimates["chosen"]["sensitivity"], estimates["chosen"]["specificity"]
        ),
    }


def _json(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}


def _lines(
    line: Recalibration, drawn: Mapping[str, NDArray[np.float64]], weighting: Weighting
) -> dict[str, dict[str, Any]]:
    values = weighting.values(line)
    return _json({name: weighting.estimate(values[name], drawn[name]) for name in line.NAMES})


def within_file_kinds(
    answers: Answers, weighting: Weighting, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Any]:
    """Measure whether scores separate the classes where the file's metadata cannot.

    Args:
        answers: Scores, labels, and height, width and format of each image.
        weighting: Of the images.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        auc: `Estimate.to_dict` of `auc.auc_within`, undefined where no kind of file holds both
        classes; kinds, healthy, tumor and pairs: how many there are that hold both.
    """
    kinds, labels = answers.images.file_kinds, answers.labels
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
    auc = auc_within(answers.scores[inside], labels[inside], kinds[inside])
    part = weighting.subset(inside)
    counted = part.weighted(auc)
    # Groups are drawn from the whole split, as for every other measure.
    drawn = bootstrap(
        lambda weights: {"auc": counted(weights[:, inside])}, weighting.groups, replicates, seed
    )
    estimate = auc_estimate(part.value(auc), labels[inside], part, drawn["auc"], kinds[inside])
    return {"auc": estimate.to_dict(), **about}


def size_bucket(width: int, height: int) -> str:
    """Return the bucket of a file by its longer side, in words."""
    longer = max(width, height)
    below = 0
    for edge in SIZE_EDGES:
        if longer <= edge:
            return f"{below + 1} to {edge}" if below else f"up to {edge}"
        below = edge
    return f"above {below}"


def size_buckets() -> list[str]:
    """Return all buckets, ascending."""
    return [size_bucket(edge, edge) for edge in (*SIZE_EDGES, SIZE_EDGES[-1] + 1)]


def by_format_and_size(
    answers: Answers, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Return the measures of a split's images by file format, the frequent first, and by size.

    Args:
        answers: A network's, at its threshold and temperature.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        {"by_format", "by_size"}: rows of `subgroups`; "by_subclass" too where folders were joined.
    """
    formats, images = answers.images.formats, answers.images
    sizes = [size_bucket(int(w), int(h)) for w, h in zip(images.widths, images.heights, strict=True)]
    frequency = sorted(set(formats), key=lambda name: (-formats.count(name), name))
    kinds = images.subclasses
    joined = (
        {}
        if kinds is None
        else {"by_subclass": subgroups(answers, kinds, sorted(set(kinds)), replicates, seed)}
    )
    return {
        **joined,
        "by_format": subgroups(answers, formats, frequency, replicates, seed),
        "by_size": subgroups(answers, sizes, size_buckets(), replicates, seed),
    }


def subgroups(
    answers: Answers,
    names: Sequence[str],
    order: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return measures of a split's subgroups: by format, by size.

    Args:
        answers: A network's, at its threshold and temperature.
        names: [n], each image's subgroup.
        order: All subgroups, as they are listed; those without an image are left out.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        For each subgroup its name, n, groups, the number of each class, and figures: accuracy,
        sensitivity, specificity and auc, `Estimate.to_dict` each, undefined where a class is missing;
        under "per_group" the figures with each group counted once.
    """
    place = np.array(names)
    rows = []
    for name in order:
        inside = np.flatnonzero(place == name)
        if not len(inside):
            continue
        part = answers.take(inside)
        measures = Measures(part.scores, part.labels, part.threshold, part.temperature or 1.0)
        row: dict[str, Any] = {
            "name": name,
            "n": part.images.n,
            "groups": part.images.group_count,
            **{cls: int((part.labels == label).sum()) for label, cls in enumerate(CLASS_NAMES)},
        }
        for key, weighting in weightings(part.groups).items():
            drawn = weighting.bootstrap(measures, replicates, seed)
            estimates = measures.estimates(drawn, weighting, seed)
            figures = {"figures": _json({which: estimates[which] for which in _SUBGROUP_FIGURES})}
            row |= {key: figures} if key else figures
        rows.append(row)
    return rows
