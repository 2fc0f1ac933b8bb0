"""The training loop: phases, epochs, validation, early stopping with the best weights kept."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch.errors import ConfigError
from tumorbatch.progress import Progress
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import scorer
from tumorbatch.shard_reader import damaged_shard
from tumorbatch.signals import deferred
from tumorbatch.statistics.classification import Measures
from tumorbatch.statistics.intervals import proportion
from tumorbatch.train.callbacks import Steps
from tumorbatch.train.checkpoint import Checkpoint, Position
from tumorbatch.train.config import TEMPERATURE, THRESHOLD, Augmentation, DivergedError, Schedule
from tumorbatch.train.feed import Images
from tumorbatch.train.input_wait import Waiting
from tumorbatch.train.phases import Phase, class_weights, phases, prepare
from tumorbatch.train.stream import Shards

log = logging.getLogger(__name__)

_SHOWN = ("loss", "val_loss", "val_auc")
_INPUT_BOUND = 0.1  # of the time waiting for batches: more, and the feed is what to make faster


@dataclass(frozen=True, slots=True)
class Fitted:
    """Outcome of `fit`; the network holds the best weights.

    Attributes:
        history: {name: one value an epoch}; loss and accuracy while training (with augmentation and
            dropout), val_* after the epoch.
        phases: Name of each phase that was trained, and how many epochs it had.
        best_epoch: From 1.
        seconds: Of the training steps alone, after the first, which compiles.
        images: Trained on in those seconds.
        waited: Seconds of these spent in waiting for batches; None where it cannot be told.
        compiling: Seconds that this process' first step took longer than the others; None without one.
    """

    history: dict[str, list[float]]
    phases: dict[str, int]
    best_epoch: int
    seconds: float
    images: int
    waited: float | None
    compiling: float | None

    @property
    def images_per_second(self) -> float:
        """While training, 0 when there was no second step."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def waiting_share(self) -> float | None:
        """Share of the training time spent in waiting for batches, 0 to 1."""
        return self.waited / self.seconds if self.seconds and self.waited is not None else None

    def told(self) -> str:
        """Speed, what bounds it, and what compiling cost, as a sentence."""
        text = f"{self.images_per_second:,.0f} images/s"
        if self.waiting_share is not None:
            bound = "input-bound" if self.waiting_share > _INPUT_BOUND else "not input-bound"
            text += f", {self.waiting_share:.1%} of the time waiting for batches ({bound})"
        if self.compiling is not None:
            text += f"; {self.compiling:.1f} s of building and compiling before"
        return text


