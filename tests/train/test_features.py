"""Training a head on features of its frozen base that were computed once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.train.test_fit import _CPU, _images
from tests.train.test_phases import EACH_STEP, HEAD, PARTS, StopError, Stopping, _network, _values
from tumorbatch.errors import ConfigError
from tumorbatch.train.checkpoint import Checkpoint
from tumorbatch.train.config import Augmentation, Config, Schedule
from tumorbatch.train.features import FeatureFeed, split_at_base
from tumorbatch.train.fit import Fit, Fitted, Recipe

SCHEDULE = Schedule(epochs=2, patience=2, batch_size=8, weight_decay=0.01, seed=2, feature_copies=2)


def test_base_and_head_are_the_network() -> None:
    network = _network()
    base, head = split_at_base(network)
    images = _images(0).pixels[..., np.newaxis]
    expected = network(images, training=False).numpy()
    np.testing.assert_allclose(head(base(images)).numpy(), expected, rtol=1e-6, atol=1e-6)
    head.layers[-1].kernel.assign_add(np.ones_like(head.layers[-1].kernel))
    assert not np.allclose(network(images, training=False), expected)


def _feed(augmentation: Augmentation | None, copies: int) -> tuple[FeatureFeed, Any]:
    base, _ = split_at_base(_network())
    images = _images(0)
    feed = images.feed(8, augmentation, 5, False)
    return FeatureFeed(base, feed, images.count, copies, 8, 5, False, lambda: None), base


def _sorted(feed: FeatureFeed, epoch: int, start: int = 0) -> NDArray[np.float32]:
    """Return the features of an epoch, each with its label behind it, in the order of their values."""
    batches = [
        np.concatenate([features.numpy().reshape(len(labels), -1), labels], axis=1)
        for features, labels in feed.epoch(epoch, start)
    ]
    rows = np.concatenate(batches)
    return rows[np.lexsort(rows.T)]


def test_an_epoch_has_each_images_features_once() -> None:
    feed, base = _feed(None, 1)
    images = _images(0)
    features = base(images.pixels[..., np.newaxis]).numpy().reshape(images.count, -1)
    expected = np.concatenate([features, images.labels[:, np.newaxis]], axis=1)
    expected = expected[np.lexsort(expected.T)]
    for epoch in (0, 3):
        np.testing.assert_allclose(_sorted(feed, epoch), expected, rtol=1e-6, atol=1e-6)
    first = [[labels.numpy().tolist() for _, labels in feed.epoch(epoch)] for epoch in (0, 1, 0)]
    assert first[0] == first[2] != first[1]
    assert len(_sorted(feed, 0, start=2)) == images.count - 16


def test_copies_have_changes_of_their_own_and_take_turns() -> None:
    feed, _ = _feed(Augmentation(), 2)
    epochs = [_sorted(feed, epoch) for epoch in range(4)]
    np.testing.assert_array_equal(epochs[0], epochs[2])
    np.testing.assert_array_equal(epochs[1], epochs[3])
    assert not np.allclose(epochs[0], epochs[1])


def _trained(checkpoint: Checkpoint | None) -> tuple[Fitted, Any]:
    network = _network()
    recipe = Recipe(SCHEDULE, Augmentation(), _CPU, PARTS)
    return Fit(network, _images(0), _images(1), recipe, checkpoint).run(), network


def test_stopped_anywhere_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, network = _trained(None)
    assert whole.phases == {"base frozen": 2, "fine-tuning": 2}
    for saves in (3, 12, 15):
        checkpoint = Stopping(tmp_path / f"{saves}.checkpoint", {}, EACH_STEP)
        checkpoint.left = saves
        with pytest.raises(StopError):
            _trained(checkpoint)
        again, resumed = _trained(Checkpoint(checkpoint.path, {}, EACH_STEP))
        for one, other in zip(network.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert again.history["val_auc"] == whole.history["val_auc"]


def test_only_the_head_is_trained_and_validation_is_that_of_the_network() -> None:
    network = _network()
    before = _values(network)
    recipe = Recipe(SCHEDULE, Augmentation(), _CPU, PARTS[:1])
    fitted = Fit(network, _images(0), _images(1), recipe).run()
    after = _values(network)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == HEAD
    validation = _images(1)
    logits = network(validation.pixels[..., np.newaxis], training=False).numpy()[:, 0].astype(float)
    loss = np.mean(np.logaddexp(0, logits) - validation.labels * logits)
    assert fitted.history["val_loss"][fitted.best_epoch - 1] == pytest.approx(loss, rel=1e-5)


def test_features_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tumorbatch.train.features.free_memory", lambda: 100_000)
    with pytest.raises(ConfigError, match=r"2 copies need .* GB .*smaller --feature-copies"):
        _trained(None)


def test_there_must_be_a_frozen_base() -> None:
    for config in (("cnn1", None), ("mobilenetv2", "none")):
        with pytest.raises(ConfigError, match="frozen base"):
            Config(config[0], Schedule(feature_copies=1), weights=config[1])
