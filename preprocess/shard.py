"""Stage 1: a folder of images to a shard set."""

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tumorbatch import shardset
from tumorbatch.atomic import make_folder, writing
from tumorbatch.checks import (
    IMAGE_FORMATS,
    check_choice,
    check_error_rate,
    check_formats,
    check_seed,
    check_workers,
    differences,
    format_changes,
    refuse_nothing_read,
    refuse_other_plan,
    refuse_too_many_errors,
    sorted_formats,
)
from tumorbatch.dataset_shape import GIVEN, SPLIT_BY, SPLITS
from tumorbatch.errors import ConfigError, InputError, not_finished
from tumorbatch.file_list import Manifest
from tumorbatch.files import may_name_patient, printable, starts_as_dicom
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.leaks import UPGRADE
from tumorbatch.lock import lock_inside, output_lock
from tumorbatch.object_path import Location, identity
from tumorbatch.parts import read_frozen, refuse_running, remove_gate
from tumorbatch.preprocess.classes import ClassFolders, SourceFile, find_sources, refuse_inside
from tumorbatch.preprocess.commit import commit, tidy
from tumorbatch.preprocess.first_pass import WorkArea
from tumorbatch.preprocess.given_splits import refuse_without_splits, split_folders
from tumorbatch.preprocess.patients import Patients, digest, read_patients, refuse_unmatched
from tumorbatch.preprocess.previous_set import PreviousSet, PreviousSplits
from tumorbatch.preprocess.records import in_previous_set
from tumorbatch.preprocess.second_pass import FirstPass, assemble, software
from tumorbatch.preprocess.splits import Fractions
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.progress import Progress
from tumorbatch.runtime import available_cores
from tumorbatch.shardset import DATASET, WORK, Dataset
from tumorbatch.status import count_errors
from tumorbatch.workers import SECONDS

if TYPE_CHECKING:
    from tumorbatch.ray_cluster import Cluster

_DECIDE_SPLITS = ("split_by", "fractions", "seed")
_DECIDE_PIXELS = ("numpy", "opencv-python-headless", "scipy", "simplejpeg")


@dataclass(frozen=True, slots=True)
class Config:
    """How to make a shard set.

    Attributes:
        preprocessing: What is done to the pixels; each of its channels is a variant in the records.
        classes: {class name: its folder, or folders that are joined}; empty: match folders by their
            known spellings.
        split_by: "group" keeps duplicates (and known patients) in one split; "shape" keeps images of
            one height and width together as well; "file" reproduces a plain random split; "given" keeps
            the source's folders `Training`, `Testing` and, if there is one, `Validation`.
        formats: Of `IMAGE_FORMATS`: the decoders that may run; files in other formats are error rows.
        patient_id: Put DICOM files of one PatientID into one group.
        patients: A table for `read_patients`: files of one patient go into one group.
        allow_unmatched: Take a table that does not cover the files, or names others.
        fractions: Target share of each split.
        seed: Of the split and of the order inside the shards.
        workers: Processes; default: the cores that this process may use.
        timeout: Seconds after which a file that is still being decoded becomes an error row.
        shard_bytes: Wanted size of a shard.
        max_error_rate: Above this share of unreadable files nothing is published, 0 to 1.
        overwrite: Make all records anew, whatever is there. Each image stays in its split.
        cluster: Its engines read the files; None: this machine.
        new_splits: With `overwrite`: settle the splits anew as well.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: ClassFolders = field(default_factory=dict)
    split_by: str = "group"
    formats: tuple[str, ...] = IMAGE_FORMATS
    patient_id: bool = True
    patients: Path | None = None
    allow_unmatched: bool = False
    fractions: Fractions = field(default_factory=Fractions)
    seed: int = 0
    workers: int = field(default_factory=available_cores)
    timeout: float = SECONDS
    shard_bytes: int = 100 << 20
    max_error_rate: float = 1.0
    overwrite: bool = False
    new_splits: bool = False
    cluster: "Cluster | None" = None

    def __post_init__(self) -> None:
        check_choice("--split-by", self.split_by, (*SPLIT_BY, GIVEN))
        check_formats(self.formats)
        check_workers(self.workers)
        check_seed(self.seed)
        if self.shard_bytes < 1:
            raise ConfigError(f"The shard size must be above 0. Received: {self.shard_bytes}.")
        check_error_rate(self.max_error_rate)
        if self.new_splits and not self.overwrite:
            raise ConfigError("--new-splits assigns all splits again: give --overwrite as well.")


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        dataset: What was written (or was already there).
        unchanged: True when the finished set was already there and nothing was assembled.
        taken_over: Files that an interrupted run had already processed.
        changes: {"kept", "new", "changed", "gone": files}, where a finished set was brought up to
            date; else empty.
        bytes: Of all shards.
        seconds: Wall time.
        largest: The largest groups, as in `Assembled`.
        near_conflicts: Groups of near duplicates that hold both classes, as in `Assembled`.
        litter: Entries of the source that were skipped, as in `find_files`.
        pooled: Folders of the source for splits, `Training` and the like, that were split anew.
    """

    dataset: Dataset
    unchanged: bool
    taken_over: int
    changes: Mapping[str, int]
    bytes: int
    seconds: float
    largest: Sequence[tuple[int, str]] = ()
    near_conflicts: Sequence[tuple[str, str]] = ()
    litter: int = 0
    pooled: Sequence[str] = ()

    @property
    def files_found(self) -> int:
        """Return the number of files found, good and bad."""
        return self.dataset.files["found"]

    @property
    def errors(self) -> int:
        """Return the number of files that gave no record."""
        return count_errors(self.dataset.files)


