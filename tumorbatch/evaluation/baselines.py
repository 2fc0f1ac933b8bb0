"""Three simple baselines that know nothing about tumours.

The measures of a network have a meaning only if they are better than these on the same split: the
majority class; the metadata of the file alone; the nearest training image as a thumbnail of 16 x 16.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import InputError
from tumorbatch.evaluation import protocols
from tumorbatch.evaluation.answers import Answers, SplitImages, manifest_rows, split_images
from tumorbatch.runtime import available_cores
from tumorbatch.shard_records import read_records
from tumorbatch.shardset import MAKE_AGAIN, MANIFEST
from tumorbatch.statistics.metadata_forest import fit_forest, metadata_features, tumor_scores

MAJORITY = "majority"
METADATA = "metadata forest"
NEIGHBOUR = "thumbnail 1-NN"

THUMBNAIL = 16  # pixels a side
_TREES = 300
# 1,024 x 8,192 float32 distances are 32 MiB: what a block of the neighbour search holds at a time.
_QUERIES = 1024
_REFERENCES = 8192


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Some images, and each as a thumbnail: uint8 [n, THUMBNAIL * THUMBNAIL]."""

    images: SplitImages
    thumbnails: NDArray[np.uint8]


def evaluate(tfrecords: Path, seed: int, external: Path | None = None) -> list[Answers]:
    """Fit the baselines on the training split of a shard set, and score images that it does not hold.

    In memory: about 0.5 kB an image, and 64 MiB.

    Args:
        tfrecords: The shard set: the one that the models were trained on.
        seed: Of the forest.
        external: Another shard set, all of whose images are scored; None: the test split of the same.

    Returns:
        The majority class, the forest on metadata, the nearest neighbour, in this order; images sorted
        by path.

    Raises:
        InputError: A shard set is missing, unfinished or damaged, the training split or what is to be
            scored is empty, or the training split has one class only.
        ConfigError: It was written by another version of the format.
    """
    train = _read(tfrecords, ("train",), "train")
    labels = train.images.labels
    if len(np.unique(labels)) < 2:
        raise InputError(f"The train split in {tfrecords} has one class only. {MAKE_AGAIN}")
    if external is None:
        test = _read(tfrecords, ("test",), "test")
    else:
        test = _read(external, SPLITS, "test", protocols.EXTERNAL)
    share = float(labels.mean())
    formats = sorted(set(train.images.formats))
    forest = fit_forest(_features(train.images, formats), labels, _TREES, seed, available_cores())
    baselines = (
        (
            MAJORITY,
            f"Gives every image the share of Tumor in the training split, {share:.3f}.",
            np.full(test.images.n, share),
        ),
        (
            METADATA,
            f"Random forest of {_TREES} trees on the file's height, width and format. It sees no "
            "pixels.",
            tumor_scores(forest, _features(test.images, formats)),
        ),
        (
            NEIGHBOUR,
            f"The class of the training image that is nearest as a thumbnail of {THUMBNAIL} x "
            f"{THUMBNAIL} pixels (Euclidean distance); the score is d(Healthy) / (d(Healthy) + "
            "d(Tumor)), of the distances to the nearest image of each class.",
            nearest_scores(train.thumbnails, labels, test.thumbnails),
        ),
    )
    return [
        Answers(name, test.images, scores, description=text).by_path()
        for name, text, scores in baselines
    ]


def _features(images: SplitImages, formats: Sequence[str]) -> NDArray[np.float32]:
    return metadata_features(images.heights, images.widths, images.formats, formats)


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 [height, width] as uint8 [THUMBNAIL * THUMBNAIL], by area averaging."""
    small = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).ravel()


def nearest_scores(
    references: NDArray[np.uint8], labels: NDArray[np.int64], queries: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Return how much nearer the nearest tumour is than the nearest healthy image.

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
    """Return int32 [m, n], exact: 256 products of two bytes stay below 2^24, where float32 counts."""
    products = left.astype(np.float32) @ right.astype(np.float32).T
    squares = [np.einsum("ij,ij->i", side, side, dtype=np.int32) for side in (left, right)]
    sums: NDArray[np.int32] = squares[0][:, np.newaxis] + squares[1]
    return sums - 2 * products.astype(np.int32)


def _read(folder: Path, splits: Sequence[str], name: str, protocol: str | None = None) -> _Pictures:
    """Read the images of some splits, in the order of the shards.

    Args:
        folder: The shard set.
        splits: Those that count.
        name: Of the split that they make together.
        protocol: By which they are judged; None: the shard set's own.

    Raises:
        InputError: See `evaluate`.
    """
    dataset = shardset.load(folder)
    present = [split for split in splits if dataset.records(split)]
    if not present:
        raise InputError(f"The {splits[0]} split in {folder} holds no image. {MAKE_AGAIN}")
    rows = pa.concat_tables([manifest_rows(folder, dataset, split) for split in present])
    images = split_images(folder, dataset, name, rows)
    if protocol is not None:
        images = replace(images, protocol=protocol)
    thumbnails = np.empty((images.n, THUMBNAIL**2), np.uint8)
    at = 0
    for split in present:
        for record in read_records(folder, dataset, split):
            if record.filename != images.paths[at] or record.label != images.labels[at]:
                raise InputError(
                    f"{folder / MANIFEST} has another row than {record.filename} in its place in "
                    f"{split}. {MAKE_AGAIN}"
                )
            thumbnails[at] = thumbnail(record.image())
            at += 1
    return _Pictures(images, thumbnails)
