"""Grad-CAM: which part of an image speaks for an answer.

R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. The maps are coarse (a cell of the last feature maps covers many pixels) and
show what raised the score, not why; they are a lead for a look at the image, no proof.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.architectures import BASE, member_channels, members
from tumorbatch.errors import ConfigError
from tumorbatch.report.style import VIEWER
from tumorbatch.scoring import with_channels


def _features(network: Any) -> Any:
    """Return the last feature maps, a symbolic tensor [N, rows, columns, channels].

    Behind a pretrained base its output: its last convolution with what normalises and rectifies it.
    Otherwise the output of the last convolution, its ReLU included.
    """
    import keras

    names = [layer.name for layer in network.layers]
    if BASE in names:
        # Not the base's own `output`: that is a tensor of the base alone, before it was put in here.
        return network.layers[names.index(BASE) + 1].input
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    if not convolutions:
        raise ConfigError(f"{network.name} has no convolution: Grad-CAM has nothing to look at.")
    return convolutions[-1].output


def maps(network: Any, images: NDArray[np.uint8], towards: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the maps of a network, see `GradCam`; of an ensemble the mean of its networks' maps.

    Args:
        network: `keras.Model`, from `bundle_weights.load_network`.
        images: uint8 [n, height, width] or [n, height, width, channels].
        towards: int64 [n], 0 Healthy, 1 Tumor.

    Returns:
        float32 [n, rows, columns] in [0, 1], at the size of the largest of the maps.
    """
    import cv2

    networks = members(network)
    if len(networks) == 1:
        return GradCam(network)(images, towards)
    whole = with_channels(images)
    several = [GradCam(each)(whole[..., member_channels(each)], towards) for each in networks]
    _, rows, columns = max((heat.shape for heat in several), key=lambda shape: shape[1])
    resized = [
        [cv2.resize(one, (columns, rows), interpolation=cv2.INTER_LINEAR) for one in heat]
        for heat in several
    ]
    heat = np.mean(np.array(resized, np.float32), axis=0)
    largest = heat.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(heat, largest, out=np.zeros_like(heat), where=largest > 0))


class GradCam:
    """Maps of one network.

    Args:
        network: `keras.Model`, uint8 [N, height, width, channels] -> logits [N, 1].

    Raises:
        ConfigError: It has no convolution.
    """

    def __init__(self, network: Any) -> None:
        import keras

        features = _features(network)
        # Two halves, so that the gradient can start at the features, whatever is trainable.
        self._convolutions = keras.Model(network.inputs, features)
        self._head = keras.Model(features, network.outputs)

    def __call__(
        self, images: NDArray[np.uint8], towards: NDArray[np.int64], batch_size: int = 16
    ) -> NDArray[np.float32]:
        """Compute which regions of each image support the class in `towards`.

        The score of Tumor is the logit, that of Healthy its negative. Weights of the channels: the mean
        of the score's gradient over rows and columns (the paper's equation 1); map: the weighted sum of
        the channels, negative values set to 0 (equation 2), and divided by its largest.

        Args:
            images: uint8 [n, height, width] or [n, height, width, channels].
            towards: int64 [n], 0 Healthy, 1 Tumor.
            batch_size: Images at a time.

        Returns:
            float32 [n, rows, columns] in [0, 1], at the size of the feature maps. All 0 where nothing
            speaks for the class.
        """
        import tensorflow as tf

        maps = []
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            signs = tf.constant(np.where(towards[part] == 1, 1.0, -1.0)[:, np.newaxis], tf.float32)
            batch = tf.constant(with_channels(images[part]))
            features = self._convolutions(batch, training=False)
            with tf.GradientTape() as tape:
                tape.watch(features)
                (score,) = tf.nest.flatten(self._head(features, training=False))
                score = tf.cast(score, tf.float32) * signs
            gradient = tf.cast(tape.gradient(score, features), tf.float32)
            weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
            summed = tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1)
            maps.append(tf.nn.relu(summed).numpy())
        heat = np.concatenate(maps).astype(np.float32)
        largest = heat.max(axis=(1, 2), keepdims=True)
        return np.asarray(np.divide(heat, largest, out=np.zeros_like(heat), where=largest > 0))