def run(source: Location, out: Path, config: Config) -> Report:
    """Make the shard set of `source` in `out`: start, continue an interrupted run, or update it.

    Where `out` holds a finished set with the same settings and the source has changed since, what is
    new or changed is decoded, the rest is taken over, and each group stays in its split. An interrupted
    run continues with each file that is as it was, whatever has happened to the others.

    Raises:
        InputError: `source` is missing or empty, no image in it can be read, or `out` is damaged.
        ConfigError: Unknown class folders, one class only, or `out` holds something else.
        OutputError: `out` cannot be written.
        TooManyErrorsError: See `Config.max_error_rate`; what was there before is untouched.
        TryAgainError: Another process is writing `out`.
    """
    started = time.monotonic()
    files, litter = _source_files(source, out, config)
    refuse_inside(out, source, files, config.classes)
    refuse_without_splits(source, files, config.split_by)
    table = _patients(files, config)
    patients = table.by_path
    make_folder(out)
    with output_lock(out, lock_inside(out)), writing(out):
        refuse_running(out, out / WORK)
        settings = settings_of(config)
        _finish_commit(out)
        old = None if config.overwrite else finished_set(out)
        if old is not None:
            refuse_other(out, old, settings)
        elif config.overwrite and not config.new_splits:
            refuse_other_splits(out, settings)
        work = WorkArea(out / WORK, settings, pixel_software(), config.overwrite)
        with contextlib.ExitStack() as stack:
            previous_set = stack.enter_context(PreviousSet(out)) if old is not None else None
            with Progress("shard", "images", len(files)) as progress:
                rows, places, taken_over = work.run(
                    files, CLASS_NAMES, config.preprocessing, config.formats, config.workers,
                    config.timeout, previous_set, progress.advance,
                )  # fmt: skip
            changes = _changes(rows, places, previous_set) if previous_set is not None else {}
            same_patients = previous_set is None or previous_set.dataset.patients == digest(patients)
            if old is not None and same_patients and changes.keys() == {"kept"}:
                _discard(work)
                size = sum(shard.bytes for shard in old.shards)
                elapsed = time.monotonic() - started
                return Report(old, True, taken_over, {}, size, elapsed, litter=litter)
            try:
                _refuse_other_software(previous_set)
                statuses = Counter(rows["status"].to_pylist())
                outcomes = zip(*(rows[name].to_pylist() for name in ("status", "error")), strict=True)
                refuse_nothing_read(outcomes, source)
                refuse_too_many_errors(statuses, config.max_error_rate, "Nothing was published.")
                previous = None if previous_set is None else previous_set.splits()
                if config.overwrite and not config.new_splits:
                    previous = PreviousSplits.read(out)
                first_pass = FirstPass(rows, places, files, table, previous_set, previous)
                assembled = assemble(work, first_pass, settings, config.preprocessing)
            except (ConfigError, InputError):
                work.remove()  # the same command would end here again, and must not be in another's way
                raise
        private = _is_private(rows, files)
        commit(work.folder, out, assembled.dataset, private)
        _discard(work)
    return Report(
        dataset=assembled.dataset,
        unchanged=False,
        taken_over=taken_over,
        changes=changes,
        bytes=sum(shard.bytes for shard in assembled.dataset.shards),
        seconds=time.monotonic() - started,
        largest=assembled.largest,
        near_conflicts=assembled.near_conflicts,
        litter=litter,
        pooled=() if config.split_by == GIVEN else split_folders(files),
    )


def _discard(work: WorkArea) -> None:
    """Delete the work area and what a killed task has left beside it."""
    work.remove()
    remove_gate(work.folder)


def _source_files(source: Location, out: Path, config: Config) -> tuple[list[SourceFile], int]:
    """Return the files, and how many entries are litter; as the tasks of a job have listed them."""
    frozen = read_frozen(out / WORK)
    if frozen is not None:
        plan = job_plan(source, config)
        if frozen.has(plan):
            with Manifest(out / WORK, [source], frozen) as manifest:
                pairs = (pair for number in manifest.chunks for pair in manifest.noted(number))
                return [SourceFile.noted(*pair) for pair in pairs], frozen.left_out("litter")
        if not config.overwrite:
            refuse_other_plan(out, frozen.values, plan)
    litter: list[str] = []
    return find_sources(source, config.classes, litter), len(litter)


