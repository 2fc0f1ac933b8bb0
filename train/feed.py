"""Shards to batches: read in parallel, kept as uint8 in memory, shuffled, augmented, prefetched."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch import records
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.shardset import Dataset
from tumorbatch.train.config import Augmentation

# Batches are what runs side by side, not the rows of one image.
cv2.setNumThreads(1)

_READ_BATCH = 256  # records parsed by one op call; parsing them one by one costs three times as much
_READ_BUFFER = 8 << 20  # bytes read ahead from each shard
_MEMORY_SHARE = 0.6  # of what is free: the rest is for the network's activations


@dataclass(frozen=True, slots=True)
class Images:
    """One split in memory.

    Attributes:
        pixels: uint8 [n, height, width].
        labels: int64 [n], 0 Healthy, 1 Tumor.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def load_split(folder: Path, dataset: Dataset, split: str) -> Images:
    """Read one split, all shards in parallel, in an order that the shards alone decide.

    Raises:
        InputError: A shard is damaged; the text names it.
        ConfigError: The split does not fit into memory.
    """
    shards = dataset.split(split)
    total = dataset.records(split)
    size = dataset.preprocessing.size
    _refuse_too_large(total * size * size, split)
    pixels = np.empty((total, size, size), np.uint8)
    labels = np.empty(total, np.int64)
    features = {
        records.IMAGE: tf.io.FixedLenFeature([], tf.string),
        records.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(serialized: Any) -> tuple[Any, Any]:
        parsed = tf.io.parse_example(serialized, features)
        flat = tf.io.decode_raw(parsed[records.IMAGE], tf.uint8)
        # An image of another size must be an error: `fixed_length` would pad or cut it.
        flat = tf.ensure_shape(flat, [None, size * size])
        return tf.reshape(flat, [-1, size, size]), parsed[records.LABEL]

    names = [os.fspath(folder / shard.name) for shard in shards]
    data = tf.data.TFRecordDataset(
        names, buffer_size=_READ_BUFFER, num_parallel_reads=min(len(names), 16)
    )
    # A shard that was cut between two records, or emptied, reads as a clean end; only the count
    # from dataset.json shows it.
    data = data.apply(tf.data.experimental.assert_cardinality(total))
    data = data.batch(_READ_BATCH)
    data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    data = data.prefetch(tf.data.AUTOTUNE)
    at = 0
    try:
        for images, classes in data.as_numpy_iterator():
            pixels[at : at + len(images)] = images
            labels[at : at + len(images)] = classes
            at += len(images)
    except (tf.errors.OpError, ValueError) as error:
        raise _damage(folder, dataset, split, error) from error
    return Images(pixels, labels)


def _refuse_too_large(needed: int, split: str) -> None:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return
    if needed > _MEMORY_SHARE * free:
        raise ConfigError(
            f"The {split} images need {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are "
            "free. Use a machine with more memory, or shards of a smaller size (--size)."
        )


def _damage(folder: Path, dataset: Dataset, split: str, error: Exception) -> InputError:
    """Find the shard that TensorFlow's message does not name."""
    advice = "Make the shards again with `tumorbatch shard --overwrite`."
    for shard in dataset.split(split):
        try:
            count = sum(1 for _ in records.read(folder / shard.name))
        except InputError as found:
            return InputError(f"{found} {advice}")
        except OSError as found:
            return InputError(
                f"{folder / shard.name} is missing or unreadable: {found.strerror}. {advice}"
            )
        if count != shard.records:
            return InputError(
                f"{folder / shard.name} holds {count} records and should hold {shard.records}. {advice}"
            )
    return InputError(f"The {split} shards in {folder} cannot be read: {error}. {advice}")


class TrainingFeed:
    """Batches of the training split, epoch by epoch.

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
            self._labels = tf.constant(images.labels.astype(np.float32))
        self._batch_size = batch_size
        self._augmentation = augmentation
        self._seed = seed
        self._fixed_shape = fixed_shape

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        full, rest = divmod(len(self._labels), self._batch_size)
        return full + (rest > 0 and not self._fixed_shape)

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
            batch = tf.gather(self._pixels, indices)[..., tf.newaxis]
            if self._augmentation is not None:
                # The step is part of the seed, so parallel calls cannot change the outcome.
                seed = [self._seed * 100_003 + number, step]
                batch = augment(batch, self._augmentation, seed)
            return batch, tf.gather(self._labels, indices)[:, tf.newaxis]

        with tf.device("/CPU:0"):
            data = tf.data.Dataset.from_tensor_slices(order)
            # Indices are batched, not images: one gather a batch instead of an op call an image.
            data = data.batch(self._batch_size, drop_remainder=self._fixed_shape).enumerate()
            data = data.skip(start)
            data = data.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            return data.prefetch(tf.data.AUTOTUNE)


def augment(images: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Shear, zoom and mirror each image about its centre, a whole batch in one call.

    Sampled bilinearly; pixels from outside repeat the nearest edge.

    Args:
        images: uint8 [B, height, width, channels].
        augmentation: How far.
        seed: Two integers; the same seed gives the same changes.

    Returns:
        uint8, the same shape.
    """
    count = tf.shape(images)[0]
    height, width = tf.cast(tf.shape(images)[1], tf.float32), tf.cast(tf.shape(images)[2], tf.float32)
    seed = tf.cast(tf.stack(seed), tf.int64)
    draw = tf.random.stateless_uniform([3, count], seed)
    shear = (2 * draw[0] - 1) * augmentation.shear
    zoom = 1 + (2 * draw[1] - 1) * augmentation.zoom
    mirror = tf.where(draw[2] < 0.5 if augmentation.flip else tf.zeros([count], tf.bool), -1.0, 1.0)
    # Of an output pixel (x, y), the input pixel is (a0 x + a1 y + a2, b1 y + b2):
    # the inverse of the change, here 1/zoom times mirror and shear, about the centre.
    a0, a1, b1 = mirror / zoom, shear / zoom, 1 / zoom
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(a0)
    a2 = centre_x - a0 * centre_x - a1 * centre_y
    b2 = centre_y - b1 * centre_y
    maps = tf.reshape(tf.stack([a0, a1, a2, zero, b1, b2], axis=1), [-1, 2, 3])
    warped = tf.numpy_function(_warp, [images, maps], images.dtype, stateful=False)
    return tf.ensure_shape(warped, images.shape)


def _warp(images: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Resample each image at the places that its map [2, 3] gives for the output's pixels.

    By OpenCV, which takes a tenth of the time of TensorFlow's ImageProjectiveTransformV3, and lets
    other threads run meanwhile.
    """
    size = images.shape[2], images.shape[1]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = np.empty_like(images)
    for image, where, target in zip(images, maps, out, strict=True):
        warped = cv2.warpAffine(image, where, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
        target[...] = warped.reshape(target.shape)
    return out
