"""Grad-CAM against a network whose map is worked out by hand, and on all five architectures."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tumorbatch.architectures import ARCHITECTURES, build
from tumorbatch.errors import ConfigError
from tumorbatch.evaluation.gradcam import GradCam, overlay, panels, randomised, similarity

SIZE = 4


def _tiny(kernel: Any, weights: Any) -> Any:
    """uint8 [N, 4, 4, 1] -> two channels by a 1 x 1 convolution and ReLU -> their weighted sum."""
    image = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = layers.Rescaling(1.0, dtype="float32")(image)
    convolution = layers.Conv2D(2, 1, activation="relu")
    x = layers.Flatten()(convolution(x))
    dense = layers.Dense(1)
    network = keras.Model(image, dense(x), name="tiny")
    convolution.set_weights([np.float32(kernel).reshape(1, 1, 1, 2), np.float32([0, 255])])
    dense.set_weights([np.float32(weights).reshape(-1, 1), np.float32([3])])
    return network


def test_the_map_is_the_one_worked_out_by_hand() -> None:
    """Channels x and 255 - x; the score is their sum with weights v1 and v2 at each place.

    Its gradient is v itself; so alpha is the mean of v, and the map relu(a1 x + a2 (255 - x)).
    """
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(SIZE, SIZE, 2)) + np.array([0.5, -0.25])
    images = rng.integers(0, 256, (3, SIZE, SIZE), np.uint8)
    network = _tiny([1, -1], weights)
    first, second = weights.mean(axis=(0, 1))
    x = images.astype(float)
    summed = first * x + second * (255 - x)
    for towards, sign in ((1, 1), (0, -1)):
        expected = np.maximum(sign * summed, 0)
        expected /= expected.max(axis=(1, 2), keepdims=True)
        got = GradCam(network)(images, np.full(3, towards), batch_size=2)
        assert got.dtype == np.float32
        assert got == pytest.approx(expected, abs=1e-5)


def test_only_the_place_that_counts_is_bright() -> None:
    images = np.zeros((1, SIZE, SIZE), np.uint8)
    images[0, 1, 2] = 200
    (heat,) = GradCam(_tiny([1, 0], np.tile([1, 0], SIZE * SIZE)))(images, np.array([1]))
    assert heat[1, 2] == 1
    assert heat.sum() == 1


def test_what_speaks_for_nothing_is_dark() -> None:
    images = np.full((1, SIZE, SIZE), 9, np.uint8)
    assert not GradCam(_tiny([1, 1], np.full(32, -1.0)))(images, np.array([1])).any()


def test_a_frozen_network_has_a_map_too() -> None:
    network = _tiny([1, -1], np.tile([1, 0], SIZE * SIZE))
    network.trainable = False
    images = np.full((1, SIZE, SIZE), 9, np.uint8)
    assert GradCam(network)(images, np.array([1])).max() == 1


# Side of the last feature maps for 64 x 64 pixels: three blocks of valid 3 x 3 convolutions, seen
# before their last pooling; five halvings.
SIDES = {"cnn1": 12, "cnn2": 12, "resnet50": 2, "mobilenetv2": 2, "densenet121": 2}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("resnet50", "densenet121") else name
        for name in ARCHITECTURES
    ],
)
def test_every_architecture_has_its_maps(name: str) -> None:
    keras.utils.set_random_seed(1)
    network = build(name, 64)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    cam = GradCam(network)
    tumor, healthy = (cam(images, np.full(2, label)) for label in (1, 0))
    assert tumor.shape == (2, SIDES[name], SIDES[name])
    assert np.isfinite(tumor).all()
    # Of the same weighted sum, one map shows what is above 0, the other what is below.
    assert not (tumor * healthy).any()
    assert (tumor.any(axis=(1, 2)) | healthy.any(axis=(1, 2))).all()
    # The two halves are the network.
    halves = cam._head(cam._convolutions(images[..., np.newaxis]))
    (logits,) = halves if isinstance(halves, list) else [halves]
    expected = network(images[..., np.newaxis], training=False)
    assert logits.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_without_a_convolution_there_is_no_map() -> None:
    image = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    network = keras.Model(image, layers.Dense(1)(layers.Flatten()(image)), name="flat")
    with pytest.raises(ConfigError, match="no convolution"):
        GradCam(network)


def test_the_overlay_shows_the_image_and_where_the_map_is() -> None:
    image = np.random.default_rng(0).integers(0, 200, (20, 30), np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[0, 0] = 1
    covered = overlay(image, heat)
    assert (covered.dtype, covered.shape) == (np.uint8, (20, 30, 3))
    assert (covered[10:, 15:] == image[10:, 15:, np.newaxis]).all()  # nothing there
    assert (covered == 255).all(axis=2).any()  # the outline of its half
    assert covered[1, 1, 0] > covered[1, 1, 2]  # yellow: red without blue


def test_image_map_and_control_stand_side_by_side_with_a_colour_bar() -> None:
    image = np.random.default_rng(0).integers(0, 200, (20, 30), np.uint8)
    heat, control = np.zeros((4, 6), np.float32), np.zeros((4, 6), np.float32)
    heat[0, 0] = control[3, 5] = 1
    picture = panels(image, heat, control, scale=2)
    assert picture.shape == (22 + 40, 3 * 60 + 70, 3)
    parts = [picture[22:, at : at + 60].astype(int) for at in (0, 68, 136)]
    assert (parts[0][..., 0] == parts[0][..., 2]).all()  # grey
    changed = [(part != parts[0]).any(axis=2) for part in parts[1:]]
    assert changed[0][:5, :5].all()
    assert not changed[0][20:, 30:].any()
    assert changed[1][-5:, -5:].all()
    bar = picture[22:, 204:218].astype(int)
    assert bar[0].sum() > bar[-1].sum()  # bright is above


def test_random_weights_are_the_same_each_time_and_give_another_map() -> None:
    keras.utils.set_random_seed(1)
    network = build("cnn1", 32)
    first, second = (randomised(network) for _ in range(2))
    for one, other, trained in zip(first.weights, second.weights, network.weights, strict=True):
        assert (one.numpy() == other.numpy()).all()
        assert one.ndim < 2 or (one.numpy() != trained.numpy()).all()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    maps = [GradCam(one)(images, np.array([1, 0])) for one in (network, first)]
    assert np.isfinite(maps[1]).all()
    assert similarity(maps[0][0], maps[0][0]) == pytest.approx(1)
    assert similarity(maps[0][0], np.zeros_like(maps[0][0])) is None
