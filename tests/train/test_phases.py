"""What is trained in which phase, and by which optimizer."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

from tests.train.test_fit import _CPU, _images
from tumorbatch.architectures import BASE
from tumorbatch.errors import ConfigError
from tumorbatch.train.checkpoint import Checkpoint
from tumorbatch.train.config import Config, Schedule, schedule
from tumorbatch.train.fit import Fit, Recipe
from tumorbatch.train.phases import Phase, class_weights, phases, prepare

EACH_STEP = 1e-9  # minutes between two checkpoints
PARTS = (Phase("base frozen", 2, 0.02, "frozen"), Phase("fine-tuning", 2, 0.01, "all but norm"))


def _network() -> Any:
    """A base of one convolution and batch normalisation, and a head; what is small is the scale."""
    keras.utils.set_random_seed(4)
    inner = keras.Input((8, 8, 1))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(inner))
    base = keras.Model(inner, layers.ReLU()(x), name=BASE)
    image = keras.Input((8, 8, 1), dtype="uint8")
    x = base(layers.Rescaling(1 / 255)(image))
    x = layers.BatchNormalization(name="head_norm")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(1, name="logit")(layers.Dropout(0.2)(x)))


def _values(network: Any) -> dict[str, NDArray[Any]]:
    return {variable.path: variable.numpy() for variable in network.weights}


def _changed(part: Phase, **attributes: Any) -> set[str]:
    network = _network()
    before = _values(network)
    plan = Schedule(epochs=1, batch_size=8, **attributes)
    Fit(network, _images(0), _images(1), Recipe(plan, None, _CPU, [part])).run()
    after = _values(network)
    return {name for name in before if not np.array_equal(before[name], after[name])}


HEAD = {"logit/kernel", "logit/bias"} | {
    f"head_norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")
}
CONV = {"conv/kernel", "conv/bias"}
NORM = {f"norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")}


@pytest.mark.parametrize(
    ("base", "trained"),
    [("frozen", HEAD), ("all but norm", HEAD | CONV), ("all", HEAD | CONV | NORM)],
)
def test_what_a_phase_trains(base: str, trained: set[str]) -> None:
    # The bias of a convolution before batch normalisation that is trained gets no gradient but noise.
    assert _changed(Phase("a", 1, 0.05, base)) | {"conv/bias"} == trained | {"conv/bias"}


def test_the_phases_of_the_report() -> None:
    def told(name: str, pretrained: bool, **given: Any) -> list[tuple[int, float, str]]:
        parts = phases(name, pretrained, schedule(name, None if pretrained else "none", **given))
        return [(part.epochs, part.learning_rate, part.base) for part in parts]

    assert told("cnn1", False) == [(40, 1e-3, "all")]
    assert told("resnet50", True) == [(40, 1e-3, "frozen"), (20, 1e-5, "all but norm")]
    assert told("densenet121", True) == told("resnet50", True)
    assert told("mobilenetv2", True) == [(40, 1e-3, "frozen")]
    assert told("mobilenetv2", False) == [(40, 1e-3, "all")]  # random layers are not worth freezing
    assert told("resnet50", True, finetune_batch_norm=True)[1][2] == "all"


def test_fine_tuning_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to fine-tune"):
        Config("cnn1", schedule("cnn1", finetune_epochs=3))
    with pytest.raises(ConfigError, match="nothing to fine-tune"):
        Config("resnet50", schedule("resnet50", "none", finetune_epochs=3), weights="none")
    with pytest.raises(ConfigError, match="no pretrained base"):
        Config("cnn2", weights="imagenet")


class StopError(Exception):
    """Stands for the machine's end."""


class Stopping(Checkpoint):
    """Dies behind its n-th save."""

    left = 10**9

    def save(self, *arguments: Any) -> None:
        super().save(*arguments)
        self.left -= 1
        if not self.left:
            raise StopError


EACH_MOMENT = (
    3,
    6,
    12,
    13,
    15,
    18,
    24,
)  # six steps an epoch; 12: the first phase ends


@pytest.mark.parametrize(
    ("rate", "stops"),
    [
        ("plateau", (15,)),
        ("cosine", (12,)),
        *(
            pytest.param(rate, EACH_MOMENT, marks=pytest.mark.slow)
            for rate in ("constant", "cosine", "plateau")
        ),
    ],
)
def test_stopped_in_any_phase_it_ends_with_the_same_bits(
    rate: str, stops: tuple[int, ...], tmp_path: Path
) -> None:
    plan = Schedule(epochs=2, patience=2, batch_size=8, rate=rate, weight_decay=0.01, seed=2)

    def trained(checkpoint: Checkpoint | None) -> tuple[Any, list[NDArray[Any]]]:
        network = _network()
        recipe = Recipe(plan, None, _CPU, PARTS)
        fitted = Fit(network, _images(0), _images(1), recipe, checkpoint).run()
        return fitted, network.get_weights()

    whole, weights = trained(None)
    assert whole.phases == {"base frozen": 2, "fine-tuning": 2}
    assert len(whole.history["loss"]) == 4
    for saves in stops:
        checkpoint = Stopping(tmp_path / f"{saves}.checkpoint", {}, EACH_STEP)
        checkpoint.left = saves
        with pytest.raises(StopError):
            trained(checkpoint)
        again, resumed = trained(Checkpoint(checkpoint.path, {}, EACH_STEP))
        for one, other in zip(weights, resumed, strict=True):
            np.testing.assert_array_equal(one, other)
        assert again.history["val_auc"] == whole.history["val_auc"]
        assert again.phases == whole.phases


