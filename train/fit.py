"""The training loop: epochs, validation, early stopping with the best weights kept."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tumorbatch.errors import ConfigError
from tumorbatch.progress import Progress
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import scorer
from tumorbatch.train.feed import Augmentation, Images, for_training
from tumorbatch.train.metrics import binary_metrics

log = logging.getLogger(__name__)

THRESHOLD = 0.5
TEMPERATURE = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: At most this many.
        patience: Stop after so many epochs without a lower validation loss.
        batch_size: Images a step (32: the report).
        learning_rate: Of Adam.
        seed: Of the initial weights, the order of the images, and the augmentation.
    """

    epochs: int = 40
    patience: int = 8
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1. Received: {getattr(self, name)}.")
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(
                f"learning_rate must lie above 0 and up to 1. Received: {self.learning_rate:g}."
            )
        if self.seed < 0:
            raise ConfigError(f"The seed must not be negative. Received: {self.seed}.")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Outcome of `fit`; the network holds the best weights.

    Attributes:
        history: {name: one value an epoch}; loss and accuracy while training (with augmentation and
            dropout), val_* after the epoch.
        best_epoch: From 1.
        seconds: Of the training steps alone, after the first step, which compiles.
        images: Trained on in those seconds.
    """

    history: dict[str, list[float]]
    best_epoch: int
    seconds: float
    images: int


class DivergedError(ConfigError):
    """The loss is not a number any more: the learning rate does not fit."""


def fit(
    network: Any,
    train: Images,
    validation: Images,
    schedule: Schedule,
    augmentation: Augmentation | None,
    runtime: Runtime,
) -> Fitted:
    """Train until the validation loss stops falling.

    Raises:
        ConfigError: Fewer training images than one batch, where batches must be full.
        DivergedError: The loss became infinite or not a number.
    """
    if runtime.xla and len(train.labels) < schedule.batch_size:
        raise ConfigError(
            f"{len(train.labels)} training images do not fill a batch of {schedule.batch_size}. "
            "Give a smaller --batch-size."
        )
    network.compile(
        optimizer=keras.optimizers.Adam(schedule.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
        jit_compile=runtime.xla,
    )
    score = scorer(network, schedule.batch_size, runtime)
    history: dict[str, list[float]] = {}
    best_loss, best_epoch, best_weights = np.inf, 0, network.get_weights()
    clock = _Clock(schedule.batch_size)
    for epoch in range(schedule.epochs):
        started = time.monotonic()
        batches = for_training(
            train, schedule.batch_size, augmentation, schedule.seed, epoch, runtime.xla
        )
        of = f"epoch {epoch + 1}/{schedule.epochs}"
        with Progress(of, "images", len(train.labels)) as clock.progress:
            # The feed shuffles; Keras would only warn that it cannot.
            logs = network.fit(batches, verbose=0, callbacks=[clock], shuffle=False).history
        figures = {name: float(values[-1]) for name, values in logs.items()}
        if not np.isfinite(figures["loss"]):
            raise DivergedError(
                f"The loss is {figures['loss']} in {of}. Try a smaller --learning-rate."
            )
        after = binary_metrics(score(validation.pixels), validation.labels, THRESHOLD, TEMPERATURE)
        figures |= {
            "val_loss": after["log_loss"],
            "val_accuracy": after["accuracy"],
            "val_auc": after["auc"],
        }
        for name, value in figures.items():
            history.setdefault(name, []).append(value)
        better = figures["val_loss"] < best_loss
        if better:
            best_loss, best_epoch = figures["val_loss"], epoch + 1
            best_weights = network.get_weights()
        log.info(
            "%s: loss %.4f, accuracy %.4f; validation loss %.4f%s, accuracy %.4f, AUC %.4f; %.1f s",
            of, figures["loss"], figures["accuracy"], figures["val_loss"],
            " (best)" if better else "", figures["val_accuracy"], figures["val_auc"],
            time.monotonic() - started,
        )  # fmt: skip
        if epoch + 1 - best_epoch >= schedule.patience:
            log.info("no lower validation loss for %d epochs: stop", schedule.patience)
            break
    network.set_weights(best_weights)
    return Fitted(history, best_epoch, clock.seconds, clock.images)


class _Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds up the time of the training steps; the very first one, which compiles, stands apart."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.seconds = 0.0
        self.images = 0
        self._batch_size = batch_size
        self._compiled = False
        self._last = 0.0
        self.progress: Progress

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if self._compiled:
            self.seconds += now - self._last
            self.images += self._batch_size
        self._compiled = True
        self._last = now
        self.progress.advance(self._batch_size, f"loss {logs['loss']:.4f}" if logs else "")
