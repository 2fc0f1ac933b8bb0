"""What `explore` finds, as the JSON values of explore.json."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.files import printable
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocess import duplicates as grouping
from tumorbatch.preprocess.explore.metadata import metadata_baseline
from tumorbatch.preprocess.explore.statistics import (
    compare_classes,
    group_means,
    histogram_statistics,
    value_statistics,
)
from tumorbatch.preprocess.explore.survey import VERSIONS, Survey
from tumorbatch.status import Status

_TOP_SIZES = 12
_TOP_GROUPS = 10


def per_class(labels: NDArray[np.int64]) -> dict[str, int]:
    """Return {class name: images} of int64 [n]."""
    counts = np.bincount(labels, minlength=len(CLASS_NAMES)).tolist()
    return dict(zip(CLASS_NAMES, counts, strict=True))


def read_splits(tfrecords: Path) -> dict[str, Any]:
    """Return how a shard set was split, and `files`: {(path, sha256) of a file in it: its split}.

    Raises:
        InputError: The shard set is missing, unfinished or damaged.
        ConfigError: It was written by another version of the format.
    """
    dataset = shardset.load(tfrecords)
    table = shardset.manifest(tfrecords, dataset, "path", "sha256", "status", "split")
    ok = table.filter(pc.equal(table["status"], Status.OK.value))
    paths, sha256, splits = (ok[name].to_pylist() for name in ("path", "sha256", "split"))
    return {
        "folder": printable(str(tfrecords)),
        "split_by": dataset.split_by,
        "leaky": dataset.leaky,
        "shared_groups": dataset.shared["groups"],
        "files": dict(zip(zip(paths, sha256, strict=True), splits, strict=True)),
    }


def findings(
    survey: Survey, splits: Mapping[str, Any] | None, seed: int, workers: int
) -> dict[str, Any]:
    """Return all numbers of explore.json.

    Args:
        survey: With at least one readable image.
        splits: From `read_splits`, or None.
        seed: Of all that is drawn.
        workers: Threads; the result does not depend on them.
    """
    statuses = Counter(survey.rows["status"].to_pylist())
    return {
        "files": {"found": len(survey.rows), **dict(sorted(statuses.items()))},
        "bad_files": _bad_files(survey),
        "classes": per_class(survey.labels),
        **_subclasses(survey),
        "splits": None if splits is None else _splits(survey, splits),
        "images": _images(survey),
        "grey_values": {
            version: {
                name: histogram_statistics(survey.histograms[label, at])
                for label, name in enumerate(CLASS_NAMES)
            }
            for at, version in enumerate(VERSIONS)
        },
        "image_means": {
            version: _image_means(survey, survey.means[at], seed) for at, version in enumerate(VERSIONS)
        },
        "duplicates": _duplicates(survey),
        "metadata": metadata_baseline(
            np.array(survey.column("height"), np.int64),
            np.array(survey.column("width"), np.int64),
            survey.column("format"),
            survey.labels, survey.groups, seed, workers,
        ),
        "histograms": {
            version: {
                name: survey.histograms[label, at].tolist() for label, name in enumerate(CLASS_NAMES)
            }
            for at, version in enumerate(VERSIONS)
        },
    }  # fmt: skip


def _subclasses(survey: Survey) -> dict[str, Any]:
    """Return {"subclasses": {name: {class: images}}} where folders are joined, otherwise nothing."""
    names = survey.column("subclass")
    return {"subclasses": by_class(names, survey.labels)} if any(names) else {}


def _bad_files(survey: Survey) -> list[dict[str, str]]:
    bad = np.setdiff1d(np.arange(len(survey.rows)), survey.index)
    rows = survey.rows.select(["path", "label", "status", "error"]).take(pa.array(bad)).to_pylist()
    return [
        {
            "path": row["path"],
            "class": CLASS_NAMES[row["label"]],
            "status": row["status"],
            "error": row["error"],
        }
        for row in rows
    ]


def _splits(survey: Survey, splits: Mapping[str, Any]) -> dict[str, Any]:
    split_of = splits["files"]
    images = list(zip(survey.column("path"), survey.column("sha256"), strict=True))
    place = np.array([split_of.get(file, "") for file in images])
    return {
        **{name: value for name, value in splits.items() if name != "files"},
        "counts": {split: per_class(survey.labels[place == split]) for split in SPLITS},
        "source_images_in_it": int((place != "").sum()),
        "its_images_not_in_source": len(split_of.keys() - set(images)),
    }


def _images(survey: Survey) -> dict[str, Any]:
    heights, widths = (np.array(survey.column(name), np.int64) for name in ("height", "width"))
    flags = [text.split(",") if text else ["none"] for text in survey.column("flags")]
    return {
        "height": value_statistics(heights.astype(np.float64)),
        "width": value_statistics(widths.astype(np.float64)),
        "sizes": len(np.unique(heights << 32 | widths)),
        "most_frequent_sizes": _sizes(heights, widths, survey.labels),
        "format": by_class(survey.column("format"), survey.labels),
        "bit_depth": by_class(survey.column("bit_depth"), survey.labels),
        "channels": by_class(survey.column("channels"), survey.labels),
        "flags": by_class(
            [flag for image_flags in flags for flag in image_flags],
            np.repeat(survey.labels, list(map(len, flags))),
        ),
    }


def by_class(values: Sequence[object], labels: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Return {value: {class name: images}}, the most frequent value first."""
    table: dict[str, Counter[int]] = {}
    for value, label in zip(values, labels.tolist(), strict=True):
        table.setdefault(str(value), Counter())[label] += 1
    return {
        value: {name: counts[label] for label, name in enumerate(CLASS_NAMES)}
        for value, counts in sorted(table.items(), key=lambda item: (-item[1].total(), item[0]))
    }


