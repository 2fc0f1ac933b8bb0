"""The second look at two pictures: align one with the other, and compare their local structure.

The alignment is affine (shift, zoom, crop, change of the sides' ratio, turn) and found by Gauss-Newton
steps on the grey values, together with a gain and an offset, from the two as they are. Local
structure is the picture less its local mean, over its local spread: brightness, contrast, gamma and a
bright skull count little there, what lies where counts. The similarity is the correlation of the two
structures where both pictures are.

References:
    B. Lucas, T. Kanade, "An Iterative Image Registration Technique with an Application to Stereo
    Vision", IJCAI 1981; S. Baker, I. Matthews, "Lucas-Kanade 20 Years On", IJCV 2004.
"""

import functools
from collections.abc import Iterator
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tumorbatch.orientation import orient_each

# Similarity from which two pictures are copies. Measured on 4,047 images (docs/leaks.md): copies with a
# mild alteration have 0.83 to 1, pictures of different patients up to 0.82.
SAME = 0.84

_STRUCTURE = 1.5  # pixels, standard deviation of the window of local mean and spread
_NOISE = 25.0  # variance of grey values that counts as nothing
_MARGIN = 0.125  # share of a half side at each edge that is not looked at: borders, captions
_PLAN = ((0.9, 5), (0.45, 3))  # (blur in pixels, steps): from coarse to fine
_LARGEST_STEP, _LARGEST = 0.12, 0.3  # change of a parameter in one step, and in all
_OPEN = 0.7  # similarity below which the other direction is not tried
_HOPEFUL = 0.5  # similarity below which a coarse alignment is not refined
_SCALE = 1 / 400  # of a compact structure: 0.3 is the largest value that one pixel can have
_AT_ONCE = 512  # pairs: what is computed together stays in the cache


class Pairs(Protocol):
    """What is compared."""

    @property
    def first(self) -> NDArray[np.int64]:
        """Index of a picture, [pairs]."""

    @property
    def second(self) -> NDArray[np.int64]:
        """Index of another, [pairs]."""

    @property
    def orientation(self) -> NDArray[np.int8]:
        """Orientation of the first, [pairs]."""


def blur(pictures: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    """Return pictures [n, side, side] smoothed by a Gaussian, edge values repeated."""
    weights = _gaussian(pictures.shape[-1], deviation)
    return np.asarray(weights @ pictures @ weights.T, np.float32)


@functools.lru_cache(maxsize=16)
def _gaussian(side: int, deviation: float) -> NDArray[np.float32]:
    """Return the matrix [side, side] that smooths a line."""
    reach = int(np.ceil(4 * deviation))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(offsets**2) / (2 * deviation**2))
    matrix = np.zeros((side, side))
    at = np.clip(np.arange(side)[:, None] + offsets, 0, side - 1)
    np.add.at(matrix, (np.arange(side)[:, None], at), kernel / kernel.sum())
    return matrix.astype(np.float32)


def local_structure(
    pictures: NDArray[np.float32], deviation: float = _STRUCTURE
) -> NDArray[np.float32]:
    """Return pictures [n, side, side] less their local mean, over their local spread."""
    away = pictures - blur(pictures, deviation)
    return np.asarray(away / np.sqrt(blur(away * away, deviation) + _NOISE), np.float32)