def randomised(network: Any, seed: int = 0) -> Any:
    """Return the same network with random weights: the control of a saliency map.

    J. Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that looks the same with
    random weights shows the image, not what the network has learned.

    Args:
        network: `keras.Model`.
        seed: Of the weights: kernels are drawn as K. He et al. 2015 do, biases and means are 0, scales
            and variances 1. The same seed gives the same weights.
    """
    import keras

    rng = np.random.default_rng(seed)
    control = keras.models.clone_model(network)
    for variable, trained in zip(control.weights, network.weights, strict=True):
        shape = tuple(trained.shape)
        if len(shape) > 1:
            inputs = shape[:2] if "depthwise" in trained.path else shape[:-1]
            spread = float(np.sqrt(2 / np.prod(inputs)))
            variable.assign(rng.normal(0, spread, shape).astype(np.float32))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(np.ones(shape, np.float32))
        elif variable.name in ("bias", "beta", "moving_mean"):
            variable.assign(np.zeros(shape, np.float32))
    return control


def similarity(heat: NDArray[np.float32], control: NDArray[np.float32]) -> float | None:
    """Return Pearson's correlation of two maps of one size; None if one of them is constant."""
    if not (heat.std() and control.std()):
        return None
    return float(np.corrcoef(heat.ravel(), control.ravel())[0, 1])


_GAP = 8  # pixels between the parts of a picture
_HEAD = 22  # pixels of a title
_BAR = 14  # pixels, width of the colour bar
_OUTLINED = 0.5  # value of the map at its outline


def _colours(share: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return colour (RGB) and opacity [..., 1] of a map's values."""
    import matplotlib

    # The upper part of the scale: its dark end would hide what lies below.
    colours = matplotlib.colormaps["inferno"](0.45 + 0.5 * share)[..., :3].astype(np.float32) * 255
    alpha: NDArray[np.float32] = (0.7 * np.sqrt(share)).astype(np.float32)[..., np.newaxis]
    return colours, alpha


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw an image under its map, whose half of the maximum is outlined.

    Args:
        image: uint8 [height, width], grey; of [height, width, channels], the first channel is drawn.
        heat: float32 [rows, columns] in [0, 1].

    Returns:
        uint8 [height, width, 3], RGB; the colours run from transparent over orange to bright yellow,
        which grey tones keep in the same order.
    """
    import cv2

    image = image if image.ndim == 2 else image[..., 0]
    height, width = image.shape
    grey = np.repeat(image[..., np.newaxis], 3, axis=2).astype(np.float32)
    share = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours, alpha = _colours(share)
    covered = (grey * (1 - alpha) + colours * alpha).round().astype(np.uint8)
    inside = (share >= _OUTLINED).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(covered, outlines, -1, (255, 255, 255), 1)
    return covered


def _write(picture: NDArray[np.uint8], text: str, left: int, bottom: int, size: float) -> None:
    """Write white letters into a picture; `size` 1 is 22 pixels high."""
    import cv2

    face = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, text, (left, bottom), face, size, (255, 255, 255), 1, cv2.LINE_AA)


def panels(
    image: NDArray[np.uint8], heat: NDArray[np.float32], control: NDArray[np.float32], scale: int = 1
) -> NDArray[np.uint8]:
    """Draw an image, the image under its map, and under that of random weights; with a colour bar.

    Args:
        image: uint8 [height, width], grey; of [height, width, channels], the first channel is drawn.
        heat: float32 [rows, columns] in [0, 1], of the network.
        control: Likewise, of the network with random weights.
        scale: Pixels of the picture for one of the image.

    Returns:
        uint8 [22 + scale * height, 3 * scale * width + 70, 3], RGB.
    """
    import cv2

    image = image if image.ndim == 2 else np.ascontiguousarray(image[..., 0])
    height, width = (scale * side for side in image.shape)
    large = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    parts = [
        ("image", np.repeat(large[..., np.newaxis], 3, axis=2)),
        ("Grad-CAM", overlay(large, heat)),
        ("random weights", overlay(large, control)),
    ]
    out = np.empty((_HEAD + height, 3 * width + 3 * _GAP + _BAR + 32, 3), np.uint8)
    out[:] = list(bytes.fromhex(VIEWER.removeprefix("#")))
    for number, (title, part) in enumerate(parts):
        left = number * (width + _GAP)
        out[_HEAD:, left : left + width] = part
        _write(out, title, left, _HEAD - 7, min(0.5, width / 300))
    left = 3 * (width + _GAP)
    share = np.linspace(1, 0, height, dtype=np.float32)[:, np.newaxis]
    colours, alpha = _colours(share)
    bar = np.full((height, 1, 3), 128, np.float32) * (1 - alpha) + colours * alpha
    out[_HEAD:, left : left + _BAR] = bar.round().astype(np.uint8)
    for value in (1.0, _OUTLINED, 0.0):
        row = _HEAD + round((1 - value) * (height - 10)) + 8
        _write(out, f"{value:g}", left + _BAR + 3, row, 0.38)
    middle = _HEAD + round((1 - _OUTLINED) * height)
    out[middle, left : left + _BAR] = 255
    return out
