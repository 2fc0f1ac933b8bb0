"""Splits that the folders of the source give: the images of `Testing` stay test images.

These splits are not made by groups, so copies may lie in two of them. They are counted, and the set is
leaky where there are any.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tumorbatch.dataset_shape import GIVEN, SPLITS
from tumorbatch.errors import ConfigError
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.object_path import Location
from tumorbatch.preprocess.classes import SourceFile
from tumorbatch.preprocess.splits import Fractions, fill

_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))


def split_folders(files: Sequence[SourceFile]) -> list[str]:
    """Return the names of the source's folders for splits, sorted; empty without such folders."""
    return sorted({entry.file.name.split("/", 1)[0] for entry in files if entry.split is not None})


def refuse_without_splits(source: Location, files: Sequence[SourceFile], split_by: str) -> None:
    """Raise `ConfigError` where splits are to be given, and there is nothing for training or test."""
    if split_by != GIVEN:
        return
    present = {entry.split for entry in files}
    missing = [
        name for split, name in (("train", "Training"), ("test", "Testing")) if split not in present
    ]
    if missing:
        raise ConfigError(
            f"--splits given: {source} has no files in a folder {' or '.join(map(repr, missing))} with "
            "class folders inside. Leave the option out to have the images split anew."
        )


def assign_given(
    groups: NDArray[np.int64],
    labels: NDArray[np.int64],
    keys: Sequence[str],
    given: Sequence[str | None],
    fractions: Fractions,
    seed: int,
    settled: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return the split of each image as its folder gives it.

    Without images for validation, whole groups are taken from those for training, as `assign` would, by
    the proportion of the two shares.

    Args:
        groups: int64 [n], the duplicate group of each image.
        labels: int64 [n], the class of each image.
        keys: n distinct strings that name the images for ever (their paths).
        given: n of `SPLITS`.
        fractions: Only the proportion of train and validation counts.
        seed: Of the choice of validation images.
        settled: int64 [n], the split that an image had before, or -1: validation images stay.

    Returns:
        int64 [n]: index into `SPLITS`.

    Raises:
        ConfigError: A split has no image that can be read, or a class too few groups for validation.
    """
    splits = np.array([SPLITS.index(str(name)) for name in given], np.int64)
    pool = splits == _TRAIN
    if not pool.any() or not (splits == _TEST).any():
        name = SPLITS[_TEST if pool.any() else _TRAIN]
        raise ConfigError(
            f"--splits given: none of the files for {name} can be used. See the manifest."
        )
    if (splits == _VALIDATION).any():
        return splits
    before = None
    if settled is not None:
        before = np.where(np.isin(settled[pool], (_TRAIN, _VALIDATION)), settled[pool], -1)
    both = fractions.train + fractions.validation
    shares = (fractions.train / both, fractions.validation / both)
    pool_keys = [key for key, inside in zip(keys, pool, strict=True) if inside]
    chosen, held = fill(groups[pool], labels[pool], pool_keys, shares, seed, before)
    for label, name in enumerate(CLASS_NAMES):
        if (labels[pool] == label).any() and not held[_VALIDATION, label]:
            raise ConfigError(
                f"--splits given: {name} has too few groups of copies or patients in the training "
                "folder to take some for validation. Add images, or a folder `Validation`."
            )
    splits[pool] = chosen
    return splits
