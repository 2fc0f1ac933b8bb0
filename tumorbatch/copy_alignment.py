"""The second look at two pictures: align one with the other, and compare their local structure.

The alignment is affine (shift, zoom, crop, change of the sides' ratio, turn) and found by Gauss-Newton
steps on the grey values, together with a gain and an offset, from the two as they are. The similarity
is the correlation of the two local structures (see `copy_layers`) where both pictures are.

The library in C does the same, to the last bit, ten times as fast: see native/align.c.

References:
    B. Lucas, T. Kanade, "An Iterative Image Registration Technique with an Application to Stereo
    Vision", IJCAI 1981; S. Baker, I. Matthews, "Lucas-Kanade 20 Years On", IJCV 2004. Cubic
    interpolation: R. Keys, IEEE Trans. ASSP 29, 1981.
"""

import functools
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tumorbatch import native
from tumorbatch.copy_layers import GREY, SIDE, blur, local_structure, sixteenths
from tumorbatch.orientation import orient_each

# Similarity from which two pictures are copies. Measured on 4,047 images (docs/leaks.md): 98.6 % of the
# copies with a mild alteration reach it; of pictures of different classes the most alike have 0.79.
SAME = 0.83

# What follows stands in native/align.c too.
_MARGIN = 2  # pixels at each edge that are not looked at: borders, captions
_INNER = SIDE - 2 * _MARGIN
_PLAN = ((0, 3, 0.45), (0, 5, 0.6), (1, 3, 1.0))  # (layer, steps, similarity below which it ends)
_LARGEST_STEP, _LARGEST = 0.12, 0.3  # change of a parameter in one step, and in all
_LEAST_GAIN = 0.2
_OPEN = 0.7  # similarity below which the other direction is not tried
_CONSTANT = 1024.0  # the term of the offset
_CUBIC = np.float32(-0.75)

_COARSE, _FINE, _STRUCTURE = 0.9, 0.45, 1.2  # standard deviations of the layers' windows, in pixels
_SCALE = 1 / 400  # of a compact structure: 0.3 is the largest value that one pixel can have
_AT_ONCE = 512  # pairs: what NumPy computes together stays in the cache
_PREPARED = 1 << 15  # pairs whose pictures are prepared together: memory


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


