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
from tumorbatch.train.config import TEMPERATURE, THRESHOLD, Augmentation, Schedule
from tumorbatch.train.feed import Images, TrainingFeed
from tumorbatch.train.metrics import binary_metrics

log = logging.getLogger(__name__)


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

    @property
    def images_per_second(self) -> float:
        """While training, 0 when there was no second step."""
        return self.images / self.seconds if self.seconds else 0.0


class DivergedError(ConfigError):
    """The loss or the logits are not finite any more: the learning rate does not fit."""


def fit(
    network: Any,
    train: Images,
    validation: Images,
    schedule: Schedule,
    augmentation: Augmentation | None,
    runtime: Runtime,
) -> Fitted:
    """Train until the validation AUC stops rising.

    Raises:
        ConfigError: Fewer training images than one batch, where batches must be full.
        DivergedError: The loss or a logit became infinite or not a number.
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
    feed = TrainingFeed(train, schedule.batch_size, augmentation, schedule.seed, runtime.xla)
    score = scorer(network, schedule.batch_size, runtime)
    history: dict[str, list[float]] = {}
    best, best_epoch, best_weights = (-np.inf, -np.inf), 0, network.get_weights()
    clock = _Clock(len(train.labels), schedule.batch_size)
    for epoch in range(schedule.epochs):
        started = time.monotonic()
        of = f"epoch {epoch + 1}/{schedule.epochs}"
        with Progress(of, "images", len(train.labels)) as clock.progress:
            # The feed shuffles; Keras would only warn that it cannot.
            logs = network.fit(feed.epoch(epoch), verbose=0, callbacks=[clock], shuffle=False).history
        figures = {name: float(values[-1]) for name, values in logs.items()}
        logits = score(validation.pixels)
        # The loss was computed before the epoch's last step, which only the logits have seen.
        if not (np.isfinite(figures["loss"]) and np.isfinite(logits).all()):
            raise DivergedError(
                f"The network's output is not finite any more in {of} (loss {figures['loss']:g}). "
                "Try a smaller --learning-rate."
            )
        after = binary_metrics(logits, validation.labels, THRESHOLD, TEMPERATURE)
        figures |= {
            "val_loss": after["log_loss"],
            "val_accuracy": after["accuracy"],
            "val_auc": after["auc"],
        }
        for name, value in figures.items():
            history.setdefault(name, []).append(value)
        # The AUC, not the loss: the loss of an ever surer network rises while it still learns to rank,
        # and `infer` chooses among bundles by the same figure.
        rank = (figures["val_auc"], -figures["val_loss"])
        better = rank > best
        if better:
            best, best_epoch = rank, epoch + 1
            best_weights = network.get_weights()
        log.info(
            "%s: loss %.4f, accuracy %.4f; validation loss %.4f, accuracy %.4f, AUC %.4f%s; %.1f s",
            of, figures["loss"], figures["accuracy"], figures["val_loss"], figures["val_accuracy"],
            figures["val_auc"], " (best)" if better else "", time.monotonic() - started,
        )  # fmt: skip
        if epoch + 1 - best_epoch >= schedule.patience:
            log.info("no higher validation AUC for %d epochs: stop", schedule.patience)
            break
    network.set_weights(best_weights)
    return Fitted(history, best_epoch, clock.seconds, clock.images)


class _Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds up the time of the training steps; the very first one, which compiles, stands apart."""

    def __init__(self, images: int, batch_size: int) -> None:
        super().__init__()
        self.seconds = 0.0
        self.images = 0
        self._epoch_images = images
        self._batch_size = batch_size
        self._compiled = False
        self._last = 0.0
        self.progress: Progress

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        count = min(self._batch_size, self._epoch_images - batch * self._batch_size)
        if self._compiled:
            self.seconds += now - self._last
            self.images += count
        self._compiled = True
        self._last = now
        self.progress.advance(count, f"loss {logs['loss']:.4f}" if logs else "")
