"""Weights of groups in the loss: by hand, in both feeds, and in the loss that is minimised."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from keras import layers

from tumorbatch import shardset, tfrecord
from tumorbatch.errors import ConfigError
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import scorer
from tumorbatch.statistics.classification import pointwise_log_loss
from tumorbatch.tfrecord import ImageRecord
from tumorbatch.train.config import Schedule
from tumorbatch.train.fit import Fit, Recipe
from tumorbatch.train.group_weights import group_weights
from tumorbatch.train.stream import splits

_CPU = Runtime("cpu", "float32", False, 1, "for a test")


def _train_rows(folder: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(folder / "manifest.parquet").to_pylist()
    return [row for row in rows if row["split"] == "train"]


@pytest.mark.parametrize(("how", "power"), [("sqrt", 0.5), ("equal", 1.0)])
def test_a_weight_falls_with_the_copies_of_its_group(shard_set: Path, how: str, power: float) -> None:
    weights = group_weights(shard_set, shardset.load(shard_set), how)
    assert weights is not None
    rows = _train_rows(shard_set)
    groups = [row["duplicate_group"] for row in rows]
    assert max(map(groups.count, groups)) > 1  # or nothing is tested
    raw = {row["path"]: groups.count(row["duplicate_group"]) ** -power for row in rows}
    mean = sum(raw.values()) / len(raw)
    assert weights == pytest.approx({path: weight / mean for path, weight in raw.items()})
    if how == "equal":  # each group weighs the same
        totals = dict.fromkeys(groups, 0.0)
        for row in rows:
            totals[row["duplicate_group"]] += weights[row["path"]]
        assert list(totals.values()) == pytest.approx([len(rows) / len(totals)] * len(totals))


def test_class_weights_are_multiplied_in(shard_set: Path) -> None:
    dataset = shardset.load(shard_set)
    plain = group_weights(shard_set, dataset, "sqrt")
    both = group_weights(shard_set, dataset, "sqrt", {0: 1.0, 1: 3.0})
    assert plain is not None
    assert both is not None
    assert np.mean(list(both.values())) == pytest.approx(1)
    ratios = {row["class"]: both[row["path"]] / plain[row["path"]] for row in _train_rows(shard_set)}
    assert ratios["Tumor"] == pytest.approx(3 * ratios["Healthy"])


def test_none_leaves_the_loss_alone_and_another_word_is_refused(shard_set: Path) -> None:
    assert group_weights(shard_set, shardset.load(shard_set), "none") is None
    with pytest.raises(ConfigError, match="--group-weights must be one of none, sqrt, equal"):
        Schedule(group_weights="cubed")


def _records(folder: Path) -> list[ImageRecord]:
    return [
        ImageRecord.decode(data)
        for shard in shardset.load(folder).split("train")
        for data in tfrecord.read(folder / shard.name)
    ]


@pytest.mark.parametrize("feed", ["ram", "stream"])
def test_each_image_comes_with_its_own_weight(shard_set: Path, feed: str) -> None:
    dataset = shardset.load(shard_set)
    weights = group_weights(shard_set, dataset, "equal")
    assert weights is not None
    # Copies of equal pixels are of one group, and have one weight.
    paths = {record.pixels: record.filename for record in _records(shard_set)}
    data, _ = splits(shard_set, dataset, feed, weights)
    assert data["validation"].weights is None
    count = 0
    for epoch in (0, 1):  # in another order
        for images, _, given in data["train"].feed(8, None, 3, False).epoch(epoch):
            for image, weight in zip(images.numpy(), given.numpy(), strict=True):
                assert weight == pytest.approx(weights[paths[image.tobytes()]], rel=1e-6)
                count += 1
    assert count == 2 * dataset.records("train")


@pytest.mark.parametrize("feed", ["ram", "stream"])
def test_the_loss_is_the_weighted_one(shard_set: Path, feed: str) -> None:
    """With a learning rate of almost 0 the epoch's loss is the weighted mean before it."""
    dataset = shardset.load(shard_set)
    weights = group_weights(shard_set, dataset, "equal")
    assert weights is not None
    data, _ = splits(shard_set, dataset, feed, weights)
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 1), dtype="uint8")
    network = keras.Model(image, layers.Dense(1)(layers.Flatten()(layers.Rescaling(1 / 64)(image))))
    records = _records(shard_set)
    pixels = [np.frombuffer(record.pixels, np.uint8).reshape(32, 32) for record in records]
    logits = scorer(network, 8, _CPU)(np.stack(pixels))
    labels = np.array([record.label for record in records], np.int64)
    losses = pointwise_log_loss(logits, labels)
    expected = np.average(losses, weights=[weights[record.filename] for record in records])
    assert abs(expected - losses.mean()) > 1e-3  # or the weights would not show
    schedule = Schedule(epochs=1, batch_size=8, learning_rate=1e-9, weight_decay=0.0)
    fitted = Fit(network, data["train"], data["validation"], Recipe(schedule, None, _CPU)).run()
    assert fitted.history["loss"] == pytest.approx([expected], rel=1e-4)
