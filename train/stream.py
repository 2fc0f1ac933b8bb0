"""A split that stays on disk: its shards are read in each epoch, with bounded memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import ConfigError
from tumorbatch.labels import CLASS_NAMES, TUMOR
from tumorbatch.runtime import free_memory
from tumorbatch.scoring import Scorer
from tumorbatch.shard_reader import (
    READ_BUFFER,
    READERS,
    as_written,
    parse,
    parse_names,
    score_split,
)
from tumorbatch.shardset import Dataset
from tumorbatch.train.config import Augmentation
from tumorbatch.train.feed import Images, batch_seed, finished, load_split, steps

_SHUFFLE_BYTES = 256 << 20  # of records that wait to be drawn from
_MEMORY_SHARE = 0.6  # of what is free: the rest is for the network's activations


@dataclass(frozen=True, slots=True)
class Shards:
    """One split on disk.

    Attributes:
        folder: The shard set.
        dataset: Its description.
        split: Which one.
        weights: {path: what the image weighs in the loss}; None: all weigh 1.
    """

    folder: Path
    dataset: Dataset
    split: str
    weights: Mapping[str, float] | None = None

    @property
    def count(self) -> int:
        """Return the number of images."""
        return self.dataset.records(self.split)

    @property
    def tumors(self) -> int:
        """Return the number of images of the positive class."""
        return self.dataset.counts[self.split][CLASS_NAMES[TUMOR]]

    def feed(
        self, batch_size: int, augmentation: Augmentation | None, seed: int, fixed_shape: bool
    ) -> "StreamFeed":
        """Return the batches for training."""
        return StreamFeed(self, batch_size, augmentation, seed, fixed_shape)

    def scored(self, score: Scorer) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return logits, float32 [n], and labels, int64 [n]."""
        return score_split(self.folder, self.dataset, self.split, score)


class StreamFeed:
    """Batches of the training split, epoch by epoch, from its shards.

    Shards come in a new order each epoch, several of them at a time, and their records go through a
    shuffle buffer: not the global shuffle of `TrainingFeed`, but every image once an epoch, in an order
    that seed and epoch alone decide. Arguments as there.
    """

    def __init__(
        self,
        shards: Shards,
        batch_size: int,
        augmentation: Augmentation | None,
        seed: int,
        fixed_shape: bool,
    ) -> None:
        self._shards = shards
        self._batch_size = batch_size
        self._augmentation = augmentation
        self._seed = seed
        self._fixed_shape = fixed_shape
        self.steps = steps(shards.count, batch_size, fixed_shape)
        record = len(shards.dataset.available) * shards.dataset.preprocessing.size**2
        self._weights = None if shards.weights is None else _table(shards.weights)
        self._buffer = max(1, min(shards.count, _SHUFFLE_BYTES // record))

    def epoch(self, number: int, start: int = 0) -> Any:
        """Yield batches as `TrainingFeed.epoch`; a damaged shard raises `tf.errors.OpError`."""
        rng = np.random.default_rng([self._seed, number])
        shards = self._shards
        names = shards.dataset.paths(shards.folder, shards.split)
        names = [names[index] for index in rng.permutation(len(names))]

        def prepare(step: Any, serialized: Any) -> tuple[Any, ...]:
            seed = batch_seed(self._seed, number, step)
            table = self._weights
            weights = None if table is None else table.lookup(parse_names(serialized))
            return finished(*parse(serialized, shards.dataset), self._augmentation, seed, weights)

        with tf.device("/CPU:0"):
            data = tf.data.Dataset.from_tensor_slices(names)
            data = data.interleave(
                as_written(lambda name: tf.data.TFRecordDataset(name, buffer_size=READ_BUFFER)),
                cycle_length=min(len(names), READERS),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            # A shard that was cut between two records, or emptied, reads as a clean end.
            data = data.apply(tf.data.experimental.assert_cardinality(shards.count))
            # Before parsing, while a record is one string.
            data = data.shuffle(self._buffer, seed=int(rng.integers(2**62)))
            data = data.batch(self._batch_size, drop_remainder=self._fixed_shape).enumerate()
            # Behind the shuffle: what is left out are the same batches that were trained on.
            data = data.skip(start)
            data = data.map(
                as_written(prepare), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )
            return data.prefetch(tf.data.AUTOTUNE)


def _table(weights: Mapping[str, float]) -> Any:
    """Return the weights as a table that a `tf.data` pipeline can look into."""
    with tf.device("/CPU:0"):
        pairs = tf.lookup.KeyValueTensorInitializer(
            list(weights), np.array(list(weights.values()), np.float32)
        )
        # No image is missing: its record was written from the same row of the manifest.
        return tf.lookup.StaticHashTable(pairs, default_value=float("nan"))


def splits(
    folder: Path, dataset: Dataset, feed: str, weights: Mapping[str, float] | None = None
) -> tuple[dict[str, Images | Shards], str]:
    """Return all three splits, in memory or on disk.

    Args:
        folder: The shard set.
        dataset: Its description.
        weights: {path of a training image: what it weighs in the loss}; None: all weigh 1.
        feed: "ram", "stream", or "auto": in memory where they take less than 60 % of what is free.

    Returns:
        {split: images}, and "ram" or "stream".

    Raises:
        InputError: A shard is damaged; the text names it.
        ConfigError: `feed` is "ram", and they do not fit.
    """
    # The training images twice: as read, and as TensorFlow's constant.
    images = sum(dataset.records(split) for split in (*SPLITS, "train"))
    size, free = images * math.prod(dataset.preprocessing.shape), free_memory()
    fits = free is None or size <= _MEMORY_SHARE * free
    if feed == "ram" and not fits:
        raise ConfigError(
            f"The images need {size / 1e9:.1f} GB of memory, and {(free or 0) / 1e9:.1f} GB are "
            "free. Use --feed stream, a machine with more memory, or shards of a smaller size (--size)."
        )
    if feed == "stream" or not fits:
        on_disk: dict[str, Images | Shards] = {
            split: Shards(folder, dataset, split) for split in SPLITS
        }
        return {**on_disk, "train": Shards(folder, dataset, "train", weights)}, "stream"
    of_split = {"train": weights}
    return {split: load_split(folder, dataset, split, of_split.get(split)) for split in SPLITS}, "ram"