def fit(
    network: Any,
    train: Images | Shards,
    validation: Images | Shards,
    schedule: Schedule,
    augmentation: Augmentation | None,
    runtime: Runtime,
    checkpoint: Checkpoint | None = None,
    minutes: float = 5.0,
    *,
    parts: Sequence[Phase] | None = None,
    steps_per_execution: int = 1,
    strategy: Any = None,
    epoch_done: Callable[[int, dict[str, float]], None] | None = None,
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
        parts: The phases; default: one, with everything trained.
        steps_per_execution: Between two returns to Python.
        strategy: Spreads each batch over its devices; the network was built in its scope.
        epoch_done: Is told each epoch's number, from 1, and figures.

    Raises:
        ConfigError: Fewer training images than one batch, where batches must be full; or the
            checkpoint is another training's.
        InputError: The checkpoint or a shard is damaged.
        DivergedError: The loss or a logit became infinite or not a number.
    """
    full = runtime.xla or strategy is not None  # batches of one shape, which the devices can share
    if full and train.count < schedule.batch_size:
        raise ConfigError(
            f"{train.count} training images do not fill a batch of {schedule.batch_size}. "
            "Give a smaller --batch-size."
        )
    parts = parts or phases("", False, schedule)
    feed = train.feed(schedule.batch_size, augmentation, schedule.seed, full)
    steps_per_execution = min(steps_per_execution, feed.steps)
    score = scorer(network, schedule.batch_size, runtime)
    weights = class_weights(schedule, train.count, train.tumors)
    at, best_weights = Position(), network.get_weights()
    saved = checkpoint.load() if checkpoint is not None else None
    if saved is not None:
        at = saved.position
        log.info("going on behind epoch %d, step %d, of an interrupted training", at.epoch, at.step)
    waiting = Waiting()
    steps = Steps(
        at, feed.steps, train.count, schedule.batch_size, steps_per_execution, 60 * minutes, waiting
    )
    total = sum(phase.epochs for phase in parts)
    with deferred() as steps.end_if_asked:

        def save() -> None:
            if checkpoint is not None:
                checkpoint.save(network, best_weights, at)

        steps.save = save
        for number in range(at.phase, len(parts)):
            phase = parts[number]
            if number > at.phase:
                network.set_weights(best_weights)
            with strategy.scope() if strategy is not None else contextlib.nullcontext():
                prepare(network, phase, schedule, runtime, feed.steps, steps_per_execution)
                network.optimizer.build(network.trainable_variables)
                if saved is not None:
                    best_weights = saved.restore(network)
                    saved = None
                elif number > at.phase or not at.epoch:
                    _enter(at, number, phase)
            if len(parts) > 1 and not at.stopped:
                log.info("phase %d of %d: %s", number + 1, len(parts), phase.name)
            steps.compiles = True
            while at.epoch - at.phase_start < phase.epochs and not at.stopped:
                started = time.monotonic()
                if schedule.rate == "plateau":
                    network.optimizer.learning_rate = at.learning_rate
                of = f"epoch {at.epoch + 1}/{total}"
                with Progress(of, "images", train.count) as steps.progress:
                    steps.progress.advance(at.step * schedule.batch_size)
                    data = feed.epoch(at.epoch, at.step)
                    if strategy is None:  # else its devices' own threads ask for batches
                        data = waiting.measured(data)
                    try:
                        # The feed shuffles; Keras would only warn that it cannot.
                        network.fit(
                            data, verbose=0, callbacks=[steps], shuffle=False, class_weight=weights
                        )
                    except tf.errors.OpError as error:
                        raise _cause(train, schedule.batch_size, error) from error
                figures = steps.figures()
                logits, labels = validation.scored(score)
                # The loss was computed before the epoch's last step, which only the logits have seen.
                if not (np.isfinite(figures["loss"]) and np.isfinite(logits).all()):
                    raise DivergedError(
                        f"The network's output is not finite any more in {of} (loss "
                        f"{figures['loss']:g}). Try a smaller --learning-rate."
                    )
                better = _close_epoch(at, figures, logits, labels)
                if better:
                    best_weights = network.get_weights()
                if epoch_done is not None:
                    epoch_done(at.epoch, {name: of[-1] for name, of in at.history.items()})
                log.info(
                    "%s: loss %.4f; validation loss %.4f, AUC %.4f, accuracy %s%s; %.1f s",
                    of, *(at.history[name][-1] for name in _SHOWN),
                    _accuracy(at.history["val_accuracy"][-1], len(labels)),
                    " (best)" if better else "", time.monotonic() - started,
                )  # fmt: skip
                if at.epoch == at.phase_start + 1:
                    log.info("%s", _fitted(at, parts, steps, strategy).told())
                _look_back(at, schedule)
                save()
                steps.end_if_asked()
    network.set_weights(best_weights)
    return _fitted(at, parts, steps, strategy)


def _cause(train: Images | Shards, batch_size: int, error: Exception) -> Exception:
    """What an error of TensorFlow's means, where that can be told."""
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return ConfigError(
            f"There is not enough memory for batches of {batch_size} images. Give a smaller "
            f"--batch-size. ({error.message.splitlines()[0]})"
        )
    found = None
    if isinstance(train, Shards):
        found = damaged_shard(train.folder, train.dataset, train.split)
    return found or error


def _enter(at: Position, number: int, phase: Phase) -> None:
    if number:
        at.starts.append(at.phase_start)
    at.phase, at.phase_start, at.stopped = number, at.epoch, False
    at.learning_rate, at.rate_changed = phase.learning_rate, at.epoch


def _fitted(at: Position, parts: Sequence[Phase], steps: Steps, strategy: Any) -> Fitted:
    compiling = None
    if steps.first is not None and at.timed_steps:
        compiling = max(0.0, steps.first - steps.first_steps * at.seconds / at.timed_steps)
    starts = [*at.starts, at.phase_start, at.epoch]
    return Fitted(
        history=at.history,
        phases={
            phase.name: end - start
            for phase, start, end in zip(parts, starts, starts[1:], strict=False)
        },
        best_epoch=at.best_epoch,
        seconds=at.seconds,
        images=at.images,
        waited=at.waited if strategy is None else None,
        compiling=compiling,
    )


def _close_epoch(
    at: Position,
    figures: dict[str, float],
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> bool:
    """Move to the next epoch; whether the finished one is the best so far."""
    after = Measures(logits, labels, THRESHOLD, TEMPERATURE)(np.ones((1, len(labels))))
    figures |= {
        "val_loss": float(after["log_loss"][0]),
        "val_accuracy": float(after["accuracy"][0]),
        "val_auc": float(after["auc"][0]),
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
    return better


def _accuracy(value: float, n: int) -> str:
    """With its interval: it is the figure that is quoted."""
    return f"{proportion(round(value * n), n).text()} of {n:,}"


def _look_back(at: Position, schedule: Schedule) -> None:
    """Stop, or slow down, where the last epochs brought nothing."""
    since = at.epoch - max(at.best_epoch, at.phase_start)
    if since >= schedule.patience:
        at.stopped = True
        log.info("no higher validation AUC for %d epochs: stop", schedule.patience)
    elif schedule.rate == "plateau":
        unchanged = at.epoch - max(at.best_epoch, at.rate_changed)
        if unchanged >= max(1, schedule.patience // 2):
            at.learning_rate, at.rate_changed = at.learning_rate / 3, at.epoch
            log.info("learning rate %g from here on", at.learning_rate)
