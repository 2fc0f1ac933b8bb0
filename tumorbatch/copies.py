"""Copies: the same picture again, in any orientation, mildly altered or not. The one definition.

An image is known by its *signature*, a small grey picture of it. Two images are copies of each other
where one of the eight orientations of the square brings their signatures into line:

    signature    24 x 24 grey values of the image before equalisation, a bright frame cut off
    candidates   for each image the others that look most like it (`copy_candidates`)
    second look  the two are aligned, by shift, zoom, crop and turn, and their local structure compared
                 (`copy_alignment`); brightness, contrast and gamma hardly change local structure

Everything that asks whether images are copies asks here: the split and its proof, the manifest,
`explore`, `verify`, `evaluate --external` and `infer`. Recall and precision: docs/leaks.md.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tumorbatch import native
from tumorbatch.copy_alignment import SAME, similarity, similarity_in_place, structures
from tumorbatch.copy_candidates import CONTENT, WHOLE, Candidates, find_candidates
from tumorbatch.copy_layers import SIDE
from tumorbatch.orientation import UPRIGHT, orient
from tumorbatch.runtime import available_cores

SIGNATURE_BYTES = SIDE * SIDE

# How an image is a copy of another, from the surest to the least sure.
BYTES = "bytes"  # the files are equal
PIXELS = "pixels"  # the decoded images are equal
TURNED = "turned"  # they are, after one is mirrored or turned by a multiple of 90 degrees
ALTERED = "altered"  # they are alike, after one is aligned with the other
KINDS = (BYTES, PIXELS, TURNED, ALTERED)

_FRAME_LEVEL, _FRAME_SPREAD, _FRAME_SHARE = 64, 8.0, 0.15
_MEMBERS = 4  # of a group of pictures alike as they are, that are aligned with others
# Candidates of an image, by each descriptor, that are aligned with it: the first number; fewer of very
# many images, but not fewer than the second.
_MOST_LOOKS, _LEAST_LOOKS, _ALL_LOOKS = 16, 3, 3_000_000


def signature(grey: NDArray[np.uint8]) -> bytes:
    """Return the signature of an image: 24 x 24 grey values, row by row.

    A bright uniform frame is cut off first, since it would outweigh the picture; a dark one is what
    most images have around the head, and the alignment copes with it.

    Args:
        grey: uint8 [height, width], before equalisation.

    Returns:
        `SIGNATURE_BYTES` bytes.
    """
    grey = _without_frame(grey)
    # One axis after the other: half the time of one call.
    library = native.choose().library
    rows = None if library is None else library.shrink_rows(grey, SIDE)
    if rows is None:
        width = grey.shape[1]
        rows = np.asarray(cv2.resize(grey, (width, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return bytes(cv2.resize(rows, (SIDE, SIDE), interpolation=cv2.INTER_AREA).data)


def _without_frame(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut bright uniform rows and columns off each edge, at most 15 % of a side on each."""
    for _ in range(4):  # the top edge, then the next one, and back to where it began
        rows = int(len(grey) * _FRAME_SHARE)
        cut = next((at for at in range(rows) if not _is_frame(grey[at])), rows)
        grey = np.rot90(grey[cut:])
    return np.ascontiguousarray(grey)


