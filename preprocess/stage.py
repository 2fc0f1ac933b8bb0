"""Stage 1: a folder of images to a shard set."""

import contextlib
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tumorbatch import shardset
from tumorbatch.atomic import make_folder, remove_temporaries, sync_folder, write_json
from tumorbatch.errors import ConfigError, InputError, cannot_write
from tumorbatch.files import read_file
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.limits import (
    check_error_rate,
    check_workers,
    differences,
    refuse_too_many_errors,
    told,
)
from tumorbatch.lock import output_lock
from tumorbatch.preprocess import groups as grouping
from tumorbatch.preprocess import shards as writing
from tumorbatch.preprocess.classes import SourceFile, find_sources
from tumorbatch.preprocess.splits import Fractions, assign
from tumorbatch.preprocess.work import WorkArea, remove_if_planned
from tumorbatch.preprocessing import Preprocessing
from tumorbatch.progress import Progress
from tumorbatch.runtime import available_cores, versions
from tumorbatch.shardset import DATASET, MANIFEST, SPLIT_BY, SPLITS, Dataset
from tumorbatch.status import FileError, Status

log = logging.getLogger(__name__)

_WORK = ".partial"


@dataclass(frozen=True, slots=True)
class Config:
    """How to make a shard set.

    Attributes:
        preprocessing: What is done to the pixels.
        classes: {class name: folder name}; empty: match folders by their known spellings.
        split_by: "group" keeps duplicates in one split; "file" reproduces a plain random split.
        fractions: Target share of each split.
        seed: Of the split and of the order inside the shards.
        workers: Processes; default: the cores that this process may use.
        shard_bytes: Wanted size of a shard.
        max_error_rate: Above this share of unreadable files nothing is published, 0 to 1.
        overwrite: Replace another shard set or another interrupted run.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: Mapping[str, str] = field(default_factory=dict)
    split_by: str = "group"
    fractions: Fractions = field(default_factory=Fractions)
    seed: int = 0
    workers: int = field(default_factory=available_cores)
    shard_bytes: int = 100 << 20
    max_error_rate: float = 1.0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.split_by not in SPLIT_BY:
            raise ConfigError(
                f"--split-by must be one of {', '.join(SPLIT_BY)}. Received: {self.split_by}."
            )
        check_workers(self.workers)
        if self.shard_bytes < 1:
            raise ConfigError(f"The shard size must be above 0. Received: {self.shard_bytes}.")
        check_error_rate(self.max_error_rate)


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        dataset: What was written (or was already there).
        unchanged: True when the finished set was already there and nothing was done.
        taken_over: Files that an interrupted run had already processed.
        bytes: Of all shards.
        seconds: Wall time.
        near_conflicts: Groups of near duplicates that hold both classes.
    """

    dataset: Dataset
    unchanged: bool
    taken_over: int
    bytes: int
    seconds: float
    near_conflicts: int = 0

    @property
    def found(self) -> int:
        """Files found, good and bad."""
        return self.dataset.files["found"]

    @property
    def errors(self) -> int:
        """Files that gave no record."""
        return self.found - self.dataset.files.get(Status.OK.value, 0)


def run(source: Path, out: Path, config: Config) -> Report:
    """Make the shard set of `source` in `out`, or go on with an interrupted run of the same.

    Raises:
        InputError: `source` is missing or empty, or no image in it can be read.
        ConfigError: Unknown class folders, one class only, or `out` holds something else.
        OutputError: `out` cannot be written.
        TooManyErrorsError: See `Config.max_error_rate`; what was there before is untouched.
        TryAgainError: Another process is writing `out`.
    """
    started = time.monotonic()
    files = find_sources(source, config.classes)
    make_folder(out)
    with output_lock(out, out / ".lock"):
        remove_temporaries(out)
        settings = _settings(config)
        plan = {**settings, "files": len(files), "inputs": _fingerprint(files)}
        old = None if config.overwrite else _finished(out)
        if old is not None:
            _refuse_other(out, old, settings, files)
            remove_if_planned(out / _WORK, plan)  # left by a run killed right after its commit
            size = sum(shard.bytes for shard in old.shards)
            return Report(old, True, 0, size, time.monotonic() - started)
        work = WorkArea(out / _WORK, plan, config.overwrite)
        with Progress("shard", "images", len(files)) as progress:
            rows, places, taken_over = work.run(
                files, CLASS_NAMES, config.preprocessing, config.workers, progress.advance
            )
        try:
            statuses = Counter(rows["status"].to_pylist())
            if not statuses[Status.OK.value]:
                raise InputError(
                    f"None of the {len(rows)} files in {source} can be read ({told(statuses)})."
                )
            refuse_too_many_errors(statuses, config.max_error_rate, "Nothing was published.")
            dataset, near_conflicts = _assemble(work, rows, places, files, config)
        except (ConfigError, InputError):
            work.remove()  # the same command would end here again, and must not be in another's way
            raise
        _commit(work, out, dataset)
    size = sum(shard.bytes for shard in dataset.shards)
    return Report(dataset, False, taken_over, size, time.monotonic() - started, near_conflicts)


