"""What happens between two training steps: counting, timing, saving, ending when asked."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tumorbatch.progress import Progress
from tumorbatch.train.checkpoint import Position
from tumorbatch.train.input_wait import Waiting


class Steps(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps a `Position` up to date while Keras trains an epoch.

    The first execution of a process, which compiles, is not part of the position's seconds.

    Args:
        at: The position.
        steps: Of an epoch.
        images: Of an epoch.
        batch_size: Images a step.
        steps_per_execution: Steps between two calls.
        seconds: Between two saves.
        waiting: Watches the batches.

    Attributes:
        first: Seconds of the process' first execution; None before it.
        first_steps: How many steps it had.
        progress: Of the current epoch.
        save: Makes a checkpoint.
        end_if_asked: Raises where a signal waits.
        tracked: From `prepare`.
    """

    def __init__(
        self,
        at: Position,
        steps: int,
        images: int,
        batch_size: int,
        steps_per_execution: int,
        seconds: float,
        waiting: Waiting,
    ) -> None:
        super().__init__()
        self._at = at
        self._steps = steps
        self._images = images
        self._batch_size = batch_size
        self._stride = steps_per_execution
        self._every = seconds
        self._waiting = waiting
        self._saved = time.monotonic()
        self.first: float | None = None
        self.first_steps = 0
        self.compiles = True
        self.progress: Progress
        self.save: Callable[[], None]
        self.end_if_asked: Callable[[], None]
        self.tracked: Sequence[Any] = ()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store where this process begins in the epoch."""
        self._last, self._waited = time.monotonic(), self._waiting.seconds
        if self._at.step:
            for variable, value in zip(self.tracked, self._at.sums, strict=True):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the finished steps, and save a checkpoint when it is time."""
        moment = time.monotonic()
        at = self._at
        steps_done = min(at.step + self._stride, self._steps)
        count = self._images_after(steps_done) - self._images_after(at.step)
        if self.compiles:
            if self.first is None:
                self.first, self.first_steps = moment - self._last, steps_done - at.step
        else:
            at.seconds += moment - self._last
            at.waited += self._waiting.seconds - self._waited
            at.images += count
            at.timed_steps += steps_done - at.step
        self.compiles = False
        at.step = steps_done
        at.partial = {name: float(value) for name, value in (logs or {}).items()}
        self.progress.advance(count, f"loss {at.partial['loss']:.4f}")
        if at.step < self._steps:  # the end of the epoch saves as well, with what comes after it
            if moment - self._saved >= self._every:
                self._save()
                self._saved = time.monotonic()
            self._end_if_asked()
        self._last, self._waited = time.monotonic(), self._waiting.seconds

    def _end_if_asked(self) -> None:
        try:
            self.end_if_asked()
        except KeyboardInterrupt:
            self._save()
            raise

    def _save(self) -> None:
        self._at.sums = [float(variable.numpy()) for variable in self.tracked]
        self.save()

    def _images_after(self, steps: int) -> int:
        return min(steps * self._batch_size, self._images)

    def figures(self) -> dict[str, float]:
        """Return {name: mean over the epoch's images}."""
        return dict(self._at.partial)
