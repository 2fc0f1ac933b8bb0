"""The two index files of a shard set, dataset.json and the manifest, held against themselves.

Part of `verify`, which continues from here to the shards.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tumorbatch import shardset
from tumorbatch.dataset_shape import GIVEN, SPLIT_BY, SPLITS, refuse_repeated_shards
from tumorbatch.errors import TumorBatchError, reason
from tumorbatch.json_reader import ANYTHING, read_object
from tumorbatch.leaks import READABLE
from tumorbatch.manifest_schema import READABLE_SCHEMA, SUBCLASS
from tumorbatch.parquet_reader import read_table
from tumorbatch.preprocess import duplicates as grouping
from tumorbatch.preprocess.duplicates import Images
from tumorbatch.shardset import DATASET, MAKE_AGAIN, MANIFEST, Dataset
from tumorbatch.status import Status

AGAIN = "Bring back the copy that `shard` wrote, or m" + MAKE_AGAIN[1:]
_COLUMNS = (
    "path", "class", "status", "sha256", "pixel_hash", "turned_hash", "signature", "duplicate_group",
    "copy_kind", "split", "shard", "position", "height", "width",
)  # fmt: skip
_SINCE_2 = ("turned_hash", "signature", "copy_kind")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as `shard` wrote it; as a string, a few sentences.

    Attributes:
        file: The damaged, missing or surplus file.
        fault: What is wrong with it, a sentence that begins after the file's name.
        advice: What to do, in sentences.
    """

    file: Path
    fault: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file} {self.fault} {self.advice}"


class Findings:
    """The problems so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[Problem] = []

    def add(self, name: str, text: str, advice: str = AGAIN) -> None:
        """Add a problem of the file `name`; see `Problem`."""
        self.problems.append(Problem(self._folder / name, text, advice))


class Manifest(NamedTuple):
    """The manifest's table (`_SCHEMA`), {shard: its rows}, and whether its sha256 is the right one."""

    table: pa.Table
    rows: Mapping[str, list[int]]
    intact: bool


def read_dataset(folder: Path, problems: Findings) -> Dataset | None:
    """Read dataset.json; return None if it does not even name the files."""
    try:
        value = read_object(folder / DATASET, {"schema_version": ANYTHING})
        if value["schema_version"] not in READABLE:
            raise ValueError(f"its format version is none of {', '.join(map(str, READABLE))}")
        dataset = Dataset.from_dict(value)
        refuse_repeated_shards(dataset)
    except (OSError, ValueError, TumorBatchError) as error:
        problems.add(DATASET, f"cannot be used, so nothing else was checked ({reason(error)}).")
        return None
    for contradiction in _contradictions(value, dataset):
        problems.add(DATASET, f"contradicts itself, so it was edited or damaged: {contradiction}.")
    return dataset


def _contradictions(value: Mapping[str, Any], dataset: Dataset) -> Iterator[str]:
    """Yield what dataset.json states twice and differently."""
    recomputed = dataset.to_dict()  # with fingerprint and leaky computed anew
    for name in sorted(recomputed.keys() | value.keys()):
        if value.get(name) != recomputed.get(name):
            yield f"{name} is {value.get(name)}, and by its other entries {recomputed.get(name)}"
    if dataset.split_by not in (*SPLIT_BY, GIVEN):
        known = ", ".join((*SPLIT_BY, GIVEN))
        yield f"split_by is {dataset.split_by!r}, and must be one of {known}"
    for shard in dataset.shards:
        if shard.split not in SPLITS or not shard.name.startswith(f"{shard.split}-"):
            yield f"{shard.name} is said to belong to the split {shard.split!r}"
    if {split: set(counts) for split, counts in dataset.counts.items()} != {
        split: set(dataset.classes) for split in SPLITS
    }:
        yield f"counts must have each of {', '.join(SPLITS)} and, in it, each class"
    for split, counts in dataset.counts.items():
        by_class, by_shard = sum(counts.values()), dataset.records(split)
        if by_class != by_shard:
            yield f"{split} has {by_class:,} images by class and {by_shard:,} by shard"
    images = sum(shard.records for shard in dataset.shards)
    statuses = {name: count for name, count in dataset.files.items() if name != "found"}
    if statuses.get(Status.OK) != images or sum(statuses.values()) != dataset.files.get("found"):
        yield f"files is {dataset.files}, which does not add up, or not to {images:,} images"


