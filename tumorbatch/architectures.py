"""The networks, a closed list. Source of every number: Öztüner's report, in DESIGN order.

All take uint8 [N, height, width, 1] with values 0..255 and give one float32 logit, [N, 1]; channel
replication and scaling happen inside, so that no caller can forget them.

Every layer with weights has a name of its own: those that Keras makes up count on from network to
network in one process, and a bundle's weights would not be found again under them.
"""

from collections.abc import Callable
from typing import Any

from tumorbatch.errors import ConfigError

_CHANNELS = 3  # the report's networks see the grey image three times, as pretrained ones must


def _blocks(x: Any) -> Any:
    """Three times convolution 3x3 with 32 filters, ReLU, valid padding, then 2x2 max pooling."""
    from keras import layers

    for number in (1, 2, 3):
        x = layers.Conv2D(32, 3, activation="relu", padding="valid", name=f"conv_{number}")(x)
        x = layers.MaxPooling2D(2)(x)
    return layers.Flatten()(x)


def _cnn1(x: Any) -> Any:
    from keras import layers

    return layers.Dense(128, activation="relu", name="dense_1")(_blocks(x))


def _cnn2(x: Any) -> Any:
    from keras import layers

    x = layers.Dense(128, activation="relu", name="dense_1")(_blocks(x))
    x = layers.BatchNormalization(name="norm_1")(x)
    x = layers.Dropout(0.3)(x)
    x = layers.Dense(64, activation="relu", name="dense_2")(x)
    return layers.BatchNormalization(name="norm_2")(x)


_BODIES: dict[str, Callable[[Any], Any]] = {"cnn1": _cnn1, "cnn2": _cnn2}
ARCHITECTURES = tuple(_BODIES)


def build(name: str, size: int) -> Any:
    """Build a network with random weights.

    Args:
        name: One of `ARCHITECTURES`.
        size: Side of the input, in pixels.

    Returns:
        `keras.Model`, uint8 [N, size, size, 1] -> float32 logits [N, 1].

    Raises:
        ConfigError: The name is not in the list.
    """
    if name not in _BODIES:
        raise ConfigError(
            f"The architecture must be one of {', '.join(ARCHITECTURES)}. Received: {name}."
        )
    import keras
    from keras import layers

    image = keras.Input((size, size, 1), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Concatenate()([x] * _CHANNELS)
    x = _BODIES[name](x)
    # float32 whatever the policy: a float16 sigmoid is exactly 1.0 from a logit of 8 on.
    logit = layers.Dense(1, dtype="float32", name="logit")(x)
    return keras.Model(image, logit, name=name)
