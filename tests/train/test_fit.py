"""The training loop on problems that a network of a few weights learns in a second."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tumorbatch.errors import ConfigError, ExitCode
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import scorer
from tumorbatch.statistics.classification import pointwise_log_loss
from tumorbatch.train.config import Augmentation, DivergedError, Schedule
from tumorbatch.train.feed import Images
from tumorbatch.train.fit import Fit, Fitted, Recipe

_CPU = Runtime("cpu", "float32", False, 1, "for a test")
_XLA = Runtime("cpu", "float32", True, 1, "for a test")


def _images(seed: int, count: int = 48) -> Images:
    """Noise of 8 x 8; a tumour is brighter in its right half, the others in their left one."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    right = np.arange(8) >= 4
    pixels = rng.integers(0, 120, (count, 8, 8)) + 100 * (right == labels[:, None, None])
    return Images(pixels.astype(np.uint8), labels)


def _flipped_labels(images: Images) -> Images:
    return Images(images.pixels, 1 - images.labels)


def _network(scale: float = 1 / 255) -> Any:
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 1), dtype="uint8")
    x = layers.Flatten()(layers.Rescaling(scale)(image))
    return keras.Model(image, layers.Dense(1)(layers.Dropout(0.2)(x)))


def _score(network: Any, images: Images) -> NDArray[np.float32]:
    return scorer(network, 16, _CPU)(images.pixels)


def test_the_loss_falls_and_the_problem_is_solved() -> None:
    schedule = Schedule(epochs=4, patience=4, batch_size=8, learning_rate=0.02)
    network = _network()
    fitted = Fit(network, _images(0), _images(1), Recipe(schedule, None, _CPU)).run()

    history = fitted.history
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy", "val_auc"), 4
    )
    assert history["loss"][-1] < 0.4 * history["loss"][0]
    assert history["val_loss"][-1] < 0.4 * history["val_loss"][0]
    assert history["val_auc"][fitted.best_epoch - 1] == max(history["val_auc"])
    assert history["val_accuracy"][-1] == history["val_auc"][-1] == 1
    np.testing.assert_array_equal(_score(network, _images(2)) >= 0, _images(2).labels == 1)
    assert fitted.images > 0
    assert fitted.seconds > 0


def test_stops_when_the_validation_auc_falls_and_keeps_the_best_weights() -> None:
    """The validation set's labels are turned round: what is learnt makes it worse from the start."""
    schedule = Schedule(epochs=40, patience=3, batch_size=8, learning_rate=0.02)
    validation = _flipped_labels(_images(1))
    network = _network()
    fitted = Fit(network, _images(0), validation, Recipe(schedule, None, _CPU)).run()

    aucs, losses = fitted.history["val_auc"], fitted.history["val_loss"]
    ranked = list(zip(aucs, (-loss for loss in losses), strict=True))
    best = ranked.index(max(ranked))  # the highest AUC, the lowest loss among equals
    assert fitted.best_epoch == best + 1
    assert len(losses) == fitted.best_epoch + 3 < 40
    kept = _score(network, validation)
    assert roc_auc_score(validation.labels, kept) == pytest.approx(aucs[best])
    assert pointwise_log_loss(kept, validation.labels).mean() == pytest.approx(losses[best], rel=1e-6)
    assert losses[best] < losses[-1]


def _trained(seed: int) -> tuple[Fitted, list[NDArray[np.float32]]]:
    """A convolution, batch norm, dropout and augmentation: all that could be random."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 1), dtype="uint8")
    x = layers.Conv2D(16, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    x = layers.Dropout(0.3)(layers.BatchNormalization()(layers.Flatten()(x)))
    network = keras.Model(image, layers.Dense(1)(x))
    schedule = Schedule(epochs=1, batch_size=8, seed=seed)
    fitted = Fit(network, _images(0), _images(1), Recipe(schedule, Augmentation(), _CPU)).run()
    return fitted, network.get_weights()


def test_the_same_seed_gives_the_same_history_and_weights() -> None:
    first, second = _trained(3), _trained(3)
    for name, values in first[0].history.items():
        assert second[0].history[name] == values, name
    for one, two in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_infinite_output_in_training_is_a_sentence() -> None:
    with pytest.raises(DivergedError, match=r"epoch 1/5.*--learning-rate") as raised:
        Fit(_network(scale=1e38), _images(0), _images(1), Recipe(Schedule(epochs=5), None, _CPU)).run()
    assert raised.value.exit_code == ExitCode.USAGE


def test_an_infinite_output_in_validation_alone_is_a_sentence() -> None:
    """The loss of the epoch is finite: only the logits after its last step are not."""
    train = _images(0)
    train = Images(np.zeros_like(train.pixels), train.labels)
    with pytest.raises(DivergedError, match=r"epoch 1/5.*--learning-rate"):
        Fit(_network(scale=1e38), train, _images(1), Recipe(Schedule(epochs=5), None, _CPU)).run()


def test_too_few_images_for_one_full_batch_under_xla_are_refused() -> None:
    with pytest.raises(ConfigError, match="--batch-size"):
        Fit(_network(), _images(0, 16), _images(1), Recipe(Schedule(batch_size=17), None, _XLA)).run()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("patience", 0),
        ("batch_size", 0),
        ("batch_size", 10**7),  # padding the last batch to this size would take all the memory
        ("learning_rate", 0.0),
        ("learning_rate", 1.5),
        ("learning_rate", float("nan")),
        ("seed", -1),
        ("seed", 2**32),  # NumPy and Keras take no more
    ],
)
def test_impossible_schedules_are_refused(name: str, value: float) -> None:
    option = name.replace("_", ".")  # an option, or an argument of Python
    with pytest.raises(ConfigError, match=f"{option}.*Received"):
        Schedule(**{name: value})  # type: ignore[arg-type]
