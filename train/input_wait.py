"""How long a training step waits for its batch."""

import time
from typing import Any

import numpy as np
import tensorflow as tf

from tumorbatch.shard_reader import as_written


class Waiting:
    """Adds up the time that the consumer of a data set spends in waiting for the next batch.

    Attributes:
        seconds: So far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._asked = 0.0

    def measured(self, data: Any) -> Any:
        """Return the same batches of (images, labels), with the time of waiting measured.

        `zip` asks its inputs one after the other: the clock first, then the batch. Both maps run in
        the thread that asks, so nothing is read ahead behind the second look at the clock.
        """
        clock = tf.data.Dataset.range(np.iinfo(np.int64).max).map(as_written(self._ask))
        watched = tf.data.Dataset.zip(clock, data).map(as_written(self._get))
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return watched.with_options(options)

    def _ask(self, number: Any) -> Any:
        def look_at_clock(number: Any) -> Any:
            self._asked = time.perf_counter()
            return number

        return tf.numpy_function(look_at_clock, [number], tf.int64)

    def _get(self, number: Any, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        def look_at_clock(number: Any) -> Any:
            self.seconds += time.perf_counter() - self._asked
            return number

        measured = tf.numpy_function(look_at_clock, [number], tf.int64)
        with tf.control_dependencies([measured]):
            return tuple(map(tf.identity, batch))
