"""The order in which groups of images are dealt out to splits and folds."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tumorbatch.labels import CLASS_NAMES


def largest_first(
    groups: NDArray[np.int64], labels: NDArray[np.int64], keys: Sequence[str], salt: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """Return the groups, the largest first, equal ones in an order that salt and keys decide.

    Args:
        groups: int64 [n]; images of one number stay together.
        labels: int64 [n], 0 or 1.
        keys: n distinct strings that name the images; a group is known by its smallest.
        salt: Another gives another order of equal groups.

    Returns:
        int64 [n], each image's group, from 0; int64 [group, class], its images; the groups in order.
    """
    present, inverse = np.unique(groups, return_inverse=True)
    inverse = inverse.ravel()
    counts = np.zeros((len(present), len(CLASS_NAMES)), np.int64)
    np.add.at(counts, (inverse, labels), 1)
    names = [""] * len(present)
    for group, key in zip(inverse.tolist(), keys, strict=True):
        if not names[group] or key < names[group]:
            names[group] = key
    ranks = [hashlib.sha256(f"{salt}:{name}".encode()).hexdigest() for name in names]
    sizes = counts.sum(axis=1)
    order = sorted(range(len(present)), key=lambda group: (-sizes[group], ranks[group]))
    return inverse, counts, order
