"""What does as well without having learned anything about tumours: three baselines.

A network's figures mean something only where they are above these, on the same split: the majority
class; the file's metadata alone; the nearest training image, seen as a thumbnail of 16 x 16.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tumorbatch import records, shardset
from tumorbatch.errors import InputError
from tumorbatch.records import ImageRecord
from tumorbatch.runtime import available_cores
from tumorbatch.shardset import MANIFEST, SPLITS, Dataset

MAJORITY = "majority"
METADATA = "metadata forest"
NEIGHBOUR = "thumbnail 1-NN"

THUMBNAIL = 16  # pixels a side
_TREES = 300
# 1,024 x 8,192 float32 distances are 32 MiB: what a block of the neighbour search holds at a time.
_QUERIES = 1024
_REFERENCES = 8192
_ADVICE = "Make the shards again with `tumorbatch shard --overwrite`."


@dataclass(frozen=True, slots=True)
class Baseline:
    """The scores of one baseline on the images that models are judged by.

    Attributes:
        name: Short, as in tables.
        description: What it sees and does, a sentence.
        validation_scores: float64 [n], in [0, 1]; at least 0.5 means Tumor.
        validation_labels: int64 [n], 0 Healthy, 1 Tumor.
        validation_paths: n paths, as in the manifest: the key to other tables.
        test_scores: float64 [m].
        test_labels: int64 [m].
        test_paths: m paths.
    """

    name: str
    description: str
    validation_scores: NDArray[np.float64]
    validation_labels: NDArray[np.int64]
    validation_paths: tuple[str, ...]
    test_scores: NDArray[np.float64]
    test_labels: NDArray[np.int64]
    test_paths: tuple[str, ...]


class _Row(NamedTuple):
    """What the manifest says of an image; height and width in pixels, of the file."""

    split: str
    height: int
    width: int
    format: str


@dataclass(frozen=True, slots=True)
class _Split:
    """What the baselines know of a split.

    Attributes:
        paths: n paths.
        labels: int64 [n].
        thumbnails: uint8 [n, THUMBNAIL * THUMBNAIL].
        metadata: float64 [n, 2 + formats]: height and width in pixels, then one column a format that
            the training split has, 1 or 0.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    thumbnails: NDArray[np.uint8]
    metadata: NDArray[np.float64]


def evaluate(tfrecords: Path, seed: int) -> list[Baseline]:
    """Fit the baselines on the training split of a shard set and score its other two.

    In memory: about 0.5 kB an image, and 64 MiB.

    Args:
        tfrecords: The shard set: the very one that the models were trained on.
        seed: Of the forest.

    Returns:
        The majority class, the forest on metadata, the nearest neighbour, in this order; each with
        the images in the order of the shards.

    Raises:
        InputError: The shard set is missing, unfinished or damaged, a split of it is empty, or its
            training split has one class only.
        ConfigError: It was written by another version of the format.
    """
    dataset = shardset.load(tfrecords)
    for split in SPLITS:
        if not dataset.records(split):
            raise InputError(f"The {split} split in {tfrecords} holds no image. {_ADVICE}")
    splits = _read(tfrecords, dataset)
    train, others = splits["train"], (splits["validation"], splits["test"])
    if len(np.unique(train.labels)) < 2:
        raise InputError(f"The train split in {tfrecords} has one class only. {_ADVICE}")
    share = float(train.labels.mean())
    forest = _forest(train, seed)
    return [
        _baseline(
            MAJORITY,
            f"Says the same of every image: the share of Tumor in the training split, {share:.3f}.",
            [np.full(len(other.labels), share) for other in others],
            others,
        ),
        _baseline(
            METADATA,
            f"Random forest of {_TREES} trees on the file's height, width and format alone: it sees no "
            "pixel.",
            [_tumor_probability(forest, other.metadata) for other in others],
            others,
        ),
        _baseline(
            NEIGHBOUR,
            f"The class of the training image that is nearest as a thumbnail of {THUMBNAIL} x "
            f"{THUMBNAIL} pixels (Euclidean distance); the score is d(Healthy) / (d(Healthy) + "
            "d(Tumor)), of the distances to the nearest image of each class.",
            [nearest_scores(train.thumbnails, train.labels, other.thumbnails) for other in others],
            others,
        ),
    ]


