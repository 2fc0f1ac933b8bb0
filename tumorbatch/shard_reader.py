"""Read the shards of a split with TensorFlow, and name the damaged one."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch import tfrecord
from tumorbatch.errors import InputError
from tumorbatch.scoring import Scorer
from tumorbatch.shard_records import damaged_shard
from tumorbatch.shardset import MAKE_AGAIN, Dataset

READERS = 16  # shards that are read side by side, at most
READ_BATCH = 256  # records parsed by one op call; parsing them one by one costs three times as much
READ_BUFFER = 8 << 20  # bytes read ahead from each shard

_FEATURES = {
    tfrecord.IMAGE: tf.io.FixedLenFeature([], tf.string),
    tfrecord.LABEL: tf.io.FixedLenFeature([], tf.int64),
}

# TensorFlow rewrites Python's `if` and `for` in what a pipeline maps. None is here, and it
# writes a file for each function, which a killed process leaves in the folder of temporary files.
as_written = tf.autograph.experimental.do_not_convert


def parse(serialized: Any, size: int) -> tuple[Any, Any]:
    """Parse records to images and labels.

    Args:
        serialized: string [n], `tf.train.Example` each.
        size: Side of the images, in pixels.

    Returns:
        uint8 [n, size, size] and int64 [n].
    """
    parsed = tf.io.parse_example(serialized, _FEATURES)
    flat = tf.io.decode_raw(parsed[tfrecord.IMAGE], tf.uint8)
    # An image of another size must be an error: `fixed_length` would pad or cut it.
    flat = tf.ensure_shape(flat, [None, size * size])
    labels = parsed[tfrecord.LABEL]
    # Another label would be trained on as it is.
    is_label = tf.reduce_all((labels == 0) | (labels == 1))
    with tf.control_dependencies([tf.debugging.Assert(is_label, ["a label is not 0 or 1"])]):
        labels = tf.identity(labels)
    return tf.reshape(flat, [-1, size, size]), labels


def _batches(folder: Path, dataset: Dataset, split: str) -> Any:
    """Return the records of a split as batches of strings, in an order that the shards alone decide."""
    names = [os.fspath(folder / shard.name) for shard in dataset.split(split)]
    data = tf.data.TFRecordDataset(
        names, buffer_size=READ_BUFFER, num_parallel_reads=min(len(names), READERS)
    )
    # A shard that was cut between two records, or emptied, reads as a clean end; only the count
    # from dataset.json shows it.
    data = data.apply(tf.data.experimental.assert_cardinality(dataset.records(split)))
    return data.batch(READ_BATCH)


def parse_names(serialized: Any) -> Any:
    """Return the file name in each record, string [n] of string [n]."""
    features = {tfrecord.FILENAME: tf.io.FixedLenFeature([], tf.string)}
    return tf.io.parse_example(serialized, features)[tfrecord.FILENAME]


def read_names(folder: Path, dataset: Dataset, split: str) -> list[str]:
    """Read the file name in each record of a split, in the order of `read_split`.

    Raises:
        InputError: A shard is damaged; the text names it.
    """
    names: list[str] = []
    try:
        for batch in _batches(folder, dataset, split).map(as_written(parse_names)).as_numpy_iterator():
            names += [name.decode() for name in batch]
    except (tf.errors.OpError, ValueError) as error:
        raise damage(folder, dataset, split, error) from error
    return names


def read_split(
    folder: Path, dataset: Dataset, split: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one split, all shards in parallel, in an order that the shards alone decide.

    Returns:
        Images, uint8 [n, size, size], and labels, int64 [n].

    Raises:
        InputError: A shard is damaged; the text names it.
    """
    total = dataset.records(split)
    size = dataset.preprocessing.size
    pixels = np.empty((total, size, size), np.uint8)
    labels = np.empty(total, np.int64)
    data = _batches(folder, dataset, split)
    data = data.map(
        as_written(lambda serialized: parse(serialized, size)),
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
    return pixels, labels


def score_split(
    folder: Path, dataset: Dataset, split: str, score: Scorer
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Score one split straight from its shards, with bounded memory.

    Returns:
        Logits, float32 [n], and labels, int64 [n].

    Raises:
        InputError: A shard is damaged; the text names it.
    """
    names = [os.fspath(folder / shard.name) for shard in dataset.split(split)]
    size = dataset.preprocessing.size
    data = tf.data.TFRecordDataset(names, buffer_size=READ_BUFFER)
    data = data.apply(tf.data.experimental.assert_cardinality(dataset.records(split)))
    data = data.batch(READ_BATCH).map(as_written(lambda serialized: parse(serialized, size)))
    logits, labels = [], []
    try:
        for pixels, classes in data.prefetch(2).as_numpy_iterator():
            logits.append(score(pixels))
            labels.append(classes)
    except (tf.errors.OpError, ValueError) as error:
        raise damage(folder, dataset, split, error) from error
    return np.concatenate(logits), np.concatenate(labels)


def damage(folder: Path, dataset: Dataset, split: str, error: Exception) -> InputError:
    """Return the error of an unreadable split; it names the shard, which TensorFlow's does not."""
    return damaged_shard(folder, dataset, split) or InputError(
        f"The {split} shards in {folder} cannot be read: {error}. {MAKE_AGAIN}"
    )
