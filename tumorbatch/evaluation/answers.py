"""The answers of a model or a baseline on the images of a split: one type for all of evaluation."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset, tfrecord
from tumorbatch.bundle import Bundle
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import InputError, reason
from tumorbatch.evaluation import protocols
from tumorbatch.evaluation.protocols import PROTOCOLS, Protocol
from tumorbatch.files import open_regular
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.progress import Progress
from tumorbatch.scoring import Scorer, probability
from tumorbatch.shardset import DATASET, MAKE_AGAIN, MANIFEST, Dataset
from tumorbatch.statistics.classification import CoreMeasures, Decisions
from tumorbatch.tfrecord import ImageRecord

_COLUMNS = (
    "path", "class", "split", "shard", "position", "duplicate_group", "width", "height", "format",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SplitImages:
    """The images of one split, sorted by path; all sequences have length n.

    Attributes:
        split: "train", "validation" or "test".
        dataset: sha256 of the shard set's dataset.json: where it is equal, so are the images.
        protocol: A key of `protocols.PROTOCOLS`.
        paths: Relative to the source of the shard set.
        labels: int64, 0 Healthy, 1 Tumor.
        groups: int64, duplicate group; copies and near copies of one original.
        widths: int64, of the file, in pixels.
        heights: int64, likewise.
        formats: Of the file: jpeg, png, ...
        subclasses: Kinds of a class whose folders were joined; None if there are none.
    """

    split: str
    dataset: str
    protocol: str
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    widths: NDArray[np.int64]
    heights: NDArray[np.int64]
    formats: tuple[str, ...]
    subclasses: tuple[str, ...] | None = None

    @property
    def n(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def group_count(self) -> int:
        """Return the number of duplicate groups: how many independent images there are at most."""
        return len(np.unique(self.groups))

    @property
    def file_kinds(self) -> NDArray[np.int64]:
        """Return int64 [n]: images of one height, width and format have the same number, from 0."""
        keys = list(zip(self.heights.tolist(), self.widths.tolist(), self.formats, strict=True))
        number = {key: index for index, key in enumerate(sorted(set(keys)))}
        return np.array([number[key] for key in keys], np.int64)

    def take(self, indices: NDArray[np.int64]) -> "SplitImages":
        """Return some of the images, int64 [k], in this order."""
        columns: dict[str, Any] = {}
        for field in fields(self):
            values = getattr(self, field.name)
            if isinstance(values, np.ndarray):
                columns[field.name] = values[indices]
            elif isinstance(values, tuple):
                columns[field.name] = tuple(values[index] for index in indices)
        return replace(self, **columns)


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a model or a baseline.

    Attributes:
        name: Of the bundle, or of the baseline.
        images: The images, in the order of the scores.
        scores: float [n], higher for Tumor: a network's logits, or a baseline's probabilities.
        threshold: A probability of at least this much is called Tumor.
        temperature: Divides the logits; None: `scores` are probabilities already.
        architecture: Of the network; "" for a baseline.
        model_id: Of the bundle; "" for a baseline.
        description: What a baseline sees and does, a sentence.
    """

    name: str
    images: SplitImages
    scores: NDArray[np.floating]
    threshold: float = 0.5
    temperature: float | None = None
    architecture: str = ""
    model_id: str = ""
    description: str = ""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return int64 [n], 0 Healthy, 1 Tumor."""
        return self.images.labels

    @property
    def groups(self) -> NDArray[np.int64]:
        """Return int64 [n], duplicate groups."""
        return self.images.groups

    @property
    def protocol(self) -> Protocol:
        """Return the protocol by which the images were kept away from training."""
        return PROTOCOLS[self.images.protocol]

    @property
    def is_baseline(self) -> bool:
        """Return whether no network answered."""
        return not self.architecture

    @property
    def probabilities(self) -> NDArray[np.floating]:
        """Return the probability of Tumor, float [n]."""
        return self.scores if self.temperature is None else probability(self.scores, self.temperature)

    @property
    def called(self) -> NDArray[np.bool_]:
        """Return bool [n], whether the image is called Tumor."""
        return self.called_at(self.threshold)

    def called_at(self, threshold: float) -> NDArray[np.bool_]:
        """Return bool [n], whether the image is called Tumor at another threshold."""
        return np.asarray(self.probabilities >= np.float32(threshold), np.bool_)

    @property
    def decisions(self) -> Decisions:
        """Return accuracy and the like, for any weights of the images."""
        return Decisions(self.called, self.labels)

    @property
    def core_measures(self) -> CoreMeasures:
        """Return accuracy and the like, and the AUC, for any weights of the images."""
        return CoreMeasures(self.called, self.scores, self.labels)

    def at(self, threshold: float, temperature: float) -> "Answers":
        """Return the same logits at another threshold and temperature."""
        return replace(self, threshold=threshold, temperature=temperature)

    def by_bundle(self, name: str, bundle: Bundle) -> "Answers":
        """Return the same logits as the answers of a bundle, at its threshold and temperature."""
        return replace(
            self.at(bundle.threshold, bundle.temperature),
            name=name,
            architecture=bundle.architecture,
            model_id=bundle.model_id,
        )

    def take(self, indices: NDArray[np.int64]) -> "Answers":
        """Return the answers on some of the images, int64 [k], in this order."""
        return replace(self, images=self.images.take(indices), scores=self.scores[indices])

    def by_path(self) -> "Answers":
        """Return the answers sorted by the path of their image."""
        paths = self.images.paths
        return self.take(np.array(sorted(range(len(paths)), key=paths.__getitem__), np.int64))

    def without(self, paths: Container[str]) -> "Answers":
        """Return the answers on all images but some."""
        indices = [index for index, path in enumerate(self.images.paths) if path not in paths]
        return self.take(np.array(indices, np.int64))

    def grouped(self, numbers: Mapping[str, int]) -> "Answers":
        """Return the same answers with other groups: {path: number of its group}."""
        groups = np.array([numbers[path] for path in self.images.paths], np.int64)
        return replace(self, images=replace(self.images, groups=groups))

    def on(self, images: SplitImages) -> "Answers":
        """Return the answers on exactly these images, in their order.

        Raises:
            ValueError: There is no answer on one of them, or it has another label here.
        """
        place = {path: index for index, path in enumerate(self.images.paths)}
        if not place.keys() >= set(images.paths):
            raise ValueError(f"{self.name} was scored on other images")
        answers = self.take(np.array([place[path] for path in images.paths], np.int64))
        if (answers.labels != images.labels).any():
            raise ValueError(f"{self.name} was scored with other labels")
        return replace(answers, images=images)


def manifest_rows(folder: Path, dataset: Dataset, split: str) -> pa.Table:
    """Return the manifest's rows of one split, in the order of the records in the shards.

    Raises:
        InputError: The manifest is missing, damaged or another shard set's.
        TryAgainError: Another run has replaced the set since `dataset` was read.
    """
    path = folder / MANIFEST
    table = shardset.manifest(folder, dataset, *manifest_columns(dataset))
    rows = table.filter(pc.equal(table["split"], split))
    rank = {shard.name: index for index, shard in enumerate(dataset.split(split))}
    try:
        order = pa.array([rank[name] for name in rows["shard"].to_pylist()], pa.int64())
    except KeyError as error:
        raise InputError(
            f"{path} names a shard that dataset.json does not have: {error}. {MAKE_AGAIN}"
        ) from None
    rows = rows.append_column("rank", order).sort_by([("rank", "ascending"), ("position", "ascending")])
    if rows.num_rows != dataset.records(split):
        raise InputError(
            f"{path} has {rows.num_rows} rows of the {split} split, and the shards "
            f"{dataset.records(split)} records. {MAKE_AGAIN}"
        )
    return rows


def manifest_columns(dataset: Dataset) -> tuple[str, ...]:
    """Return the manifest's columns that `split_images` needs."""
    return (*_COLUMNS, "subclass") if dataset.subclasses else _COLUMNS


