"""One split as a network answers it, beside what the manifest knows of each image."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset, tfrecord
from tumorbatch.errors import InputError
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.progress import Progress
from tumorbatch.scoring import Scorer
from tumorbatch.shardset import MANIFEST, Dataset
from tumorbatch.tfrecord import ImageRecord

_COLUMNS = (
    "path", "class", "split", "shard", "position", "duplicate_group", "width", "height", "format",
)  # fmt: skip
_ADVICE = "Make the shards again with `tumorbatch shard --overwrite`."


@dataclass(frozen=True, slots=True)
class Scored:
    """A split's images, sorted by path; all sequences have length n.

    Attributes:
        split: "train", "validation" or "test".
        paths: Relative to the source of the shard set.
        labels: int64, 0 Healthy, 1 Tumor.
        logits: float32, as the network gives them: no temperature.
        groups: int64, duplicate group; groups of copies and near copies, resampled together.
        widths: int64, of the file, in pixels.
        heights: int64, likewise.
        formats: Of the file: jpeg, png, ...
        shards: File name of each image's shard.
        positions: int64, of its record in that shard, from 0.
    """

    split: str
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    groups: NDArray[np.int64]
    widths: NDArray[np.int64]
    heights: NDArray[np.int64]
    formats: tuple[str, ...]
    shards: tuple[str, ...]
    positions: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Images."""
        return len(self.labels)

    @property
    def group_count(self) -> int:
        """Duplicate groups: how many independent images there are at most."""
        return len(np.unique(self.groups))

    def without(self, paths: Container[str]) -> "Scored":
        """The same without some images."""
        kept = np.array([index for index, path in enumerate(self.paths) if path not in paths], np.int64)

        def of(values: Any) -> Any:
            return values[kept] if isinstance(values, np.ndarray) else tuple(values[i] for i in kept)

        sequences = [field.name for field in fields(self) if field.name != "split"]
        return replace(self, **{name: of(getattr(self, name)) for name in sequences})

    @property
    def file_kinds(self) -> NDArray[np.int64]:
        """int64 [n]: images of one height, width and format have the same number, from 0."""
        keys = list(zip(self.heights.tolist(), self.widths.tolist(), self.formats, strict=True))
        number = {key: index for index, key in enumerate(sorted(set(keys)))}
        return np.array([number[key] for key in keys], np.int64)


def manifest_rows(folder: Path, dataset: Dataset, split: str) -> pa.Table:
    """The manifest's rows of one split, in the order of the records in the shards.

    Raises:
        InputError: The manifest is missing, damaged or another shard set's.
        TryAgainError: Another run has replaced the set since `dataset` was read.
    """
    path = folder / MANIFEST
    table = shardset.manifest(folder, dataset, *_COLUMNS)
    rows = table.filter(pc.equal(table["split"], split))
    rank = {shard.name: index for index, shard in enumerate(dataset.split(split))}
    try:
        order = pa.array([rank[name] for name in rows["shard"].to_pylist()], pa.int64())
    except KeyError as error:
        raise InputError(
            f"{path} names a shard that dataset.json has not: {error}. {_ADVICE}"
        ) from None
    rows = rows.append_column("rank", order).sort_by([("rank", "ascending"), ("position", "ascending")])
    if rows.num_rows != dataset.records(split):
        raise InputError(
            f"{path} has {rows.num_rows} rows of the {split} split, and the shards "
            f"{dataset.records(split)} records. {_ADVICE}"
        )
    return rows


def score_split(folder: Path, dataset: Dataset, split: str, score: Scorer) -> Scored:
    """Run a network over a split, shard by shard, with bounded memory for the images.

    Raises:
        InputError: The split is empty, or a shard or the manifest is damaged; the text names it.
    """
    from tumorbatch import shard_reader

    count = dataset.records(split)
    if not count:
        raise InputError(
            f"The {split} split in {folder} holds no image, so there is nothing to evaluate on. Make "
            "shards of more images."
        )
    rows = manifest_rows(folder, dataset, split)
    with Progress(f"score {split}", "images", count) as progress:

        def counted(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            logits = score(images)
            progress.advance(len(images))
            return logits

        logits, labels = shard_reader.score_split(folder, dataset, split, counted)
    classes = rows["class"].to_pylist()
    if [CLASS_NAMES[label] for label in labels] != classes:
        raise InputError(f"The records of the {split} split are not those of {MANIFEST}. {_ADVICE}")
    if not np.isfinite(logits).all():
        raise InputError(
            f"The network gives logits that are not numbers for {int((~np.isfinite(logits)).sum())} "
            f"images of the {split} split: its weights are broken. Train it again."
        )
    order = np.array(sorted(range(count), key=rows["path"].to_pylist().__getitem__), dtype=np.int64)

    def column(name: str) -> Sequence[object]:
        values = rows[name].to_pylist()
        return [values[index] for index in order]

    def numbers(name: str) -> NDArray[np.int64]:
        return np.array(column(name), dtype=np.int64)

    return Scored(
        split=split,
        paths=tuple(map(str, column("path"))),
        labels=labels[order].astype(np.int64),
        logits=logits[order],
        groups=numbers("duplicate_group"),
        widths=numbers("width"),
        heights=numbers("height"),
        formats=tuple(map(str, column("format"))),
        shards=tuple(map(str, column("shard"))),
        positions=numbers("position"),
    )


def whole(folder: Path, dataset: Dataset, score: Scorer) -> Scored:
    """All splits of a shard set as one, called "test": nothing of it was trained on.

    Raises:
        InputError: See `score_split`; there is no image at all.
    """
    splits = [split for split in shardset.SPLITS if dataset.records(split)] or ["test"]
    several = [score_split(folder, dataset, split, score) for split in splits]
    paths = [path for of in several for path in of.paths]
    order = np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64)

    def sequence(name: str) -> tuple[str, ...]:
        values = [value for of in several for value in getattr(of, name)]
        return tuple(values[index] for index in order)

    def array(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(of, name) for of in several])[order]

    return Scored(
        split="test",
        paths=sequence("paths"),
        labels=array("labels"),
        logits=array("logits"),
        groups=array("groups"),
        widths=array("widths"),
        heights=array("heights"),
        formats=sequence("formats"),
        shards=sequence("shards"),
        positions=array("positions"),
    )


def read_images(folder: Path, scored: Scored, indices: Sequence[int]) -> NDArray[np.uint8]:
    """The pixels of some of the images, as the network sees them.

    Args:
        folder: The shard set.
        scored: From `score_split`.
        indices: Of images in `scored`.

    Returns:
        uint8 [len(indices), height, width].

    Raises:
        InputError: A record is damaged, or another image's.
    """
    images = []
    places: dict[Path, list[tuple[int, int]]] = {}
    for index in indices:
        path = folder / scored.shards[index]
        try:
            if path not in places:
                places[path] = tfrecord.places(path)
            at, length = places[path][scored.positions[index]]
            with path.open("rb") as file:
                file.seek(at)
                record = ImageRecord.decode(tfrecord.unframe(file.read(length)))
            if record.filename != scored.paths[index]:
                raise ValueError(f"it is that of {record.filename}")
        except (OSError, IndexError, ValueError) as error:
            raise InputError(
                f"Record {scored.positions[index]} of {path} is damaged ({error}). {_ADVICE}"
            ) from error
        pixels = np.frombuffer(record.pixels, np.uint8)
        images.append(pixels.reshape(record.height, record.width))
    return np.stack(images)
