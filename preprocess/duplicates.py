"""Which images belong together: equal files, equal pixels, copies in any orientation, one patient.

All images of a group go into the same split; otherwise the test set holds images that were trained
on, and its figures mean nothing. What a copy is, says `tumorbatch.copies`.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tumorbatch import copies
from tumorbatch.copies import ALTERED, BYTES, KINDS, PIXELS, TURNED
from tumorbatch.copy_layers import SIDE

COLUMNS = ("sha256", "pixel_hash", "turned_hash", "signature")  # of a manifest: what `Images` holds
_LIKE_ITSELF = 0.98  # similarity from which a turned copy is taken for nothing but turned


@dataclass(frozen=True, slots=True)
class Images:
    """What decides whether images are copies, n of each.

    Attributes:
        sha256: Of the files' bytes.
        pixels: Hashes of the decoded images.
        turned: The same, whatever their orientation.
        pictures: uint8 [n, 24, 24], the signatures.
    """

    sha256: list[str]
    pixels: list[str]
    turned: list[str]
    pictures: NDArray[np.uint8]

    @classmethod
    def from_manifest(cls, table: pa.Table) -> "Images":
        """Return what rows of a manifest hold, with `COLUMNS`.

        Raises:
            ValueError: One of the values is missing.
        """
        if any(table[name].null_count for name in COLUMNS):
            raise ValueError("an image lacks a hash or its signature")
        parts = [_pictures(chunk) for chunk in table["signature"].chunks]
        pictures = np.concatenate([np.empty((0, SIDE, SIDE), np.uint8), *parts])
        sha256, pixels, turned = (table[name].to_pylist() for name in COLUMNS[:3])
        return cls(sha256, pixels, turned, pictures)

    def digest(self) -> bytes:
        """Return a sha256 over all of them."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pictures).data)
        for hashes in (self.sha256, self.pixels, self.turned):
            digest.update("\0".join(hashes).encode() + b"\n")
        return digest.digest()


def _pictures(column: pa.Array) -> NDArray[np.uint8]:
    """Return a column of signatures without nulls as uint8 [n, 24, 24], not copied."""
    data = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, SIDE, SIDE)
    return data[column.offset : column.offset + len(column)]


class Groups(NamedTuple):
    """Who is a copy of whom.

    Attributes:
        group: int64 [n], numbered in the order of their first image.
        kind: n of `KINDS`, by which an image is a copy of another, the surest; None: of none.
    """

    group: NDArray[np.int64]
    kind: list[str | None]


_last: tuple[bytes, Groups] | None = None


def join(images: Images) -> Groups:
    """Group images: equal files, equal pixels in any orientation, and altered copies.

    The same images are grouped once: the proof asks again, for what it has read back.
    """
    global _last
    digest = images.digest()
    if _last is None or _last[0] != digest:
        _last = (digest, _join(images))
    return _last[1]


def _join(images: Images) -> Groups:
    found = copies.pairs(images.pictures)
    edges = [_same(keys) for keys in (images.sha256, images.pixels, images.turned)]
    edges.append(np.stack([found.first, found.second], axis=1))
    group = _components(edges, len(images.sha256))
    kind = np.where(np.bincount(group, minlength=1)[group] > 1, KINDS.index(ALTERED), len(KINDS))
    only_turned = found.turned & (found.similarity >= _LIKE_ITSELF)
    kind[found.first[only_turned]] = kind[found.second[only_turned]] = KINDS.index(TURNED)
    for name, keys in ((TURNED, images.turned), (PIXELS, images.pixels), (BYTES, images.sha256)):
        counts = Counter(keys)
        kind[[counts[key] > 1 for key in keys]] = KINDS.index(name)
    return Groups(group, [(*KINDS, None)[number] for number in kind])


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
    return renumber(copies.components(pairs[:, 0], pairs[:, 1], n))


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
    labels_of_key: dict[object, set[int]] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        labels_of_key.setdefault(key, set()).add(label)
    return np.array([len(labels_of_key[key]) > 1 for key in keys], np.bool_)


def count(
    groups: NDArray[np.int64],
    duplicates: Groups,
    file_hashes: Sequence[str],
    pixel_hashes: Sequence[str],
) -> dict[str, int]:
    """Return number and size of the groups, and how many images each kind of copy makes superfluous.

    Args:
        groups: int64 [n], what is kept in one split: duplicates, and patients where they are known.
        duplicates: From `join`.
        file_hashes: One an image.
        pixel_hashes: One an image.
    """
    return {
        "groups": len(np.unique(groups)),
        "largest_group": int(np.bincount(groups).max(initial=0)),
        "byte_identical": len(file_hashes) - len(set(file_hashes)),
        "pixel_identical": len(pixel_hashes) - len(set(pixel_hashes)),
        "near_duplicate": len(duplicates.group) - len(np.unique(duplicates.group)),
        **{f"copies_{kind}": duplicates.kind.count(kind) for kind in KINDS},
    }
