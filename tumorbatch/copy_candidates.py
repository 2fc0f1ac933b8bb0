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
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tumorbatch.copy_alignment import blur, local_structure
from tumorbatch.orientation import INVERSE, ORIENTATIONS

WHOLE, CONTENT = 0, 1  # the descriptors
_NEIGHBOURS = 24  # an image, by each descriptor
_LEAF = 4096  # images that are compared each with each
_SMALL_LEAF = 512  # the same, where there are too many images for more
_TREES = 2  # how often the images are sorted into leaves, for each descriptor
_BLANK = 3.0  # standard deviation of the grey values, below which a picture shows nothing
_LOWEST = 0.5  # similarity of a descriptor below which nothing is a candidate
_AMBIGUOUS = 0.05  # two orientations of a pair, so near in likeness, are both candidates
_ROWS_AT_ONCE = 256  # rows of a table of likeness: it stays in the cache
_AT_ONCE = 1 << 14  # pictures whose descriptors are computed together: memory


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


def find_candidates(pictures: NDArray[np.uint8], descriptors: Sequence[int]) -> Candidates:
    """Return for each image those that look most like it, in any orientation.

    Args:
        pictures: uint8 [n, side, side]. One that shows nothing is nobody's candidate.
        descriptors: Some of `WHOLE` and `CONTENT`.
    """
    shown = np.flatnonzero(_spread(pictures) >= _BLANK)
    leaves = [Candidates.none()]
    for number in descriptors:
        described = np.concatenate(
            [
                _DESCRIBE[number](pictures[shown[at : at + _AT_ONCE]])
                for at in range(0, len(shown), _AT_ONCE)
            ]
            or [np.empty((0, 1, 1), np.float32)]
        )
        for leaf in _leaves(described, seed=number):
            leaves.append(_nearest(described[leaf], number).renamed(shown[leaf]))
    return Candidates(*map(np.concatenate, zip(*leaves, strict=True)))


def _spread(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.concatenate(
        [
            pictures[at : at + _AT_ONCE].reshape(-1, pictures[0].size).std(axis=1)
            for at in range(0, len(pictures), _AT_ONCE)
        ]
        or [np.empty(0)]
    )


def _cosines(count: int, side: int) -> NDArray[np.float32]:
    """Return the first rows of the orthonormal cosine transform (type 2), [count, side]."""
    frequency, at = np.arange(count)[:, None], np.arange(side)[None]
    rows = np.cos(np.pi * (2 * at + 1) * frequency / (2 * side)) * np.sqrt(2 / side)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float32)