def _is_frame(line: NDArray[np.uint8]) -> bool:
    """Return whether uint8 [length] is one bright grey, but for the noise of a recompression."""
    values, size = line.astype(np.int64), len(line)
    variance = size * int(values @ values) - int(values.sum()) ** 2  # times size squared: exact
    return bool(line[size // 2] >= _FRAME_LEVEL and variance <= (_FRAME_SPREAD * size) ** 2)


def canonical_orientations(grey: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the orientations of an image that may be its canonical one, nearly always a single one.

    The canonical orientation is the one with the least shape, then the least sums of its rows, then
    of its columns. A picture that is symmetric in those sums has several.

    Args:
        grey: uint8 [height, width].

    Returns:
        uint8 arrays, contiguous, of one shape.
    """
    rows = cv2.reduce(grey, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    columns = cv2.reduce(grey, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    keys = []
    for turn in range(8):
        down, across = (columns, rows) if turn & 4 else (rows, columns)
        down = down[::-1] if turn & 2 else down
        across = across[::-1] if turn & 1 else across
        keys.append((len(down), down.tobytes(), across.tobytes()))
    least = min(keys)
    return [np.ascontiguousarray(orient(grey, turn)) for turn, key in enumerate(keys) if key == least]


def thumbnails(signatures: Sequence[bytes]) -> NDArray[np.uint8]:
    """Return signatures as pictures, uint8 [n, 24, 24].

    Raises:
        ValueError: One of them has another length.
    """
    if any(len(one) != SIGNATURE_BYTES for one in signatures):
        raise ValueError(f"a signature has {SIGNATURE_BYTES} bytes")
    return np.frombuffer(b"".join(signatures), np.uint8).reshape(-1, SIDE, SIDE)


class Pairs(NamedTuple):
    """Pairs of copies; enough of them to join every group, not each with each.

    Attributes:
        first: int64 [pairs], index of an image.
        second: int64 [pairs], index of its copy.
        orientation: int8 [pairs], the orientation in which `first` looks like `second`.
        similarity: float32 [pairs], of their local structure, `SAME` to 1.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    orientation: NDArray[np.int8]
    similarity: NDArray[np.float32]

    @property
    def turned(self) -> NDArray[np.bool_]:
        """Whether a copy is mirrored or turned, bool [pairs]."""
        return np.asarray(self.orientation != UPRIGHT)


def pairs(pictures: NDArray[np.uint8]) -> Pairs:
    """Return pairs of copies that join all groups of copies among some images.

    First those that are alike as they are, in one of the orientations. A few pictures of each group of
    them are then compared with those of other groups after an alignment: fewer, and no group of many
    copies hides another behind it.

    Args:
        pictures: uint8 [n, 24, 24], from `thumbnails`.
    """
    # Many small products: the library's own threads would wait for each other, and ours do the work.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(available_cores()) as threads:
        return _pairs(pictures, threads)


def _pairs(pictures: NDArray[np.uint8], threads: Executor) -> Pairs:
    looks = max(_LEAST_LOOKS, min(_MOST_LOOKS, _ALL_LOOKS // max(len(pictures), 1)))
    neighbours = looks * 3 // 2
    candidates = find_candidates(pictures, (WHOLE,), neighbours, threads)
    in_place = similarity_in_place(structures(pictures), candidates)
    found = _same(candidates, in_place)
    group = components(found.first, found.second, len(pictures))
    some = _some_of_each(group, _MEMBERS)
    candidates = find_candidates(pictures[some], (WHOLE, CONTENT), neighbours, threads)
    apart = group[some[candidates.first]] != group[some[candidates.second]]
    candidates = candidates.take(np.flatnonzero(apart)).best(looks)
    aligned = _same(candidates, similarity(pictures[some], candidates, threads))
    aligned = aligned._replace(first=some[aligned.first], second=some[aligned.second])
    return Pairs(
        np.concatenate([found.first, aligned.first]),
        np.concatenate([found.second, aligned.second]),
        np.concatenate([found.orientation, aligned.orientation]),
        np.concatenate([found.similarity, aligned.similarity]),
    )


def _some_of_each(group: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most `count` images of each group, evenly spaced, int64 [k], ascending."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank, size = np.arange(len(group)) - start, sizes[group[order]]
    # The first of each `count`-th part of the group.
    part, before = rank * count // size, (rank - 1) * count // size
    return np.sort(order[part != before])


def _same(candidates: Candidates, likeness: NDArray[np.float32]) -> Pairs:
    near = np.flatnonzero(likeness >= SAME)
    chosen = candidates.take(near)
    return Pairs(chosen.first, chosen.second, chosen.orientation, likeness[near])


def components(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the group of each of `count` images that pairs join, int64 [count].

    Args:
        first: int64 [pairs], index of an image.
        second: int64 [pairs], index of another.
        count: Images.
    """
    # Half of a worker's start, and workers group nothing.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = (np.ones(len(first), np.bool_), (first, second))
    _, group = connected_components(coo_array(edges, shape=(count, count)), directed=False)
    return np.asarray(group, np.int64)


def matches(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return for each of our images one of theirs that is in the same group of copies, or -1.

    Args:
        ours: uint8 [n, 24, 24], from `thumbnails`.
        theirs: uint8 [m, 24, 24].

    Returns:
        int64 [n], index into `theirs`: a direct copy where there is one.
    """
    pictures = np.concatenate([ours, theirs])
    found = pairs(pictures)
    group = components(found.first, found.second, len(pictures))
    known = np.full(len(pictures), -1, np.int64)
    known[group[len(ours) :][::-1]] = np.arange(len(theirs))[::-1]
    copy = known[group[: len(ours)]]
    order = np.argsort(found.similarity, kind="stable")  # the most alike is written last
    first, second = found.first[order], found.second[order]
    direct = (first < len(ours)) & (second >= len(ours))
    copy[first[direct]] = second[direct] - len(ours)
    return copy
