"""The second half of `shard`: rows and records of the first pass into groups, splits and shards."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.dataset_shape import GIVEN, SPLITS
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.manifest_schema import MANIFEST_SCHEMA, SUBCLASS
from tumorbatch.parquet_reader import read_table
from tumorbatch.preprocess import duplicates as grouping
from tumorbatch.preprocess import shard_writer as writing
from tumorbatch.preprocess.classes import SourceFile
from tumorbatch.preprocess.first_pass import WorkArea
from tumorbatch.preprocess.given_splits import assign_given
from tumorbatch.preprocess.patients import Patients, digest
from tumorbatch.preprocess.previous_set import PreviousSet, PreviousSplits
from tumorbatch.preprocess.splits import Fractions, assign
from tumorbatch.preprocess.verify_index import count_subclasses
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.runtime import versions
from tumorbatch.shardset import MANIFEST, Dataset, Shard
from tumorbatch.status import Status

log = logging.getLogger(__name__)

_LARGEST = 3  # groups that the report names


class FirstPass(NamedTuple):
    """What is known of the source after the first pass.

    Attributes:
        rows: From `WorkArea.run`, in the order of `files`.
        places: Of the records, from `WorkArea.run`.
        files: What was found.
        patients: A table of patients, or an empty one.
        previous_set: The finished set that is brought up to date, or None.
        previous: Which split each image was in, where there was a set whose splits are kept.
    """

    rows: pa.Table
    places: Sequence[tuple[int, int]]
    files: Sequence[SourceFile]
    patients: Patients
    previous_set: PreviousSet | None
    previous: PreviousSplits | None


class Assembled(NamedTuple):
    """What was written into the work area.

    Attributes:
        dataset: Content of dataset.json, which is not written yet.
        largest: (size, first path) of the largest groups of more than one image.
        near_conflicts: (first Healthy path, first Tumor path) of each group of near duplicates that
            holds both classes.
    """

    dataset: Dataset
    largest: list[tuple[int, str]]
    near_conflicts: list[tuple[str, str]]


class _Images(NamedTuple):
    """The files that gave pixels; `row`: int64 [n], their rows; the others n each."""

    row: NDArray[np.int64]
    paths: list[str]
    labels: NDArray[np.int64]
    copies: grouping.Images
    shapes: NDArray[np.int64]
    patients: list[list[str | None]]


def software() -> dict[str, str]:
    """Return the versions of the software that determines the bytes of a shard set."""
    return versions("numpy", "opencv-python-headless", "pyarrow", "scipy", "simplejpeg")


def assemble(
    work: WorkArea,
    first_pass: FirstPass,
    settings: Mapping[str, Any],
    preprocessing: Preprocessing,
) -> Assembled:
    """Group, split and write everything but dataset.json into the work area.

    Args:
        work: With the records.
        first_pass: What is known of the source.
        settings: variants, split_by, formats, patient_id, fractions, seed and shard_bytes, as in
            dataset.json.
        preprocessing: What was done to the pixels; each of its channels is a variant.

    Raises:
        ConfigError: A class has too few groups to put one into each split.
        InputError: A record is not what was written.
        OutputError: The disk is full or not writable.
    """
    rows, previous = first_pass.rows, first_pass.previous
    images = _images(first_pass, settings["patient_id"])
    duplicates = grouping.join(images.copies)
    groups = grouping.unite(duplicates.group, *images.patients)
    conflict = _conflicts(images)
    rows_kept = np.flatnonzero(~conflict)
    paths = [images.paths[index] for index in rows_kept]
    sha256 = [images.copies.sha256[index] for index in rows_kept]
    settled = previous.splits_of(paths, sha256) if previous else None
    splits = _assign(first_pass, images, groups, rows_kept, settings, settled)
    places = [first_pass.places[images.row[index]] for index in rows_kept]
    shards, members = _write_shards(work, first_pass.previous_set, paths, places, splits, settings)
    manifest = _manifest(rows, images.row, groups, duplicates.kind, conflict, members, rows_kept)
    subclasses = [file.subclass for file in first_pass.files]
    if any(subclasses):
        manifest = manifest.append_column(SUBCLASS, pa.array(subclasses, SUBCLASS.type))
    writing.write_manifest(work.folder / MANIFEST, manifest)
    proof_schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in writing.PROOF_COLUMNS])
    index_table = read_table(work.folder / MANIFEST, proof_schema)
    counts = grouping.count(groups, duplicates, images.copies.sha256, images.copies.pixels)
    dataset = Dataset(
        **{
            **settings,
            "preprocessing": preprocessing.select(preprocessing.channels[:1]),
            "variants": tuple(settings["variants"]),
            "formats": tuple(settings["formats"]),
        },
        classes=CLASS_NAMES,
        counts=_counts(splits, images.labels[rows_kept]),
        subclasses=count_subclasses(manifest),
        files={"found": len(rows), **dict(sorted(Counter(manifest["status"].to_pylist()).items()))},
        groups={**counts, "patients": _patients(images)},
        shared=writing.count_shared(work.folder, shards, index_table, settings["split_by"]),
        patients=digest(first_pass.patients.by_path),
        patient_table=first_pass.patients.counts(),
        updates=_updates(first_pass, previous is None or previous.match(paths, sha256, splits)),
        shards=shards,
        manifest_sha256=shardset.file_sha256(work.folder / MANIFEST),
        versions=software(),
    )
    return Assembled(
        dataset,
        _largest(groups, images.paths),
        _near_conflicts(duplicates.group, images.labels, images.paths),
    )


def _assign(
    first_pass: FirstPass,
    images: _Images,
    groups: NDArray[np.int64],
    rows_kept: NDArray[np.intp],
    settings: Mapping[str, Any],
    settled: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """Return int64: the split of each image that is kept, an index into `SPLITS`."""
    labels, paths = images.labels[rows_kept], [images.paths[index] for index in rows_kept]
    fractions, seed = Fractions(**settings["fractions"]), settings["seed"]
    if settings["split_by"] == GIVEN:
        given = [first_pass.files[images.row[index]].split for index in rows_kept]
        return assign_given(groups[rows_kept], labels, paths, given, fractions, seed, settled)
    units = _units(settings["split_by"], groups, images.shapes)[rows_kept]
    return assign(units, labels, paths, fractions, seed, settled)


def _conflicts(images: _Images) -> NDArray[np.bool_]:
    """Return bool [n], whether the same file or pixels are in both classes; log their number."""
    conflict = grouping.under_both_labels(images.copies.sha256, images.labels)
    conflict |= grouping.under_both_labels(images.copies.pixels, images.labels)
    if conflict.any():
        log.warning(
            "%d files are left out: the same image is in both classes (see %s)",
            conflict.sum(), MANIFEST,
        )  # fmt: skip
    return conflict


def _write_shards(
    work: WorkArea,
    previous_set: PreviousSet | None,
    paths: Sequence[str],
    places: Sequence[tuple[int, int]],
    splits: NDArray[np.int64],
    settings: Mapping[str, Any],
) -> tuple[tuple[Shard, ...], dict[str, list[int]]]:
    """Write the records of all images into shards.

    Args:
        work: With the records.
        previous_set: The finished set that is brought up to date, or None.
        paths: n names of images.
        places: n places of their records, from `WorkArea.run`.
        splits: int64 [n], index into `SPLITS`.
        settings: As for `assemble`.

    Returns:
        The shards; {file name of a shard: indices of its images, in their order}.
    """
    with work.record_reader(previous_set) as read:

        def record(index: int) -> bytes:
            return read(places[index], paths[index])

        lengths = np.array([read.length(*pair) for pair in zip(places, paths, strict=True)], np.int64)
        layout = writing.lay_out(paths, splits, lengths, settings["shard_bytes"], settings["seed"])
        shards = writing.write_shards(work.folder, layout, record)
    return shards, {shard.name: layout[name] for shard, name in zip(shards, layout, strict=True)}


def _updates(first_pass: FirstPass, same_splits: bool) -> int:
    """Return how often the set has changed so far, this time included."""
    earlier = 0 if first_pass.previous is None else first_pass.previous.updates
    return earlier + (first_pass.previous_set is not None or not same_splits)


def _images(first_pass: FirstPass, patient_id: bool) -> _Images:
    row = np.flatnonzero(pc.equal(first_pass.rows["status"], Status.OK.value).to_numpy())
    good = first_pass.rows.take(row)
    paths = [str(path) for path in good["path"].to_pylist()]
    height, width = (good[name].to_numpy().astype(np.int64) for name in ("height", "width"))
    return _Images(
        row=row,
        paths=paths,
        labels=np.array([first_pass.files[index].label for index in row.tolist()], np.int64),
        copies=grouping.Images.from_manifest(good),
        shapes=height << 32 | width,
        patients=[
            good["patient"].to_pylist() if patient_id else [None] * len(paths),
            [first_pass.patients.by_path.get(path) for path in paths],
        ],
    )


def _units(split_by: str, groups: NDArray[np.int64], shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64 [n]: the unit of each image; a unit goes into one split as a whole."""
    if split_by == "file":
        return np.arange(len(groups))
    return grouping.unite(groups, shapes) if split_by == "shape" else groups


