"""What each training image weighs in the loss, by the size of its duplicate group."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.shardset import Dataset

_POWERS = {"sqrt": 0.5, "equal": 1.0}


def group_weights(
    folder: Path, dataset: Dataset, how: str, class_weights: Mapping[int, float] | None = None
) -> dict[str, float] | None:
    """Return what each image of the training split weighs in the loss, by its path.

    A public set holds some originals many times. Weighed "equal", every group of copies moves the
    network as much as one image without copies does; "sqrt" is half-way.

    Args:
        folder: The shard set.
        dataset: Its description.
        how: One of `config.GROUP_WEIGHTS`.
        class_weights: {label: its images' weight}, which is multiplied in.

    Returns:
        {path: weight}, of mean 1 over the images; None if all of them weigh 1.

    Raises:
        InputError: The manifest is missing or damaged.
        TryAgainError: Another run has replaced the set since `dataset` was read.
    """
    if how == "none":
        return None
    table = shardset.manifest(folder, dataset, "path", "class", "split", "duplicate_group")
    rows = table.filter(pc.equal(table["split"], "train"))
    groups = np.array(rows["duplicate_group"].to_pylist(), np.int64)
    by_class = None
    if class_weights is not None:
        labels = [dataset.classes.index(name) for name in rows["class"].to_pylist()]
        by_class = np.array([class_weights[label] for label in labels])
    weights = weigh(groups, how, by_class)
    if weights is None:
        return None
    return dict(zip(rows["path"].to_pylist(), weights.tolist(), strict=True))


def weigh(
    groups: NDArray[np.int64], how: str, by_class: NDArray[np.float64] | None = None
) -> NDArray[np.float64] | None:
    """Return what each image weighs in the loss, float64 [n] of mean 1; None if all weigh 1.

    Args:
        groups: int64 [n], duplicate groups.
        how: One of `config.GROUP_WEIGHTS`.
        by_class: float64 [n], its class's weight, which is multiplied in.
    """
    if how == "none":
        return None
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights = 1 / sizes[place.ravel()] ** _POWERS[how]
    if by_class is not None:
        weights *= by_class
    return np.asarray(weights / weights.mean(), np.float64)
