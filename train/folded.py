"""The images of a fold: what is trained on and what is held out, from training and validation split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import ConfigError
from tumorbatch.fold_images import FoldImages, fold_images
from tumorbatch.folds import SPLITS as DIVIDED
from tumorbatch.folds import Fold
from tumorbatch.labels import HEALTHY, TUMOR
from tumorbatch.runtime import free_memory
from tumorbatch.shard_reader import read_names, read_split
from tumorbatch.shardset import Dataset
from tumorbatch.train.config import Schedule
from tumorbatch.train.feed import Images
from tumorbatch.train.group_weights import weigh
from tumorbatch.train.phases import class_weights

_MEMORY_SHARE = 0.6  # of what is free, as in `stream`


@dataclass(frozen=True, slots=True)
class FoldData:
    """A fold in memory.

    Attributes:
        by: How the folds were made, see `folds.Fold`.
        train: What is trained on, in the order of the paths.
        held_out: The fold, likewise.
        index: int64 [held out], the number of each held-out image among all.
        images: All of them.
    """

    by: str
    train: Images
    held_out: Images
    index: NDArray[np.int64]
    images: FoldImages

    @property
    def shapes(self) -> list[str]:
        """Return every "WIDTHxHEIGHT" that is trained on, sorted by the sides."""
        held = set(self.index.tolist())
        shapes = {shape for number, shape in enumerate(self.images.shapes) if number not in held}
        return sorted(shapes, key=lambda shape: [int(side) for side in shape.split("x")])


def load(folder: Path, dataset: Dataset, fold: Fold, schedule: Schedule) -> FoldData:
    """Read training and validation split into memory, and divide them.

    Args:
        folder: The shard set.
        dataset: Its description.
        fold: What is held out.
        schedule: Gives the weights of classes and groups.

    Raises:
        ConfigError: They do not fit into the memory, or cannot be divided so often.
        InputError: A shard or the manifest is damaged.
    """
    _refuse_too_large(dataset)
    images = fold_images(folder, dataset, fold.count, fold.by)
    pixels, names = [], []
    for split in DIVIDED:
        pixels.append(read_split(folder, dataset, split)[0])
        names += read_names(folder, dataset, split)
    place = {name: number for number, name in enumerate(names)}
    ordered = np.concatenate(pixels)[[place[path] for path in images.paths]]
    held = images.folds == fold.number
    labels = images.labels
    count, tumors = int((~held).sum()), int((labels[~held] == TUMOR).sum())
    by_class = class_weights(schedule, count, tumors)
    in_loss = weigh(
        images.groups[~held],
        schedule.group_weights,
        None if by_class is None else np.array([by_class[HEALTHY], by_class[TUMOR]])[labels[~held]],
    )
    weights = None if in_loss is None else in_loss.astype(np.float32)
    return FoldData(
        fold.by,
        Images(ordered[~held], labels[~held], weights),
        Images(ordered[held], labels[held]),
        np.flatnonzero(held),
        images,
    )


def _refuse_too_large(dataset: Dataset) -> None:
    """Raise `ConfigError` unless the images fit: as read, in their order, and as TensorFlow's own."""
    images = sum(3 * dataset.records(split) for split in SPLITS if split in DIVIDED)
    size, free = images * dataset.preprocessing.size**2, free_memory()
    if free is not None and size > _MEMORY_SHARE * free:
        raise ConfigError(
            f"Folds need {size / 1e9:.1f} GB of memory for the images, and {free / 1e9:.1f} GB are "
            "free. Use a machine with more memory, or shards of a smaller size (--size)."
        )
