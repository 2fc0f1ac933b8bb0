"""The networks, a closed list. Source of every number: Öztüner's report, in DESIGN order.

All take uint8 [N, height, width, 1] with values 0..255 and give one float32 logit, [N, 1]; channel
replication and each base's own scaling happen inside, so that no caller can forget them.

Every layer with weights has its own name: those that Keras makes up count on from network to
network in one process, and a bundle's weights would not be found again under them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tumorbatch.checks import check_choice
from tumorbatch.errors import ConfigError

MIN_SIZE = 32  # pixels: less than that, and the bases' five halvings leave nothing
ENSEMBLE = "ensemble"  # what a bundle of several networks says in place of an architecture
BASE = "base"  # name of the layer that holds a pretrained base
CHANNELS = 3  # the report's networks see the grey image three times, as pretrained ones must
_MEMBER = "_member_"  # between the architecture and the number of an ensemble's network


@dataclass(frozen=True, slots=True)
class _Network:
    """One line of the list.

    Attributes:
        head: From feature maps to the last features.
        scale: Multiplies the pixels, one number or one a channel.
        offset: Is added after that.
        base: Name in `keras.applications`, or None for the report's own convolutions.
    """

    head: Callable[[Any], Any]
    scale: float | Sequence[float]
    offset: float | Sequence[float]
    base: str | None = None


def _blocks(x: Any) -> Any:
    """Apply three times: convolution 3x3 with 32 filters, ReLU, valid padding; 2x2 max pooling."""
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


def _resnet50(x: Any) -> Any:
    from keras import layers

    x = layers.Flatten()(x)
    for number, units in enumerate((512, 128, 16), 1):
        x = layers.Dense(units, kernel_initializer="he_normal", name=f"dense_{number}")(x)
        x = layers.Dropout(0.4)(x)
        x = layers.BatchNormalization(name=f"norm_{number}")(x)
        x = layers.ReLU()(x)
    return x


def _mobilenetv2(x: Any) -> Any:
    from keras import layers

    x = layers.Dense(512, activation="relu", name="dense_1")(layers.Flatten()(x))
    x = layers.BatchNormalization(name="norm_1")(x)
    return layers.Dropout(0.4)(x)


def _densenet121(x: Any) -> Any:
    from keras import layers

    x = layers.Dropout(0.7)(layers.Flatten()(x))
    x = layers.BatchNormalization(name="norm_1")(x)
    x = layers.Dense(16, activation="relu", name="dense_1")(x)
    return layers.Dropout(0.5)(x)


# Scaling of the bases: `preprocess_input` of each in keras.applications; what ImageNet's weights
# were trained with. ResNet50 takes blue, green, red, which for three equal channels is only the
# order of the means.
_DEVIATIONS = (0.229, 0.224, 0.225)
_MEANS = (0.485, 0.456, 0.406)
_NETWORKS = {
    "cnn1": _Network(_cnn1, 1 / 255, 0.0),
    "cnn2": _Network(_cnn2, 1 / 255, 0.0),
    "resnet50": _Network(_resnet50, 1.0, (-103.939, -116.779, -123.68), "ResNet50"),
    "mobilenetv2": _Network(_mobilenetv2, 1 / 127.5, -1.0, "MobileNetV2"),
    "densenet121": _Network(
        _densenet121,
        tuple(1 / (255 * deviation) for deviation in _DEVIATIONS),
        tuple(-mean / deviation for mean, deviation in zip(_MEANS, _DEVIATIONS, strict=True)),
        "DenseNet121",
    ),
}
ARCHITECTURES = tuple(_NETWORKS)
PRETRAINED = tuple(name for name, network in _NETWORKS.items() if network.base)
_FOLDED = tuple(name for name in ARCHITECTURES if name not in PRETRAINED)


def build(name: str, size: int, dropout: float = 0.0, channels: int = 1) -> Any:
    """Build a network with random weights.

    Args:
        name: One of `ARCHITECTURES`.
        size: Side of the input, in pixels.
        dropout: Share of the last features that training drops, in addition to the report's dropout. It
            changes no weight's name and no prediction.
        channels: Of the input: 1, which is repeated, or `CHANNELS`.

    Returns:
        `keras.Model`, uint8 [N, size, size, channels] -> float32 logits [N, 1]. A pretrained
        architecture holds its convolutions in the layer `BASE`.

    Raises:
        ConfigError: The name is not in the list, or the images are too small for it.
    """
    check_choice("The architecture", name, ARCHITECTURES)
    if channels not in (1, CHANNELS):
        raise ConfigError(f"A network sees 1 or {CHANNELS} variants of an image. Received: {channels}.")
    if size < MIN_SIZE:
        raise ConfigError(
            f"{name} needs images of at least {MIN_SIZE} x {MIN_SIZE} pixels; these have {size}. Make "
            "the shards again with a larger --size."
        )
    import keras
    from keras import layers

    network = _NETWORKS[name]
    image = keras.Input((size, size, channels), dtype="uint8", name="image")
    # float32 whatever the policy: half precision has steps of 1/8 at 128.
    x = image if channels == CHANNELS else layers.Concatenate()([image] * CHANNELS)
    x = layers.Rescaling(network.scale, network.offset, dtype="float32")(x)
    if network.base is not None:
        base = getattr(keras.applications, network.base)
        x = base(include_top=False, weights=None, input_shape=(size, size, CHANNELS), name=BASE)(x)
    x = network.head(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    # float32 whatever the policy: a float16 sigmoid is exactly 1.0 from a logit of 8 on.
    logit = layers.Dense(1, dtype="float32", name="logit")(x)
    return keras.Model(image, logit, name=name)


def ensemble(
    networks: Sequence[Any], weights: Sequence[float], channels: Sequence[Sequence[int]]
) -> Any:
    """Join networks: the same image goes through each, and the logit is the weighted mean of theirs.

    Args:
        networks: Each from `build`, for images of one size; architectures may differ.
        weights: One a network; they add up to 1.
        channels: For each network the channels of the input that it sees, in its order; those of all
            networks count from 0 without a gap.

    Returns:
        `keras.Model` with the input and output of `build`. Those of its layers that are models are the
        networks, see `members`; the name of such a layer says which channels it sees.
    """
    import keras
    from keras import layers

    side = networks[0].inputs[0].shape[1]
    count = 1 + max(max(seen) for seen in channels)
    image = keras.Input((side, side, count), dtype="uint8", name="image")
    logits = []
    for number, (network, weight, seen) in enumerate(zip(networks, weights, channels, strict=True)):
        name = f"{network.name.partition(_MEMBER)[0]}{_MEMBER}{number}_sees_{'_'.join(map(str, seen))}"
        part = image if list(seen) == list(range(count)) else keras.ops.take(image, list(seen), axis=-1)
        logit = keras.Model(network.inputs[0], network.outputs[0], name=name)(part)
        logits.append(layers.Rescaling(weight, dtype="float32", name=f"share_{number}")(logit))
    logit = layers.Add(dtype="float32", name="logit")(logits)
    return keras.Model(image, logit, name=ENSEMBLE)


def members(network: Any) -> list[Any]:
    """Return the networks of an ensemble, each a `keras.Model`; of a single network, itself alone."""
    import keras

    if network.name != ENSEMBLE:
        return [network]
    return [layer for layer in network.layers if isinstance(layer, keras.Model)]


def with_features(network: Any) -> Any:
    """Give the same network a second output: the features by which it knows its training images.

    Args:
        network: From `build` or `fold`, or one of `members`.

    Returns:
        `keras.Model` with the outputs logits [N, 1] and features, float32 [N, f]: of a pretrained base
        the mean of each of its last feature maps, in which foreign images differ most; otherwise
        mean and maximum of the last feature maps, and the last features.
    """
    import keras
    from keras import layers

    logits = network.outputs[0]
    last = _inputs_of(logits)[0]
    maps = last
    while len(maps.shape) != 4:
        maps = _inputs_of(maps)[0]
    maps = layers.Activation("linear", dtype="float32")(maps)
    features = [layers.GlobalAveragePooling2D(dtype="float32")(maps)]
    if BASE not in [layer.name for layer in network.layers]:
        features += [
            layers.GlobalMaxPooling2D(dtype="float32")(maps),
            layers.Activation("linear", dtype="float32")(last),
        ]
    joined = features[0] if len(features) == 1 else layers.Concatenate(dtype="float32")(features)
    return keras.Model(network.inputs[0], [logits, joined], name=network.name)


def _inputs_of(tensor: Any) -> list[Any]:
    """Return the tensors from which a layer has computed this one."""
    operation, node, _ = tensor._keras_history
    inputs: list[Any] = operation._inbound_nodes[node].input_tensors
    return inputs


def shares(network: Any) -> list[tuple[Any, float, list[int] | None]]:
    """Return the networks of an ensemble, each with its weight and the channels that it sees.

    A single network has the weight 1, and None for all channels.
    """
    from keras import layers

    if network.name != ENSEMBLE:
        return [(network, 1.0, None)]
    weights = [layer.scale for layer in network.layers if isinstance(layer, layers.Rescaling)]
    return [
        (part, weight, member_channels(part))
        for part, weight in zip(members(network), weights, strict=True)
    ]


def member_channels(network: Any) -> list[int]:
    """Return which channels of an ensemble's input one of its networks sees, from `members`."""
    return [int(number) for number in network.name.partition("_sees_")[2].split("_")]


