"""Shards to batches: read in parallel, kept as uint8 in memory, shuffled, augmented, prefetched."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch import records
from tumorbatch.errors import InputError
from tumorbatch.scoring import Scorer
from tumorbatch.shardset import Dataset
from tumorbatch.train.augment import augment
from tumorbatch.train.config import Augmentation

READERS = 16  # shards that are read side by side, at most
READ_BATCH = 256  # records parsed by one op call; parsing them one by one costs three times as much
READ_BUFFER = 8 << 20  # bytes read ahead from each shard

_ADVICE = "Make the shards again with `tumorbatch shard --overwrite`."
_FEATURES = {
    records.IMAGE: tf.io.FixedLenFeature([], tf.string),
    records.LABEL: tf.io.FixedLenFeature([], tf.int64),
}


def parse(serialized: Any, size: int) -> tuple[Any, Any]:
    """Records to images and labels.

    Args:
        serialized: string [n], `tf.train.Example` each.
        size: Side of the images, in pixels.

    Returns:
        uint8 [n, size, size] and int64 [n].
    """
    parsed = tf.io.parse_example(serialized, _FEATURES)
    flat = tf.io.decode_raw(parsed[records.IMAGE], tf.uint8)
    # An image of another size must be an error: `fixed_length` would pad or cut it.
    flat = tf.ensure_shape(flat, [None, size * size])
    return tf.reshape(flat, [-1, size, size]), parsed[records.LABEL]


def finished(
    pixels: Any, labels: Any, augmentation: Augmentation | None, seed: Sequence[Any]
) -> tuple[Any, Any]:
    """A batch as the network takes it.

    Args:
        pixels: uint8 [B, height, width].
        labels: int64 [B].
        augmentation: Random changes, or None.
        seed: Two integers.

    Returns:
        uint8 [B, height, width, 1] and float32 [B, 1].
    """
    pixels = pixels[..., tf.newaxis]
    if augmentation is not None:
        pixels = augment(pixels, augmentation, seed)
    return pixels, tf.cast(labels, tf.float32)[:, tf.newaxis]


def batch_seed(seed: int, epoch: int, step: Any) -> list[Any]:
    """Of a batch's changes: the step is part of it, so parallel calls cannot change the outcome."""
    return [seed * 100_003 + epoch, step]


@dataclass(frozen=True, slots=True)
class Images:
    """One split in memory.

    Attributes:
        pixels: uint8 [n, height, width].
        labels: int64 [n], 0 Healthy, 1 Tumor.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Images."""
        return len(self.labels)

    @property
    def tumors(self) -> int:
        """Images of the positive class."""
        return int(self.labels.sum())

    def feed(
        self, batch_size: int, augmentation: Augmentation | None, seed: int, fixed_shape: bool
    ) -> "TrainingFeed":
        """Batches for training."""
        return TrainingFeed(self, batch_size, augmentation, seed, fixed_shape)

    def scored(self, score: Scorer) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Logits, float32 [n], and labels, int64 [n]."""
        return score(self.pixels), self.labels


def load_split(folder: Path, dataset: Dataset, split: str) -> Images:
    """Read one split, all shards in parallel, in an order that the shards alone decide.

    Raises:
        InputError: A shard is damaged; the text names it.
    """
    shards = dataset.split(split)
    total = dataset.records(split)
    size = dataset.preprocessing.size
    pixels = np.empty((total, size, size), np.uint8)
    labels = np.empty(total, np.int64)
    names = [os.fspath(folder / shard.name) for shard in shards]
    data = tf.data.TFRecordDataset(
        names, buffer_size=READ_BUFFER, num_parallel_reads=min(len(names), READERS)
    )
    # A shard that was cut between two records, or emptied, reads as a clean end; only the count
    # from dataset.json shows it.
    data = data.apply(tf.data.experimental.assert_cardinality(total))
    data = data.batch(READ_BATCH)
    data = data.map(
        lambda serialized: parse(serialized, size),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    data = data.prefetch(tf.data.AUTOTUNE)
    at = 0
    try:
        for images, classes in data.as_numpy_iterator():
            pixels[at : at + len(images)] = images
            labels[at : at + len(images)] = classes
            at += len(images)
    except (tf.errors.OpError, ValueError) as error:
        raise damage(folder, dataset, split, error) from error
    return Images(pixels, labels)


def damage(folder: Path, dataset: Dataset, split: str, error: Exception) -> InputError:
    """The error of a split that cannot be read; it names the shard, which TensorFlow's does not."""
    return damaged_shard(folder, dataset, split) or InputError(
        f"The {split} shards in {folder} cannot be read: {error}. {_ADVICE}"
    )


def damaged_shard(folder: Path, dataset: Dataset, split: str) -> InputError | None:
    """What is wrong with the first damaged shard of a split; None where all are whole."""
    for shard in dataset.split(split):
        path = folder / shard.name
        try:
            count = sum(1 for _ in records.read(path))
        except InputError as found:
            return InputError(f"{found} {_ADVICE}")
        except OSError as found:
            return InputError(f"{path} is missing or unreadable: {found.strerror}. {_ADVICE}")
        if count != shard.records:
            return InputError(
                f"{path} holds {count} records and should hold {shard.records}. {_ADVICE}"
            )
    return None


def steps(count: int, batch_size: int, fixed_shape: bool) -> int:
    """Batches of `count` images, with or without the remainder."""
    full, rest = divmod(count, batch_size)
    return full + (rest > 0 and not fixed_shape)


class TrainingFeed:
    """Batches of the training split, epoch by epoch, from memory.

    Args:
        images: The training split; it is copied into TensorFlow's memory once.
        batch_size: Images a batch.
        augmentation: Random changes, or None.
        seed: Of order and changes.
        fixed_shape: Leave out an epoch's remainder, which would make XLA compile a second shape. The
            order changes with each epoch, so no image is left out for good.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        augmentation: Augmentation | None,
        seed: int,
        fixed_shape: bool,
    ) -> None:
        # On the CPU: a GPU's memory is for the network.
        with tf.device("/CPU:0"):
            self._pixels = tf.constant(images.pixels)
            self._labels = tf.constant(images.labels)
        self._batch_size = batch_size
        self._augmentation = augmentation
        self._seed = seed
        self._fixed_shape = fixed_shape
        self.steps = steps(images.count, batch_size, fixed_shape)

    def epoch(self, number: int, start: int = 0) -> Any:
        """Every image once, in an order that seed and epoch alone decide.

        Args:
            number: Of the epoch, from 0.
            start: Batches at its beginning that are left out, as they have been trained on.

        Returns:
            `tf.data.Dataset` of (uint8 [B, height, width, 1], float32 [B, 1]).
        """
        order = np.random.default_rng([self._seed, number]).permutation(len(self._labels))

        def gather(step: Any, indices: Any) -> tuple[Any, Any]:
            return finished(
                tf.gather(self._pixels, indices),
                tf.gather(self._labels, indices),
                self._augmentation,
                batch_seed(self._seed, number, step),
            )

        with tf.device("/CPU:0"):
            data = tf.data.Dataset.from_tensor_slices(order)
            # Indices are batched, not images: one gather a batch instead of an op call an image.
            data = data.batch(self._batch_size, drop_remainder=self._fixed_shape).enumerate()
            data = data.skip(start)
            data = data.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            return data.prefetch(tf.data.AUTOTUNE)
