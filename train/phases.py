"""What is trained when, and by which optimizer."""

from dataclasses import dataclass
from typing import Any

import keras

from tumorbatch.architectures import BASE, PRETRAINED
from tumorbatch.runtime import Runtime
from tumorbatch.train.config import Schedule
from tumorbatch.train.distribute import LossScale

# An epoch is at least so many times as long as batch normalisation remembers. Keras' momentum of 0.99
# (0.999 in MobileNetV2) is for thousands of steps: with 72 steps an epoch, half of what inference
# normalises by would still be the initial values, and the threshold would not fit the logits.
_MEMORIES = 5
_LEAST_MOMENTUM = 0.5

# Never decayed: biases, and the scales and offsets of batch normalisation.
_NOT_DECAYED = ("bias", "gamma", "beta")


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a training.

    Attributes:
        name: For the log.
        epochs: At most this many.
        learning_rate: At its beginning.
        base: Of a pretrained network's base, what is trained: "all", "all but norm" (batch
            normalisation works as in inference), or "frozen" (nothing; likewise).
    """

    name: str
    epochs: int
    learning_rate: float
    base: str


def phases(architecture: str, pretrained: bool, schedule: Schedule) -> tuple[Phase, ...]:
    """Return the phases of a training, in order.

    Args:
        architecture: Its name.
        pretrained: Whether its base has weights already; random ones are not worth freezing.
        schedule: How long and how fast.
    """
    if architecture not in PRETRAINED or not pretrained:
        return (Phase("training", schedule.epochs, schedule.learning_rate, "all"),)
    first = Phase("base frozen", schedule.epochs, schedule.learning_rate, "frozen")
    if not schedule.finetune_epochs:
        return (first,)
    layers = "all" if schedule.finetune_batch_norm else "all but norm"
    rate = schedule.finetune_learning_rate
    return first, Phase("fine-tuning", schedule.finetune_epochs, rate, layers)


def prepare(
    network: Any,
    phase: Phase,
    schedule: Schedule,
    runtime: Runtime,
    steps: int,
    steps_per_execution: int,
) -> list[Any]:
    """Freeze what the phase freezes, and compile with its own optimizer; see `_shorten_memory`.

    Args:
        network: From `architectures.build`.
        phase: What is trained.
        schedule: See there.
        runtime: Decides about XLA and loss scaling.
        steps: Of an epoch.
        steps_per_execution: Between two returns to Python.

    Returns:
        The scalar variables from which Keras computes loss and accuracy of the epoch so far.
    """
    for layer in network.layers:
        if layer.name == BASE:
            _freeze(layer, phase.base)
    _shorten_memory(network, steps)
    rate = phase.learning_rate
    if schedule.rate == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, phase.epochs * steps)
    optimizer = keras.optimizers.Adam(rate, weight_decay=schedule.weight_decay or None)
    if schedule.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=list(_NOT_DECAYED))
    if runtime.precision == "mixed_float16":
        optimizer = LossScale(optimizer)
    accuracy = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    network.compile(
        optimizer=optimizer,
        loss=keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=schedule.label_smoothing
        ),
        metrics=[accuracy],
        jit_compile=runtime.xla,
        steps_per_execution=steps_per_execution,
    )
    return [*network.metrics[0].variables, *accuracy.variables]


def _shorten_memory(network: Any, steps: int) -> None:
    """Let the statistics of batch normalisation follow within an epoch of so many steps.

    Only training uses the momentum; where an epoch has a thousand steps or more, it stays Keras' own.
    """
    longest = max(_LEAST_MOMENTUM, 1 - _MEMORIES / steps)
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            _shorten_memory(layer, steps)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, longest)


def _freeze(base: Any, layers: str) -> None:
    base.trainable = layers != "frozen"
    if layers == "all but norm":
        # Keras' layer with `trainable` off normalises by its moving averages, in training too.
        for layer in base.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False


def class_weights(schedule: Schedule, count: int, tumors: int) -> dict[int, float] | None:
    """Return {label: weight in the loss}, with mean 1 over the images; None if all weigh 1."""
    if schedule.class_weights == "none" or not 0 < tumors < count:
        return None
    return {0: count / (2 * (count - tumors)), 1: count / (2 * tumors)}
