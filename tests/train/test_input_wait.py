"""The watch on the batches, with a feed and a consumer whose times are known."""

import threading
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tumorbatch.shard_reader import as_written
from tumorbatch.train import input_wait
from tumorbatch.train.input_wait import Waiting


def _produced(produce: Any) -> Any:
    return lambda number: tf.ensure_shape(tf.numpy_function(produce, [number], tf.int64), [])


def _slow(seconds: float, count: int = 8) -> Any:
    def produce(number: Any) -> Any:
        time.sleep(seconds)
        return number

    data = tf.data.Dataset.range(count).map(as_written(_produced(produce)))
    return data.map(as_written(lambda number: (number, tf.cast(number, tf.float32))))


def test_the_batches_are_the_same() -> None:
    got = [tuple(map(int, batch)) for batch in Waiting().measured(_slow(0)).as_numpy_iterator()]
    assert got == [(number, number) for number in range(8)]


def test_waiting_for_a_slow_feed_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that begins with a batch when it is asked for it, and takes a second on its clock."""
    now, looks, asked = 0.0, 0, threading.Semaphore(0)

    def look_at_clock() -> float:
        nonlocal looks
        looks += 1
        if looks % 2:  # before the batch; the next look is behind it
            asked.release()
        return now

    def produce(number: Any) -> Any:
        nonlocal now
        asked.acquire()
        now += 1
        return number

    monkeypatch.setattr(input_wait.time, "perf_counter", look_at_clock)
    numbers = tf.data.Dataset.range(8)
    data = numbers.map(lambda x: tf.ensure_shape(tf.numpy_function(produce, [x], tf.int64), []))
    waiting = Waiting()
    assert len(list(waiting.measured(data.map(lambda x: (x, x))))) == 8
    assert waiting.seconds == 8


def test_what_a_slow_consumer_does_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed reads ahead while the consumer works, so there is nothing to wait for."""
    now, produced = 0.0, threading.Semaphore(0)

    def produce(number: Any) -> Any:
        nonlocal now
        now += 1  # the feed alone makes this clock advance
        produced.release()
        return number

    monkeypatch.setattr(input_wait.time, "perf_counter", lambda: now)
    data = tf.data.Dataset.range(8).map(as_written(_produced(produce)))
    waiting = Waiting()
    batches = iter(waiting.measured(data.map(as_written(lambda x: (x, x))).prefetch(8)))
    next(batches)
    for _ in range(8):
        produced.acquire()
    first = waiting.seconds
    assert len(list(batches)) == 7
    assert (now, waiting.seconds) == (8, first)


def test_it_works_inside_keras_with_several_steps_at_a_time() -> None:
    import keras

    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.compile("sgd", "mse", steps_per_execution=3)
    data = _slow(0.01).map(as_written(lambda x, y: (tf.cast([[x]], tf.float32), [[y]])))
    waiting = Waiting()
    started = time.perf_counter()
    network.fit(waiting.measured(data), verbose=0, shuffle=False)
    assert 0 < waiting.seconds <= time.perf_counter() - started
    assert np.isfinite(network.get_weights()[0]).all()
