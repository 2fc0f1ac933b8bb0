"""Signatures as layers of whole numbers: smoothed, and as local structure.

Whoever splits a set anew, or proves that no copy crosses its splits, must find the same copies: on any
processor, with any linear algebra library, with any number of threads. Sums in float32 depend on all
three. So every sum here, in `copy_candidates` and in `copy_alignment` is one of whole numbers that the
type holds exactly: no order of additions can change it. What remains is one operation at a time, which
IEEE 754 fixes to the last bit.
"""

import functools
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

SIDE = 24  # of a signature, in pixels: 16 confuse two heads more often, 32 find no more copies
GREY = 16  # a grey value in the unit of all layers
UNIT = 256  # 1 in the unit of local structure
_WEIGHTS = 64  # sum of the weights of a Gaussian
_NOISE = 4.0  # variance of grey values that counts as nothing

Real = TypeVar("Real", np.float32, np.float64)


def sixteenths(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return uint8 [n, side, side] in 1/16 of a grey value, float32, 0 to 4,080."""
    return pictures * np.float32(GREY)


@functools.lru_cache(maxsize=16)
def _gaussian(side: int, deviation: float) -> NDArray[np.float64]:
    """Return the matrix [side, side] that smooths a line, whole numbers; each row sums to 64."""
    reach = int(np.ceil(4 * deviation))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(offsets**2) / (2 * deviation**2))
    kernel = np.rint(_WEIGHTS * kernel / kernel.sum())
    kernel[reach] += _WEIGHTS - kernel.sum()
    matrix = np.zeros((side, side))
    at = np.clip(np.arange(side)[:, None] + offsets, 0, side - 1)  # values of the edge are repeated
    np.add.at(matrix, (np.arange(side)[:, None], at), kernel)
    return matrix


def blur(layers: NDArray[Real], deviation: float) -> NDArray[Real]:
    """Return layers smoothed by a Gaussian, rounded to whole numbers, edge values repeated.

    Args:
        layers: [n, side, side], whole numbers below 2^12 in float32, below 2^41 in float64.
        deviation: Standard deviation in pixels.
    """
    weights = _gaussian(layers.shape[-1], deviation).astype(layers.dtype)
    return np.asarray(np.rint(weights @ layers @ weights.T / layers.dtype.type(_WEIGHTS**2)))


def local_structure(layers: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    """Return pictures less their local mean, over their local spread; noise counts as spread.

    Brightness, contrast, gamma and a bright skull hardly change it.

    Args:
        layers: float32 [n, side, side], from `sixteenths`.
        deviation: Of the window of local mean and spread, in pixels.

    Returns:
        float32 [n, side, side], whole numbers in 1/256, from -2,047 to 2,047.
    """
    away = (layers - blur(layers, deviation)).astype(np.float64)
    variance = blur(away * away, deviation) + _NOISE * GREY**2
    return np.rint(UNIT * away / np.sqrt(variance)).astype(np.float32)