def test_the_second_phase_begins_with_the_best_weights(tmp_path: Path) -> None:
    """A rate that destroys: the second phase's first step must not start from its ruins."""
    parts = (Phase("a", 3, 0.02, "all"), Phase("b", 1, 1e-12, "frozen"))
    network = _network()
    plan = Schedule(epochs=3, patience=3, batch_size=8)
    fitted = Fit(network, _images(0), _images(1), Recipe(plan, None, _CPU, parts)).run()
    best = max(fitted.history["val_auc"][:3])
    assert fitted.history["val_auc"][3] == pytest.approx(best, abs=0.02)


def _prepared(plan: Schedule) -> Any:
    network = _network()
    prepare(network, Phase("a", 4, 0.1, "all"), plan, _CPU, steps=5, steps_per_execution=1)
    network.optimizer.build(network.trainable_variables)
    return network


def test_the_cosine_ends_at_zero_after_all_epochs() -> None:
    network = _prepared(Schedule(rate="cosine"))
    rates = []
    for step in (0, 5, 10, 15, 20):
        network.optimizer.iterations.assign(step)
        rates.append(float(network.optimizer.learning_rate))
    expected = [0.1 * (1 + np.cos(np.pi * share)) / 2 for share in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(rates, expected, atol=1e-8)


def test_the_plateau_lowers_the_rate_to_a_third_behind_half_the_patience(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With labels turned round the first epochs are the best ones."""
    images = _images(1)
    validation = type(images)(images.pixels, 1 - images.labels)
    plan = Schedule(epochs=30, patience=4, batch_size=8, learning_rate=0.03, rate="plateau")
    network = _network()
    caplog.set_level("INFO", "tumorbatch")
    fitted = Fit(network, _images(0), validation, Recipe(plan, None, _CPU)).run()
    assert len(fitted.history["loss"]) == fitted.best_epoch + 4
    told = [record.getMessage() for record in caplog.records]
    lowered = [text for text in told if text.startswith("learning rate")]
    assert lowered[-1].startswith("learning rate 0.0")
    assert float(network.optimizer.learning_rate) == pytest.approx(0.03 / 3 ** len(lowered))
    at = told.index(lowered[-1])
    epochs = [text for text in told[:at] if text.startswith("epoch ")]
    assert len(epochs) == fitted.best_epoch + 2


def test_only_kernels_decay() -> None:
    network = _prepared(Schedule(weight_decay=0.5))
    before = _values(network)
    zeros = [np.zeros(variable.shape, np.float32) for variable in network.trainable_variables]
    network.optimizer.apply(zeros)
    for variable in network.trainable_variables:
        expected = before[variable.path] * (1 - 0.1 * 0.5 * variable.path.endswith("kernel"))
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)


@pytest.mark.parametrize("base", ["frozen", "all"])
def test_statistics_follow_within_an_epoch_of_few_steps(base: str) -> None:
    """After one epoch, inference normalises by what the images are, not by the initial values."""
    network, train = _network(), _images(0)
    where = {"frozen": network, "all": network.get_layer(BASE)}[base]
    norm = where.get_layer("head_norm" if base == "frozen" else "norm")
    plan = Schedule(epochs=1, batch_size=2)
    Fit(network, train, _images(1), Recipe(plan, None, _CPU, [Phase("a", 1, 1e-30, base)])).run()
    seen = keras.Model(where.inputs, norm.input)
    scaled = train.pixels[..., np.newaxis]
    values = seen(scaled if base == "frozen" else scaled / 255, training=False).numpy()
    values = values.reshape(-1, values.shape[-1])
    for moving, batch in ((norm.moving_mean, values.mean(0)), (norm.moving_variance, values.var(0))):
        initial = float(moving is norm.moving_variance)
        left = np.abs(moving.numpy() - batch).mean() / np.abs(initial - batch).mean()
        assert left < 0.3, "of the distance that there was at the beginning"


def test_statistics_of_many_steps_are_keras_own() -> None:
    network = _network()
    prepare(network, Phase("a", 1, 0.1, "all"), Schedule(), _CPU, 5000, steps_per_execution=1)
    assert network.get_layer("head_norm").momentum == 0.99
    assert network.get_layer(BASE).get_layer("norm").momentum == 0.99


def test_class_weights_balance_and_have_mean_one() -> None:
    weights = class_weights(Schedule(class_weights="balanced"), count=100, tumors=80)
    assert weights == {0: 2.5, 1: 0.625}
    assert 20 * weights[0] == 80 * weights[1] == 50
    assert class_weights(Schedule(), 100, 80) is None


def test_class_weights_and_smoothing_reach_the_loss() -> None:
    """At a rate that changes nothing, the loss can be computed by hand from the logits."""
    images = _images(0)
    keep = np.r_[np.flatnonzero(images.labels == 1), np.flatnonzero(images.labels == 0)[:8]]
    train = type(images)(images.pixels[keep], images.labels[keep])
    network = _network()
    network.layers[-2].rate = 0  # no dropout
    network.get_layer("head_norm").trainable = False
    part = Phase("a", 1, 1e-30, "frozen")
    logits = network(train.pixels[..., np.newaxis], training=False).numpy()[:, 0].astype(float)
    plan = Schedule(epochs=1, batch_size=len(keep), class_weights="balanced", label_smoothing=0.2)
    fitted = Fit(network, train, _images(1), Recipe(plan, None, _CPU, [part])).run()
    loss = fitted.history["loss"][0]
    smooth = train.labels * 0.8 + 0.1
    each = np.logaddexp(0, logits) - smooth * logits
    weight = np.where(train.labels == 1, len(keep) / (2 * 24), len(keep) / (2 * 8))
    assert loss == pytest.approx(np.mean(weight * each), rel=1e-4)
