"""Random changes to the training images, a whole batch in one call."""

import math
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tumorbatch import native
from tumorbatch.train.config import Augmentation

# Batches are what runs side by side, not the rows of one image.
cv2.setNumThreads(1)


def augment(images: Any, augmentation: Augmentation, seed: Any) -> Any:
    """Change each image at random: shear, zoom, mirror, rotation, shift about its centre, contrast.

    Sampled bilinearly, to 1/32 of a pixel; pixels from outside repeat the nearest edge. The bits depend
    on nothing but the arguments: not on the number of threads, nor on OpenCV's version.

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
    # of the change, here 1/zoom times mirror and shear, after the turn back; all about the centre.
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
    """Resample each image at the positions that its map [2, 3] gives for the output's pixels.

    By the library in C, or by OpenCV in several times as long and with the same bits. Either takes a
    tenth of the time of TensorFlow's ImageProjectiveTransformV3, and does not block other threads.

    Args:
        images: uint8 [B, height, width, channels].
        maps: float32 [B, 2, 3].

    Returns:
        uint8 [B, height, width, channels].
    """
    library = native.choose().library
    warp = warp_by_opencv if library is None else library.warp
    return np.stack([warp(channel, maps) for channel in np.moveaxis(images, 3, 0)], axis=3)


def warp_by_opencv(images: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return what `native.Library.warp` does.

    OpenCV's warpAffine changes its rounding from version to version; its remap is left only the
    arithmetic between four pixels, which it does in whole numbers.
    """
    out = np.empty_like(images)
    height, width = images.shape[1:]
    whole = np.empty((height, width, 2), np.int16)
    for image, where, target in zip(images, maps.astype(np.float64), out, strict=True):
        x, y = _fixed_places(where[0], height, width), _fixed_places(where[1], height, width)
        # Further out there is only the repeated edge, and remap knows only 16 bits.
        whole[..., 0], whole[..., 1] = np.clip(x >> 5, -1, width), np.clip(y >> 5, -1, height)
        fractions = ((y & 31) << 5 | x & 31).astype(np.uint16)
        target[...] = cv2.remap(
            image, whole, fractions, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return out


def _fixed_places(where: NDArray[np.float64], height: int, width: int) -> NDArray[np.int32]:
    """Return places (x, y) of the output pixels, int64 [height, width, 2], 1/32 pixel; see warp.c.

    Args:
        where: float64 [3]: the coordinate is where @ (x, y, 1).
        height: Of the image.
        width: Of the image.

    Returns:
        int32 [height, width].
    """

    def fixed(place: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.clip(np.rint(place * 1024), -(1 << 29), 1 << 29).astype(np.int32)

    across = fixed(where[0] * np.arange(width))
    down = fixed(where[1] * np.arange(height) + where[2]) + np.int32(16)
    return (down[:, np.newaxis] + across) >> 5


def _shade(
    images: NDArray[np.uint8], gain: NDArray[np.float32], lift: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Replace each grey value v by gain (v - 127.5) + 127.5 + lift, rounded and clipped."""
    values = np.arange(256, dtype=np.float32) - 127.5
    tables = np.rint(gain[:, np.newaxis] * values + 127.5 + lift[:, np.newaxis])
    tables = np.clip(tables, 0, 255).astype(np.uint8)
    out = np.empty_like(images)
    for image, table, target in zip(images, tables, out, strict=True):
        target[...] = cv2.LUT(image, table).reshape(target.shape)
    return out
