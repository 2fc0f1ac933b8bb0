"""Which fold holds out which image of a shard set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.copies import components
from tumorbatch.errors import ConfigError
from tumorbatch.folds import SHAPE, SPLITS
from tumorbatch.group_order import largest_first
from tumorbatch.shardset import Dataset

_UNEQUAL = 1.5  # times its share: a fold from here on is named


@dataclass(frozen=True, slots=True)
class FoldImages:
    """The images of training and validation split, sorted by path.

    Attributes:
        paths: In the manifest.
        folds: int64 [n], which fold holds each of them out.
        labels: int64 [n], 0 Healthy, 1 Tumor.
        groups: int64 [n], duplicate groups.
        shapes: "WIDTHxHEIGHT" of each.
    """

    paths: tuple[str, ...]
    folds: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    shapes: tuple[str, ...]

    @property
    def imbalance(self) -> str:
        """Return a sentence where one fold holds far more images than its share; otherwise ""."""
        held = np.bincount(self.folds)
        count, largest = len(self.folds), int(held.max())
        if largest * len(held) <= _UNEQUAL * count:
            return ""
        return (
            f"the folds are unequal: one holds {largest:,} of {count:,} images, which copies and equal "
            f"shapes connect. The network that has not seen them is trained on {count - largest:,}"
        )


def fold_images(folder: Path, dataset: Dataset, count: int, by: str) -> FoldImages:
    """Divide the training and validation images of a shard set; the same in every run.

    Args:
        folder: The shard set.
        dataset: Its description; its seed decides.
        count: Of the folds.
        by: `GROUP`: copies stay together; `SHAPE`: so do images of one height and width.

    Raises:
        ConfigError: There are too few groups of a class.
        InputError: The manifest is missing or damaged.
        TryAgainError: Another run has replaced the set since `dataset` was read.
    """
    names = ("path", "class", "split", "duplicate_group", "width", "height")
    table = shardset.manifest(folder, dataset, *names)
    rows = table.filter(pc.is_in(table["split"], pa.array(SPLITS, pa.string()))).sort_by("path")
    paths, classes, _, groups, widths, heights = (rows[name].to_pylist() for name in names)
    shapes = tuple(f"{width}x{height}" for width, height in zip(widths, heights, strict=True))
    labels = np.array([dataset.classes.index(name) for name in classes], np.int64)
    units = np.array(groups, np.int64)
    if by == SHAPE:
        units = _joined(units, np.unique(shapes, return_inverse=True)[1])
    folds = assign(units, labels, paths, count, dataset.seed)
    for label, name in enumerate(dataset.classes):
        held = len(np.unique(folds[labels == label]))
        if held < count:
            raise ConfigError(
                f"The images of {name} can be divided into {held} folds only: copies "
                f"{'and images of one shape ' if by == SHAPE else ''}stay together. Give a smaller "
                "--folds."
            )
    return FoldImages(tuple(paths), folds, labels, np.array(groups, np.int64), shapes)


def _joined(groups: NDArray[np.int64], shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64 [n]: equal where images are joined by group or shape, directly or through others."""
    _, groups = np.unique(groups, return_inverse=True)
    first, second = groups.ravel(), groups.max(initial=0) + 1 + shapes.ravel()
    return components(first, second, int(second.max(initial=0)) + 1)[first]


def assign(
    units: NDArray[np.int64], labels: NDArray[np.int64], keys: Sequence[str], count: int, seed: int
) -> NDArray[np.int64]:
    """Give each unit of images to a fold, so that the folds hold about the same number of each class.

    The largest unit first, equal ones in an order that only seed and keys decide; each goes to the fold
    whose fuller class stays emptiest.

    Args:
        units: int64 [n]; images of one number stay together.
        labels: int64 [n], 0 or 1.
        keys: n distinct strings that name the images.
        count: Of the folds.
        seed: Another seed gives other folds.

    Returns:
        int64 [n], from 0 to count - 1.
    """
    inverse, counts, order = largest_first(units, labels, keys, f"{seed}:fold")
    targets = np.maximum(counts.sum(axis=0) / count, 1e-12)
    held = np.zeros((count, 2))
    chosen = np.zeros(len(counts), np.int64)
    for unit in order:
        fill = (held + counts[unit]) / targets
        fill[:, counts[unit] == 0] = 0
        chosen[unit] = int(np.argmin(fill.max(axis=1)))
        held[chosen[unit]] += counts[unit]
    return np.asarray(chosen[inverse], np.int64)