def _sizes(
    heights: NDArray[np.int64], widths: NDArray[np.int64], labels: NDArray[np.int64]
) -> list[dict[str, Any]]:
    shapes = list(zip(widths.tolist(), heights.tolist(), strict=True))
    table = [
        {"width": width, "height": height, **per_class(labels[(widths == width) & (heights == height)])}
        for (width, height), _ in Counter(sorted(shapes)).most_common(_TOP_SIZES)
    ]
    return table


def _image_means(survey: Survey, means: NDArray[np.float64], seed: int) -> dict[str, Any]:
    once, labels = group_means(means, survey.labels, survey.groups)
    return {
        **{
            name: value_statistics(means[survey.labels == label])
            for label, name in enumerate(CLASS_NAMES)
        },
        "all_images": compare_classes(means, survey.labels, survey.groups, seed),
        "one_value_a_group": compare_classes(once, labels, np.arange(len(once)), seed),
    }


def _duplicates(survey: Survey) -> dict[str, Any]:
    sha256, pixels = survey.column("sha256"), survey.column("pixel_hash")
    groups, labels = survey.duplicates, survey.labels
    sizes = np.bincount(groups)
    largest = [group for group in np.argsort(-sizes, kind="stable")[:_TOP_GROUPS] if sizes[group] > 1]
    conflict = grouping.under_both_labels(sha256, labels)
    conflict |= grouping.under_both_labels(pixels, labels)
    mixed = np.unique(groups[grouping.under_both_labels(groups.tolist(), labels)])
    paths = survey.column("path")

    def group(number: int) -> dict[str, Any]:
        members = np.flatnonzero(groups == number)
        first = {
            name: next((paths[index] for index in members if labels[index] == label), None)
            for label, name in enumerate(CLASS_NAMES)
        }
        different = len({sha256[index] for index in members})
        return {
            "images": len(members),
            "different_files": different,
            **per_class(labels[members]),
            "first": first,
        }

    of_each_size = enumerate(np.bincount(sizes).tolist())
    return {
        **grouping.count(groups, grouping.Groups(groups, survey.kinds), sha256, pixels),
        "images_with_a_copy": int(sizes[sizes > 1].sum()),
        "groups_of_each_size": {str(size): count for size, count in of_each_size if size and count},
        "pixel_identical_under_both_classes": int(conflict.sum()),
        "groups_with_both_classes": len(mixed),
        "largest": [group(number) for number in largest],
        "with_both_classes": [group(number) for number in mixed[:_TOP_GROUPS]],
    }