def job_plan(source: Location, config: Config) -> dict[str, Any]:
    """Return what the tasks of a job must have in common."""
    return {
        "source": printable(identity(source)),
        "classes": {
            name: [folders] if isinstance(folders, str) else list(folders)
            for name, folders in config.classes.items()
        },
        "overwrite": config.overwrite,
        "settings": settings_of(config),
        "software": pixel_software(),
    }


def _is_private(rows: pa.Table, files: Sequence[SourceFile]) -> bool:
    """Return whether the set is for its owner's eyes only: paths of DICOM files often hold names."""
    if pc.any(pc.equal(rows["format"], "dicom")).as_py():
        return True
    formats = rows["format"].to_pylist()  # None: nothing could decode the file
    undecoded = (file for file, form in zip(files, formats, strict=True) if form is None)
    return any(may_name_patient(source.file) for source in undecoded)


def _patients(files: Sequence[SourceFile], config: Config) -> Patients:
    """Return the table of patients matched to the files, both without gaps unless that is allowed."""
    if config.patients is None:
        return Patients({})
    paths = {entry.file.name: entry.file.path for entry in files}

    def has_patient_id(name: str) -> bool:  # DICOM files say whose they are
        return config.patient_id and starts_as_dicom(paths[name])

    patients = read_patients(config.patients, paths.keys(), has_patient_id)
    if not config.allow_unmatched:
        refuse_unmatched(config.patients, patients)
    return patients


def settings_of(config: Config) -> dict[str, Any]:
    """Return the settings that decide a set, as dataset.json has them."""
    preprocessing = config.preprocessing
    fractions = dict(zip(SPLITS, config.fractions.values(), strict=True))
    return {
        "preprocessing": preprocessing.select(preprocessing.channels[:1]).to_dict(),
        "variants": list(preprocessing.variants if len(preprocessing.channels) > 1 else ()),
        "split_by": config.split_by,
        "formats": sorted_formats(config.formats),
        "patient_id": config.patient_id,
        "fractions": fractions,
        "seed": config.seed,
        "shard_bytes": config.shard_bytes,
    }


def _finish_commit(out: Path) -> None:
    """Do what a run left undone that was killed before or after its commit."""
    if (out / WORK).exists() and (out / DATASET).exists():
        with contextlib.suppress(
            ConfigError, InputError
        ):  # `finished_set` reports it, or it is overwritten
            dataset = shardset.read(out / DATASET)
            try:
                tidy(out, dataset)
            except OSError as error:
                raise not_finished(out / DATASET, error) from error


def finished_set(out: Path) -> Dataset | None:
    """Return the dataset.json of a finished set in `out`, or None."""
    path = out / DATASET
    if path.exists():
        return shardset.read(path)
    return None


def refuse_other_splits(out: Path, settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where the set in `out` is to be overwritten by one with other splits."""
    try:
        old = finished_set(out)
    except (ConfigError, InputError):
        return
    settled = {} if old is None else {name: old.config[name] for name in _DECIDE_SPLITS}
    changes = format_changes(settled, {name: settings[name] for name in settled})
    if changes:
        raise ConfigError(
            f"The splits of {out} are settled, and --overwrite keeps each image in its split; this "
            f"command asks for other splits ({changes}). Images that were held out would be "
            "trained on. If that is meant, give --new-splits as well; or give another output folder."
        )


def refuse_other(out: Path, old: Dataset, settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless the finished set in `out` was made with these settings."""
    if not old.has_signatures:
        raise ConfigError(f"{out} holds a shard set already. {UPGRADE}")
    changes = format_changes(old.config, settings)
    if changes:
        raise ConfigError(
            f"{out} already holds a shard set that was made differently ({changes}). "
            "Give another output folder, or --overwrite to replace it."
        )
    shardset.load(out)


def pixel_software() -> dict[str, str]:
    """Return the versions of the software that decides the pixels of a record."""
    return {name: version for name, version in software().items() if name in _DECIDE_PIXELS}


def _refuse_other_software(previous_set: PreviousSet | None) -> None:
    """Raise `ConfigError` where new records would come from other decoders than those there."""
    deciding = pixel_software()
    changes = [] if previous_set is None else list(differences(previous_set.dataset.versions, deciding))
    if changes:
        versions = ", ".join(f"{name} {old}, now {new}" for name, old, new in changes)
        raise ConfigError(
            f"The source has changed, and the shard set was made with other versions ({versions}): "
            "its records and new ones might differ. Give --overwrite to make all of them again, or "
            "another output folder."
        )


def _changes(
    rows: pa.Table, places: Sequence[tuple[int, int]], previous_set: PreviousSet
) -> dict[str, int]:
    """Count the files that are kept, new, changed and gone; leave out zeros."""
    changes: Counter[str] = Counter()
    columns = rows.select(["path", "class", "status", "sha256"]).to_pylist()
    for row, place in zip(columns, places, strict=True):
        if row["path"] not in previous_set.paths:
            changes["new"] += 1
        else:
            changes["kept" if in_previous_set(place) or previous_set.same_end(row) else "changed"] += 1
    changes["gone"] = len(previous_set.paths) - changes["kept"] - changes["changed"]
    return {name: count for name, count in changes.items() if count}
