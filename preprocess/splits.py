"""Which group goes into which split: stratified by class, and never a group in two splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import ConfigError
from tumorbatch.group_order import largest_first
from tumorbatch.labels import CLASS_NAMES


@dataclass(frozen=True, slots=True)
class Fractions:
    """Shares of the images; they add up to 1.

    Attributes:
        train: Share that is trained on.
        validation: Share that early stopping, thresholds and the choice of a model see.
        test: Share that is looked at once, at the end.
    """

    train: float = 0.70
    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if not (min(self.values()) > 0 and abs(sum(self.values()) - 1) <= 1e-9):  # nan is neither
            raise ConfigError(
                "The three split shares must be above 0 and add up to 1. "
                f"Received: {self.train:g}/{self.validation:g}/{self.test:g}."
            )

    def values(self) -> tuple[float, float, float]:
        """Return the fractions in the order of `SPLITS`."""
        return (self.train, self.validation, self.test)


def assign(
    groups: NDArray[np.int64],
    labels: NDArray[np.int64],
    keys: Sequence[str],
    fractions: Fractions,
    seed: int,
    settled: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Give each image's group to a split.

    Groups are taken largest first, equal sizes in an order that depends only on the seed and the
    keys; each goes to the split that it would leave emptiest, measured against its target by
    Webster's rule, (held + half the group) / target, in the fullest of the classes that the group
    holds. Large groups so spread over the splits in proportion, and single images even it out.

    Args:
        groups: int64 [n], the duplicate group of each image.
        labels: int64 [n], the class of each image.
        keys: n distinct strings that name the images for ever (their paths).
        fractions: The targets.
        seed: Another seed gives another split.
        settled: int64 [n], the split that an image had before, or -1. Its group stays there. Where
            new images joined groups of several splits into one, train comes before validation, and
            validation before test: nothing that was ever learned from becomes a test image.

    Returns:
        int64 [n]: index into `SPLITS`.

    Raises:
        ConfigError: A class has too few groups to put one into each split.
    """
    splits, held = fill(groups, labels, keys, fractions.values(), seed, settled)
    for label, name in enumerate(CLASS_NAMES):
        if (held[:, label] == 0).any():
            missing = SPLITS[int(np.argmin(held[:, label]))]
            of_class = len(np.unique(groups[labels == label]))
            raise ConfigError(
                f"{name} has {int((labels == label).sum())} images in {of_class} "
                "groups of duplicates or patients: too few for train, validation and test to get one "
                f"each by their shares ({missing} got none). Add images, change the shares by --split, "
                "give --no-patient-id where all DICOM files carry one made-up PatientID, or --split-by "
                "file if they are not duplicates."
            )
    return splits


def fill(
    groups: NDArray[np.int64],
    labels: NDArray[np.int64],
    keys: Sequence[str],
    shares: Sequence[float],
    seed: int,
    settled: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each image's group to one of several splits, as `assign` does.

    Args:
        groups: As for `assign`.
        labels: As for `assign`.
        keys: As for `assign`.
        shares: Target share of each split.
        seed: As for `assign`.
        settled: As for `assign`.

    Returns:
        int64 [n], the split of each image; int64 [split, class], the images of each.
    """
    inverse, counts, order = largest_first(groups, labels, keys, str(seed))
    totals = counts.sum(axis=0)
    targets = np.outer(shares, totals)  # [split, class]
    images_assigned = np.zeros_like(targets)
    chosen = np.full(len(counts), len(shares), np.int64)
    if settled is not None:
        np.minimum.at(chosen, inverse, np.where(settled < 0, len(shares), settled))
    is_settled = chosen < len(shares)
    np.add.at(images_assigned, chosen[is_settled], counts[is_settled])
    for group in order:
        if is_settled[group]:
            continue
        fill = (images_assigned + counts[group] / 2) / np.maximum(targets, 1e-12)
        fill[:, counts[group] == 0] = 0
        chosen[group] = int(np.argmin(fill.max(axis=1)))
        images_assigned[chosen[group]] += counts[group]
    return chosen[inverse], images_assigned.astype(np.int64)
