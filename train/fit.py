"""The training loop: phases, epochs, validation, early stopping with the best weights kept."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch.errors import ConfigError, TumorBatchError
from tumorbatch.progress import Progress
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import scorer
from tumorbatch.shard_reader import damage
from tumorbatch.shard_records import damaged_shard
from tumorbatch.signals import deferred
from tumorbatch.statistics.classification import Measures
from tumorbatch.statistics.intervals import proportion
from tumorbatch.train.callbacks import Steps
from tumorbatch.train.checkpoint import Checkpoint, Position
from tumorbatch.train.config import TEMPERATURE, THRESHOLD, Augmentation, DivergedError, Schedule
from tumorbatch.train.features import FeatureFeed, ValidationFeatures, split_at_base
from tumorbatch.train.feed import Images, TrainingFeed
from tumorbatch.train.input_wait import Waiting
from tumorbatch.train.phases import Phase, class_weights, phases, prepare
from tumorbatch.train.stream import Shards, StreamFeed

log = logging.getLogger(__name__)

_INPUT_BOUND = 0.1  # share of the time spent waiting for batches: above it, a faster feed helps


@dataclass(frozen=True, slots=True)
class Fitted:
    """The outcome of `Fit.run`; the network then holds the best weights.

    Attributes:
        history: {name: one value per epoch}; loss and accuracy during training (with augmentation and
            dropout), val_* after the epoch.
        phases: {name of a trained phase: its number of epochs}.
        best_epoch: Number of the best epoch, from 1.
        seconds: Time of the training steps, without the first one, which compiles.
        images: Number of images trained on in those seconds.
        waited: Seconds of these spent waiting for batches; None if that cannot be measured.
        compiling: Seconds by which the first step of this process exceeded the others; None if this
            process trained no step.
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
        """Return the training speed, 0 if there was no second step."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def waiting_share(self) -> float | None:
        """Return the share of the training time spent waiting for batches, 0 to 1."""
        return self.waited / self.seconds if self.seconds and self.waited is not None else None

    def describe(self) -> str:
        """Describe the speed, what limits it, and the time of compiling, in one sentence."""
        text = f"{self.images_per_second:,.0f} images/s"
        if self.waiting_share is not None:
            bound = "input-bound" if self.waiting_share > _INPUT_BOUND else "not input-bound"
            text += f", {self.waiting_share:.1%} of the time waiting for batches ({bound})"
        if self.compiling is not None:
            text += f"; {self.compiling:.1f} s for building and compiling before that"
        return text


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        schedule: Number of epochs, learning rate, and the like.
        augmentation: Random changes to the training images, or None.
        runtime: Device, precision and XLA.
        phases: What is trained in which order; None: one phase that trains all weights.
        steps_per_execution: Training steps between two returns to Python.
        strategy: A `tf.distribute.Strategy` that spreads each batch over its devices, or None. The
            network was built in its scope.
    """

    schedule: Schedule
    augmentation: Augmentation | None
    runtime: Runtime
    phases: Sequence[Phase] | None = None
    steps_per_execution: int = 1
    strategy: Any = None