def _patients(images: _Images) -> int:
    """Count the known patients, by their IDs or by the table."""
    has_patient = [any(key is not None for key in keys) for keys in zip(*images.patients, strict=True)]
    return len(np.unique(grouping.unite(*images.patients)[has_patient]))


def _largest(groups: NDArray[np.int64], paths: Sequence[str]) -> list[tuple[int, str]]:
    sizes = np.bincount(groups)
    chosen = np.argsort(-sizes, kind="stable")[:_LARGEST]
    return [
        (int(sizes[group]), paths[int(np.argmax(groups == group))])
        for group in chosen
        if sizes[group] > 1
    ]


def _near_conflicts(
    duplicates: NDArray[np.int64], labels: NDArray[np.int64], paths: Sequence[str]
) -> list[tuple[str, str]]:
    mixed = grouping.under_both_labels(duplicates.tolist(), labels)
    conflicts = []
    for group in np.unique(duplicates[mixed]):
        healthy, tumor = (
            paths[int(np.argmax((duplicates == group) & (labels == label)))] for label in (0, 1)
        )
        conflicts.append((healthy, tumor))
    return conflicts


def _manifest(
    rows: pa.Table,
    good: NDArray[np.int64],
    groups: NDArray[np.int64],
    kinds: Sequence[str | None],
    conflict: NDArray[np.bool_],
    layout: dict[str, list[int]],
    rows_kept: NDArray[np.intp],
) -> pa.Table:
    added: dict[str, list[Any]] = {
        name: [None] * len(rows)
        for name in ("duplicate_group", "copy_kind", "split", "shard", "position")
    }
    status, error = rows["status"].to_pylist(), rows["error"].to_pylist()
    for index, row in enumerate(good):
        added["duplicate_group"][row] = int(groups[index])
        added["copy_kind"][row] = kinds[index]
        if conflict[index]:
            status[row] = Status.LABEL_CONFLICT.value
            error[row] = "the same image lies under both classes"  # kept: part of the manifest's bytes
    for shard, members in layout.items():
        for position, index in enumerate(members):
            row = good[rows_kept[index]]
            added["split"][row] = shard.split("-")[0]
            added["shard"][row] = shard
            added["position"][row] = position
    columns = {name: rows[name] for name in rows.column_names if name in MANIFEST_SCHEMA.names}
    columns |= {"status": status, "error": error, **added}
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def _counts(splits: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    return {
        name: {
            kind: int(((splits == split) & (labels == label)).sum())
            for label, kind in enumerate(CLASS_NAMES)
        }
        for split, name in enumerate(SPLITS)
    }
