"""Answers on a split: each image with its own manifest row, whatever the order of the shards."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.answers import answers
from tumorbatch import shardset, tfrecord
from tumorbatch.errors import InputError
from tumorbatch.evaluation.answers import read_images, score_split
from tumorbatch.tfrecord import ImageRecord


def _mean(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stands for a network: tells the images apart."""
    return images.mean(axis=(1, 2)).astype(np.float32)


def _records(folder: Path, split: str) -> dict[str, ImageRecord]:
    found = [
        ImageRecord.decode(data)
        for path in sorted(folder.glob(f"{split}-*.tfrecord"))
        for data in tfrecord.read(path)
    ]
    return {record.filename: record for record in found}


@pytest.mark.parametrize("split", shardset.SPLITS)
def test_every_image_has_its_own_row_and_logit(shard_set: Path, split: str) -> None:
    dataset = shardset.load(shard_set)
    scored = score_split(shard_set, dataset, split, _mean)
    expected = _records(shard_set, split)
    images = scored.images
    assert list(images.paths) == sorted(expected)
    assert images.n == sum(dataset.counts[split].values())
    manifest = {row["path"]: row for row in pq.read_table(shard_set / "manifest.parquet").to_pylist()}
    for index, path in enumerate(images.paths):
        pixels = np.frombuffer(expected[path].pixels, np.uint8)
        assert scored.scores[index] == pytest.approx(pixels.mean(), rel=1e-6)
        assert scored.labels[index] == expected[path].label
        row = manifest[path]
        assert (images.groups[index], images.formats[index]) == (row["duplicate_group"], row["format"])
        assert (images.widths[index], images.heights[index]) == (row["width"], row["height"])
    assert images.group_count == len({manifest[path]["duplicate_group"] for path in images.paths})
    some = [images.paths[-1], images.paths[0]]
    pixels_of_some = read_images(shard_set, dataset, some)
    assert pixels_of_some.dtype == np.uint8
    for path, image in zip(some, pixels_of_some, strict=True):
        assert image.tobytes() == expected[path].pixels


@pytest.fixture
def copy(shard_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shard_set, tmp_path / "tfrecords"))


def test_another_manifest_is_refused(copy: Path) -> None:
    path = copy / "manifest.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.not_equal(table["split"], "test")), path)
    with pytest.raises(InputError, match="not the one that"):
        score_split(copy, shardset.load(copy), "test", _mean)
    path.unlink()
    with pytest.raises(InputError, match="missing or damaged"):
        score_split(copy, shardset.load(copy), "test", _mean)


def test_a_network_that_gives_no_numbers_is_refused(shard_set: Path) -> None:
    dataset = shardset.load(shard_set)
    with pytest.raises(InputError, match="weights are broken"):
        score_split(shard_set, dataset, "test", lambda images: np.full(len(images), np.nan, np.float32))


def test_a_damaged_record_is_named(copy: Path) -> None:
    scored = score_split(copy, shardset.load(copy), "test", _mean)
    name = scored.images.paths[0]
    rows = pq.read_table(copy / "manifest.parquet").to_pylist()
    (row,) = (row for row in rows if row["path"] == name)
    path = copy / row["shard"]
    data = bytearray(path.read_bytes())
    at, length = tfrecord.places(path)[row["position"]]
    data[at + length // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=path.name):
        read_images(copy, shardset.load(copy), [name])


def test_answers_on_other_images_or_labels_are_a_bug() -> None:
    test = answers([-1, 1], [0, 1])
    with pytest.raises(ValueError, match="other images"):
        answers([1, 2], [0, 1], paths=("000.png", "another.png")).on(test.images)
    with pytest.raises(ValueError, match="other labels"):
        answers([1, 2], [1, 0]).on(test.images)


def test_answers_follow_their_images_into_another_order() -> None:
    test = answers([1, 2, 3], [0, 1, 0], paths=("b", "c", "a"))
    wanted = test.images.take(np.array([2, 1]))
    assert test.on(wanted).scores.tolist() == [3, 2]
    assert test.without({"c"}).scores.tolist() == [1, 3]
    assert test.without({"c"}).images.paths == ("b", "a")
