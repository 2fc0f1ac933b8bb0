"""Read the shards of a split with TensorFlow, and name the damaged one."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch import tfrecord
from tumorbatch.errors import InputError, TryAgainError, TumorBatchError
from tumorbatch.scoring import Scorer
from tumorbatch.shard_records import damaged_shard
from tumorbatch.shardset import MAKE_AGAIN, Dataset

READERS = 16  # shards that are read side by side, at most
READ_BATCH = 256  # records parsed by one op call; parsing them one by one costs three times as much
READ_BUFFER = 8 << 20  # bytes read ahead from each shard


# What TensorFlow raises where bytes or their number are wrong, and not the file system.
_DAMAGE = (
    tf.errors.DataLossError, tf.errors.FailedPreconditionError, tf.errors.InvalidArgumentError,
    ValueError,
)  # fmt: skip

# TensorFlow rewrites Python's `if` and `for` in what a pipeline maps. None is here, and it
# writes a file for each function, which a killed process leaves in the folder of temporary files.
as_written = tf.autograph.experimental.do_not_convert


def parse(serialized: Any, dataset: Dataset) -> tuple[Any, Any]:
    """Parse records to images and labels.

    Args:
        serialized: string [n], `tf.train.Example` each.
        dataset: Gives the size of the images, and which variants are read.

    Returns:
        uint8 [n, *dataset.preprocessing.shape] and int64 [n].
    """
    text = tf.io.FixedLenFeature([], tf.string)
    features = {
        **dict.fromkeys(dataset.features, text),
        tfrecord.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(serialized, features)
    size = dataset.preprocessing.size
    # An image of another size must be an error: `fixed_length` would pad or cut it.
    channels = [
        tf.ensure_shape(tf.io.decode_raw(parsed[name], tf.uint8), [None, size * size])
        for name in dataset.features
    ]
    labels = parsed[tfrecord.LABEL]
    # Another label would be trained on as it is.
    is_label = tf.reduce_all((labels == 0) | (labels == 1))
    with tf.control_dependencies([tf.debugging.Assert(is_label, ["a label is not 0 or 1"])]):
        labels = tf.identity(labels)
    images = channels[0] if len(channels) == 1 else tf.stack(channels, axis=-1)
    return tf.reshape(images, [-1, *dataset.preprocessing.shape]), labels


def _batches(folder: Path, dataset: Dataset, split: str) -> Any:
    """Return the records of a split as batches of strings, in an order that the shards alone decide."""
    names = dataset.paths(folder, split)
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
        Images, uint8 [n, *dataset.preprocessing.shape], and labels, int64 [n].

    Raises:
        InputError: A shard is damaged; the text names it.
    """
    total = dataset.records(split)
    pixels = np.empty((total, *dataset.preprocessing.shape), np.uint8)
    labels = np.empty(total, np.int64)
    data = _batches(folder, dataset, split)
    data = data.map(
        as_written(lambda serialized: parse(serialized, dataset)),
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
    names = dataset.paths(folder, split)
    data = tf.data.TFRecordDataset(names, buffer_size=READ_BUFFER)
    data = data.apply(tf.data.experimental.assert_cardinality(dataset.records(split)))
    data = data.batch(READ_BATCH).map(as_written(lambda serialized: parse(serialized, dataset)))
    logits, labels = [], []
    try:
        for pixels, classes in data.prefetch(2).as_numpy_iterator():
            logits.append(score(pixels))
            labels.append(classes)
    except (tf.errors.OpError, ValueError) as error:
        raise damage(folder, dataset, split, error) from error
    return np.concatenate(logits), np.concatenate(labels)


def damage(folder: Path, dataset: Dataset, split: str, error: Exception) -> TumorBatchError:
    """Return the error of an unreadable split; it names the shard, which TensorFlow's does not.

    Of shards in an object store nothing is read again: what TensorFlow says of the bytes is damage, and
    all else the store's failure.
    """
    if dataset.location:
        if isinstance(error, _DAMAGE):
            return InputError(
                f"A {split} shard in {dataset.location} is damaged, or not whole "
                f"({_first_line(error)}). `tumorbatch verify {dataset.location}` names it."
            )
        return TryAgainError(
            f"The {split} shards in {dataset.location} cannot be read just now ({_first_line(error)}). "
            "The same command tries again, and continues from the last checkpoint."
        )
    return damaged_shard(folder, dataset, split) or InputError(
        f"The {split} shards in {folder} cannot be read: {error}. {MAKE_AGAIN}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200].rstrip(". ")
