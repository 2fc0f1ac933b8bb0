"""The split that stays on disk: the images of the one in memory, once an epoch, in bounded memory."""

import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.train.test_fit import _CPU
from tests.train.test_phases import EACH_STEP, StopError, Stopping
from tumorbatch import architectures, shardset
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.train import stream
from tumorbatch.train.checkpoint import Checkpoint
from tumorbatch.train.config import Augmentation, Schedule
from tumorbatch.train.feed import Images, load_split
from tumorbatch.train.fit import Fit, Recipe
from tumorbatch.train.stream import Shards, splits

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


@pytest.fixture
def shards(shard_set: Path) -> Shards:
    return Shards(shard_set, shardset.load(shard_set), "train")


def _epoch(
    shards: Shards, number: int = 0, start: int = 0, seed: int = 3, fixed: bool = False, **more: Any
) -> list[Batch]:
    feed = shards.feed(8, more.get("augmentation"), seed, fixed)
    return list(feed.epoch(number, start).as_numpy_iterator())


def _content(batches: list[Batch]) -> list[tuple[bytes, float]]:
    return [
        (image.tobytes(), float(label[0]))
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    ]


def test_every_image_comes_once_an_epoch(shards: Shards) -> None:
    images = load_split(shards.folder, shards.dataset, "train")
    expected = Counter(
        (image.tobytes(), float(label))
        for image, label in zip(images.pixels, images.labels, strict=True)
    )
    for number in range(3):
        batches = _epoch(shards, number)
        assert Counter(_content(batches)) == expected
        assert {batch.shape[1:] for batch, _ in batches} == {(32, 32, 1)}
        assert [len(batch) for batch, _ in batches[:-1]] == [8] * (len(batches) - 1)
        assert len(batches) == shards.feed(8, None, 3, False).steps


def test_seed_and_epoch_alone_decide_the_order(shards: Shards) -> None:
    orders = {
        (seed, number): tuple(_content(_epoch(shards, number, seed=seed)))
        for seed, number in itertools.product((1, 2), (0, 1))
    }
    assert len(set(orders.values())) == 4
    assert tuple(_content(_epoch(shards, 1, seed=2))) == orders[2, 1]


def test_it_is_shuffled_through_all_shards(shards: Shards) -> None:
    """The first batches hold images of most shards, and not in the order of any."""
    names = [shards.folder / shard.name for shard in shards.dataset.split("train")]
    assert len(names) > 2
    of = {
        image.tobytes(): number
        for number, name in enumerate(names)
        for image in _pixels(shards, name.name)
    }
    first = [of[content] for content, _ in _content(_epoch(shards))[:16]]
    assert len(set(first)) > len(names) / 2
    assert first != sorted(first)


def _pixels(shards: Shards, name: str) -> list[bytes]:
    from tumorbatch import tfrecord
    from tumorbatch.tfrecord import ImageRecord

    found = [ImageRecord.decode(data) for data in tfrecord.read(shards.folder / name)]
    return [np.frombuffer(record.pixels, np.uint8) for record in found]  # type: ignore[misc]


def test_an_epoch_taken_up_again_goes_on_with_the_very_batches(shards: Shards) -> None:
    whole = _epoch(shards, 2, augmentation=Augmentation())
    rest = _epoch(shards, 2, start=3, augmentation=Augmentation())
    for one, other in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_a_fixed_shape_leaves_out_the_remainder(shards: Shards) -> None:
    assert shards.count % 8
    assert [len(batch) for batch, _ in _epoch(shards, fixed=True)] == [8] * (shards.count // 8)


def test_the_buffer_is_bounded(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one mixes less, and still gives every image once."""
    monkeypatch.setattr(stream, "_SHUFFLE_BYTES", 4 * 32 * 32)
    batches = _epoch(shards)
    assert len(set(_content(batches))) <= shards.count == len(_content(batches))


def test_scores_are_those_of_the_split_in_memory(shards: Shards) -> None:
    def score(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return pixels.mean((1, 2), np.float32)

    images = load_split(shards.folder, shards.dataset, "train")
    logits, labels = shards.scored(score)
    expected, truth = images.scored(score)
    assert shards.count == images.count
    assert shards.tumors == images.tumors
    order, other = np.lexsort((labels, logits)), np.lexsort((truth, expected))
    np.testing.assert_array_equal(logits[order], expected[other])
    np.testing.assert_array_equal(labels[order], truth[other])


@pytest.mark.parametrize("damage", ["cut", "flip", "missing"])
def test_a_damaged_shard_is_named(damage: str, shards: Shards, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards.folder, tmp_path / "tfrecords"))
    path = folder / shards.dataset.split("train")[1].name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else b"")
    broken = Shards(folder, shards.dataset, "train")
    network = architectures.build("cnn1", 32)
    recipe = Recipe(Schedule(epochs=1, batch_size=8), None, _CPU)
    with pytest.raises(InputError, match=path.name):
        Fit(network, broken, broken, recipe).run()
    with pytest.raises(InputError, match=path.name):
        broken.scored(lambda pixels: np.zeros(len(pixels), np.float32))


def test_auto_takes_what_fits(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = shardset.load(shard_set)
    data, feed = splits(shard_set, dataset, "auto")
    assert (feed, type(data["train"])) == ("ram", Images)
    monkeypatch.setattr(stream, "free_memory", lambda: 100_000)
    data, feed = splits(shard_set, dataset, "auto")
    assert (feed, type(data["test"])) == ("stream", Shards)
    with pytest.raises(ConfigError, match=r"GB of memory.*--feed stream"):
        splits(shard_set, dataset, "ram")
    monkeypatch.setattr(stream, "free_memory", lambda: None)
    assert splits(shard_set, dataset, "ram")[1] == "ram"


def test_a_stopped_training_from_disk_ends_with_the_same_bits(shards: Shards, tmp_path: Path) -> None:
    plan = Schedule(epochs=2, batch_size=16, seed=5)

    def trained(checkpoint: Checkpoint | None) -> list[NDArray[Any]]:
        import keras

        keras.utils.set_random_seed(1)
        network = architectures.build("cnn1", 32)
        Fit(network, shards, shards, Recipe(plan, Augmentation(), _CPU), checkpoint).run()
        return list(network.get_weights())

    whole = trained(None)
    checkpoint = Stopping(tmp_path / "checkpoint", {}, EACH_STEP)
    checkpoint.left = 3
    with pytest.raises(StopError):
        trained(checkpoint)
    for one, other in zip(whole, trained(Checkpoint(checkpoint.path, {}, EACH_STEP)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # its ops need not be deterministic
