"""The orientation in an Exif block (CIPA DC-008)."""

import struct

import numpy as np
from numpy.typing import NDArray

from tumorbatch.preprocess.tiff.directory import first_directory, read_directory

ORIENTATION = 274  # the tag, in Exif and in TIFF


def orientation_of(exif: bytes) -> int | None:
    """Return 1 (upright) to 8, or None if the block does not say; any type of integer counts."""
    try:
        tags, _ = read_directory(exif, first_directory(exif), {ORIENTATION})
        value = tags[ORIENTATION][0]
    except (struct.error, IndexError, KeyError, ValueError):
        return None  # a broken Exif block does not make the image unreadable
    return value if 1 <= value <= 8 else None


def upright(image: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Undo an orientation: 5 to 8 swap the axes, then each axis may be mirrored.

    Args:
        image: [height, width], as stored.
        orientation: 1 to 8.

    Returns:
        A view: [height, width], or [width, height] for 5 to 8.
    """
    if orientation > 4:
        image = image.T
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return image[::down, ::right]