def _settings(config: Config) -> dict[str, Any]:
    fractions = dict(zip(SPLITS, config.fractions.values(), strict=True))
    return {
        "preprocessing": config.preprocessing.to_dict(),
        "split_by": config.split_by,
        "fractions": fractions,
        "seed": config.seed,
        "shard_bytes": config.shard_bytes,
    }


def _fingerprint(files: list[SourceFile]) -> str:
    """sha256 over names, classes, sizes and times of change: what a resumed run must find again."""
    digest = hashlib.sha256()
    for source in files:
        try:
            info = Path(source.file.path).stat()
            state = f"{info.st_size}|{info.st_mtime_ns}"
        except OSError:
            state = "unreadable"
        digest.update(f"{source.label}|{state}|{source.file.name}\0".encode())
    return digest.hexdigest()


def _finished(out: Path) -> Dataset | None:
    path = out / DATASET
    if path.exists():
        return shardset.read(path)
    return None


def _refuse_other(out: Path, old: Dataset, settings: dict[str, Any], files: list[SourceFile]) -> None:
    """Raise `ConfigError` unless the finished set in `out` is the one that was asked for."""
    changes = [
        f"{name}: {before} there, {now} asked for"
        for name, before, now in differences(old.config, settings)
    ]
    if not changes:
        changes = _input_changes(out, old, files)
    if changes:
        raise ConfigError(
            f"{out} already holds a shard set that was made differently ({'; '.join(changes)}). "
            "Give another output folder, or --overwrite to replace it."
        )
    shardset.load(out)


def _input_changes(out: Path, old: Dataset, files: list[SourceFile]) -> list[str]:
    try:
        intact = shardset.file_sha256(out / MANIFEST) == old.manifest_sha256
    except OSError:
        intact = False
    if not intact:
        raise InputError(
            f"{out / MANIFEST} is missing or was changed. "
            "Make the shards again with `tumorbatch shard --overwrite`."
        )
    table = pq.read_table(
        out / MANIFEST, columns=["path", "class", "sha256"], page_checksum_verification=True
    )
    before = {row["path"]: (row["class"], row["sha256"]) for row in table.to_pylist()}
    names = {source.file.name for source in files}
    changed = 0
    with Progress("compare", "files", len(files)) as progress:
        for source in files:
            if source.file.name in before:
                sha256 = None
                with contextlib.suppress(FileError):
                    sha256 = hashlib.sha256(read_file(source.file)[0]).hexdigest()
                changed += before[source.file.name] != (CLASS_NAMES[source.label], sha256)
            progress.advance()
    counts = {
        "new": len(names - before.keys()),
        "changed": changed,
        "gone": len(before.keys() - names),
    }
    return [f"{count} files {what}" for what, count in counts.items() if count]