def read_manifest(folder: Path, dataset: Dataset, problems: Findings) -> Manifest | None:
    """Read the manifest, or return None; problems are added to `found`."""
    path = shardset.manifest_path(folder, dataset)
    try:
        intact = shardset.file_sha256(path) == dataset.manifest_sha256
        if not intact:
            problems.add(
                MANIFEST,
                f"is not the file that {DATASET} describes: another sha256. It was edited, replaced "
                "or damaged.",
            )
        # The cast: an editor that changed a column's type must not hide what else it changed.
        names = [name for name in _COLUMNS if dataset.has_signatures or name not in _SINCE_2]
        if dataset.subclasses:
            names.append(SUBCLASS.name)
        schema = pa.schema([READABLE_SCHEMA.field(name) for name in names])
        table = read_table(path, schema, cast=True)
    except FileNotFoundError:
        problems.add(MANIFEST, "is missing.")
        return None
    except (OSError, ValueError) as error:
        problems.add(MANIFEST, f"cannot be read ({reason(error)}).")
        return None
    rows: dict[str, list[int]] = defaultdict(list)
    for row, shard in enumerate(table["shard"].to_pylist()):
        if shard is not None:
            rows[shard].append(row)
    return Manifest(table, rows, intact)


def check_manifest(manifest: Manifest, dataset: Dataset, problems: Findings) -> None:
    """Check the manifest against dataset.json; its rows are compared shard by shard."""
    table = manifest.table
    files: Counter[str] = Counter(found=len(table))
    counts = {split: dict.fromkeys(dataset.classes, 0) for split in SPLITS}
    tally = table.group_by(["status", "split", "class"]).aggregate([([], "count_all")])
    for row in tally.to_pylist():
        files[row["status"]] += row["count_all"]
        if row["split"] is not None:
            split_counts = counts.setdefault(row["split"], {})
            split_counts[row["class"]] = split_counts.get(row["class"], 0) + row["count_all"]
    ok = pc.equal(table["status"], Status.OK.value)
    has_pixels = pc.or_(ok, pc.equal(table["status"], Status.LABEL_CONFLICT.value))
    regroup = dataset.has_signatures
    said_of_groups = {name: count for name, count in dataset.groups.items() if name != "patients"}
    comparisons: tuple[tuple[str, Mapping[str, Any] | None, Mapping[str, Any]], ...] = (
        ("files", files, dataset.files),
        ("counts", counts, dataset.counts),
        *([("subclasses", count_subclasses(table), dataset.subclasses)] if dataset.subclasses else ()),
        *([("groups", _group_counts(table.filter(has_pixels)), said_of_groups)] if regroup else ()),
    )
    for name, counted, stated in comparisons:
        if counted != stated:
            problems.add(
                DATASET if manifest.intact else MANIFEST,
                f"is wrong about {name}: {DATASET} says {stated}, {MANIFEST} {dict(counted or {})}.",
            )
    if pc.count_distinct(table["path"]).as_py() != len(table):
        problems.add(MANIFEST, "names a file twice, or has a row without a name.")
    for name, expected in (
        ("split", ok), ("shard", ok), ("position", ok), ("duplicate_group", has_pixels),
    ):  # fmt: skip
        wrong = pc.sum(pc.not_equal(expected, pc.is_valid(table[name]))).as_py()
        if wrong:
            problems.add(MANIFEST, f"has {wrong:,} rows whose status and {name} do not go together.")
    for shard in sorted(manifest.rows.keys() - {shard.name for shard in dataset.shards}):
        count = len(manifest.rows[shard])
        problems.add(
            MANIFEST, f"places {count:,} images in {shard!r}, which is not a shard of this set."
        )
    if regroup and not _groups_fit(table.filter(has_pixels), bool(dataset.groups.get("patients"))):
        problems.add(
            MANIFEST, "has other duplicate groups or kinds of copies than its own hashes give."
        )


def count_subclasses(manifest: pa.Table) -> dict[str, dict[str, int]]:
    """Return {split: {subclass: images}}; empty without a column of subclasses."""
    if SUBCLASS.name not in manifest.column_names:
        return {}
    images = manifest.filter(pc.is_valid(manifest["split"]))
    names = sorted(set(images[SUBCLASS.name].to_pylist()))
    pairs = Counter(zip(images["split"].to_pylist(), images[SUBCLASS.name].to_pylist(), strict=True))
    return {split: {name: pairs[split, name] for name in names} for split in SPLITS}


def _images(table: pa.Table) -> Images | None:
    """Return what copies are found by; None where a value is missing."""
    try:
        return Images.from_manifest(table)
    except ValueError:
        return None


def _group_counts(images: pa.Table) -> dict[str, int] | None:
    image_rows = _images(images)
    if image_rows is None or images["duplicate_group"].null_count:
        return None
    groups = grouping.renumber(images["duplicate_group"].to_numpy())
    return grouping.count(groups, grouping.join(image_rows), image_rows.sha256, image_rows.pixels)


def _groups_fit(images: pa.Table, joined: bool) -> bool:
    """Return whether the manifest's groups are those of its hashes or, if joined, unions of them.

    The shard set does not say which groups are one patient's, on purpose.
    """
    image_rows = _images(images)
    if image_rows is None or images["duplicate_group"].null_count:
        return False
    duplicates = grouping.join(image_rows)
    if images["copy_kind"].to_pylist() != duplicates.kind:
        return False
    groups = images["duplicate_group"].to_numpy()
    if joined:
        return bool((grouping.unite(groups, duplicates.group) == grouping.renumber(groups)).all())
    return bool((groups == duplicates.group).all())
