"""What trainings will cost, from a measured speed: of a training that was, or of a few steps now."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tumorbatch import architectures
from tumorbatch.runtime import Runtime, resolve
from tumorbatch.train.config import Config

_STEPS = 6  # of the probe; the first compiles and is not timed
_BYTES_A_WEIGHT = 4  # float32
# While it trains: the checkpoint's weights, best weights and Adam's two moments.
_CHECKPOINT = 4


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one training runs.

    Attributes:
        images_per_second: Of training steps, all phases together.
        epochs: How many a training is expected to take; at most `Schedule.epochs`.
        source: Where the two come from, a few words.
    """

    images_per_second: float
    epochs: int
    source: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What is to be made, and what it takes.

    Attributes:
        seconds: Expected.
        seconds_at_most: Where no training stops early.
        bytes: That stay on disk.
        bytes_while_working: Beside these, at the worst moment.
    """

    seconds: float = 0.0
    seconds_at_most: float = 0.0
    bytes: int = 0
    bytes_while_working: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Add the cost of two jobs that run one after the other."""
        return Cost(
            self.seconds + other.seconds,
            self.seconds_at_most + other.seconds_at_most,
            self.bytes + other.bytes,
            max(self.bytes_while_working, other.bytes_while_working),
        )

    def text(self) -> str:
        """Format as `about 12 minutes (at most 40), 184 MB of disk, and 110 MB more while it works`."""
        low, high = _minutes(self.seconds), _minutes(self.seconds_at_most)
        most = "" if low == high else f" (at most {high})"
        unit = "minute" if low == "1" and not most else "minutes"
        return (
            f"about {low} {unit}{most}, {_megabytes(self.bytes)} of disk, and "
            f"{_megabytes(self.bytes_while_working)} more while it works"
        )


def _minutes(seconds: float) -> str:
    return f"{max(1, math.ceil(seconds / 60)):,}"


def _megabytes(count: int) -> str:
    return f"{max(1, math.ceil(count / 1e6)):,} MB"


def recorded(training: dict[str, Any]) -> Speed | None:
    """Return the speed of a finished training, from its bundle; None if it was too short."""
    rate, epochs = training.get("images_per_second"), training.get("epochs")
    if not rate or not epochs:
        return None
    return Speed(float(rate), int(epochs), f"as measured in its own training, {epochs} epochs")


def probed(config: Config, size: int) -> Speed:
    """Measure a few real training steps on random images, separately for each phase.

    Args:
        config: The training.
        size: Side of the images, pixels.

    Raises:
        ConfigError: No GPU where one was asked for.
    """
    runtime = resolve(
        config.device, config.precision, config.xla, 1, config.threads, config.onednn
    )  # fmt: skip
    import keras

    from tumorbatch.train.phases import phases

    keras.config.set_dtype_policy(runtime.precision)
    seconds, epochs = 0.0, 0
    for phase in phases(config.architecture, config.start != "none", config.schedule):
        seconds += phase.epochs / _rate(config, size, phase, runtime)
        epochs += phase.epochs
    keras.backend.clear_session()
    return Speed(epochs / seconds, epochs, f"measured now, in {_STEPS} training steps")


def _rate(config: Config, size: int, phase: Any, runtime: Runtime) -> float:
    """Return the images per second in one phase."""
    from tumorbatch.train.feed import Images
    from tumorbatch.train.phases import prepare

    schedule = config.schedule
    random = np.random.default_rng(0)
    labels = np.arange(_STEPS * schedule.batch_size) % 2
    images = Images(random.integers(0, 256, (len(labels), size, size), np.uint8), labels)
    network = architectures.build(config.architecture, size, schedule.dropout)
    prepare(network, phase, schedule, runtime, _STEPS, 1)
    feed = images.feed(schedule.batch_size, config.augmentation, schedule.seed, True)
    network.fit(feed.epoch(0, _STEPS - 1), verbose=0, shuffle=False)  # one step, which compiles
    started = time.monotonic()
    network.fit(feed.epoch(0, 1), verbose=0, shuffle=False)
    return (_STEPS - 1) * schedule.batch_size / (time.monotonic() - started)


def training(speed: Speed, config: Config, images: int, weights: int) -> Cost:
    """Estimate the time and disk space of one training.

    Args:
        speed: Measured.
        config: The training.
        images: Of the training and validation splits together. Validation takes less than training does
            and is counted as if it took as much, which makes up for loading and compiling.
        weights: Parameters of the network.
    """
    schedule = config.schedule
    most = schedule.epochs + schedule.finetune_epochs
    epoch = images / speed.images_per_second
    size = weights * _BYTES_A_WEIGHT
    return Cost(epoch * min(speed.epochs, most), epoch * most, size, _CHECKPOINT * size)
