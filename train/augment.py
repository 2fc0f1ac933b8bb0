"""Random changes to the training images, a whole batch in one call."""

import math
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch.train.config import Augmentation

# Batches are what runs side by side, not the rows of one image.
cv2.setNumThreads(1)


def augment(images: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Shear, zoom, mirror, turn and move each image about its centre; change its contrast.

    Sampled bilinearly; pixels from outside repeat the nearest edge.

    Args:
        images: uint8 [B, height, width, channels].
        augmentation: How far.
        seed: Two integers; the same seed gives the same changes.

    Returns:
        uint8, the same shape.
    """
    count = tf.shape(images)[0]
    height, width = tf.cast(tf.shape(images)[1], tf.float32), tf.cast(tf.shape(images)[2], tf.float32)
    seed = tf.cast(tf.stack(seed), tf.int64)
    draw = tf.random.stateless_uniform([8, count], seed)
    either = 2 * draw - 1  # [-1, 1)
    shear = either[0] * augmentation.shear
    zoom = 1 + either[1] * augmentation.zoom
    mirror = tf.where(draw[2] < 0.5 if augmentation.flip else tf.zeros([count], tf.bool), -1.0, 1.0)
    angle = either[3] * math.radians(augmentation.rotation)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # Of an output pixel (x, y), the input pixel is (a0 x + a1 y + a2, b0 x + b1 y + b2): the inverse
    # of the change, here 1/zoom times mirror and shear, behind the turn back; all about the centre.
    a0, a1, b1 = mirror / zoom, shear / zoom, 1 / zoom
    a0, a1, b0, b1 = a0 * cosine - a1 * sine, a0 * sine + a1 * cosine, -b1 * sine, b1 * cosine
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    a2 = centre_x - a0 * centre_x - a1 * centre_y + either[4] * augmentation.shift * width
    b2 = centre_y - b0 * centre_x - b1 * centre_y + either[5] * augmentation.shift * height
    maps = tf.reshape(tf.stack([a0, a1, a2, b0, b1, b2], axis=1), [-1, 2, 3])
    warped = tf.numpy_function(_warp, [images, maps], images.dtype, stateful=False)
    if augmentation.contrast or augmentation.brightness:
        gain = 1 + either[6] * augmentation.contrast
        lift = 255 * either[7] * augmentation.brightness
        warped = tf.numpy_function(_shade, [warped, gain, lift], images.dtype, stateful=False)
    return tf.ensure_shape(warped, images.shape)


def _warp(images: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Resample each image at the places that its map [2, 3] gives for the output's pixels.

    By OpenCV, which takes a tenth of the time of TensorFlow's ImageProjectiveTransformV3, and lets
    other threads run meanwhile.
    """
    size = images.shape[2], images.shape[1]
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = np.empty_like(images)
    for image, where, target in zip(images, maps, out, strict=True):
        warped = cv2.warpAffine(image, where, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
        target[...] = warped.reshape(target.shape)
    return out


def _shade(
    images: NDArray[np.uint8], gain: NDArray[np.float32], lift: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Each grey value v of an image becomes gain (v - 127.5) + 127.5 + lift, rounded and clipped."""
    values = np.arange(256, dtype=np.float32) - 127.5
    tables = np.rint(gain[:, np.newaxis] * values + 127.5 + lift[:, np.newaxis])
    tables = np.clip(tables, 0, 255).astype(np.uint8)
    out = np.empty_like(images)
    for image, table, target in zip(images, tables, out, strict=True):
        target[...] = cv2.LUT(image, table).reshape(target.shape)
    return out