def structures(pictures: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return the local structure of pictures inside their margin, for `similarity_in_place`.

    Args:
        pictures: uint8 [n, side, side].

    Returns:
        int8 [n, inner, inner], of mean 0 and, times `_SCALE`, of norm 1; 0 where nothing is shown.
    """
    margin = _margin(pictures.shape[-1])
    inner = pictures.shape[-1] - 2 * margin
    compact = np.empty((len(pictures), inner, inner), np.int8)
    for at in range(0, len(pictures), _AT_ONCE):
        structure = local_structure(pictures[at : at + _AT_ONCE].astype(np.float32))
        structure = structure[:, margin:-margin, margin:-margin]
        structure = structure - structure.mean(axis=(1, 2), keepdims=True)
        norm = np.sqrt(np.einsum("nij,nij->n", structure, structure))[:, None, None]
        scaled = np.rint(structure / np.maximum(norm, 1e-6) / _SCALE)
        compact[at : at + _AT_ONCE] = np.clip(scaled, -127, 127)
    return compact


def similarity_in_place(compact: NDArray[np.int8], pairs: Pairs) -> NDArray[np.float32]:
    """Return the similarity of pairs as they are, but for their orientation, float32 [pairs].

    Args:
        compact: From `structures`.
        pairs: Indices into it.
    """
    found = [np.empty(0, np.float32)]
    for first, second, orientation in _blocks(pairs):
        one = orient_each(compact[first], orientation).reshape(len(first), -1)
        other = compact[second].reshape(len(first), -1)
        product = np.einsum("np,np->n", one, other, dtype=np.float32)
        found.append(product * np.float32(_SCALE**2))
    return np.concatenate(found)


def similarity(pictures: NDArray[np.uint8], pairs: Pairs) -> NDArray[np.float32]:
    """Return the similarity of pairs after one is aligned with the other, float32 [pairs].

    Either is aligned with the other, and the better fit counts: the second only where the first leaves
    it open.

    Args:
        pictures: uint8 [n, side, side].
        pairs: Indices into them.
    """
    found = [np.empty(0, np.float32)]
    for first, second, orientation in _blocks(pairs):
        one = orient_each(pictures[first], orientation).astype(np.float32)
        other = pictures[second].astype(np.float32)
        fit = _aligned(one, other)
        open_ = np.flatnonzero((fit >= _OPEN) & (fit < SAME))
        fit[open_] = np.maximum(fit[open_], _aligned(other[open_], one[open_]))
        found.append(fit)
    return np.concatenate(found)


def _blocks(pairs: Pairs) -> Iterator[tuple[NDArray[Any], ...]]:
    columns = (pairs.first, pairs.second, pairs.orientation)
    for at in range(0, len(pairs.first), _AT_ONCE):
        yield tuple(column[at : at + _AT_ONCE] for column in columns)


@functools.lru_cache(maxsize=2)
def _grid(side: int) -> NDArray[np.float32]:
    """Return the places of the inner pixels, x and y from -1 to 1, float32 [2, pixels]."""
    margin = _margin(side)
    line = np.linspace(-1, 1, side, dtype=np.float32)[margin:-margin]
    y, x = np.meshgrid(line, line, indexing="ij")
    return np.stack([x.ravel(), y.ravel()])


def _aligned(fixed: NDArray[np.float32], moving: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the similarity of `fixed` with `moving`, resampled to fit it, float32 [pairs].

    Where the coarse alignment has brought nothing into line, the fine one is left out.
    """
    fit = np.empty(len(fixed), np.float32)
    affine = np.tile(np.eye(2, 3, dtype=np.float32), (len(fixed), 1, 1))
    hopeful = np.arange(len(fixed))
    for deviation, steps in _PLAN:
        one, other = fixed[hopeful], moving[hopeful]
        affine = _align(one, other, affine, deviation, steps)
        structure = _sample(local_structure(other)[..., None], affine, cv2.INTER_CUBIC)[..., 0]
        inside = _inside(affine, one.shape[-1])
        fit[hopeful] = _correlation(structure, _inner(local_structure(one)), inside)
        go_on = fit[hopeful] >= _HOPEFUL
        hopeful, affine = hopeful[go_on], affine[go_on]
    return fit


def _align(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    affine: NDArray[np.float32],
    deviation: float,
    steps: int,
) -> NDArray[np.float32]:
    """Improve affine maps [pairs, 2, 3] of places in `fixed` to places in `moving`, each -1 to 1.

    Args:
        fixed: float32 [pairs, side, side].
        moving: The same.
        affine: Where to begin.
        deviation: Of the Gaussian by which both are smoothed.
        steps: How many.
    """
    side = fixed.shape[-1]
    x, y = _grid(side)
    upright = np.eye(2, 3, dtype=np.float32)
    target = _inner(blur(fixed, deviation))
    smooth = blur(moving, deviation)
    slopes = np.gradient(smooth, 2 / (side - 1), axis=(2, 1))
    layers = np.stack([smooth, *slopes], axis=-1)
    terms = np.empty((len(fixed), 8, len(x)), np.float32)
    for _ in range(steps):
        weight = _inside(affine, side).astype(np.float32)
        value, across, down = np.moveaxis(_sample(layers, affine), -1, 0) * weight
        # target = gain * value + offset + gain * (slopes * change of place)
        for row, term in enumerate(
            (value, weight, across * x, across * y, across, down * x, down * y, down)
        ):
            terms[:, row] = term
        normal = (terms @ terms.transpose(0, 2, 1)).astype(np.float64)
        normal[:, range(2, 8), range(2, 8)] *= 1.001
        normal[:, range(8), range(8)] += 1e-3  # a flat picture has no slopes
        right = (terms @ (target * weight)[..., None]).astype(np.float64)
        solved = np.linalg.solve(normal, right)[..., 0]
        change = solved[:, 2:] / np.maximum(solved[:, :1], 0.2)
        affine = affine + np.clip(change, -_LARGEST_STEP, _LARGEST_STEP).reshape(-1, 2, 3)
        affine = np.clip(affine, upright - _LARGEST, upright + _LARGEST).astype(np.float32)
    return affine


def _inner(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the pixels inside the margin, [n, pixels]."""
    margin = _margin(pictures.shape[-1])
    inner = pictures[:, margin:-margin, margin:-margin]
    return inner.reshape(len(inner), inner.shape[1] * inner.shape[2])


def _margin(side: int) -> int:
    return round(_MARGIN * side / 2)


def _inside(affine: NDArray[np.float32], side: int) -> NDArray[np.bool_]:
    """Return which of the inner pixels lie inside the margin of the other picture too."""
    there = affine[:, :, :2] @ _grid(side) + affine[:, :, 2:]
    return np.asarray(np.abs(there).max(axis=1) <= 1 - _MARGIN, np.bool_)


def _sample(
    layers: NDArray[np.float32], affine: NDArray[np.float32], method: int = cv2.INTER_LINEAR
) -> NDArray[np.float32]:
    """Return layers [pairs, side, side, layer] at the mapped inner pixels, [pairs, pixels, layer]."""
    count, side, _, depth = layers.shape
    margin = _margin(side)
    inner = side - 2 * margin
    first = 2 * margin / (side - 1) - 1  # place of the first inner pixel
    pixels = affine.copy()
    pixels[:, :, 2] += 1 + first * (affine[:, :, 0] + affine[:, :, 1])
    pixels[:, :, 2] *= (side - 1) / 2
    sampled = np.empty((count, inner, inner, depth), np.float32)
    flags = method | cv2.WARP_INVERSE_MAP
    for index in range(count):
        cv2.warpAffine(
            layers[index], pixels[index], (inner, inner), sampled[index], flags, cv2.BORDER_REPLICATE
        )
    return sampled.reshape(count, inner * inner, depth)


def _correlation(
    one: NDArray[np.float32], other: NDArray[np.float32], inside: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the correlation of [pairs, pixels] over the pixels inside, 0 where one is flat."""
    weight = inside.astype(np.float32)
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1)
    one, other = (
        (values - (values * weight).sum(axis=1, keepdims=True) / total) * weight
        for values in (one, other)
    )
    spread = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
    return np.asarray((one * other).sum(axis=1) / np.maximum(spread, 1e-6), np.float32)
