"""Batches of one shape, every image scored, and the step from logit to probability."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from tumorbatch.runtime import Runtime
from tumorbatch.scoring import Scorer, probability, scorer

BATCH = 8
SIZE = 32
CPU = Runtime("cpu", "float32", False, 0, "")


@pytest.fixture(scope="module")
def network(tf: Any) -> Any:
    import keras

    from tumorbatch.architectures import build

    keras.utils.set_random_seed(0)
    return build("cnn2", SIZE)


@pytest.fixture(scope="module")
def score(network: Any) -> Scorer:
    return scorer(network, BATCH, CPU)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3 * BATCH, SIZE, SIZE), np.uint8)


@pytest.fixture(scope="module")
def expected(network: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of one call with all images, unpadded."""
    logits: NDArray[np.float32] = network(images[..., np.newaxis], training=False).numpy()[:, 0]
    assert np.ptp(logits) > 1e-3  # else nothing below could fail
    return logits


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
def test_any_number_of_images(
    score: Scorer, images: NDArray[np.uint8], expected: NDArray[np.float32], count: int
) -> None:
    logits = score(images[:count])
    assert logits.shape == (count,)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected[:count], rtol=0, atol=1e-5)


def test_no_images(score: Scorer, images: NDArray[np.uint8]) -> None:
    assert score(images[:0]).shape == (0,)


def test_images_need_not_be_contiguous(
    score: Scorer, images: NDArray[np.uint8], expected: NDArray[np.float32]
) -> None:
    np.testing.assert_allclose(score(images[::-2]), expected[::-2], rtol=0, atol=1e-5)


def test_neighbours_change_no_bit_of_an_images_logit(score: Scorer, images: NDArray[np.uint8]) -> None:
    # Neither which they are nor how many: without padding, the number of rows chooses the kernel.
    logits = score(images[:BATCH])
    for count in range(1, BATCH):
        assert score(images[:count]).tolist() == logits[:count].tolist()
    for position in range(BATCH):
        others = images[-BATCH:].copy()
        others[position] = images[position]
        assert score(others)[position] == logits[position]


def test_the_place_in_the_batch_changes_hardly_anything(
    score: Scorer, images: NDArray[np.uint8]
) -> None:
    # Not bit-equal: matrix kernels take several rows at a time (6 on AVX2), and add up the rest of a
    # batch in another order.
    logits = score(images)
    for shift in range(1, BATCH):
        moved = np.roll(score(np.roll(images, shift, axis=0)), -shift)
        np.testing.assert_allclose(moved, logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("xla", [False, True])
def test_the_network_sees_one_shape_alone(tf: Any, images: NDArray[np.uint8], xla: bool) -> None:
    shapes = []

    def network(batch: Any, training: bool) -> Any:
        shapes.append((*batch.shape, batch.dtype.name, training))  # once for each compilation
        return tf.reduce_sum(tf.cast(batch, tf.float32), axis=(1, 2))

    score = scorer(network, BATCH, Runtime("cpu", "float32", xla, 0, ""))
    for count in (3, BATCH, 1, BATCH + 1):
        sums = images[:count].sum(axis=(1, 2), dtype=np.int64)  # below 2**24: exact in float32
        assert score(images[:count]).tolist() == sums.tolist()
    assert shapes == [(BATCH, SIZE, SIZE, 1, "uint8", False)]


# --- probability --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_probability_is_the_sigmoid(temperature: float) -> None:
    logits = np.linspace(-90, 90, 10_001, dtype=np.float32)
    exact = expit(logits.astype(np.float64) / temperature)
    result = probability(logits, temperature)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact, rtol=1e-7, atol=1e-44)


def test_probability_at_the_extremes() -> None:
    large = float(np.finfo(np.float32).max)
    logits = np.array([-np.inf, -large, -1000, 0, 1000, large, np.inf], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for temperature in (1e-3, 1.0, 1e3):
            result = probability(logits, temperature)
            assert result[[0, 1, 3, 5, 6]].tolist() == [0, 0, 0.5, 1, 1]
            assert (np.diff(result) >= 0).all()


def test_probability_hides_no_broken_logit() -> None:
    assert np.isnan(probability(np.array([np.nan], np.float32), 1.0)).all()
