"""Which images may be copies of each other: for each one the few that look most like it.

Two descriptors, since no single one stands every alteration:

    whole    the 8 x 8 lowest frequencies of the picture: stands changes of grey values and turns
    content  the 10 x 10 lowest frequencies of the local structure inside the box that the content
             fills: stands borders, zooms and shifts

Both are cosine transforms. To turn or mirror a picture is to exchange rows and columns of its transform
and to change signs, so all eight orientations are compared at the price of eight products of matrices.

Work grows as n log n. Above `_LEAF` images they are first sorted into leaves of limited size, by
features that an orientation does not change, several times by other features; only images of a leaf
are compared. So nothing is quadratic, however many images are blank or alike.

All descriptors are whole numbers: see `copy_layers`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tumorbatch.copy_layers import blur, local_structure, sixteenths
from tumorbatch.orientation import INVERSE, ORIENTATIONS

WHOLE, CONTENT = 0, 1  # the descriptors
_LEAF = 4096  # images that are compared each with each
_SMALL_LEAF = 512  # the same, where there are too many images for more
_TREES = 2  # how often the images are sorted into leaves, for each descriptor
_BLANK = 3.0  # standard deviation of the grey values, below which a picture shows nothing
_LOWEST = 0.5  # similarity of a descriptor below which nothing is a candidate
_AMBIGUOUS = 0.05  # two orientations of a pair, so near in likeness, are both candidates
_NORM = 2048  # of a descriptor of whole numbers: a product of two is below 2^24, exact in float32
_PARTS = 64  # of a pixel, by which pictures are stretched
_ROWS_AT_ONCE = 256  # rows of a table of likeness: it stays in the cache
_AT_ONCE = 1 << 10  # pictures whose descriptors are computed together: memory


class Candidates(NamedTuple):
    """Pairs of images that may be copies.

    Attributes:
        first: int64 [pairs], index of an image.
        second: int64 [pairs], index of another.
        orientation: int8 [pairs], the orientation in which `first` looks like `second`.
        likeness: float32 [pairs], of the descriptor that found the pair.
        descriptor: int8 [pairs], which one that was.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    orientation: NDArray[np.int8]
    likeness: NDArray[np.float32]
    descriptor: NDArray[np.int8]

    @classmethod
    def none(cls) -> "Candidates":
        """Return no pairs."""
        whole, small = np.empty(0, np.int64), np.empty(0, np.int8)
        return cls(whole, whole, small, np.empty(0, np.float32), small)

    def renamed(self, index: NDArray[np.int64]) -> "Candidates":
        """Return the pairs with image i called `index[i]`, the lower number first."""
        first, second = index[self.first], index[self.second]
        swap = first > second
        return Candidates(
            np.where(swap, second, first),
            np.where(swap, first, second),
            np.where(swap, INVERSE[self.orientation], self.orientation),
            self.likeness,
            self.descriptor,
        )

    def take(self, index: NDArray[np.integer]) -> "Candidates":
        """Return some of the pairs."""
        return Candidates(*(column[index] for column in self))

    def best(self, count: int) -> "Candidates":
        """Return the pairs that are among the `count` most alike of one of their images.

        By each descriptor; a pair that both have found is there once.
        """
        kept = np.zeros(len(self.first), np.bool_)
        for images in (self.first, self.second):
            order = np.lexsort((-self.likeness, self.descriptor, images))
            key = images[order] * 2 + self.descriptor[order]
            starts = np.flatnonzero(np.diff(key, prepend=-1))
            rank = np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key)))
            kept[order[rank < count]] = True
        return self.take(np.flatnonzero(kept)).once()

    def once(self) -> "Candidates":
        """Return each pair and orientation once."""
        size = int(self.second.max(initial=0)) + 1
        _, index = np.unique(
            (self.first * size + self.second) * 8 + self.orientation, return_index=True
        )
        return self.take(index)


def find_candidates(
    pictures: NDArray[np.uint8],
    descriptors: Sequence[int],
    neighbours: int,
    threads: Executor | None = None,
) -> Candidates:
    """Return for each image those that look most like it, in any orientation.

    Args:
        pictures: uint8 [n, side, side]. One that shows nothing is nobody's candidate.
        descriptors: Some of `WHOLE` and `CONTENT`.
        neighbours: So many of an image, by each descriptor.
        threads: What computes them; None: this thread.
    """
    each = map if threads is None else threads.map
    shown = np.flatnonzero(_shows(pictures))
    pairs = [Candidates.none()]
    for number in descriptors:
        described = describe(pictures[shown], number, threads)
        leaves = _leaves(described, seed=number)
        near = each(functools.partial(_within, described, number, neighbours), leaves)
        pairs += (candidates.renamed(shown) for candidates in near)
    return Candidates(*map(np.concatenate, zip(*pairs, strict=True)))


