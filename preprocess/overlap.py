"""Which images of one shard set another one holds too, in any orientation, altered or not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tumorbatch import shardset
from tumorbatch.copies import ALTERED, BYTES, PIXELS, TURNED, matches
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import ConfigError
from tumorbatch.leaks import UPGRADE
from tumorbatch.preprocess.duplicates import COLUMNS, Images
from tumorbatch.shardset import DATASET


def copies(judged: Path, trained_on: Path, splits: Sequence[str] = SPLITS) -> dict[str, str]:
    """Return the images of `judged` that are copies or near copies of images in `seen`.

    They are the images that `shard` would put into one group with them.

    Args:
        judged: A shard set.
        trained_on: Another.
        splits: Those of `seen` that count.

    Returns:
        {path in `judged`: one of `copies.KINDS`}, the surest that holds.

    Raises:
        InputError: A manifest is missing or damaged.
        ConfigError: A set is of the first version, which has no signatures.
    """
    ours, theirs = _rows(judged, SPLITS), _rows(trained_on, splits)
    alike = matches(Images.from_manifest(ours).pictures, Images.from_manifest(theirs).pictures) >= 0
    kinds = {
        ALTERED: alike,
        TURNED: pc.is_in(ours["turned_hash"], theirs["turned_hash"]).to_numpy(),
        PIXELS: pc.is_in(ours["pixel_hash"], theirs["pixel_hash"]).to_numpy(),
        BYTES: pc.is_in(ours["sha256"], theirs["sha256"]).to_numpy(),
    }
    paths = ours["path"].to_pylist()
    return {
        paths[index]: kind for kind, selected in kinds.items() for index in np.flatnonzero(selected)
    }


def _rows(folder: Path, splits: Sequence[str]) -> pa.Table:
    dataset = shardset.read(folder / DATASET)
    if not dataset.has_signatures:
        raise ConfigError(f"{folder} cannot be searched for copies. {UPGRADE}")
    table = shardset.manifest(folder, dataset, "path", "split", *COLUMNS)
    return table.filter(pc.is_in(table["split"], pa.array(splits, pa.string()))).combine_chunks()
