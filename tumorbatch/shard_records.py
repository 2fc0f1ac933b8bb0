"""Read the records of a split without TensorFlow, each one checked, and name the damaged shard."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tumorbatch import tfrecord
from tumorbatch.errors import InputError, reason
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.shardset import MAKE_AGAIN, Dataset, refuse_replaced
from tumorbatch.tfrecord import ImageRecord


def read_records(folder: Path, dataset: Dataset, split: str) -> Iterator[ImageRecord]:
    """Yield the records of a split one at a time, in the order of the shards.

    Raises:
        InputError: A shard is damaged, cut off, or holds another number of records than it should.
        TryAgainError: Another run has replaced the set since `dataset` was read.
    """
    for shard in dataset.split(split):
        path = folder / shard.name
        count = 0
        try:
            for data in tfrecord.read(path):
                record = ImageRecord.decode(data)
                check_images(record, dataset)
                if record.label not in range(len(CLASS_NAMES)):
                    raise ValueError("it has no known class")
                count += 1
                if count <= shard.records:
                    yield record
        except InputError as error:
            raise InputError(f"{error} {MAKE_AGAIN}") from error
        except OSError as error:
            refuse_replaced(folder, dataset)
            text = f"{path} is missing or unreadable: {reason(error)}. {MAKE_AGAIN}"
            raise InputError(text) from error
        except ValueError as error:
            text = f"{path} is damaged in record {count}: {reason(error)}. {MAKE_AGAIN}"
            raise InputError(text) from error
        if count != shard.records:
            raise InputError(
                f"{path} holds {count} records and should hold {shard.records}. {MAKE_AGAIN}"
            )


def check_images(record: ImageRecord, dataset: Dataset) -> None:
    """Raise `ValueError` unless a record has the variants of its set, each of the right size."""
    size = dataset.preprocessing.size
    if record.variants != tuple(sorted(dataset.available[1:])):
        raise ValueError(f"it has other variants than {', '.join(dataset.available)}")
    images = [record.pixels, *(pixels for _, pixels in record.others)]
    square = (record.height, record.width) == (size, size)
    if not square or any(len(pixels) != size * size for pixels in images):
        raise ValueError(f"it has another size than {size} x {size}")


def damaged_shard(folder: Path, dataset: Dataset, split: str) -> InputError | None:
    """Return the error of the first damaged shard of a split; None if all are intact.

    Raises:
        TryAgainError: Another run has replaced the set since `dataset` was read.
    """
    refuse_replaced(folder, dataset)
    try:
        deque(read_records(folder, dataset, split), maxlen=0)
    except InputError as error:
        return error
    return None
