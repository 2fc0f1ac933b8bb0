"""Shards to batches: nothing lost, nothing invented, and augmentation that does what it says."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch import shardset, tfrecord
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.shardset import Dataset
from tumorbatch.tfrecord import ImageRecord
from tumorbatch.train.augment import augment
from tumorbatch.train.config import Augmentation
from tumorbatch.train.feed import Images, TrainingFeed, load_split

# ---------------------------------------------------------------------------------- load_split


def _records(folder: Path, dataset: Dataset, split: str) -> list[ImageRecord]:
    names = [folder / shard.name for shard in dataset.split(split)]
    return [ImageRecord.decode(data) for name in names for data in tfrecord.read(name)]


@pytest.mark.parametrize("split", SPLITS)
def test_load_split_gives_each_record_once(shard_set: Path, split: str) -> None:
    dataset = shardset.load(shard_set)
    images = load_split(shard_set, dataset, split)

    size = dataset.preprocessing.size
    assert (images.pixels.dtype, images.labels.dtype) == (np.uint8, np.int64)
    assert images.pixels.shape == (dataset.records(split), size, size)
    found = zip((image.tobytes() for image in images.pixels), images.labels.tolist(), strict=True)
    expected = [(record.pixels, record.label) for record in _records(shard_set, dataset, split)]
    assert sorted(found) == sorted(expected)
    assert sorted(np.bincount(images.labels)) == sorted(dataset.counts[split].values())


def test_load_split_gives_the_same_order_each_time(shard_set: Path) -> None:
    dataset = shardset.load(shard_set)
    assert len(dataset.split("train")) > 1  # or there is nothing to mix up
    first, second = (load_split(shard_set, dataset, "train") for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.labels, second.labels)


def _last_record(path: Path) -> int:
    """Where the last record begins."""
    lengths = [tfrecord.FRAME_BYTES + len(data) for data in tfrecord.read(path)]
    return sum(lengths[:-1])


def _keep(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def _repeat_last(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data + data[_last_record(path) :])


_Damage = Callable[[Path], None]
_SEEN_BY_SIZE: dict[str, _Damage] = {
    "cut between records": lambda path: _keep(path, _last_record(path)),
    "cut in the header": lambda path: _keep(path, _last_record(path) + 7),
    "cut in the data": lambda path: _keep(path, _last_record(path) + 500),
    "cut in the last checksum": lambda path: _keep(path, path.stat().st_size - 1),
    "emptied": lambda path: _keep(path, 0),
    "a record too many": _repeat_last,
    "missing": Path.unlink,
}
_FLIPPED: dict[str, _Damage] = {
    "bit in the length": lambda path: _flip(path, 1),
    "bit in the length's checksum": lambda path: _flip(path, 9),
    "bit in the data": lambda path: _flip(path, 700),
    "bit in the data's checksum": lambda path: _flip(path, -2),
}


@pytest.fixture
def copy(shard_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shard_set, tmp_path / "tfrecords"))


@pytest.mark.parametrize("damage", _SEEN_BY_SIZE)
def test_load_names_a_shard_of_another_size(copy: Path, damage: str) -> None:
    name = shardset.load(copy).split("train")[1].name
    _SEEN_BY_SIZE[damage](copy / name)
    with pytest.raises(InputError, match=name):
        shardset.load(copy)


@pytest.mark.parametrize("damage", _SEEN_BY_SIZE | _FLIPPED)
def test_load_split_names_a_damaged_shard_of_the_recorded_size(copy: Path, damage: str) -> None:
    """The size in dataset.json is forged to the damaged one: the records themselves must tell."""
    dataset = shardset.load(copy)
    path = copy / dataset.split("train")[1].name
    (_SEEN_BY_SIZE | _FLIPPED)[damage](path)
    if path.exists():
        value = json.loads((copy / "dataset.json").read_text())
        for shard in value["shards"]:
            if shard["name"] == path.name:
                shard["bytes"] = path.stat().st_size
        (copy / "dataset.json").write_text(json.dumps(value))
        dataset = shardset.read(copy / "dataset.json")  # `load` refuses what is too small
    with pytest.raises(InputError) as raised:
        load_split(copy, dataset, "train")
    assert str(path) in str(raised.value)
    assert str(raised.value).endswith("`tumorbatch shard --overwrite`.")
    # The other splits are whole, and stay readable.
    assert len(load_split(copy, dataset, "test").labels) == dataset.records("test")


def test_an_image_of_another_size_is_refused(copy: Path) -> None:
    """Checksums and counts fit, but one image has too few bytes; it must not be padded."""
    dataset = shardset.load(copy)
    path = copy / dataset.split("test")[0].name
    found = [ImageRecord.decode(data) for data in tfrecord.read(path)]
    found[3] = dataclasses.replace(found[3], pixels=found[3].pixels[:-32], height=31)
    path.write_bytes(b"".join(tfrecord.frame(record.encode()) for record in found))
    with pytest.raises(InputError, match=f"{path} is damaged in record 3: it has another size"):
        load_split(copy, dataset, "test")


@pytest.mark.parametrize("label", [2, 7, 2**62])
def test_a_label_of_no_class_is_refused(copy: Path, label: int) -> None:
    """It would be trained on as it is, and the loss would not complain."""
    dataset = shardset.load(copy)
    path = copy / dataset.split("train")[0].name
    found = [ImageRecord.decode(data) for data in tfrecord.read(path)]
    found[0] = dataclasses.replace(found[0], label=label)
    path.write_bytes(b"".join(tfrecord.frame(record.encode()) for record in found))
    with pytest.raises(InputError, match=f"{path} is damaged in record 0: .* no known class"):
        load_split(copy, dataset, "train")


# -------------------------------------------------------------------------------- TrainingFeed


def _numbered(count: int) -> Images:
    """`count` images; each pixel of image i is i, and so is its label."""
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 5, 4))
    return Images(np.ascontiguousarray(pixels), np.arange(count, dtype=np.int64))


def _order(
    count: int, batch_size: int, seed: int, epoch: int, fixed_shape: bool = False
) -> list[list[int]]:
    """The images of each batch; the labels must be those of the images."""
    batches = TrainingFeed(_numbered(count), batch_size, None, seed, fixed_shape).epoch(epoch)
    order = []
    for images, labels in batches.as_numpy_iterator():
        assert (images.dtype, labels.dtype) == (np.uint8, np.float32)
        assert images.shape == (len(labels), 5, 4, 1)
        assert labels.shape == (len(images), 1)
        np.testing.assert_array_equal(images, np.broadcast_to(labels[:, :, None, None], images.shape))
        order.append([int(label) for label in labels[:, 0]])
    return order


def test_golden_order() -> None:
    assert _order(7, 3, seed=1, epoch=0) == [[5, 0, 1], [4, 2, 6], [3]]
    assert _order(7, 3, seed=1, epoch=1) == [[6, 1, 4], [0, 3, 2], [5]]


@pytest.mark.parametrize(("count", "batch_size"), [(12, 4), (13, 4), (3, 8), (200, 7)])
def test_each_image_comes_once_an_epoch(count: int, batch_size: int) -> None:
    order = _order(count, batch_size, seed=5, epoch=2)
    assert sorted(itertools.chain(*order)) == list(range(count))
    assert [len(batch) for batch in order[:-1]] == [batch_size] * (len(order) - 1)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def flat(batch_size: int, seed: int, epoch: int) -> list[int]:
        return list(itertools.chain(*_order(40, batch_size, seed, epoch)))

    assert flat(8, 1, 0) == flat(8, 1, 0) == flat(5, 1, 0)
    assert len({tuple(flat(8, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_an_epoch_is_the_same_whichever_came_before_it() -> None:
    images = Images(np.random.default_rng(0).integers(0, 256, (12, 16, 16), np.uint8), np.arange(12))
    feed, other = (TrainingFeed(images, 5, Augmentation(), 3, False) for _ in range(2))
    list(other.epoch(0))
    for batch, again in zip(feed.epoch(1), other.epoch(1), strict=True):
        np.testing.assert_array_equal(batch[0], again[0])
        np.testing.assert_array_equal(batch[1], again[1])


def test_a_fixed_shape_leaves_out_the_remainder_and_other_images_each_epoch() -> None:
    epochs = [_order(13, 4, seed=0, epoch=epoch, fixed_shape=True) for epoch in range(8)]
    assert all([len(batch) for batch in order] == [4, 4, 4] for order in epochs)
    left_out = [set(range(13)) - set(itertools.chain(*order)) for order in epochs]
    assert len(set(map(frozenset, left_out))) > 1


def test_augmented_epoch_is_the_same_however_many_threads_run_it() -> None:
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (64, 16, 16), np.uint8), np.arange(64) % 2)

    def epoch(threads: int, epoch: int = 0) -> NDArray[np.uint8]:
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.autotune.enabled = threads > 1
        batches = TrainingFeed(images, 4, Augmentation(), seed=3, fixed_shape=False).epoch(epoch)
        return np.concatenate([batch for batch, _ in batches.with_options(options).as_numpy_iterator()])

    np.testing.assert_array_equal(epoch(1), epoch(8))
    assert not np.array_equal(np.sort(epoch(1, 0), axis=0), np.sort(epoch(1, 1), axis=0))


# ------------------------------------------------------------------------------------- augment

_HEIGHT, _WIDTH = 40, 48
_CENTRE = np.array([(_WIDTH - 1) / 2, (_HEIGHT - 1) / 2])
_Y, _X = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float64)


def _texture(count: int) -> NDArray[np.uint8]:
    """[count, height, width, 1], another one in each image, up to 22 grey levels a pixel."""
    waves = [
        np.sin(_X / 5 + index) + np.cos(_Y / 4 - 2 * index) + np.sin((_X + _Y) / 7)
        for index in range(count)
    ]
    return np.rint(128 + 40 * np.array(waves)).astype(np.uint8)[..., None]


def _maps(augmentation: Augmentation, seed: int, count: int) -> NDArray[np.float64]:
    """[count, 2, 2]: (x, y) of the input = centre + M @ ((x, y) of the output - centre).

    What the warp is asked for; that it does so is what the test's pixels show.
    """
    images = np.zeros((count, _HEIGHT, _WIDTH, 1), np.uint8)
    given: list[NDArray[np.float32]] = []

    def warp(images: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
        given.append(maps.copy())
        return images

    with mock.patch("tumorbatch.train.augment._warp", warp):
        augment(tf.constant(images), augmentation, [seed, 1])
    maps = given[0].astype(np.float64)
    centres = maps[..., :2] @ _CENTRE + maps[..., 2]
    np.testing.assert_allclose(centres, np.tile(_CENTRE, (count, 1)), atol=1e-4)  # it stays
    return np.asarray(maps[..., :2])


def _inverse_warp(texture: NDArray[np.uint8], sources: NDArray[np.float64]) -> NDArray[np.float64]:
    """The texture read at the source of each output pixel: bilinear, edges repeated."""
    at = np.stack([_X.ravel(), _Y.ravel()]) - _CENTRE[:, None]
    from_x, from_y = sources @ at + _CENTRE[:, None]
    from_x, from_y = np.clip(from_x, 0, _WIDTH - 1), np.clip(from_y, 0, _HEIGHT - 1)
    left, top = np.floor(from_x).astype(int), np.floor(from_y).astype(int)
    right, bottom = np.minimum(left + 1, _WIDTH - 1), np.minimum(top + 1, _HEIGHT - 1)
    u, v = from_x - left, from_y - top
    values = texture.astype(np.float64)
    upper = (1 - u) * values[top, left] + u * values[top, right]
    lower = (1 - u) * values[bottom, left] + u * values[bottom, right]
    return ((1 - v) * upper + v * lower).reshape(_HEIGHT, _WIDTH)


def _run(images: NDArray[np.uint8], augmentation: Augmentation, seed: int = 0) -> NDArray[np.uint8]:
    out = augment(tf.constant(images), augmentation, [seed, 1]).numpy()
    assert (out.dtype, out.shape) == (np.uint8, images.shape)
    return np.asarray(out)


def test_nothing_changes_when_everything_is_off() -> None:
    images = np.random.default_rng(1).integers(0, 256, (6, 33, 20, 1), np.uint8)
    np.testing.assert_array_equal(_run(images, Augmentation(shear=0, zoom=0, flip=False)), images)


@pytest.mark.parametrize("width", [20, 21])
def test_flip_alone_is_numpys_flip(width: int) -> None:
    images = np.random.default_rng(2).integers(0, 256, (100, 15, width, 1), np.uint8)
    out = _run(images, Augmentation(shear=0, zoom=0, flip=True))
    flipped = 0
    for before, after in zip(images, out, strict=True):
        if np.array_equal(after, np.flip(before, axis=1)):
            flipped += 1
        else:
            np.testing.assert_array_equal(after, before)
    assert 30 <= flipped <= 70  # half of 100; 4 standard deviations are 20


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(shear=0.3, zoom=0, flip=False),
        Augmentation(shear=0, zoom=0.3, flip=False),
        Augmentation(shear=0.2, zoom=0.2, flip=True),
    ],
    ids=["shear", "zoom", "all"],
)
def test_the_texture_is_an_inverse_warp_about_the_centre(augmentation: Augmentation) -> None:
    images = _texture(64)
    out = _run(images, augmentation)
    sources = _maps(augmentation, seed=0, count=64)
    for before, after, source in zip(images, out, sources, strict=True):
        expected = np.rint(_inverse_warp(before[..., 0], source))
        # 1/64 pixel off along both axes is 0.7 grey levels of this texture.
        assert np.abs(after[..., 0] - expected).max() <= 2
        assert np.abs(after[..., 0] - expected).mean() < 0.4

    (a0, a1), (b0, b1) = sources.transpose(1, 2, 0)
    np.testing.assert_allclose(np.abs(a0), b1, atol=2e-3)  # the same zoom along both axes
    np.testing.assert_allclose(b0, 0, atol=2e-3)  # shear is horizontal alone
    for drawn, middle, reach in ((1 / b1, 1, augmentation.zoom), (a1 / b1, 0, augmentation.shear)):
        assert np.abs(drawn - middle).max() <= reach + 2e-3
        if reach:  # 64 draws come near both ends
            assert drawn.min() < middle - 0.8 * reach
            assert drawn.max() > middle + 0.8 * reach
    mirrored = int((a0 < 0).sum())
    assert 16 <= mirrored <= 48 if augmentation.flip else mirrored == 0


def test_each_image_is_changed_in_its_own_way_by_the_seed_alone() -> None:
    images = np.repeat(_texture(1), 8, axis=0)
    out = _run(images, Augmentation(), seed=4)
    np.testing.assert_array_equal(out, _run(images, Augmentation(), seed=4))
    assert len({image.tobytes() for image in out}) == 8
    assert not np.array_equal(out, _run(images, Augmentation(), seed=5))


@pytest.mark.parametrize("parallel", [1, 8])
def test_in_a_pipeline_it_does_what_it_does_eagerly(parallel: int) -> None:
    images = _texture(24)
    data = tf.data.Dataset.from_tensor_slices(images).batch(4).enumerate()
    data = data.map(
        lambda step, batch: augment(batch, Augmentation(), [9, step]), num_parallel_calls=parallel
    )
    eager = [
        augment(tf.constant(images[4 * step : 4 * step + 4]), Augmentation(), [9, step]).numpy()
        for step in range(6)
    ]
    np.testing.assert_array_equal(list(data.as_numpy_iterator()), eager)


@pytest.mark.parametrize("wrong", [{"shear": -0.1}, {"shear": 1.1}, {"zoom": -0.1}, {"zoom": 1.0}])
def test_impossible_augmentation_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Augmentation(**wrong)  # type: ignore[arg-type]