def structures(pictures: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return the local structure of pictures inside their margin, for `similarity_in_place`.

    Args:
        pictures: uint8 [n, 24, 24].

    Returns:
        int8 [n, 20, 20], of mean 0 and, times `_SCALE`, of norm 1; 0 where nothing is shown.
    """
    compact = np.empty((len(pictures), _INNER, _INNER), np.int8)
    for at in range(0, len(pictures), _AT_ONCE):
        layers = local_structure(sixteenths(pictures[at : at + _AT_ONCE]), _STRUCTURE)
        inner = _inner(layers.astype(np.float64))
        total = inner.sum(axis=(1, 2), keepdims=True)
        squares = (inner * inner).sum(axis=(1, 2), keepdims=True)
        norm = np.sqrt(squares - total * total / inner[0].size)
        scaled = np.rint((inner - total / inner[0].size) / np.maximum(norm, 1e-6) / _SCALE)
        compact[at : at + _AT_ONCE] = np.clip(scaled, -127, 127)
    return compact


def similarity_in_place(compact: NDArray[np.int8], pairs: Pairs) -> NDArray[np.float32]:
    """Return the similarity of pairs as they are, but for their orientation, float32 [pairs].

    Args:
        compact: From `structures`.
        pairs: Indices into it.
    """
    blocks = [np.empty(0, np.float32)]
    for first, second, orientation in _blocks(pairs, _AT_ONCE):
        one = orient_each(compact[first], orientation).reshape(len(first), -1)
        other = compact[second].reshape(len(first), -1)
        # A sum of whole numbers below 2^24: exact in float32.
        product = np.einsum("np,np->n", one, other, dtype=np.float32)
        blocks.append(product * np.float32(_SCALE**2))
    return np.concatenate(blocks)


def similarity(
    pictures: NDArray[np.uint8], pairs: Pairs, threads: Executor | None = None
) -> NDArray[np.float32]:
    """Return the similarity of pairs after one is aligned with the other, float32 [pairs].

    Either is aligned with the other, and the better fit counts: the second only where the first leaves
    it open.

    Args:
        pictures: uint8 [n, 24, 24].
        pairs: Indices into them.
        threads: What computes it; None: this thread.
    """
    library = native.choose().library
    compute = _similarity if library is None else library.similarity
    each = map if threads is None else threads.map
    likeness = [np.empty(0, np.float32)]
    for first, second, orientation in _blocks(pairs, _PREPARED):
        shown, place = np.unique(np.concatenate([first, second]), return_inverse=True)
        layers = np.concatenate([*each(_layers, _parts(pictures[shown]))])
        align = functools.partial(compute, layers, same=SAME)
        first, second = np.split(place.ravel(), 2)
        columns = (_parts(column) for column in (first, second, orientation))
        likeness += each(align, *columns)
    return np.concatenate(likeness)


def _blocks(pairs: Pairs, size: int) -> Iterator[tuple[NDArray[Any], ...]]:
    columns = (pairs.first, pairs.second, pairs.orientation)
    return zip(*(_parts(column, size) for column in columns), strict=True)


def _parts(column: NDArray[Any], size: int = _AT_ONCE) -> Iterator[NDArray[Any]]:
    return (column[at : at + size] for at in range(0, len(column), size))


def _layers(pictures: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return what an alignment needs of uint8 [n, 24, 24]: int16 [n, layer, 24, 24].

    The layers: smoothed a lot, and a little, both in 1/8 of a grey value, 0 to 2,040; local structure.
    """
    grey = sixteenths(pictures)
    smooth = [np.rint(blur(grey, deviation) * np.float32(8 / GREY)) for deviation in (_COARSE, _FINE)]
    return np.stack([*smooth, local_structure(grey, _STRUCTURE)], axis=1).astype(np.int16)


def _similarity(
    layers: NDArray[np.int16],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    orientation: NDArray[np.int8],
    same: float,
) -> NDArray[np.float32]:
    """Do what `native.Library.similarity` does."""
    turned = np.repeat(orientation, layers.shape[1])
    one = orient_each(layers[first].reshape(-1, SIDE, SIDE), turned).reshape(-1, 3, SIDE, SIDE)
    other = layers[second]
    fit = _fit(one, other)
    open_ = np.flatnonzero((fit >= _OPEN) & (fit < np.float32(same)))
    fit[open_] = np.maximum(fit[open_], _fit(other[open_], one[open_]))
    return fit


def _fit(fixed: NDArray[np.int16], moving: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the similarity of `fixed` with `moving`, resampled to fit it, float32 [pairs].

    Where some steps have brought nothing into line, the rest is left out.
    """
    fit = np.empty(len(fixed), np.float32)
    affine = np.tile(np.eye(2, 3, dtype=np.float32), (len(fixed), 1, 1))
    hopeful = np.arange(len(fixed))
    for number, steps, least in _PLAN:
        one, other = fixed[hopeful], moving[hopeful]
        for _ in range(steps):
            affine = _step(one[:, number], other[:, number], affine)
        fit[hopeful] = _correlation(one[:, 2], other[:, 2], affine)
        go_on = fit[hopeful] >= np.float32(least)
        hopeful, affine = hopeful[go_on], affine[go_on]
    return fit


def _inner(layers: NDArray[Any]) -> NDArray[Any]:
    return layers[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


def _grid() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return x and y of the inner pixels, -1 to 1 from edge to edge, float32 [20, 20] each."""
    line = np.arange(2 * _MARGIN - SIDE + 1, SIDE - 2 * _MARGIN, 2).astype(np.float32)
    y, x = np.meshgrid(line / np.float32(SIDE - 1), line / np.float32(SIDE - 1), indexing="ij")
    return x, y


class _Places:
    """Where the inner pixels of one picture lie in another.

    Attributes:
        inside: bool [pairs, 20, 20], whether they are inside of its margin.
        index: int64 [pairs, 20, 20], of the pixel above and to the left, in a flat layer.
        right: float32 [pairs, 20, 20], how far to the right of it, 0 to 1.
        below: Likewise.
    """

    def __init__(self, affine: NDArray[np.float32]) -> None:
        x, y = _grid()
        half = np.float32((SIDE - 1) / 2)
        places, self.inside = [], np.True_
        for row in (0, 1):
            across, down, shift = (affine[:, row, column, None, None] for column in range(3))
            place = half + half * ((across * x + down * y) + shift)
            self.inside = self.inside & (np.abs(place - half) <= half - np.float32(1.4375))
            places.append(np.clip(place, np.float32(1), np.float32(SIDE - 2.25)))
        left, top = (place.astype(np.int64) for place in places)
        self.right, self.below = places[0] - left.astype(np.float32), places[1] - top.astype(np.float32)
        self.index = top * SIDE + left

    def take(self, layer: NDArray[np.float32], down: int, across: int) -> NDArray[np.float32]:
        """Return the values of [pairs, 24, 24] at pixels beside the places, [pairs, 20, 20]."""
        index = (self.index + (down * SIDE + across)).reshape(len(layer), _INNER**2)
        flat = np.take_along_axis(layer.reshape(len(layer), SIDE**2), index, 1)
        return flat.reshape(self.index.shape)

    def linear(self, layer: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values of [pairs, 24, 24] at the places, rounded; 0 where they are not inside."""
        above, below = (
            left + self.right * (self.take(layer, down, 1) - left)
            for down, left in enumerate((self.take(layer, 0, 0), self.take(layer, 1, 0)))
        )
        return np.where(self.inside, np.rint(above + self.below * (below - above)), np.float32(0))

    def cubic(self, layer: NDArray[np.float32]) -> NDArray[np.float32]:
        """Do what `linear` does, by cubic interpolation."""
        across, down = _cubic_weights(self.right), _cubic_weights(self.below)
        rows = [
            _weighted(across, [self.take(layer, row, column) for column in (-1, 0, 1, 2)])
            for row in (-1, 0, 1, 2)
        ]
        return np.where(self.inside, np.rint(_weighted(down, rows)), np.float32(0))


def _cubic_weights(part: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the weights of four neighbours, the place being `part` behind the second one."""
    a, one, two, three = _CUBIC, np.float32(1), np.float32(2), np.float32(3)
    rest = one - part
    far = part + one
    first = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    second = ((a + two) * part - (a + three)) * part * part + one
    third = ((a + two) * rest - (a + three)) * rest * rest + one
    return [first, second, third, one - first - second - third]


def _weighted(weights: list[NDArray[np.float32]], values: list[NDArray[np.float32]]) -> NDArray[Any]:
    a, b, c, d = (weight * value for weight, value in zip(weights, values, strict=True))
    return np.asarray(a + b + c + d)


def _step(
    fixed: NDArray[np.int16], moving: NDArray[np.int16], affine: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Improve affine maps [pairs, 2, 3] of places in `fixed` to places in `moving`, each -1 to 1.

    Args:
        fixed: int16 [pairs, 24, 24], 0 to 2,040.
        moving: Likewise.
        affine: Where to begin.
    """
    count = len(fixed)
    places = _Places(affine)
    value = moving.astype(np.float32)
    slopes = np.zeros((2, *value.shape), np.float32)  # 16 times the change of grey values by a pixel
    slopes[0, :, :, 1:-1] = value[:, :, 2:] - value[:, :, :-2]
    slopes[1, :, 1:-1] = value[:, 2:] - value[:, :-2]
    across, down = map(places.linear, slopes)
    x, y = _grid()
    # target = gain * value + offset + gain * (slopes * change of place)
    products = [np.rint(slope * place) for slope in (across, down) for place in (x, y)]
    terms = np.empty((count, 9, _INNER * _INNER))
    for row, term in enumerate(
        (
            places.linear(value), places.inside * _CONSTANT,
            products[0], products[1], across, products[2], products[3], down, _inner(fixed),
        )
    ):  # fmt: skip
        terms[:, row] = term.reshape(count, _INNER**2)
    sums = terms[:, :8] @ terms.transpose(0, 2, 1)
    normal, right = sums[:, :, :8], sums[:, :, 8]
    normal[:, range(2, 8), range(2, 8)] *= 1.001
    normal[:, range(8), range(8)] += 1  # a flat picture has no slopes
    solved = _solve(normal, right)
    change = solved[2:] * (4 / (SIDE - 1)) / np.maximum(solved[0], _LEAST_GAIN)
    change = np.clip(change, -_LARGEST_STEP, _LARGEST_STEP).T.reshape(-1, 2, 3)
    upright = np.eye(2, 3)
    return np.asarray(np.clip(affine + change, upright - _LARGEST, upright + _LARGEST), np.float32)


def _solve(normal: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve positive definite systems [pairs, 8, 8] by Gauss' elimination, float64 [8, pairs].

    LAPACK's order of operations depends on the processor.
    """
    rows = np.concatenate([normal, right[:, :, None]], axis=2).transpose(1, 2, 0).copy()
    for k in range(8):
        for row in range(k + 1, 8):
            rows[row, k + 1 :] -= rows[row, k] / rows[k, k] * rows[k, k + 1 :]
    for k in reversed(range(8)):
        for column in range(k + 1, 8):
            rows[k, 8] -= rows[k, column] * rows[column, 8]
        rows[k, 8] /= rows[k, k]
    return rows[:, 8]


def _correlation(
    fixed: NDArray[np.int16], moving: NDArray[np.int16], affine: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the correlation of two structures where both pictures are, 0 where one is flat."""
    places = _Places(affine)
    other = places.cubic(moving.astype(np.float32)).astype(np.int64)
    one = np.where(places.inside, _inner(fixed), 0).astype(np.int64)
    n, s1, s2, s11, s22, s12 = (
        values.sum(axis=(1, 2)).astype(np.float64)
        for values in (places.inside, one, other, one * one, other * other, one * other)
    )
    spread = np.sqrt((n * s11 - s1 * s1) * (n * s22 - s2 * s2))
    return np.asarray((n * s12 - s1 * s2) / np.maximum(spread, 1), np.float32)