def _assemble(
    work: WorkArea,
    rows: pa.Table,
    places: list[tuple[int, int]],
    files: list[SourceFile],
    config: Config,
) -> tuple[Dataset, int]:
    """Group, split and write everything but dataset.json into the work area."""
    good = np.flatnonzero(pc.equal(rows["status"], Status.OK.value).to_numpy())
    labels = np.array([files[index].label for index in good], np.int64)
    sha256, pixels = (rows[name].take(good).to_pylist() for name in ("sha256", "pixel_hash"))
    perceptual = np.array(
        [int(text, 16) for text in rows["perceptual_hash"].take(good).to_pylist()], np.uint64
    )
    groups = grouping.join(sha256, pixels, perceptual)
    conflict = grouping.under_both_labels(sha256, labels)
    conflict |= grouping.under_both_labels(pixels, labels)
    if conflict.any():
        log.warning(
            "%d files are left out: the same image lies under both classes (see %s)",
            conflict.sum(), MANIFEST,
        )  # fmt: skip
    kept = np.flatnonzero(~conflict)
    paths = [str(name) for name in rows["path"].take(good[kept]).to_pylist()]
    by = groups[kept] if config.split_by == "group" else np.arange(len(kept))
    splits = assign(by, labels[kept], paths, config.fractions, config.seed)
    lengths = np.array([places[good[index]][1] for index in kept], np.int64)
    layout = writing.lay_out(paths, splits, lengths, config.shard_bytes, config.seed)
    with work.record_reader() as read:
        shards = writing.write_shards(
            work.folder, layout, lambda index: read(places[good[kept[index]]])
        )
    manifest = _manifest(rows, good, groups, conflict, layout, kept)
    writing.write_manifest(work.folder / MANIFEST, manifest)
    statuses = Counter(manifest["status"].to_pylist())
    both = np.unique(groups[grouping.under_both_labels(groups.tolist(), labels)])
    dataset = Dataset(
        preprocessing=config.preprocessing,
        classes=CLASS_NAMES,
        split_by=config.split_by,
        fractions=_settings(config)["fractions"],
        seed=config.seed,
        shard_bytes=config.shard_bytes,
        counts=_counts(splits, labels[kept]),
        files={"found": len(rows), **dict(sorted(statuses.items()))},
        groups=_group_counts(groups, sha256, pixels),
        shared=writing.count_shared(work.folder, shards, work.folder / MANIFEST),
        shards=shards,
        manifest_sha256=shardset.file_sha256(work.folder / MANIFEST),
        versions=versions("numpy", "opencv-python-headless", "pyarrow", "scipy"),
    )
    return dataset, len(both)


def _manifest(
    rows: pa.Table,
    good: NDArray[np.intp],
    groups: NDArray[np.int64],
    conflict: NDArray[np.bool_],
    layout: dict[str, list[int]],
    kept: NDArray[np.intp],
) -> pa.Table:
    added: dict[str, list[Any]] = {
        name: [None] * len(rows) for name in ("duplicate_group", "split", "shard", "position")
    }
    status, error = rows["status"].to_pylist(), rows["error"].to_pylist()
    for index, row in enumerate(good):
        added["duplicate_group"][row] = int(groups[index])
        if conflict[index]:
            status[row] = Status.LABEL_CONFLICT.value
            error[row] = "the same image lies under both classes"
    for shard, members in layout.items():
        for position, index in enumerate(members):
            row = good[kept[index]]
            added["split"][row] = shard.split("-")[0]
            added["shard"][row] = shard
            added["position"][row] = position
    columns = {name: rows[name] for name in rows.column_names}
    columns |= {"status": status, "error": error, **added}
    return pa.table(columns, schema=writing.MANIFEST_SCHEMA)


def _counts(splits: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    return {
        name: {
            kind: int(((splits == split) & (labels == label)).sum())
            for label, kind in enumerate(CLASS_NAMES)
        }
        for split, name in enumerate(SPLITS)
    }


def _group_counts(groups: NDArray[np.int64], sha256: list[str], pixels: list[str]) -> dict[str, int]:
    """How many duplicates of each kind there are, beyond the first image of each."""
    return {
        "groups": len(np.unique(groups)),
        "largest_group": int(np.bincount(groups).max()),
        "byte_identical": len(sha256) - len(set(sha256)),
        "pixel_identical": len(pixels) - len(set(pixels)),
        "near_duplicate": len(groups) - len(np.unique(groups)),
    }


def _commit(work: WorkArea, out: Path, dataset: Dataset) -> None:
    """Swap the finished files in: dataset.json goes first and comes back last."""
    names = [*(shard.name for shard in dataset.shards), MANIFEST]
    write_json(work.folder / DATASET, dataset.to_dict())  # a full disk must show before the swap
    try:
        (out / DATASET).unlink(missing_ok=True)
        sync_folder(out)
        writing.publish(work.folder, out, names)
        sync_folder(out)
        os.replace(work.folder / DATASET, out / DATASET)
        sync_folder(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    work.remove()
