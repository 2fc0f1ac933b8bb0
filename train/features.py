"""Features of a frozen base, computed once and trained on in many epochs.

A frozen base gives the same features for the same pixels in every epoch. So they are kept: those of the
validation images, and those of K copies of the training images, each with its own random changes.
"""

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch.architectures import BASE
from tumorbatch.errors import ConfigError
from tumorbatch.progress import Progress
from tumorbatch.runtime import free_memory
from tumorbatch.scoring import Scorer
from tumorbatch.shard_reader import as_written
from tumorbatch.train.feed import Images, TrainingFeed
from tumorbatch.train.stream import Shards, StreamFeed

log = logging.getLogger(__name__)

_MEMORY_SHARE = 0.6  # of what is free; see `stream`


def split_at_base(network: Any) -> tuple[Any, Any]:
    """Split a pretrained network into its base, with what comes before it, and its head.

    Args:
        network: From `architectures.build`.

    Returns:
        `keras.Model`, uint8 [N, size, size, 1] -> features [N, h, w, c]; `keras.Model`, features ->
        logits [N, 1]. Both share the network's weights.
    """
    number = [layer.name for layer in network.layers].index(BASE)
    base = network.layers[number]
    x = given = keras.Input(base.output.shape[1:], dtype=base.output.dtype)
    for layer in network.layers[number + 1 :]:
        x = layer(x)
    head = keras.Model(given, x, name=network.name)
    return keras.Model(network.input, base(network.layers[number - 1].output)), head


class FeatureFeed:
    """Batches of the training split's features, epoch by epoch, from memory.

    Copy k of the images is epoch k of `feed`, with that epoch's changes. Epoch e trains on copy
    e mod K, in its own order.

    Args:
        base: uint8 [N, size, size, 1] -> features; see `split_at_base`.
        feed: The batches of images.
        count: Training images.
        copies: K, at least 1.
        batch_size: Images a batch.
        seed: Of the order.
        fixed_shape: Leave out an epoch's remainder; as in `feed`.
        between: Is called after each batch; what it raises ends the work.

    Raises:
        ConfigError: The features do not fit into the memory.
    """

    def __init__(
        self,
        base: Any,
        feed: TrainingFeed | StreamFeed,
        count: int,
        copies: int,
        batch_size: int,
        seed: int,
        fixed_shape: bool,
        between: Callable[[], None],
    ) -> None:
        _refuse_too_many(base, count, copies)
        self.steps = feed.steps
        self._batch_size = batch_size
        self._seed = seed
        self._fixed_shape = fixed_shape
        forward = tf.function(lambda images: base(images, training=False), autograph=False)
        self._copies: list[tuple[Any, ...]] = []
        with Progress("features", "images", copies * count) as progress:
            for number in range(copies):
                batches = []
                for images, *others in feed.epoch(number):
                    features = forward(images)
                    with tf.device("/CPU:0"):  # a GPU's memory is for the network
                        batches.append((tf.identity(features), *others))
                    progress.advance(len(images))
                    between()
                with tf.device("/CPU:0"):
                    columns = zip(*batches, strict=True)
                    self._copies.append(tuple(tf.concat(column, 0) for column in columns))

    def epoch(self, number: int, start: int = 0) -> Any:
        """Yield every image of a copy once.

        Args:
            number: Of the epoch, from 0.
            start: Batches at its beginning that are left out, as they have been trained on.

        Returns:
            `tf.data.Dataset` of features [B, h, w, c], labels float32 [B, 1] and, where the feed of
            images has them, weights float32 [B].
        """
        columns = self._copies[number % len(self._copies)]
        # Not the order of the feed's epoch: copy k would have the same one whenever it comes.
        order = np.random.default_rng([self._seed, number, 1]).permutation(len(columns[0]))

        def gather(indices: Any) -> tuple[Any, ...]:
            return tuple(tf.gather(column, indices) for column in columns)

        with tf.device("/CPU:0"):
            data = tf.data.Dataset.from_tensor_slices(order)
            data = data.batch(self._batch_size, drop_remainder=self._fixed_shape).skip(start)
            data = data.map(as_written(gather), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            return data.prefetch(tf.data.AUTOTUNE)


class ValidationFeatures:
    """The validation split's features, scored by the head alone.

    Args:
        base: uint8 [N, size, size, 1] -> features.
        head: Features -> logits [N, 1].
        split: The validation split.
        batch_size: Images a forward pass.
    """

    def __init__(self, base: Any, head: Any, split: Images | Shards, batch_size: int) -> None:
        forward = tf.function(lambda images: base(images, training=False), autograph=False)
        kept = []

        def keep(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            for start in range(0, len(images), batch_size):
                batch = images[start : start + batch_size, ..., np.newaxis]
                kept.append(forward(tf.constant(batch)).numpy())
            return np.zeros(len(images), np.float32)

        _, self._labels = split.scored(keep)
        self._features = np.concatenate(kept)
        self._batch_size = batch_size
        self._head = tf.function(lambda features: head(features, training=False), autograph=False)

    def scored(self, _: Scorer) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return logits, float32 [n], and labels, int64 [n]; see `Images.scored`."""
        starts = range(0, len(self._features), self._batch_size)
        logits = [
            self._head(self._features[start : start + self._batch_size]).numpy()[:, 0]
            for start in starts
        ]
        return np.concatenate(logits).astype(np.float32), self._labels


def _refuse_too_many(base: Any, count: int, copies: int) -> None:
    """Raise `ConfigError` where so many features do not fit."""
    features = base.output
    size = copies * count * int(np.prod(features.shape[1:])) * tf.as_dtype(features.dtype).size
    free = free_memory()
    # One copy is there twice for a moment.
    needed = size * (copies + 1) // copies
    log.info("features of %d copies: %.1f GB", copies, size / 1e9)
    if free is not None and needed > _MEMORY_SHARE * free:
        raise ConfigError(
            f"The features of {copies} copies need {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free. Use a smaller --feature-copies, or 0."
        )
