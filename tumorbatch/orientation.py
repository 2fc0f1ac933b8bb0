"""The eight orientations of the square: four turns, and the same mirrored.

An orientation is a number from 0 to 7, of three bits: 4 exchanges rows and columns, and is done first;
1 mirrors left and right; 2 mirrors top and bottom. 0 leaves an image upright.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 0
ORIENTATIONS = range(8)
# The orientation that undoes each: an exchange of the axes makes a mirror of one that of the other.
INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7], np.int8)


def orient(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of [..., height, width] in one of the eight orientations."""
    if orientation & 4:
        image = image.swapaxes(-1, -2)
    if orientation & 1:
        image = image[..., ::-1]
    if orientation & 2:
        image = image[..., ::-1, :]
    return image


def orient_each(images: NDArray[Any], orientations: NDArray[np.integer]) -> NDArray[Any]:
    """Return a copy of [n, side, side] in which each image has its own orientation, [n]."""
    turned = np.empty_like(images)
    for orientation in ORIENTATIONS:
        these = orientations == orientation
        turned[these] = orient(images[these], orientation)
    return turned
