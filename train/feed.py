"""Shards to batches: read in parallel, kept as uint8 in memory, shuffled, augmented, prefetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch.scoring import Scorer
from tumorbatch.shard_reader import as_written, read_names, read_split
from tumorbatch.shardset import Dataset
from tumorbatch.train.augment import augment
from tumorbatch.train.config import Augmentation


def finished(
    pixels: Any,
    labels: Any,
    augmentation: Augmentation | None,
    seed: Sequence[Any],
    weights: Any = None,
) -> tuple[Any, ...]:
    """Convert a batch to the form that the network takes.

    Args:
        pixels: uint8 [B, height, width], or [B, height, width, channels].
        labels: int64 [B].
        augmentation: Random changes, or None.
        seed: Two integers.
        weights: float32 [B], what each image weighs in the loss, or None.

    Returns:
        uint8 [B, height, width, channels] and float32 [B, 1]; with `weights` also these, float32 [B].
    """
    if len(pixels.shape) == 3:
        pixels = pixels[..., tf.newaxis]
    if augmentation is not None:
        pixels = augment(pixels, augmentation, seed)
    batch = pixels, tf.cast(labels, tf.float32)[:, tf.newaxis]
    return batch if weights is None else (*batch, weights)


def batch_seed(seed: int, epoch: int, step: Any) -> list[Any]:
    """Return the seed of a batch's changes; it depends on the step, not on parallel calls."""
    return [seed * 100_003 + epoch, step]


@dataclass(frozen=True, slots=True)
class Images:
    """One split in memory.

    Attributes:
        pixels: uint8 [n, height, width], or [n, height, width, channels].
        labels: int64 [n], 0 Healthy, 1 Tumor.
        weights: float32 [n], what each image weighs in the loss; None: all weigh 1.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def tumors(self) -> int:
        """Return the number of images of the positive class."""
        return int(self.labels.sum())

    def feed(
        self, batch_size: int, augmentation: Augmentation | None, seed: int, fixed_shape: bool
    ) -> "TrainingFeed":
        """Return the batches for training."""
        return TrainingFeed(self, batch_size, augmentation, seed, fixed_shape)

    def scored(self, score: Scorer) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return logits, float32 [n], and labels, int64 [n]."""
        return score(self.pixels), self.labels


def load_split(
    folder: Path, dataset: Dataset, split: str, weights: Mapping[str, float] | None = None
) -> Images:
    """Read one split into memory, as `shard_reader.read_split`.

    Args:
        folder: The shard set.
        dataset: Its description.
        split: Which one.
        weights: {path: what the image weighs in the loss}, or None.
    """
    images = Images(*read_split(folder, dataset, split))
    if weights is None:
        return images
    names = read_names(folder, dataset, split)
    return replace(images, weights=np.array([weights[name] for name in names], np.float32))


def steps(count: int, batch_size: int, fixed_shape: bool) -> int:
    """Return the number of batches for `count` images, with or without the remainder."""
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
            self._weights = None if images.weights is None else tf.constant(images.weights)
        self._batch_size = batch_size
        self._augmentation = augmentation
        self._seed = seed
        self._fixed_shape = fixed_shape
        self.steps = steps(images.count, batch_size, fixed_shape)

    def epoch(self, number: int, start: int = 0) -> Any:
        """Yield every image once, in an order that depends on seed and epoch alone.

        Args:
            number: Of the epoch, from 0.
            start: Batches at its beginning that are left out, as they have been trained on.

        Returns:
            `tf.data.Dataset` of (uint8 [B, height, width, channels], float32 [B, 1]), see `finished`.
        """
        order = np.random.default_rng([self._seed, number]).permutation(len(self._labels))

        def gather(step: Any, indices: Any) -> tuple[Any, ...]:
            return finished(
                tf.gather(self._pixels, indices),
                tf.gather(self._labels, indices),
                self._augmentation,
                batch_seed(self._seed, number, step),
                None if self._weights is None else tf.gather(self._weights, indices),
            )

        with tf.device("/CPU:0"):
            data = tf.data.Dataset.from_tensor_slices(order)
            # Indices are batched, not images: one gather a batch instead of an op call an image.
            data = data.batch(self._batch_size, drop_remainder=self._fixed_shape).enumerate()
            data = data.skip(start)
            data = data.map(as_written(gather), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            return data.prefetch(tf.data.AUTOTUNE)
