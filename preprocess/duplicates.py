"""Which images belong together: byte-identical, pixel-identical, nearly alike, or of one patient.

All images of a group go into the same split; otherwise the test set holds images that were trained
on, and its figures mean nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_DISTANCE = 4  # Hamming distance of two 64-bit perceptual hashes that count as near duplicates
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # (lowest bit, bits): 64 in all
_PAIRS_AT_ONCE = 1 << 22  # 4 Mi candidate pairs, about 100 MB


def near_pairs(hashes: NDArray[np.uint64], distance: int = MAX_DISTANCE) -> NDArray[np.int64]:
    """Return all pairs of hashes within a Hamming distance, without comparing every pair.

    Two 64-bit words that differ in at most four bits agree in at least one of five bands, since
    four bits can spoil only four bands (the pigeonhole principle). So only words that share the
    value of a band are compared.

    Args:
        hashes: uint64 [n], distinct values.
        distance: 0 to 4.

    Returns:
        int64 [pairs, 2], indices with first < second; a pair may appear more than once.

    Raises:
        ValueError: `distance` is above what five bands can promise.
    """
    if not 0 <= distance < len(_BANDS):
        raise ValueError(f"distance must lie between 0 and {len(_BANDS) - 1}. Received: {distance}.")
    found = [np.empty((0, 2), np.int64)]
    for low, bits in _BANDS:
        band = (hashes >> np.uint64(low)) & np.uint64((1 << bits) - 1)
        order = np.argsort(band, kind="stable")
        _, starts, counts = np.unique(band[order], return_index=True, return_counts=True)
        for first, second in _bucket_pairs(starts, counts):
            left, right = order[first], order[second]
            near = _bit_count(hashes[left] ^ hashes[right]) <= distance
            pairs = np.stack([left[near], right[near]], axis=1)
            found.append(np.sort(pairs, axis=1))
    return np.concatenate(found)


def _bit_count(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Set bits of each word; numpy 1.26 has no `bitwise_count`. Source: Hacker's Delight, 5-1."""
    one, two, four = np.uint64(1), np.uint64(2), np.uint64(4)
    words = words - (words >> one & np.uint64(0x5555555555555555))
    words = (words & np.uint64(0x3333333333333333)) + (words >> two & np.uint64(0x3333333333333333))
    words = words + (words >> four) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return words * np.uint64(0x0101010101010101) >> np.uint64(56)


def _bucket_pairs(
    starts: NDArray[np.intp], counts: NDArray[np.intp]
) -> Iterable[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return positions of all pairs inside each bucket [start, start + count), in blocks."""
    # Position p of a bucket is paired with all later positions of it: ends[p] - p - 1 partners.
    ends = np.repeat(starts + counts, counts)
    positions = np.arange(len(ends))
    partners = ends - positions - 1
    total = np.cumsum(partners)
    at = 0
    while at < len(positions):
        done = total[at - 1] if at else 0
        stop = max(at + 1, int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right")))
        first = np.repeat(positions[at:stop], partners[at:stop])
        before = np.repeat(total[at:stop] - partners[at:stop] - done, partners[at:stop])
        second = first + 1 + (np.arange(len(first)) - before)
        yield first, second
        at = stop


def join(
    file_hashes: Sequence[str], pixel_hashes: Sequence[str], perceptual: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Group images: union of equal files, equal pixels, and perceptual hashes within distance 4.

    Args:
        file_hashes: sha256 of the files' bytes, one an image.
        pixel_hashes: Hash of the decoded pixels, one an image.
        perceptual: uint64 [n].

    Returns:
        int64 [n]: the group of each image; groups are numbered in the order of their first image.
    """
    distinct, first = np.unique(perceptual, return_index=True)
    edges = [_same(keys) for keys in (file_hashes, pixel_hashes, perceptual)]
    return _components([*edges, first[near_pairs(distinct)]], len(perceptual))


def unite(*keys: Sequence[object] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Group images that agree in any of several keys, directly or through others.

    Args:
        keys: Each n values of one type, one an image (a duplicate group, a patient, a shape); None
            agrees with nothing, not even with None.

    Returns:
        int64 [n], numbered in the order of their first image.
    """
    return _components([_same(key) for key in keys], len(keys[0]))


def _same(keys: Sequence[object] | NDArray[Any]) -> NDArray[np.int64]:
    """Return edges [k, 2] from each image with a key to the first with the same key."""
    if isinstance(keys, np.ndarray):
        known = np.arange(len(keys))
        values = keys
    else:
        known = np.flatnonzero([key is not None for key in keys])
        values = np.array([key for key in keys if key is not None])
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.stack([known, known[first[inverse.ravel()]]], axis=1)


def _components(edges: Sequence[NDArray[np.int64]], n: int) -> NDArray[np.int64]:
    if n == 0:
        return np.empty(0, np.int64)
    pairs = np.concatenate(edges)
    graph = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    return renumber(component)


def renumber(groups: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number groups 0, 1, ... in the order in which they first appear."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[inverse.ravel()], np.int64)


def under_both_labels(keys: Sequence[object], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each image whether its key (a hash, a group) also occurs with another label.

    Args:
        keys: One an image.
        labels: int64 [n].
    """
    of: dict[object, set[int]] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        of.setdefault(key, set()).add(label)
    return np.array([len(of[key]) > 1 for key in keys], np.bool_)


def count(
    groups: NDArray[np.int64],
    duplicates: NDArray[np.int64],
    file_hashes: Sequence[str],
    pixel_hashes: Sequence[str],
) -> dict[str, int]:
    """Number and size of the groups, and how many images each kind of equality makes superfluous.

    Args:
        groups: int64 [n], what is kept in one split: duplicates, and patients where they are known.
        duplicates: int64 [n], from `join`.
        file_hashes: One an image.
        pixel_hashes: One an image.
    """
    return {
        "groups": len(np.unique(groups)),
        "largest_group": int(np.bincount(groups).max(initial=0)),
        "byte_identical": len(file_hashes) - len(set(file_hashes)),
        "pixel_identical": len(pixel_hashes) - len(set(pixel_hashes)),
        "near_duplicate": len(duplicates) - len(np.unique(duplicates)),
    }