def fold(network: Any) -> Any:
    """Give the same network a first convolution that sees the grey image once instead of three times.

    The three channels are equal, so that the convolution is that of one channel with the kernel's sum
    over the three: a third of its multiplications, and logits that differ by rounding alone (1e-6).
    The result shares all weights with `network`, also those that training will give it.

    Args:
        network: From `build`.

    Returns:
        `keras.Model` with the same input and output. A network that begins otherwise is returned as it
        is. So do the pretrained ones: they scale each channel differently, and put zeros around them.
        Each network of an ensemble is folded.
    """
    import keras
    from keras import layers

    if not isinstance(network, keras.Model):
        return network
    if network.name == ENSEMBLE:
        weights = [layer.scale for layer in network.layers if isinstance(layer, layers.Rescaling)]
        parts = members(network)
        return ensemble(list(map(fold, parts)), weights, list(map(member_channels, parts)))
    if network.name.partition(_MEMBER)[0] not in _FOLDED:
        return network
    if network.inputs[0].shape[-1] != 1:  # its channels are not equal
        return network

    class FoldedConvolution(layers.Layer):  # type: ignore[misc]
        def __init__(self, convolution: Any) -> None:
            super().__init__(dtype=convolution.dtype_policy)
            self.convolution = convolution

        def call(self, image: Any) -> Any:
            kernel = keras.ops.sum(self.convolution.kernel, axis=2, keepdims=True)
            x = keras.ops.conv(image, kernel, padding=self.convolution.padding)
            return self.convolution.activation(keras.ops.add(x, self.convolution.bias))

    _, _, scaling, first, *later_layers = network.layers
    image = keras.Input(network.inputs[0].shape[1:], dtype="uint8")
    x = layers.Rescaling(scaling.scale, scaling.offset, dtype="float32")(image)
    x = FoldedConvolution(first)(x)
    for layer in later_layers:
        x = layer(x)
    return keras.Model(image, x, name=network.name)