def _baseline(
    name: str, description: str, scores: list[NDArray[np.float64]], others: tuple[_Split, _Split]
) -> Baseline:
    validation, test = others
    return Baseline(
        name, description, scores[0], validation.labels, validation.paths, scores[1], test.labels,
        test.paths,
    )  # fmt: skip


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [height, width] to uint8 [THUMBNAIL * THUMBNAIL], by area averaging."""
    small = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).ravel()


def nearest_scores(
    references: NDArray[np.uint8], labels: NDArray[np.int64], queries: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """How much nearer the nearest tumour is than the nearest healthy image.

    At least 0.5 exactly where the nearest of all is a tumour (or both are equally near), so that the
    threshold 0.5 gives the classical 1-nearest-neighbour rule, while the score can rank.

    Args:
        references: uint8 [n, features], at most 258 features; both classes occur.
        labels: int64 [n], 0 Healthy, 1 Tumor.
        queries: uint8 [m, features].

    Returns:
        float64 [m]: d0 / (d0 + d1), of the Euclidean distances to the nearest of each class; 0.5
        where both are 0.
    """
    nearest = np.full((2, len(queries)), np.inf)
    for label in (0, 1):
        members = references[labels == label]
        for start in range(0, len(members), _REFERENCES):
            block = members[start : start + _REFERENCES]
            for first in range(0, len(queries), _QUERIES):
                at = slice(first, first + _QUERIES)
                squares = _squared_distances(queries[at], block).min(axis=1)
                np.minimum(nearest[label, at], squares, out=nearest[label, at])
    healthy, tumor = np.sqrt(nearest)
    total = healthy + tumor
    scores = np.full(len(queries), 0.5)
    np.divide(healthy, total, out=scores, where=total > 0)
    return scores


def _squared_distances(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.int32]:
    """int32 [m, n], exact: 256 products of two bytes stay below 2^24, up to where float32 can count."""
    products = left.astype(np.float32) @ right.astype(np.float32).T
    squares = [np.einsum("ij,ij->i", of, of, dtype=np.int32) for of in (left, right)]
    sums: NDArray[np.int32] = squares[0][:, np.newaxis] + squares[1]
    return sums - 2 * products.astype(np.int32)


def _forest(train: _Split, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(_TREES, random_state=seed, n_jobs=available_cores())
    forest.fit(train.metadata, train.labels)
    # Several threads add the trees' votes in any order, and the last bit with them.
    forest.set_params(n_jobs=1)
    return forest


def _tumor_probability(forest: Any, metadata: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(forest.predict_proba(metadata)[:, 1], np.float64)


def _read(folder: Path, dataset: Dataset) -> dict[str, _Split]:
    known = _manifest(folder)
    formats = sorted({row.format for row in known.values() if row.split == "train"})
    splits = {}
    for split in SPLITS:
        total = dataset.records(split)
        paths: list[str] = []
        labels = np.empty(total, np.int64)
        thumbnails = np.empty((total, THUMBNAIL**2), np.uint8)
        metadata = np.zeros((total, 2 + len(formats)), np.float64)
        for at, record in enumerate(_images(folder, dataset, split)):
            row = known.get(record.filename)
            if row is None or row.split != split:
                raise InputError(
                    f"{folder / MANIFEST} has no row for {record.filename} in {split}. {_ADVICE}"
                )
            pixels = np.frombuffer(record.pixels, np.uint8).reshape(record.height, record.width)
            paths.append(record.filename)
            labels[at] = record.label
            thumbnails[at] = thumbnail(pixels)
            metadata[at] = (row.height, row.width, *(row.format == kind for kind in formats))
        splits[split] = _Split(tuple(paths), labels, thumbnails, metadata)
    return splits


def _manifest(folder: Path) -> dict[str, _Row]:
    """{path: row}, of the files that gave a record."""
    path = folder / MANIFEST
    try:
        table = pq.read_table(path, columns=["path", "split", "height", "width", "format"])
    except (OSError, ValueError, KeyError) as error:  # Arrow's own errors are ValueErrors
        raise InputError(f"{path} is missing or damaged: {error}. {_ADVICE}") from error
    names, *columns = (column.to_pylist() for column in table.itercolumns())
    rows = map(_Row, *columns)
    return {name: row for name, row in zip(names, rows, strict=True) if row.split}


def _images(folder: Path, dataset: Dataset, split: str) -> Iterator[ImageRecord]:
    """The images of a split, one at a time.

    Raises:
        InputError: A shard is damaged, cut off, or holds another number of records than it should.
    """
    for shard in dataset.split(split):
        path = folder / shard.name
        count = 0
        try:
            for data in records.read(path):
                count += 1
                if count <= shard.records:
                    yield ImageRecord.decode(data)
        except InputError as error:
            raise InputError(f"{error} {_ADVICE}") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}. {_ADVICE}") from error
        if count != shard.records:
            raise InputError(f"{path} holds {count} records and should hold {shard.records}. {_ADVICE}")
