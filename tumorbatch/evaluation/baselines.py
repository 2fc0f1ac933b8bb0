"""What does as well without having learned anything about tumours: three baselines.

A network's figures mean something only where they are above these, on the same split: the majority
class; the file's metadata alone; the nearest training image, seen as a thumbnail of 16 x 16.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch import shardset, tfrecord
from tumorbatch.errors import InputError
from tumorbatch.runtime import available_cores
from tumorbatch.shardset import MANIFEST, SPLITS, Dataset
from tumorbatch.tfrecord import ImageRecord

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
        test_scores: float64 [n], in [0, 1]; at least 0.5 means Tumor.
        test_labels: int64 [n], 0 Healthy, 1 Tumor.
        test_paths: n paths, as in the manifest: the key to other tables.
    """

    name: str
    description: str
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
class _Images:
    """What the baselines know of some images.

    Attributes:
        paths: n paths.
        labels: int64 [n].
        thumbnails: uint8 [n, THUMBNAIL * THUMBNAIL].
        sides: float64 [n, 2], height and width of the file, pixels.
        formats: n file formats.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    thumbnails: NDArray[np.uint8]
    sides: NDArray[np.float64]
    formats: tuple[str, ...]


def evaluate(tfrecords: Path, seed: int, external: Path | None = None) -> list[Baseline]:
    """Fit the baselines on the training split of a shard set, and score images that it does not hold.

    In memory: about 0.5 kB an image, and 64 MiB.

    Args:
        tfrecords: The shard set: the very one that the models were trained on.
        seed: Of the forest.
        external: Another shard set, all of whose images are scored; None: the test split of the same.

    Returns:
        The majority class, the forest on metadata, the nearest neighbour, in this order; each with
        the images in the order of the shards.

    Raises:
        InputError: A shard set is missing, unfinished or damaged, the training split or what is to be
            scored is empty, or the training split has one class only.
        ConfigError: It was written by another version of the format.
    """
    train = _read(tfrecords, ("train",))
    if len(np.unique(train.labels)) < 2:
        raise InputError(f"The train split in {tfrecords} has one class only. {_ADVICE}")
    test = _read(tfrecords, ("test",)) if external is None else _read(external, SPLITS)
    share = float(train.labels.mean())
    formats = sorted(set(train.formats))
    forest = _forest(_metadata(train, formats), train.labels, seed)
    made = (
        (
            MAJORITY,
            f"Says the same of every image: the share of Tumor in the training split, {share:.3f}.",
            np.full(len(test.labels), share),
        ),
        (
            METADATA,
            f"Random forest of {_TREES} trees on the file's height, width and format alone: it sees no "
            "pixel.",
            np.asarray(forest.predict_proba(_metadata(test, formats))[:, 1], np.float64),
        ),
        (
            NEIGHBOUR,
            f"The class of the training image that is nearest as a thumbnail of {THUMBNAIL} x "
            f"{THUMBNAIL} pixels (Euclidean distance); the score is d(Healthy) / (d(Healthy) + "
            "d(Tumor)), of the distances to the nearest image of each class.",
            nearest_scores(train.thumbnails, train.labels, test.thumbnails),
        ),
    )
    return [Baseline(name, text, scores, test.labels, test.paths) for name, text, scores in made]


def _metadata(images: _Images, formats: Sequence[str]) -> NDArray[np.float64]:
    """float64 [n, 2 + formats]: height, width, then one column a format, 1 or 0."""
    names = np.array(images.formats)
    return np.column_stack([images.sides, *(names == name for name in formats)])


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


def _forest(metadata: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(_TREES, random_state=seed, n_jobs=available_cores())
    forest.fit(metadata, labels)
    # Several threads add the trees' votes in any order, and the last bit with them.
    forest.set_params(n_jobs=1)
    return forest


def _read(folder: Path, splits: Sequence[str]) -> _Images:
    """The images of some splits.

    Raises:
        InputError: See `evaluate`.
    """
    dataset = shardset.load(folder)
    known = _manifest(folder, dataset)
    total = sum(dataset.records(split) for split in splits)
    if not total:
        raise InputError(f"The {splits[0]} split in {folder} holds no image. {_ADVICE}")
    paths: list[str] = []
    formats: list[str] = []
    labels = np.empty(total, np.int64)
    thumbnails = np.empty((total, THUMBNAIL**2), np.uint8)
    sides = np.empty((total, 2), np.float64)
    for split in splits:
        for record in _images(folder, dataset, split):
            row, at = known.get(record.filename), len(paths)
            if row is None or row.split != split:
                raise InputError(
                    f"{folder / MANIFEST} has no row for {record.filename} in {split}. {_ADVICE}"
                )
            pixels = np.frombuffer(record.pixels, np.uint8).reshape(record.height, record.width)
            paths.append(record.filename)
            formats.append(row.format)
            labels[at] = record.label
            thumbnails[at] = thumbnail(pixels)
            sides[at] = row.height, row.width
    return _Images(tuple(paths), labels, thumbnails, sides, tuple(formats))


def _manifest(folder: Path, dataset: Dataset) -> dict[str, _Row]:
    """{path: row}, of the files that gave a record."""
    table = shardset.manifest(folder, dataset, "path", "split", "height", "width", "format")
    names, *columns = (column.to_pylist() for column in table.itercolumns())
    rows = map(_Row, *columns)
    return {name: row for name, row in zip(names, rows, strict=True) if row.split}


def _images(folder: Path, dataset: Dataset, split: str) -> Iterator[ImageRecord]:
    """The images of a split, one at a time.

    Raises:
        InputError: A shard is damaged, cut off, or holds another number of records than it should.
        TryAgainError: Another run has replaced the set since `dataset` was read.
    """
    for shard in dataset.split(split):
        path = folder / shard.name
        count = 0
        try:
            for data in tfrecord.read(path):
                count += 1
                if count <= shard.records:
                    yield ImageRecord.decode(data)
        except InputError as error:
            raise InputError(f"{error} {_ADVICE}") from error
        except (OSError, ValueError) as error:
            shardset.refuse_replaced(folder, dataset)
            raise InputError(f"{path} cannot be read: {error}. {_ADVICE}") from error
        if count != shard.records:
            raise InputError(f"{path} holds {count} records and should hold {shard.records}. {_ADVICE}")
