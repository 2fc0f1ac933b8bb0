"""The second pass of `shard`: spooled records into TFRecord files, the manifest, and the proof."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tumorbatch import tfrecord
from tumorbatch.atomic import atomic_file, atomic_path
from tumorbatch.dataset_shape import GIVEN, SPLITS
from tumorbatch.errors import InputError, cannot_write
from tumorbatch.preprocess.duplicates import COLUMNS, Images, join
from tumorbatch.runtime import available_cores
from tumorbatch.shardset import DIGITS, Shard

PROOF_COLUMNS = ("path", "duplicate_group", "height", "width", *COLUMNS)
READERS = 8  # a split large enough for it gets a shard for each parallel reader of `train`
MIN_SHARD_BYTES = 4 << 20  # below 4 MiB opening a file costs more than reading it in parallel saves


class Place(NamedTuple):
    """Where an image goes: shard file name and position inside it, from 0."""

    shard: str
    position: int


def shard_count(split_bytes: int, shard_bytes: int) -> int:
    """Number of shards for a split: by bytes, and one a reader where the split is large enough."""
    by_size = -(-split_bytes // shard_bytes)
    by_readers = min(READERS, split_bytes // MIN_SHARD_BYTES)
    return max(1, by_size, by_readers)


def shard_name(split: str, index: int, count: int) -> str:
    """Return `train-00000-of-00008`, the usual pattern of TFRecord files, without its ending."""
    return f"{split}-{index:05d}-of-{count:05d}"


def lay_out(
    paths: Sequence[str],
    splits: NDArray[np.int64],
    lengths: NDArray[np.int64],
    shard_bytes: int,
    seed: int,
) -> dict[str, list[int]]:
    """Decide which image goes into which shard, at which position.

    The order is that of a keyed hash of the paths, so classes are mixed, and neither the number of
    workers nor the order in which they finish can change it.

    Args:
        paths: The images' names, distinct.
        splits: int64 [n], index into `SPLITS`.
        lengths: int64 [n], bytes of each framed record.
        shard_bytes: Wanted size of a shard.
        seed: Another seed gives another order.

    Returns:
        {from `shard_name`: indices of its images, in their order}, shards in order.
    """
    layout: dict[str, list[int]] = {}
    for split, name in enumerate(SPLITS):
        members = [int(index) for index in np.flatnonzero(splits == split)]
        members.sort(key=lambda index: hashlib.sha256(f"{seed}|{paths[index]}".encode()).digest())
        count = shard_count(int(lengths[members].sum()), shard_bytes)
        count = min(count, len(members))
        for index in range(count):
            start, stop = len(members) * index // count, len(members) * (index + 1) // count
            layout[shard_name(name, index, count)] = members[start:stop]
    return layout


def write_shards(
    folder: Path,
    layout: dict[str, list[int]],
    read_record: Callable[[int], bytes],
) -> tuple[Shard, ...]:
    """Write every shard atomically, several at a time: one waits for the disk, another is hashed.

    Args:
        folder: Where to.
        layout: From `lay_out`.
        read_record: Gives the framed record of an image; called from several threads.

    Returns:
        The shards in the order of `layout`; a file's name ends with the first digits of its sha256.

    Raises:
        OutputError: The disk is full or not writable.
    """
    for path in folder.glob("*.tfrecord"):  # of an attempt that was killed, perhaps of other images
        path.unlink()

    def write(name: str) -> Shard:
        members = layout[name]
        digest = hashlib.sha256()
        size = 0
        path = folder / f"{name}.tfrecord"
        with atomic_path(path) as temporary, temporary.open("wb", 1 << 20) as file:
            for index in members:
                record = read_record(index)
                digest.update(record)
                size += file.write(record)
        sha256 = digest.hexdigest()
        final = path.with_name(f"{name}-{sha256[:DIGITS]}.tfrecord")
        try:
            os.replace(path, final)
        except OSError as error:
            raise cannot_write(path, error) from error
        return Shard(final.name, name.split("-")[0], len(members), size, sha256)

    with ThreadPoolExecutor(available_cores()) as threads:
        return tuple(threads.map(write, layout))


def write_manifest(path: Path, manifest: pa.Table) -> None:
    """Write manifest.parquet atomically, with page checksums."""
    with atomic_file(path) as file:  # Arrow takes a name such as `file:out` for an address
        pq.write_table(
            manifest,
            file,
            compression="zstd",
            row_group_size=65_536,
            write_page_checksum=True,
        )


def count_shared(
    folder: Path, shards: Sequence[Shard], manifest: pa.Table, split_by: str
) -> dict[str, int]:
    """Read back the shards and count what occurs in more than one split: the proof.

    Args:
        folder: Holds the shards.
        shards: Which ones.
        manifest: `PROOF_COLUMNS` of the manifest that was written: it joins each record to its group,
            its shape, and what copies are found by.
        split_by: How they were split.

    Returns:
        {"sha256": file contents, "pixels": tensors, "groups": duplicate groups, "copies": groups of
        copies in any orientation, found anew by the hashes and signatures of the manifest} that occur
        in more than one split; for a split by shape also "shapes": (height, width) of the files; for
        given splits also "test_images": images of the test split that have a copy in another. A
        manifest of the first version has no signatures, and its proof no "copies".

    Raises:
        InputError: A shard does not hold what was to be written into it.
    """
    columns = ("path", "duplicate_group", "height", "width")
    paths, *about = (manifest[name].to_pylist() for name in columns)
    about_path = dict(zip(paths, zip(*about, strict=True), strict=True))
    copies = _copies(manifest)
    by_shape = ("shapes",) if split_by == "shape" else ()
    by_copy = () if copies is None else ("copies",)
    splits_by_value: dict[str, dict[object, set[str]]] = {
        key: defaultdict(set) for key in ("sha256", "pixels", "groups", *by_copy, *by_shape)
    }
    test: list[tuple[str, object]] = []
    for shard in shards:
        count = 0
        for data in tfrecord.read(folder / shard.name):
            record = tfrecord.ImageRecord.decode(data)
            splits_by_value["sha256"][bytes.fromhex(record.sha256)].add(shard.split)
            splits_by_value["pixels"][hashlib.sha256(record.pixels).digest()].add(shard.split)
            group, *shape = about_path[record.filename]
            splits_by_value["groups"][group].add(shard.split)
            if copies is not None:
                splits_by_value["copies"][copies[record.filename]].add(shard.split)
            if split_by == GIVEN and shard.split == "test":
                test.append((record.filename, group))
            if by_shape:
                splits_by_value["shapes"][tuple(shape)].add(shard.split)
            count += 1
        if count != shard.records:
            raise InputError(f"{folder / shard.name} holds {count} records, not {shard.records}.")
    shared = {
        key: sum(len(splits) > 1 for splits in splits_of.values())
        for key, splits_of in splits_by_value.items()
    }
    if split_by == GIVEN:
        by_group, by_copies = splits_by_value["groups"], splits_by_value.get("copies", {})
        elsewhere = (
            len(by_group[group] | by_copies.get(copies[path] if copies else None, set())) > 1
            for path, group in test
        )
        shared["test_images"] = sum(elsewhere)
    return shared


def _copies(manifest: pa.Table) -> dict[str, int] | None:
    """Return {path: group of copies} of all images, as the manifest's own columns give it."""
    if "signature" not in manifest.column_names:
        return None
    images = manifest.filter(pc.is_valid(manifest["signature"]))
    try:
        groups = join(Images.from_manifest(images)).group
    except ValueError:  # an edited manifest, of which `verify` says more
        return None
    return dict(zip(images["path"].to_pylist(), groups.tolist(), strict=True))