def _lowest(pictures: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the lowest frequencies but the mean, of norm 1, float32 [n, count, count]."""
    rows = _cosines(count, pictures.shape[-1])
    low = rows @ pictures @ rows.T
    low[:, 0, 0] = 0
    norm = np.sqrt(np.einsum("nij,nij->n", low, low))
    return np.asarray(low / np.maximum(norm, 1e-6)[:, None, None], np.float32)


def _whole(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _lowest(pictures.astype(np.float32), 8)


def _content(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _lowest(blur(local_structure(_boxed(pictures.astype(np.float32)), 2.25), 0.9), 10)


def _boxed(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each picture cut to the box that its content fills, and stretched to full size.

    Content is what differs from the grey of the edges. The box leaves 2 % of it out on each side, so
    that a caption or a speck does not decide.
    """
    count, side, _ = pictures.shape
    smooth = blur(pictures, 0.75)
    edges = np.concatenate([smooth[:, 0], smooth[:, -1], smooth[:, :, 0], smooth[:, :, -1]], axis=1)
    away = np.abs(smooth - np.median(edges, axis=1)[:, None, None])
    # The 95th percentile by a partition: numpy's own interpolates, and takes ten times as long.
    rank = int(0.95 * side * side)
    high = np.partition(away.reshape(count, -1), rank, axis=1)[:, rank]
    content = (away > 0.25 * high[:, None, None]).astype(np.float32)
    stretched = pictures
    for axis in (1, 2):
        low, high_end = _extent(content.mean(axis=3 - axis))
        weights = _resampling(low, high_end, side)
        stretched = weights @ stretched if axis == 1 else stretched @ weights.transpose(0, 2, 1)
    return stretched


def _extent(profile: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where 2 % and 98 % of profiles [n, side] lie to the left, float32 [n] each."""
    side = profile.shape[1]
    total = np.cumsum(profile, axis=1)
    total /= np.maximum(total[:, -1:], 1e-6)
    before = np.concatenate([np.zeros_like(total[:, :1]), total], axis=1)
    ends = []
    for share in (0.02, 0.98):
        at = np.minimum((total < share).sum(axis=1), side - 1)
        row = np.arange(len(profile))
        step = np.maximum(total[row, at] - before[row, at], 1e-6)
        ends.append((at + (share - before[row, at]) / step).astype(np.float32))
    low, high = ends
    return low, np.maximum(high, low + side / 5)


def _resampling(low: NDArray[np.float32], high: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return matrices [n, side, side] that stretch [low, high] over all pixels, linearly."""
    at = low[:, None] + (np.arange(side) + 0.5) * (high - low)[:, None] / side - 0.5
    at = np.clip(at, 0, side - 1)[:, :, None]
    return np.asarray(np.maximum(0, 1 - np.abs(at - np.arange(side))), np.float32)


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


def _nearest(described: NDArray[np.float32], descriptor: int) -> Candidates:
    """Return the neighbours of each image of one leaf.

    Heads are nearly symmetric, so every orientation that is nearly as good as the best is returned.
    """
    count = len(described)
    flat = described.reshape(count, -1)
    turned = [_oriented(described, turn).reshape(count, -1) for turn in ORIENTATIONS]
    blocks = []
    for at in range(0, count, _ROWS_AT_ONCE):
        rows = np.arange(at, min(at + _ROWS_AT_ONCE, count))
        best = turned[0][rows] @ flat.T
        for those in turned[1:]:
            np.maximum(best, those[rows] @ flat.T, out=best)
        best[np.arange(len(rows)), rows] = -2
        if count > _NEIGHBOURS:
            near = np.argpartition(best, count - _NEIGHBOURS, axis=1)[:, -_NEIGHBOURS:]
        else:
            near = np.broadcast_to(np.arange(count), best.shape)
        highest = np.take_along_axis(best, near, 1).ravel()
        keep = highest >= _LOWEST
        first, second = np.repeat(rows, near.shape[1])[keep], near.ravel()[keep]
        each = np.stack([np.einsum("ni,ni->n", those[first], flat[second]) for those in turned])
        turn, pair = np.nonzero(each >= highest[keep] - _AMBIGUOUS)
        number = np.full(len(pair), descriptor, np.int8)
        blocks.append(
            Candidates(first[pair], second[pair], turn.astype(np.int8), each[turn, pair], number)
        )
    return Candidates(*map(np.concatenate, zip(*blocks, strict=True)))


def describe(pictures: NDArray[np.uint8], descriptor: int) -> NDArray[np.float32]:
    """Return the descriptors of pictures, float32 [n, count, count]; all 0 where nothing is shown.

    Args:
        pictures: uint8 [n, side, side].
        descriptor: `WHOLE` or `CONTENT`.
    """
    parts = [
        _DESCRIBE[descriptor](pictures[at : at + _AT_ONCE]) for at in range(0, len(pictures), _AT_ONCE)
    ]
    described = np.concatenate(parts or [np.empty((0, 1, 1), np.float32)])
    described[_spread(pictures) < _BLANK] = 0
    return described


def nearest(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], descriptor: int, count: int
) -> Candidates:
    """Return for each of our images those of theirs that look most like it, in any orientation.

    What is returned for an image does not depend on the others of ours.

    Args:
        ours: float32 [n, k, k], from `describe`.
        theirs: float32 [m, k, k], likewise.
        descriptor: Which one.
        count: At most so many for each of ours.

    Returns:
        Pairs: `first` counts ours, `second` theirs.
    """
    flat = theirs.reshape(len(theirs), -1)
    blocks = [Candidates.none()]
    for at in range(0, len(ours), _ROWS_AT_ONCE):
        block = ours[at : at + _ROWS_AT_ONCE]
        turned = [_oriented(block, turn).reshape(len(block), -1) for turn in ORIENTATIONS]
        best = np.max([those @ flat.T for those in turned], axis=0)
        kept = min(count, len(theirs))
        near = np.argpartition(best, best.shape[1] - kept, axis=1)[:, -kept:]
        highest = np.take_along_axis(best, near, 1).ravel()
        keep = highest >= _LOWEST
        first, second = np.repeat(np.arange(len(block)), kept)[keep], near.ravel()[keep]
        each = np.stack([np.einsum("ni,ni->n", those[first], flat[second]) for those in turned])
        turn, pair = np.nonzero(each >= highest[keep] - _AMBIGUOUS)
        number = np.full(len(pair), descriptor, np.int8)
        blocks.append(
            Candidates(first[pair] + at, second[pair], turn.astype(np.int8), each[turn, pair], number)
        )
    return Candidates(*map(np.concatenate, zip(*blocks, strict=True)))


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
    features -= features.mean(axis=0)
    leaves: list[NDArray[np.int64]] = []
    for tree in range(_TREES):
        random = np.random.default_rng((seed, tree))
        waiting = [np.arange(count)]
        while waiting:
            leaf = waiting.pop()
            if len(leaf) <= _SMALL_LEAF:
                leaves.append(leaf)
                continue
            # A few steps towards the direction of the largest spread, from a random one.
            sample = features[leaf[:: max(1, len(leaf) // 512)]]
            direction = random.normal(size=features.shape[1]).astype(np.float32)
            for _ in range(2):
                direction = sample.T @ (sample @ direction)
                direction /= max(float(np.linalg.norm(direction)), 1e-12)
            order = np.argsort(features[leaf] @ direction, kind="stable")
            half = len(leaf) // 2
            waiting += [leaf[order[:half]], leaf[order[half:]]]
    return leaves
