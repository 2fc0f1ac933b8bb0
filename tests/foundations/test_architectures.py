"""The networks against the report: layers, shapes, parameter counts, and the arithmetic itself."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tumorbatch.architectures import ARCHITECTURES, BASE, PRETRAINED, build, fold
from tumorbatch.errors import ConfigError

pytestmark = pytest.mark.usefixtures("tf")

BODY = ["Concatenate", "Rescaling", *["Conv2D", "MaxPooling2D"] * 3, "Flatten"]
LAYERS = {
    "cnn1": [*BODY, "Dense", "Dense"],
    "cnn2": [
        *BODY, "Dense", "BatchNormalization", "Dropout", "Dense", "BatchNormalization", "Dense",
    ],
}  # fmt: skip


@pytest.fixture
def half_precision() -> Iterator[None]:
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


def _sides(size: int) -> list[int]:
    """Side of the feature map after each convolution and each pooling."""
    sides = []
    for _ in range(3):
        sides.append(size - 2)
        size = (size - 2) // 2
        sides.append(size)
    return sides


def _parameters(name: str, size: int) -> int:
    flat = _sides(size)[-1] ** 2 * 32
    body = (9 * 3 * 32 + 32) + 2 * (9 * 32 * 32 + 32) + (flat * 128 + 128)
    if name == "cnn1":
        return body + (128 + 1)
    return body + 4 * 128 + (128 * 64 + 64) + 4 * 64 + (64 + 1)


def test_the_list() -> None:
    assert ARCHITECTURES == ("cnn1", "cnn2", "resnet50", "mobilenetv2", "densenet121")
    assert ARCHITECTURES[2:] == PRETRAINED


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [32, 150])
def test_layers_shapes_and_parameters(name: str, size: int) -> None:
    network = build(name, size)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["InputLayer", *LAYERS[name]]
    maps = [layer.output.shape for layer in network.layers if len(layer.output.shape) == 4]
    assert maps == [
        (None, size, size, 1),
        (None, size, size, 3),
        (None, size, size, 3),
        *((None, side, side, 32) for side in _sides(size)),
    ]
    dense = [layer.units for layer in network.layers if type(layer).__name__ == "Dense"]
    assert dense == ([128, 1] if name == "cnn1" else [128, 64, 1])
    assert network.count_params() == _parameters(name, size)
    assert network.input.dtype == "uint8"
    assert network.output.dtype == "float32"
    assert network.output.shape == (None, 1)
    assert network.name == name


def test_the_reports_number_of_parameters() -> None:
    assert _parameters("cnn1", 150) == 1_203_393
    assert build("cnn1", 150).count_params() == 1_203_393


def test_dropout_rate() -> None:
    (dropout,) = (layer for layer in build("cnn2", 32).layers if type(layer).__name__ == "Dropout")
    assert dropout.rate == 0.3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_have_the_same_names_in_every_network_of_a_process(name: str) -> None:
    # A bundle finds its weights by name; Keras' own names count on (conv2d, conv2d_1, ...).
    one, two = build(name, 32), build(name, 32)
    paths = [variable.path for variable in one.weights]
    assert [variable.path for variable in two.weights] == paths
    assert len(set(paths)) == len(paths)


def _forward(name: str, weights: dict[str, NDArray[Any]], images: NDArray[np.uint8]) -> NDArray[Any]:
    """The networks once more, in NumPy, from the report's description.

    Args:
        name: cnn1 or cnn2.
        weights: By name, as in a bundle.
        images: uint8 [n, size, size].

    Returns:
        Logits, float64 [n].
    """

    def dense(x: NDArray[Any], layer: str) -> NDArray[Any]:
        return x @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]

    def norm(x: NDArray[Any], layer: str) -> NDArray[Any]:
        scale = weights[f"{layer}/gamma"] / np.sqrt(weights[f"{layer}/moving_variance"] + 1e-3)
        return (x - weights[f"{layer}/moving_mean"]) * scale + weights[f"{layer}/beta"]

    x = np.repeat(images[..., np.newaxis] / 255.0, 3, axis=-1)
    for number in (1, 2, 3):
        windows = sliding_window_view(x, (3, 3), axis=(1, 2))  # [n, y, x, channel, 3, 3]
        x = np.einsum("nyxcij,ijco->nyxo", windows, weights[f"conv_{number}/kernel"])
        x = np.maximum(x + weights[f"conv_{number}/bias"], 0)
        side = x.shape[1] // 2
        x = x[:, : 2 * side, : 2 * side].reshape(len(x), side, 2, side, 2, 32).max(axis=(2, 4))
    x = np.maximum(dense(x.reshape(len(x), -1), "dense_1"), 0)
    if name == "cnn2":
        x = np.maximum(dense(norm(x, "norm_1"), "dense_2"), 0)
        x = norm(x, "norm_2")
    return dense(x, "logit")[:, 0]


@pytest.mark.parametrize("name", ["cnn1", "cnn2"])
def test_the_arithmetic_is_the_reports(name: str) -> None:
    random = np.random.default_rng(0)
    network = build(name, 32)
    for variable in network.weights:  # the biases and statistics too, which start as 0 and 1
        value = random.normal(0, 0.1, variable.shape)
        variable.assign(abs(value) if "variance" in variable.path else value)
    weights = {variable.path: variable.numpy().astype(np.float64) for variable in network.weights}
    images = random.integers(0, 256, (3, 32, 32), np.uint8)
    logits = network(images[..., np.newaxis], training=False).numpy()[:, 0]
    expected = _forward(name, weights, images)
    assert np.ptp(expected) > 1e-3  # the images do make a difference
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("half_precision")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_logit_is_float32_under_mixed_precision(name: str) -> None:
    network = build(name, 32)
    assert network.output.dtype == "float32"
    assert network(np.zeros((1, 32, 32, 1), np.uint8)).dtype == "float32"
    assert any(layer.compute_dtype == "float16" for layer in network.layers)
    assert {variable.dtype for variable in network.weights} == {"float32"}


HEADS = {
    "resnet50": [*["Dense", "Dropout", "BatchNormalization", "ReLU"] * 3, "Dense"],
    "mobilenetv2": ["Dense", "BatchNormalization", "Dropout", "Dense"],
    "densenet121": ["Dropout", "BatchNormalization", "Dense", "Dropout", "Dense"],
}
# Parameters without the classifier, as the Keras documentation's table of applications gives the
# whole (25,636,712; 3,538,984; 8,062,504) less the classifier's (C + 1) x 1000.
BASES = {
    "resnet50": (2048, 25_636_712 - 2049 * 1000),
    "mobilenetv2": (1280, 3_538_984 - 1281 * 1000),
    "densenet121": (1024, 8_062_504 - 1025 * 1000),
}


def _head_parameters(name: str, flat: int) -> int:
    """By hand: a dense layer has (inputs + 1) x units, batch normalisation four a feature."""
    if name == "resnet50":
        units = [flat, 512, 128, 16]
        dense = sum((a + 1) * b for a, b in pairwise(units))
        return dense + 4 * (512 + 128 + 16) + 17
    if name == "mobilenetv2":
        return (flat + 1) * 512 + 4 * 512 + 513
    return 4 * flat + (flat + 1) * 16 + 17


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize(("size", "side"), [(33, 2), (150, 5)])
def test_pretrained_architectures(name: str, size: int, side: int) -> None:
    network = build(name, size)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["InputLayer", "Concatenate", "Rescaling", "Functional", "Flatten", *HEADS[name]]
    features, parameters = BASES[name]
    if name == "densenet121":
        side = size // 32  # its poolings round down, those of the others round up
    base = network.get_layer(BASE)
    assert base.output.shape == (None, side, side, features)
    assert base.count_params() == parameters
    assert network.count_params() == parameters + _head_parameters(name, side**2 * features)
    dense = [layer.units for layer in network.layers if type(layer).__name__ == "Dense"]
    assert dense == {
        "resnet50": [512, 128, 16, 1], "mobilenetv2": [512, 1], "densenet121": [16, 1],
    }[name]  # fmt: skip
    rates = [layer.rate for layer in network.layers if type(layer).__name__ == "Dropout"]
    assert rates == {"resnet50": [0.4] * 3, "mobilenetv2": [0.4], "densenet121": [0.7, 0.5]}[name]


@pytest.mark.parametrize(
    ("name", "scaled"),
    [  # of a pixel of value v in each channel; from the papers' published means and deviations
        ("cnn1", lambda v: [v / 255] * 3),
        ("resnet50", lambda v: [v - 103.939, v - 116.779, v - 123.68]),
        ("mobilenetv2", lambda v: [v / 127.5 - 1] * 3),
        (
            "densenet121",
            lambda v: [(v / 255 - 0.485) / 0.229, (v / 255 - 0.456) / 0.224, (v / 255 - 0.406) / 0.225],
        ),
    ],
)
@pytest.mark.usefixtures("half_precision")
def test_scaling_also_under_half_precision(name: str, scaled: Callable[[float], list[float]]) -> None:
    import keras

    network = build(name, 32)
    scaling = keras.Model(network.input, network.layers[2].output)
    images = np.resize(np.arange(256, dtype=np.uint8), (1, 32, 32, 1))
    got = np.asarray(scaling(images))
    assert got.dtype == np.float32
    for value in (0, 1, 127, 255):
        np.testing.assert_allclose(got[images[..., 0] == value][0], scaled(value), rtol=0, atol=2e-5)


def test_further_dropout_changes_no_name_and_no_prediction() -> None:
    plain, dropping = build("cnn1", 32), build("cnn1", 32, dropout=0.5)
    assert [v.path for v in dropping.weights] == [v.path for v in plain.weights]
    dropping.set_weights(plain.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)
    np.testing.assert_array_equal(
        dropping(images, training=False).numpy(), plain(images, training=False).numpy()
    )
    assert np.ptp([dropping(images, training=True).numpy() for _ in range(8)]) > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_that_are_too_small_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="at least 32 x 32"):
        build(name, 31)


def test_an_unknown_name_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"one of cnn1, cnn2.*Received: resnet152"):
        build("resnet152", 150)


# --- the first convolution, folded ------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_a_folded_network_gives_the_same_logits(name: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    network = build(name, 40)
    folded = fold(network)
    images = np.random.default_rng(0).integers(0, 256, (16, 40, 40, 1), np.uint8)
    for _ in range(2):
        logits = network(images, training=False).numpy()
        assert np.ptp(logits) > 1e-3
        np.testing.assert_allclose(folded(images, training=False), logits, rtol=0, atol=2e-6)
        assert folded.dtype_policy == network.dtype_policy
        # Weights that the network is given later count as well.
        network.set_weights([value * 1.1 for value in network.get_weights()])
    shapes = [layer.output.shape for layer in folded.layers[:2]]
    assert shapes == [(None, 40, 40, 1)] * 2  # one channel in front of the convolution


def test_the_folded_kernel_is_the_sum_over_the_channels() -> None:
    network = build("cnn1", 32)
    image = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 1), np.uint8)
    kernel, bias = (value.astype(np.float64) for value in network.get_layer("conv_1").get_weights())
    windows = sliding_window_view(image[0, :, :, 0] / 255.0, (3, 3))
    expected = np.maximum(np.einsum("yxij,ijf->yxf", windows, kernel.sum(axis=2)) + bias, 0)
    convolution = fold(network).layers[2]
    np.testing.assert_allclose(convolution(image / np.float32(255))[0], expected, atol=1e-6)


@pytest.mark.usefixtures("half_precision")
def test_a_folded_network_computes_in_its_own_precision() -> None:
    folded = fold(build("cnn1", 32))
    image = np.zeros((1, 32, 32, 1), np.uint8)
    assert folded.layers[2](folded.layers[1](image)).dtype == "float16"
    assert folded(image).dtype == "float32"


def test_what_is_not_folded() -> None:
    pretrained = build("mobilenetv2", 32)
    assert fold(pretrained) is pretrained
    assert fold(abs) is abs
