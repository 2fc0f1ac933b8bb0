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


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32], scale: int = 1) -> NDArray[np.uint8]:
    """Draw an image, and next to it the same image under its map.

    Args:
        image: uint8 [height, width], grey; of [height, width, channels], the first channel is drawn.
        heat: float32 [rows, columns] in [0, 1].
        scale: Pixels of the picture for one of the image.

    Returns:
        uint8 [scale * height, 2 * scale * width + 8, 3], RGB; the colours run from transparent over
        orange to bright yellow, which grey tones keep in the same order.
    """
    import cv2
    import matplotlib

    image = image if image.ndim == 2 else np.ascontiguousarray(image[..., 0])
    height, width = (scale * side for side in image.shape)
    large = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    grey = np.repeat(large[..., np.newaxis], 3, axis=2).astype(np.float32)
    share = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    # The upper part of the scale: its dark end would hide what lies below.
    colours = matplotlib.colormaps["inferno"](0.45 + 0.5 * share)[..., :3].astype(np.float32) * 255
    alpha = (0.7 * np.sqrt(share))[..., np.newaxis]
    covered = grey * (1 - alpha) + colours * alpha
    gap = np.full((height, 8, 3), 255, np.float32)
    return np.concatenate([grey, gap, covered], axis=1).round().astype(np.uint8)
