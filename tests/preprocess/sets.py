"""Small sources and what is in a shard set, for the tests of `shard`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from tumorbatch.preprocess.shard import Config
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.shardset import MANIFEST, Dataset
from tumorbatch.tfrecord import ImageRecord, read

if TYPE_CHECKING:
    from tests.preprocess.conftest import Build

SIZE = 32

Row = dict[str, Any]


def small_config(**changes: Any) -> Config:
    values: dict[str, Any] = {"preprocessing": Preprocessing(size=SIZE), "workers": 2}
    return Config(**(values | changes))


def content_of(folder: Path, *, hidden: bool = True) -> dict[str, bytes]:
    """{relative path: content} of every file below `folder`."""
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and (hidden or not path.relative_to(folder).parts[0].startswith("."))
    }


def rows_of(folder: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(folder / MANIFEST, page_checksum_verification=True).to_pylist()
    return rows


def by_path(folder: Path) -> dict[str, Row]:
    return {row["path"]: row for row in rows_of(folder)}


def records_of(folder: Path, dataset: Dataset) -> Iterator[tuple[str, int, ImageRecord]]:
    for shard in dataset.shards:
        for position, data in enumerate(read(folder / shard.name)):
            yield shard.name, position, ImageRecord.decode(data)


def write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def image_files(build: "type[Build]", each: int) -> dict[str, bytes]:
    """Readable images of both classes: several formats, some copies, one name that is not UTF-8."""
    files = {}
    for label, folder in enumerate(("Healthy", "Brain Tumor")):
        for k in range(each):
            grey = build.smooth(40 + k % 3, 48, 1000 * label + k)
            if k % 8 == 5:
                files[f"{folder}/{k:03}.tif"] = build.tiff(grey.astype(np.uint16) * 16)
            elif k % 8 == 6:
                files[f"{folder}/sub/{k:03}.jpg"] = build.encode(".jpg", grey)
            elif k % 8 == 7:
                files[f"{folder}/copy {k:03}.png"] = files[f"{folder}/{k - 4:03}.png"]
            else:
                files[f"{folder}/{k:03}.png"] = build.png(grey)
    files[os.fsdecode(b"Brain Tumor/caf\xe9.png")] = build.png(build.smooth(44, 44, 99))
    return files
