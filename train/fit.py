"""The training loop: epochs, validation, early stopping with the best weights kept."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tumorbatch.errors import ConfigError
from tumorbatch.progress import Progress
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import scorer
from tumorbatch.session import deferred
from tumorbatch.train.checkpoint import Checkpoint, Position
from tumorbatch.train.config import TEMPERATURE, THRESHOLD, Augmentation, DivergedError, Schedule
from tumorbatch.train.feed import Images, TrainingFeed
from tumorbatch.train.metrics import binary_metrics

log = logging.getLogger(__name__)

_SHOWN = ("loss", "accuracy", "val_loss", "val_accuracy", "val_auc")


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


def fit(
    network: Any,
    train: Images,
    validation: Images,
    schedule: Schedule,
    augmentation: Augmentation | None,
    runtime: Runtime,
    checkpoint: Checkpoint | None = None,
    minutes: float = 5.0,
) -> Fitted:
    """Train until the validation AUC stops rising, or go on where a checkpoint says.

    Args:
        network: From `architectures.build`.
        train: The training split.
        validation: The validation split.
        schedule: How long and how fast.
        augmentation: Random changes, or None.
        runtime: Decides about XLA.
        checkpoint: Written after each epoch, every so many `minutes` inside one, and at a signal.
        minutes: See there.

    Raises:
        ConfigError: Fewer training images than one batch, where batches must be full; or the
            checkpoint is another training's.
        InputError: The checkpoint is damaged.
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
    at, best_weights = Position(), network.get_weights()
    saved = checkpoint.restore(network) if checkpoint is not None else None
    if saved is not None:
        at, best_weights = saved
        log.info("going on behind epoch %d, step %d, of an interrupted training", at.epoch, at.step)
    with deferred() as end_if_asked:

        def save() -> None:
            if checkpoint is not None:
                checkpoint.save(network, best_weights, at)

        steps = _Steps(at, feed.steps, len(train.labels), schedule.batch_size, 60 * minutes)
        steps.save, steps.end_if_asked = save, end_if_asked
        while at.epoch < schedule.epochs and not at.stopped:
            started = time.monotonic()
            of = f"epoch {at.epoch + 1}/{schedule.epochs}"
            with Progress(of, "images", len(train.labels)) as steps.progress:
                steps.progress.advance(at.step * schedule.batch_size)
                # The feed shuffles; Keras would only warn that it cannot.
                data = feed.epoch(at.epoch, at.step)
                network.fit(data, verbose=0, callbacks=[steps], shuffle=False)
            figures = steps.figures()
            logits = score(validation.pixels)
            # The loss was computed before the epoch's last step, which only the logits have seen.
            if not (np.isfinite(figures["loss"]) and np.isfinite(logits).all()):
                raise DivergedError(
                    f"The network's output is not finite any more in {of} (loss {figures['loss']:g}). "
                    "Try a smaller --learning-rate."
                )
            better = _close_epoch(at, figures, logits, validation, schedule.patience)
            if better:
                best_weights = network.get_weights()
            log.info(
                "%s: loss %.4f, accuracy %.4f; validation loss %.4f, accuracy %.4f, AUC %.4f%s; %.1f s",
                of, *(at.history[name][-1] for name in _SHOWN), " (best)" if better else "",
                time.monotonic() - started,
            )  # fmt: skip
            if at.epoch - at.best_epoch >= schedule.patience:
                log.info("no higher validation AUC for %d epochs: stop", schedule.patience)
            save()
            end_if_asked()
    network.set_weights(best_weights)
    return Fitted(at.history, at.best_epoch, at.seconds, at.images)


def _close_epoch(
    at: Position,
    figures: dict[str, float],
    logits: NDArray[np.float32],
    validation: Images,
    patience: int,
) -> bool:
    """Move to the next epoch; whether the finished one is the best so far."""
    after = binary_metrics(logits, validation.labels, THRESHOLD, TEMPERATURE)
    figures |= {
        "val_loss": after["log_loss"],
        "val_accuracy": after["accuracy"],
        "val_auc": after["auc"],
    }
    for name, value in figures.items():
        at.history.setdefault(name, []).append(value)
    at.epoch, at.step, at.partial = at.epoch + 1, 0, {}
    # The AUC, not the loss: the loss of an ever surer network rises while it still learns to rank,
    # and `infer` chooses among bundles by the same figure.
    rank = (figures["val_auc"], -figures["val_loss"])
    better = at.best is None or rank > at.best
    if better:
        at.best, at.best_epoch = rank, at.epoch
    at.stopped = at.epoch - at.best_epoch >= patience
    return better


class _Steps(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts steps and their time, and saves between two of them.

    The first step of a process, which compiles, is not timed.
    """

    def __init__(self, at: Position, steps: int, images: int, batch_size: int, seconds: float) -> None:
        super().__init__()
        self._at = at
        self._steps = steps
        self._images = images
        self._batch_size = batch_size
        self._every = seconds
        self._saved = time.monotonic()
        self._compiled = False
        self.progress: Progress
        self.save: Callable[[], None]
        self.end_if_asked: Callable[[], None]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._last = time.monotonic()
        self._before = dict(self._at.partial)
        self._start = self._at.step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        at = self._at
        count = self._seen(at.step + 1) - self._seen(at.step)
        if self._compiled:
            at.seconds += now - self._last
            at.images += count
        self._compiled = True
        at.step += 1
        at.partial = self._merged(logs or {})
        self.progress.advance(count, f"loss {at.partial['loss']:.4f}")
        if at.step < self._steps:  # the end of the epoch saves as well, with what comes behind it
            if now - self._saved >= self._every:
                self.save()
                self._saved = time.monotonic()
            self._end_if_asked()
        self._last = time.monotonic()

    def _end_if_asked(self) -> None:
        try:
            self.end_if_asked()
        except KeyboardInterrupt:
            self.save()
            raise

    def _seen(self, steps: int) -> int:
        return min(steps * self._batch_size, self._images)

    def _merged(self, logs: dict[str, float]) -> dict[str, float]:
        """Means over the epoch: Keras' are over the steps since this process began or went on."""
        before, total = self._seen(self._start), self._seen(self._at.step)
        if not before:
            return {name: float(value) for name, value in logs.items()}
        share = before / total
        return {
            name: share * self._before[name] + (1 - share) * float(value)
            for name, value in logs.items()
        }

    def figures(self) -> dict[str, float]:
        """{name: mean over the epoch's images}."""
        return dict(self._at.partial)
