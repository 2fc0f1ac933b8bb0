"""A look at a folder of images before anything is made of it: `run` writes a page, figures and numbers.

    OUT/explore.html    everything, in one file that opens offline
    OUT/explore.json    every number in it, and the histograms
    OUT/*.png           the figures

The folder appears whole, in the place of an earlier one. Its bytes depend on the files, the settings
and the versions of the libraries only.
"""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from tumorbatch.atomic import (
    PRIVATE,
    atomic_folder,
    make_folder,
    real_folder,
    recover_folder,
    write_bytes,
    write_json,
)
from tumorbatch.checks import (
    IMAGE_FORMATS,
    check_formats,
    check_seed,
    check_workers,
    format_changes,
    refuse_nameless,
    refuse_nothing_read,
    sorted_formats,
)
from tumorbatch.errors import ConfigError, cannot_write
from tumorbatch.files import is_litter, printable
from tumorbatch.json_reader import FILE_NAME, OBJECT, read_own
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.preprocess.classes import ClassFolders, find_sources, refuse_inside
from tumorbatch.preprocess.explore.figures import draw
from tumorbatch.preprocess.explore.findings import findings, read_splits
from tumorbatch.preprocess.explore.page import page
from tumorbatch.preprocess.explore.survey import survey
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.progress import Progress
from tumorbatch.runtime import available_cores, versions
from tumorbatch.status import count_errors
from tumorbatch.workers import SECONDS

log = logging.getLogger(__name__)

PAGE = "explore.html"
RESULT = "explore.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Config:
    """How to look at a folder.

    Attributes:
        preprocessing: Its CLAHE settings count; nothing is resized.
        classes: {class name: its folder, or folders that are joined}; empty: match folders by their
            known spellings.
        tfrecords: A shard set whose splits are counted, or None.
        seed: Of the samples, folds, trees and resamples.
        workers: Processes; default: the cores that this process may use.
        timeout: Seconds after which a file that is still being decoded becomes an error row.
        overwrite: Replace what was made with other settings.
        formats: Of `IMAGE_FORMATS`: the decoders that may run; files in other formats are error rows.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: ClassFolders = field(default_factory=dict)
    tfrecords: Path | None = None
    seed: int = 0
    workers: int = field(default_factory=available_cores)
    timeout: float = SECONDS
    overwrite: bool = False
    formats: tuple[str, ...] = IMAGE_FORMATS

    def __post_init__(self) -> None:
        check_workers(self.workers)
        check_formats(self.formats)
        check_seed(self.seed)


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        findings: The content of explore.json.
        seconds: Wall time.
        litter: Entries of the source that were skipped, as in `find_files`.
    """

    findings: Mapping[str, Any]
    seconds: float
    litter: int = 0

    @property
    def files_found(self) -> int:
        """Return the number of files found, good and bad."""
        return int(self.findings["files"]["found"])

    @property
    def errors(self) -> int:
        """Return the number of files that cannot be read."""
        return count_errors(self.findings["files"])


def run(source: Path, out: Path, config: Config) -> Report:
    """Look at every image in the class folders of `source`, and write what is found to `out`.

    Raises:
        InputError: `source` is missing or empty, no image in it can be read, or the shard set is
            missing or damaged.
        ConfigError: Unknown class folders; `out` was made with other settings, or is not this stage's.
        OutputError: `out` cannot be written.
        TryAgainError: Another process is writing `out`.
    """
    started = time.monotonic()
    refuse_nameless(out)
    litter: list[str] = []
    files, out = find_sources(source, config.classes, litter), real_folder(out)
    refuse_inside(out, source, files, config.classes)
    splits = read_splits(config.tfrecords) if config.tfrecords is not None else None
    settings = _settings(source, config)
    make_folder(out.parent)
    with output_lock(out, lock_beside(out)):
        recover_folder(out)
        _refuse_other(out, settings, config.overwrite)
        with Progress("explore", "images", len(files)) as progress:
            surveyed = survey(
                files, config.preprocessing, config.workers, config.timeout, config.formats,
                progress.advance,
            )  # fmt: skip
        outcomes = zip(*(surveyed.rows[name].to_pylist() for name in ("status", "error")), strict=True)
        refuse_nothing_read(outcomes, source)
        log.info("explore: tests, intervals and figures")
        results = findings(surveyed, splits, config.seed, config.workers)
        pictures = draw(
            surveyed,
            results,
            files,
            config.preprocessing,
            config.seed,
            config.workers,
            config.timeout,
            config.formats,
        )
        content = {
            "schema_version": SCHEMA_VERSION,
            "settings": settings,
            **results,
            "samples": pictures.samples,
            "figures": list(pictures.png),
            "versions": versions(
                "matplotlib", "numpy", "opencv-python-headless", "scikit-learn", "scipy", "simplejpeg"
            ),
        }
        files_to_write = {**pictures.png, PAGE: page(content, pictures.png).encode()}
        # Pixels and paths of DICOM files may reveal patients: only the owner may read them.
        dicom = pc.any(pc.equal(surveyed.rows["format"], "dicom")).as_py()
        mode = PRIVATE if dicom else None
        _publish(out, files_to_write, content, mode)
    return Report(content, time.monotonic() - started, len(litter))


def _settings(source: Path, config: Config) -> dict[str, Any]:
    return {
        "source": printable(str(source)),
        "preprocessing": config.preprocessing.before_resizing(),
        "formats": sorted_formats(config.formats),
        "seed": config.seed,
    }


def _refuse_other(out: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Raise `ConfigError` unless `out` is free, or holds nothing but an earlier result.

    With other settings, `overwrite` is needed. What is not this stage's is never replaced.
    """
    try:
        names = (path.name for path in out.iterdir()) if out.exists() else ()
        existing = sorted(name for name in names if not is_litter(name))
    except OSError as error:
        raise cannot_write(out, error) from error
    if not existing:
        return
    result = read_own(out / RESULT, {"figures": [FILE_NAME], "settings": OBJECT})
    own: set[str] = set()
    old: dict[str, Any] = {}
    if result is not None:
        own = {RESULT, PAGE, *result["figures"]}
        old = {"formats": [*IMAGE_FORMATS], **result["settings"]}  # earlier versions do not say it
    foreign = [name for name in existing if name not in own]
    if foreign:
        raise ConfigError(
            f"{out} holds {printable(foreign[0])!r}, which is not from this command. Give a new or an "
            "empty folder with --out."
        )
    # The same folder may be given by another path.
    if os.path.realpath(str(old.get("source"))) == os.path.realpath(str(settings["source"])):
        old["source"] = settings["source"]
    changes = format_changes(old, settings, new_words="now")
    if changes and not overwrite:
        raise ConfigError(
            f"{out} was made with other settings ({changes}). Give another folder with "
            "--out, or --overwrite to replace it."
        )


def _publish(
    out: Path, files: Mapping[str, bytes], content: Mapping[str, Any], mode: int | None
) -> None:
    """Write everything into a folder next to `out`, then exchange the two."""
    with atomic_folder(out) as folder:
        for name, data in files.items():
            write_bytes(folder / name, data, mode)
        write_json(folder / RESULT, content, mode)