class Fit:
    """Train a network until its validation AUC stops rising, or continue from a checkpoint.

    `run` enters each phase, and runs and closes its epochs one by one.

    Args:
        network: Built by `architectures.build`.
        train: The training split.
        validation: The validation split.
        recipe: How the network is trained.
        checkpoint: Is written after each epoch, at its interval inside an epoch, and after a signal;
            None: nothing is saved.
        epoch_done: Is called with each epoch's number, from 1, and its figures.

    Raises:
        ConfigError: Full batches are required (XLA, several devices) and there are fewer training
            images than one batch holds; or the checkpoint belongs to another training.
        InputError: The checkpoint is damaged.
    """

    def __init__(
        self,
        network: Any,
        train: Images | Shards,
        validation: Images | Shards,
        recipe: Recipe,
        checkpoint: Checkpoint | None = None,
        epoch_done: Callable[[int, dict[str, float]], None] | None = None,
    ) -> None:
        schedule, runtime = recipe.schedule, recipe.runtime
        full_batches = runtime.xla or recipe.strategy is not None  # one shape, an equal part per device
        if full_batches and train.count < schedule.batch_size:
            raise ConfigError(
                f"{train.count} training images do not fill a batch of {schedule.batch_size}. "
                "Give a smaller --batch-size."
            )
        self._network = network
        self._train = train
        self._validation = validation
        self._full_batches = full_batches
        self._recipe = recipe
        self._schedule = schedule
        self._phases = recipe.phases or phases("", False, schedule)
        self._checkpoint = checkpoint
        self._epoch_done = epoch_done
        self._image_feed = train.feed(
            schedule.batch_size, recipe.augmentation, schedule.seed, full_batches
        )
        self._feed: TrainingFeed | StreamFeed | FeatureFeed = self._image_feed
        # What is trained, and scored after each epoch: the network and images, or, on the features of a
        # frozen base, its head and those.
        self._trained = network
        self._scored: Images | Shards | ValidationFeatures = validation
        self._stride = min(recipe.steps_per_execution, self._feed.steps)
        self._score = scorer(network, schedule.batch_size, runtime)
        # Keras takes weights of images or of classes: the former hold the latter (`group_weights`).
        self._class_weights = (
            class_weights(schedule, train.count, train.tumors) if train.weights is None else None
        )
        self._position, self._best_weights = Position(), network.get_weights()
        self._saved = checkpoint.load() if checkpoint is not None else None
        if self._saved is not None:
            self._position = self._saved.position
            log.info(
                "continuing an interrupted training after epoch %d, step %d",
                self._position.epoch, self._position.step,
            )  # fmt: skip
        self._waiting = Waiting()
        self._steps = Steps(
            self._position,
            self._feed.steps,
            train.count,
            schedule.batch_size,
            self._stride,
            math.inf if checkpoint is None else 60 * checkpoint.minutes,
            self._waiting,
        )
        self._steps.save = self._save

    def run(self) -> Fitted:
        """Train all phases; afterwards the network holds the best weights.

        Raises:
            ConfigError: The memory does not suffice for a batch.
            DivergedError: The loss or a logit became infinite or not a number.
            InputError: The checkpoint does not fit the network, or a shard is damaged.
            OutputError: The checkpoint cannot be written.
        """
        position = self._position
        with deferred() as self._steps.end_if_asked:
            for number in range(position.phase, len(self._phases)):
                self.enter_phase(number)
                last = position.phase_start + self._phases[number].epochs
                while position.epoch < last and not position.stopped:
                    started = time.monotonic()
                    self.run_epoch()
                    self.close_epoch(started)
                    self._steps.end_if_asked()
        self._network.set_weights(self._best_weights)
        return self._fitted()

    def enter_phase(self, number: int) -> None:
        """Compile the network for a phase, from the best weights so far or from the checkpoint."""
        position, phase = self._position, self._phases[number]
        strategy = self._recipe.strategy
        if number > position.phase:
            self._network.set_weights(self._best_weights)
        self._choose_input(phase)
        with strategy.scope() if strategy is not None else contextlib.nullcontext():
            self._steps.tracked = prepare(
                self._trained,
                phase,
                self._schedule,
                self._recipe.runtime,
                self._feed.steps,
                self._stride,
            )
            optimizer = self._trained.optimizer
            optimizer.build(self._trained.trainable_variables)
            if self._saved is not None:
                self._best_weights = self._saved.restore(self._network, optimizer)
                self._saved = None
            else:
                position.enter(number, phase.learning_rate)
        if len(self._phases) > 1 and not position.stopped:
            log.info("phase %d of %d: %s", number + 1, len(self._phases), phase.name)
        self._steps.compiles = True

    def _choose_input(self, phase: Phase) -> None:
        """Set what is trained in a phase and on what: images, or features of the frozen base."""
        schedule = self._schedule
        if phase.base != "frozen" or not schedule.feature_copies:
            self._feed, self._trained, self._scored = self._image_feed, self._network, self._validation
            return
        base, self._trained = split_at_base(self._network)
        # Without changes every copy is the same.
        copies = schedule.feature_copies if self._recipe.augmentation is not None else 1
        self._feed = FeatureFeed(
            base, self._image_feed, self._train.count, copies, schedule.batch_size, schedule.seed,
            self._full_batches, self._steps.end_if_asked,
        )  # fmt: skip
        self._scored = ValidationFeatures(base, self._trained, self._validation, schedule.batch_size)

    def run_epoch(self) -> None:
        """Train one epoch, or the rest of one that was interrupted."""
        position, batch_size = self._position, self._schedule.batch_size
        if self._schedule.rate == "plateau":
            self._trained.optimizer.learning_rate = position.learning_rate
        with Progress(self._epoch_name(), "images", self._train.count) as self._steps.progress:
            self._steps.progress.advance(position.step * batch_size)
            data = self._feed.epoch(position.epoch, position.step)
            if self._recipe.strategy is None:  # otherwise its devices' own threads ask for batches
                data = self._waiting.measured(data)
            try:
                # The feed shuffles; Keras would only warn that it cannot.
                self._trained.fit(
                    data,
                    verbose=0,
                    callbacks=[self._steps],
                    shuffle=False,
                    class_weight=self._class_weights,
                )
            except tf.errors.OpError as error:
                raise _explained(self._train, batch_size, error) from error

    def close_epoch(self, started: float) -> None:
        """Validate, record the epoch's figures, keep the best weights, and save the checkpoint.

        Args:
            started: `time.monotonic()` at the start of the epoch, for the log.

        Raises:
            DivergedError: The loss or a logit is infinite or not a number.
        """
        position, name = self._position, self._epoch_name()
        figures = self._steps.figures()
        logits, labels = self._scored.scored(self._score)
        # The loss was computed before the epoch's last step; only the logits have seen that step.
        if not (np.isfinite(figures["loss"]) and np.isfinite(logits).all()):
            raise DivergedError(
                f"The network's output is not finite any more in {name} (loss "
                f"{figures['loss']:g}). Try a smaller --learning-rate."
            )
        figures |= _validation_figures(logits, labels)
        is_best = position.close_epoch(figures)
        if is_best:
            self._best_weights = self._network.get_weights()
        if self._epoch_done is not None:
            self._epoch_done(position.epoch, figures)
        log.info(
            "%s: loss %.4f; validation loss %.4f, AUC %.4f, accuracy %s%s; %.1f s",
            name, figures["loss"], figures["val_loss"], figures["val_auc"],
            _accuracy(figures["val_accuracy"], len(labels)),
            " (best)" if is_best else "", time.monotonic() - started,
        )  # fmt: skip
        if position.epoch == position.phase_start + 1:
            log.info("%s", self._fitted().describe())
        _look_back(position, self._schedule)
        self._save()

    def _epoch_name(self) -> str:
        return f"epoch {self._position.epoch + 1}/{sum(phase.epochs for phase in self._phases)}"

    def _save(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.save(
                self._network, self._trained.optimizer, self._best_weights, self._position
            )

    def _fitted(self) -> Fitted:
        position, steps = self._position, self._steps
        compiling = None
        if steps.first is not None and position.timed_steps:
            usual = steps.first_steps * position.seconds / position.timed_steps
            compiling = max(0.0, steps.first - usual)
        starts = [*position.starts, position.phase_start, position.epoch]
        return Fitted(
            history=position.history,
            phases={
                phase.name: end - start
                for phase, start, end in zip(self._phases, starts, starts[1:], strict=False)
            },
            best_epoch=position.best_epoch,
            seconds=position.seconds,
            images=position.images,
            waited=position.waited if self._recipe.strategy is None else None,
            compiling=compiling,
        )


def _explained(train: Images | Shards, batch_size: int, error: Exception) -> Exception:
    """Return a TensorFlow error as this project's own, where its cause is known."""
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return ConfigError(
            f"There is not enough memory for batches of {batch_size} images. Give a smaller "
            f"--batch-size. ({error.message.splitlines()[0]})"
        )
    damaged: TumorBatchError | None = None
    if isinstance(train, Shards) and train.dataset.location:
        return damage(train.folder, train.dataset, train.split, error)
    if isinstance(train, Shards):
        damaged = damaged_shard(train.folder, train.dataset, train.split)
    return damaged or error


def _validation_figures(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Return loss, accuracy and AUC of logits [images] against labels [images]."""
    measures = Measures(logits, labels, THRESHOLD, TEMPERATURE)(np.ones((1, len(labels))))
    names = {"val_loss": "log_loss", "val_accuracy": "accuracy", "val_auc": "auc"}
    return {name: float(measures[measure][0]) for name, measure in names.items()}


def _accuracy(value: float, n: int) -> str:
    """Format an accuracy with its interval and n: it is the figure that people quote."""
    return f"{proportion(round(value * n), n).text()} of {n:,}"


def _look_back(position: Position, schedule: Schedule) -> None:
    """Stop the phase, or lower the learning rate, if the last epochs brought no improvement."""
    since = position.epoch - max(position.best_epoch, position.phase_start)
    if since >= schedule.patience:
        position.stopped = True
        log.info("no higher validation AUC for %d epochs: stop", schedule.patience)
    elif schedule.rate == "plateau":
        unchanged = position.epoch - max(position.best_epoch, position.rate_changed)
        if unchanged >= max(1, schedule.patience // 2):
            position.learning_rate /= 3
            position.rate_changed = position.epoch
            log.info("learning rate %g from here on", position.learning_rate)
