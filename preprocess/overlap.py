"""Which images of one shard set another one holds too: copies and near copies, from the manifests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.preprocess.duplicates import near_pairs
from tumorbatch.shardset import SPLITS

BYTES, PIXELS, NEAR = "byte-identical", "pixel-identical", "nearly identical"
KINDS = (BYTES, PIXELS, NEAR)  # from the surest to the least sure
_COLUMNS = ("path", "split", "sha256", "pixel_hash", "perceptual_hash")


def copies(judged: Path, seen: Path, splits: Sequence[str] = SPLITS) -> dict[str, str]:
    """Return the images of `judged` that are copies or near copies of images in `seen`.

    By the same three hashes, and the same distance, by which `shard` groups duplicates.

    Args:
        judged: A shard set.
        seen: Another.
        splits: Those of `seen` that count.

    Returns:
        {path in `judged`: one of `KINDS`}, the surest that holds.

    Raises:
        InputError: A manifest is missing or damaged.
    """
    ours, theirs = _rows(judged, SPLITS), _rows(seen, splits)
    near = _near(*(_perceptual(rows) for rows in (ours, theirs)))
    found = {
        NEAR: near,
        PIXELS: pc.is_in(ours["pixel_hash"], theirs["pixel_hash"]).to_numpy(),
        BYTES: pc.is_in(ours["sha256"], theirs["sha256"]).to_numpy(),
    }
    paths = ours["path"].to_pylist()
    return {paths[index]: kind for kind, of in found.items() for index in np.flatnonzero(of)}


def _rows(folder: Path, splits: Sequence[str]) -> pa.Table:
    table = shardset.manifest(folder, shardset.read(folder / shardset.DATASET), *_COLUMNS)
    return table.filter(pc.is_in(table["split"], pa.array(splits, pa.string()))).combine_chunks()


def _perceptual(rows: pa.Table) -> NDArray[np.uint64]:
    return np.array([int(text, 16) for text in rows["perceptual_hash"].to_pylist()], np.uint64)


def _near(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return bool [n]: whether one of `theirs` is within the distance of each of `ours`."""
    hashes = np.union1d(ours, theirs)
    known = np.isin(hashes, theirs)
    pairs = near_pairs(hashes)
    near = known.copy()
    for one, other in ((0, 1), (1, 0)):
        near[pairs[known[pairs[:, other]], one]] = True
    return np.asarray(near[np.searchsorted(hashes, ours)])
