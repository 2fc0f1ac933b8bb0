"""Whether the fast way of training gives the slow one's numbers on this machine."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.runtime import Runtime

log = logging.getLogger(__name__)

_SIZE = 32  # pixels
_BATCH = 16  # images
# float16 has 11 bits: relative error 5e-4 an operation. On the CPU the two ways differ by 1e-3 in the
# loss and 1e-2 in the gradient's direction; a wrong kernel is off by far more.
_LOSS_TOLERANCE = 0.02  # relative
_GRADIENT_TOLERANCE = 0.1  # of the gradient's length


def checked(runtime: Runtime) -> Runtime:
    """Return the runtime; if the self-test fails, one with float32 and no XLA, with a warning."""
    if runtime.precision == "float32" and not runtime.xla:
        return runtime
    problem = deviation(runtime.precision, runtime.xla)
    if problem is None:
        log.info("self-test: %s, XLA %s, gives float32's step", runtime.precision, _switch(runtime.xla))
        return runtime
    log.warning(
        "SELF-TEST FAILED: a training step with %s and XLA %s %s. Training continues with float32 and "
        "without XLA, several times slower. `tumorbatch doctor` reports what is missing.",
        runtime.precision, _switch(runtime.xla), problem,
    )  # fmt: skip
    reason = f"{runtime.reason}; float32 without XLA because the self-test failed ({problem})"
    return replace(runtime, precision="float32", xla=False, reason=reason)


def deviation(precision: str, xla: bool) -> str | None:
    """Run one step of a small network twice, in this way and in float32 without XLA.

    Returns:
        What is wrong with it, as the end of a sentence; None if the two agree.
    """
    try:
        loss, gradient = _step(precision, xla)
    except Exception as error:  # whatever a missing library raises
        return f"ends in {type(error).__name__} ({str(error).splitlines()[0] if str(error) else ''})"
    expected, direction = _step("float32", False)
    if not (np.isfinite(loss) and np.isfinite(gradient).all()):
        return "gives infinite values"
    if abs(loss - expected) > _LOSS_TOLERANCE * abs(expected):
        return f"gives a loss of {loss:.4f} instead of {expected:.4f}"
    off = float(np.linalg.norm(gradient - direction) / np.linalg.norm(direction))
    if off > _GRADIENT_TOLERANCE:
        return f"gives a gradient that is {off:.0%} off"
    return None


def _step(precision: str, xla: bool) -> tuple[float, NDArray[np.float32]]:
    """Return the loss and all gradients, in a row, of a convolution, a pooling and a dense layer."""
    import keras
    import tensorflow as tf
    from keras import layers

    random = np.random.default_rng(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        image = keras.Input((_SIZE, _SIZE, 1), dtype="uint8")
        x: Any = layers.Rescaling(1 / 255, dtype="float32")(image)
        x = layers.Conv2D(8, 3, activation="relu")(x)
        x = layers.Flatten()(layers.MaxPooling2D(2)(x))
        network = keras.Model(image, layers.Dense(1, dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy(before)
    network.set_weights([random.normal(0, 0.1, value.shape) for value in network.get_weights()])
    images = tf.constant(random.integers(0, 256, (_BATCH, _SIZE, _SIZE, 1), np.uint8))
    labels = tf.constant((np.arange(_BATCH) % 2).astype(np.float32)[:, np.newaxis])
    loss_of = keras.losses.BinaryCrossentropy(from_logits=True)

    @tf.function(jit_compile=xla, autograph=False)  # type: ignore[untyped-decorator]
    def step(images: Any, labels: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, network(images, training=True))
        gradients = tape.gradient(loss, network.trainable_variables)
        return loss, tf.concat([tf.reshape(value, [-1]) for value in gradients], 0)

    loss, gradient = step(images, labels)
    return float(loss), gradient.numpy()


def _switch(on: bool) -> str:
    return "on" if on else "off"