def split_images(folder: Path, dataset: Dataset, split: str, rows: pa.Table) -> SplitImages:
    """Return what the manifest knows of some images, in the order of `rows`.

    Args:
        folder: The shard set.
        dataset: Its description.
        split: Name of the result's split.
        rows: From `manifest_rows`.
    """
    columns = {name: rows[name].to_pylist() for name in manifest_columns(dataset)}
    return SplitImages(
        split=split,
        dataset=shardset.file_sha256(folder / DATASET),
        protocol=protocols.dataset_protocol(dataset).key,
        paths=tuple(columns["path"]),
        labels=np.array([CLASS_NAMES.index(name) for name in columns["class"]], np.int64),
        groups=np.array(columns["duplicate_group"], np.int64),
        widths=np.array(columns["width"], np.int64),
        heights=np.array(columns["height"], np.int64),
        formats=tuple(columns["format"]),
        subclasses=tuple(columns["subclass"]) if dataset.subclasses else None,
    )


def score_split(folder: Path, dataset: Dataset, split: str, score: Scorer) -> Answers:
    """Run a network over a split, shard by shard, with bounded memory for the images.

    Returns:
        Its logits at temperature 1 and threshold 0.5, sorted by path.

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
    images = split_images(folder, dataset, split, rows)
    if (labels != images.labels).any():
        raise InputError(f"The records of the {split} split are not those of {MANIFEST}. {MAKE_AGAIN}")
    if not np.isfinite(logits).all():
        raise InputError(
            f"The network gives logits that are not numbers for {int((~np.isfinite(logits)).sum())} "
            f"images of the {split} split: its weights are broken. Train it again."
        )
    return Answers("", images, logits, temperature=1.0).by_path()


def score_whole(folder: Path, dataset: Dataset, score: Scorer) -> Answers:
    """Run a network over all splits of a shard set as one, called "test": none of it was trained on.

    Raises:
        InputError: See `score_split`; there is no image at all.
    """
    splits = [split for split in SPLITS if dataset.records(split)] or ["test"]
    return joined([score_split(folder, dataset, split, score) for split in splits])


def joined(several: Sequence[Answers]) -> Answers:
    """Return the answers of one network on several splits as if they were one external test split."""
    parts = [answers.images for answers in several]
    images = replace(
        parts[0],
        split="test",
        protocol=protocols.EXTERNAL,
        **{
            field.name: _concatenated([getattr(images, field.name) for images in parts])
            for field in fields(SplitImages)
            if field.name not in ("split", "dataset", "protocol")
        },
    )
    scores = np.concatenate([answers.scores for answers in several])
    return replace(several[0], images=images, scores=scores).by_path()


def _concatenated(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    if parts[0] is None:
        return None
    return tuple(value for part in parts for value in part)


def read_images(folder: Path, dataset: Dataset, paths: Sequence[str]) -> NDArray[np.uint8]:
    """Read the pixels of some of a shard set's images, as the network sees them.

    Args:
        folder: The shard set.
        dataset: Its description.
        paths: Their paths in the manifest.

    Returns:
        uint8 [len(paths), *dataset.preprocessing.shape].

    Raises:
        InputError: The manifest or a record is damaged, or holds another image.
    """
    columns = shardset.manifest(folder, dataset, "path", "shard", "position").itercolumns()
    places = {
        path: place for path, *place in zip(*(column.to_pylist() for column in columns), strict=True)
    }
    images = []
    records: dict[Path, list[tuple[int, int]]] = {}
    for name in paths:
        shard, position = places[name]
        path = folder / shard
        try:
            if path not in records:
                records[path] = tfrecord.places(path)
            offset, length = records[path][position]
            with open_regular(path) as file:
                file.seek(offset)
                record = ImageRecord.decode(tfrecord.unframe(file.read(length)))
            if record.filename != name:
                raise ValueError(f"it is that of {record.filename}")
            channels = [record.variant(feature) for feature in dataset.features]
            images.append(channels[0] if len(channels) == 1 else np.stack(channels, axis=-1))
        except (OSError, IndexError, ValueError) as error:
            raise InputError(
                f"Record {position} of {path} is damaged ({reason(error)}). {MAKE_AGAIN}"
            ) from error
    return np.stack(images)