def _within(
    described: NDArray[np.float32], number: int, neighbours: int, leaf: NDArray[np.int64]
) -> Candidates:
    rows = described[leaf]
    return nearest(rows, rows, number, neighbours, np.arange(len(leaf))).renamed(leaf)


def _shows(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which of uint8 [n, side, side] show something: their grey values differ enough."""
    parts = [np.empty(0, np.bool_)]
    for at in range(0, len(pictures), _AT_ONCE):
        grey = pictures[at : at + _AT_ONCE].reshape(-1, pictures[0].size).astype(np.int64)
        size, total, squares = grey.shape[1], grey.sum(axis=1), (grey * grey).sum(axis=1)
        parts.append(size * squares - total * total >= (_BLANK * size) ** 2)
    return np.concatenate(parts)


def _cosines(count: int, side: int) -> NDArray[np.float64]:
    """Return the first rows of 1,024 times the orthonormal cosine transform (type 2), [count, side]."""
    frequency, at = np.arange(count)[:, None], np.arange(side)[None]
    rows = np.cos(np.pi * (2 * at + 1) * frequency / (2 * side)) * np.sqrt(2 / side)
    rows[0] /= np.sqrt(2)
    return np.asarray(np.rint(1024 * rows))


def _lowest(layers: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the lowest frequencies but the mean, of norm `_NORM`, float32 [n, count, count]."""
    rows = _cosines(count, layers.shape[-1])
    low = np.rint(rows @ layers.astype(np.float64) @ rows.T / 2**18)
    low[:, 0, 0] = 0
    norm = np.sqrt(np.einsum("nij,nij->n", low, low))
    return np.asarray(np.rint(low * (_NORM / np.maximum(norm, 1)[:, None, None])), np.float32)


def _whole(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _lowest(sixteenths(pictures), 8)


def _content(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _lowest(blur(local_structure(_boxed(sixteenths(pictures)), 2.25), 0.9), 10)


def _boxed(layers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each picture cut to the box that its content fills, and stretched to full size.

    Content is what differs from the grey of the edges. The box leaves 2 % of it out on each side, so
    that a caption or a speck does not decide.
    """
    count, side, _ = layers.shape
    smooth = blur(layers, 0.75)
    edges = np.concatenate([smooth[:, 0], smooth[:, -1], smooth[:, :, 0], smooth[:, :, -1]], axis=1)
    away = np.abs(smooth - np.median(edges, axis=1)[:, None, None])
    # The 95th percentile by a partition: numpy's own interpolates, and takes ten times as long.
    rank = int(0.95 * side * side)
    high = np.partition(away.reshape(count, -1), rank, axis=1)[:, rank]
    content = away > np.float32(0.25) * high[:, None, None]
    for axis in (1, 2):
        weights = _resampling(*_extent(content.sum(axis=3 - axis)), side)
        layers = weights @ layers if axis == 1 else layers @ weights.transpose(0, 2, 1)
    return np.asarray(np.rint(layers / np.float32(_PARTS**2)), np.float32)


def _extent(profile: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where 2 % and 98 % of profiles [n, side] lie to the left, float64 [n] each, in pixels."""
    side = profile.shape[1]
    total = np.cumsum(profile, axis=1)
    before = total - profile
    ends = []
    for percent in (2, 98):
        share = total[:, -1] * (percent / 100)
        at = np.minimum((total < share[:, None]).sum(axis=1), side - 1)
        row = np.arange(len(profile))
        step = np.maximum(profile[row, at], 1)
        ends.append(at + (share - before[row, at]) / step)
    low, high = ends
    return low, np.maximum(high, low + side / 5)


def _resampling(low: NDArray[np.float64], high: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """Return matrices [n, side, side] that stretch [low, high] over all pixels, linearly.

    Whole numbers; each row sums to `_PARTS`.
    """
    at = low[:, None] + (np.arange(side) + 0.5) * (high - low)[:, None] / side - 0.5
    at = np.rint(np.clip(at, 0, side - 1) * _PARTS)[:, :, None]
    return np.asarray(np.maximum(0, _PARTS - np.abs(at - _PARTS * np.arange(side))), np.float32)


_DESCRIBE: Mapping[int, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    WHOLE: _whole,
    CONTENT: _content,
}


def _oriented(described: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Return transforms [n, count, count] as they would be of the pictures in another orientation."""
    signs = (-1.0) ** np.arange(described.shape[-1], dtype=np.float32)
    if orientation & 4:
        described = described.transpose(0, 2, 1)
    if orientation & 1:
        described = described * signs
    if orientation & 2:
        described = described * signs[:, None]
    return np.asarray(described, np.float32)


def describe(
    pictures: NDArray[np.uint8], descriptor: int, threads: Executor | None = None
) -> NDArray[np.float32]:
    """Return the descriptors of pictures, float32 [n, k, k]; all 0 where nothing is shown.

    Args:
        pictures: uint8 [n, side, side].
        descriptor: `WHOLE` or `CONTENT`.
        threads: What computes them; None: this thread.
    """
    each = map if threads is None else threads.map
    parts = [pictures[at : at + _AT_ONCE] for at in range(0, len(pictures), _AT_ONCE)]
    described = np.concatenate(
        [*each(_DESCRIBE[descriptor], parts)] or [np.empty((0, 1, 1), np.float32)]
    )
    described[~_shows(pictures)] = 0
    return described


def nearest(
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    descriptor: int,
    count: int,
    ourselves: NDArray[np.int64] | None = None,
) -> Candidates:
    """Return for each of our images those of theirs that look most like it, in any orientation.

    Heads are nearly symmetric, so every orientation that is nearly as good as the best is returned.
    What is returned for an image does not depend on the others of ours.

    Args:
        ours: float32 [n, k, k], from `describe`.
        theirs: float32 [m, k, k], likewise.
        descriptor: Which one.
        count: At most so many for each of ours.
        ourselves: int64 [n], which of theirs each of ours is, if it is among them; never a pair.

    Returns:
        Pairs: `first` counts ours, `second` theirs.
    """
    flat = theirs.reshape(len(theirs), -1)
    blocks = [Candidates.none()]
    for at in range(0, len(ours), _ROWS_AT_ONCE):
        block = ours[at : at + _ROWS_AT_ONCE]
        turned = [_oriented(block, turn).reshape(len(block), -1) for turn in ORIENTATIONS]
        best = turned[0] @ flat.T
        for rows in turned[1:]:
            np.maximum(best, rows @ flat.T, out=best)
        if ourselves is not None:
            best[np.arange(len(block)), ourselves[at : at + len(block)]] = -np.inf
        first, second = _highest(best, count)
        highest = best[first, second]
        each = np.stack([np.einsum("ni,ni->n", rows[first], flat[second]) for rows in turned])
        turn, pair = np.nonzero(each >= highest - np.float32(_AMBIGUOUS * _NORM**2))
        likeness = each[turn, pair] * np.float32(_NORM**-2)
        number = np.full(len(pair), descriptor, np.int8)
        blocks.append(
            Candidates(first[pair] + at, second[pair], turn.astype(np.int8), likeness, number)
        )
    return Candidates(*map(np.concatenate, zip(*blocks, strict=True)))


def _highest(best: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the highest values of each row, of equal ones the first.

    Args:
        best: float32 [rows, columns].
        count: At most so many a row; none that is below `_LOWEST`.
    """
    least = np.float32(_LOWEST * _NORM**2)
    if count >= best.shape[1]:
        rows, columns = np.nonzero(best >= least)
        return rows, columns
    last = np.partition(best, -count, axis=1)[:, -count]
    above = best > last[:, None]
    equal = best == last[:, None]
    room = count - above.sum(axis=1)
    crowded = np.flatnonzero(equal.sum(axis=1) > room)
    equal[crowded] &= np.cumsum(equal[crowded], axis=1) <= room[crowded, None]
    rows, columns = np.nonzero((above | equal) & (best >= least))
    return rows, columns


def _leaves(described: NDArray[np.float32], seed: int) -> list[NDArray[np.int64]]:
    """Sort images into leaves of limited size, several times where one leaf does not hold them all.

    Each step halves a leaf at the median of a random projection of features that no orientation
    changes: the size of each coefficient, with its mirror image across the diagonal.

    Returns:
        int64 arrays of indices. For one call of `find_candidates` all cover all images.
    """
    count = len(described)
    if count <= _LEAF:
        return [np.arange(count)] if count else []
    size = np.abs(described)
    across = size.transpose(0, 2, 1)
    features = np.concatenate([size + across, np.abs(size - across)], axis=1).reshape(count, -1)
    leaves: list[NDArray[np.int64]] = []
    for tree in range(_TREES):
        random = np.random.default_rng((seed, tree))
        waiting = [np.arange(count)]
        while waiting:
            leaf = waiting.pop()
            if len(leaf) <= _SMALL_LEAF:
                leaves.append(leaf)
                continue
            direction = _direction(features[leaf[:: max(1, len(leaf) // 512)]], random)
            order = np.argsort(features[leaf] @ direction, kind="stable")
            half = len(leaf) // 2
            waiting += [leaf[order[:half]], leaf[order[half:]]]
    return leaves


def _direction(sample: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Return a random direction of large spread, whole numbers from -16 to 16, float32 [features].

    Args:
        sample: float32 [n, features], whole numbers below 2^12.
        random: Where a few steps towards the direction of the largest spread begin.
    """
    centred = sample.astype(np.float64)
    centred -= np.rint(centred.mean(axis=0))
    direction = np.asarray(random.integers(-16, 17, sample.shape[1]), np.float64)
    spread = centred.T @ centred
    for _ in range(2):
        direction = spread @ direction
        direction = np.rint(direction * (16 / max(float(np.abs(direction).max()), 1)))
    return np.asarray(direction, np.float32)
