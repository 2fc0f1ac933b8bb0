"""Stage 3: a folder of images and a model bundle to one table of predictions."""

import contextlib
import dataclasses
import datetime
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tumorbatch import bundle, native
from tumorbatch.atomic import remove_temporaries
from tumorbatch.bundle import Bundle
from tumorbatch.checks import refuse_too_many_errors, sorted_formats
from tumorbatch.errors import InputError, OutputError, TryAgainError
from tumorbatch.files import printable
from tumorbatch.infer.batching import FileToPredict, predict_files
from tumorbatch.infer.config import Config, Report, Timings
from tumorbatch.infer.listing import Listing, list_files
from tumorbatch.infer.network import Network
from tumorbatch.infer.predictions import iterate_rows, sidecar_path
from tumorbatch.infer.table import ABSENT, Counts, flags, write_table
from tumorbatch.infer.target import Target
from tumorbatch.infer.work_area import Entry, FileRows, WorkArea, aligned, by_file, matches
from tumorbatch.json_reader import COUNT, TEXT, parse_object
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.preprocessing_config import DECODE_VERSION
from tumorbatch.progress import Progress
from tumorbatch.runtime import processor, versions
from tumorbatch.secret_key import create_key, read_key
from tumorbatch.status import NO_ERRORS, Status

log = logging.getLogger(__name__)


def run(sources: Path | Sequence[Path], out: Path, model: Path, config: Config) -> Report:
    """Predict every image file below a folder and write the table to `out`.

    An interrupted run left its finished rows next to `out`, and this one continues from there.

    Args:
        sources: The folder, or a file, or several of both, see `listing.find_in`.
        out: The table.
        model: Folder of the bundle.
        config: How.

    Raises:
        InputError: A source is missing or empty, or the bundle is missing or damaged.
        ConfigError: One source lies in another; `out` holds something else; no GPU where one was asked
            for.
        OutputError: `out` cannot be written.
        TooManyErrorsError: See `Config.max_error_rate`; what was there before is untouched.
        TryAgainError: Another process is writing `out`; or `Config.max_runtime` is over.
    """
    started = time.monotonic()
    target = Target.choose(out, config.format)
    out = target.path
    loaded = bundle.load(model)
    if loaded.preprocessing.decode_version != DECODE_VERSION:
        log.warning(
            "this model was trained on images that an earlier version decoded: colour PNGs with a gAMA "
            "chunk and some DICOM files look otherwise now; shard and train again where you have such"
        )
    target.refuse_missing_folder()
    with output_lock(out, lock_beside(out)):
        remove_temporaries(out.parent, out.name, sidecar_path(out).name, f".{out.name}.key")
        target.recover()
        before = None if config.overwrite else target.refuse_foreign(loaded.model_id)
        key = _path_key(out) if config.path_mode == "hash" else None
        settings = {
            "preprocessing_fingerprint": loaded.preprocessing.fingerprint,
            "formats": ",".join(sorted_formats(config.formats)),
            "path_mode": config.path_mode,
            "path_key": hashlib.sha256(key).hexdigest()[:12] if key else "",
        }
        if config.incremental and before is not None:
            target.refuse_no_base(before, settings)
        own = frozenset(map(os.path.realpath, target.outputs()))
        listing = list_files(sources, config.selection, own, key)
        log.info("model %s from %s", loaded.model_id, printable(str(model)))
        log.info("images are equalised and resized %s", native.choose().reason)
        if listing.young:
            log.info("%d files younger than --min-age are left for the next run", listing.young)
        if listing.future:
            log.info(
                "%d files have a time of change in the future; --min-age passes them", listing.future
            )
        folders = _real_names(sources)
        plan = {"model_id": loaded.model_id, **settings, "folder": " ".join(folders)}
        area = WorkArea(out.with_name(f".{out.name}.partial"), plan, config.overwrite)
        task = _Run(target, loaded, config, listing, area, config.incremental and before is not None)
        network = Network(model, loaded, config)
        task.predict(network, started)
        if task.nothing_new() and before is not None:
            area.remove()
            return task.report(_counts_of(before, len(listing.files)), started, unchanged=True)
        # Paths that are hidden are not named here either.
        where = {} if config.path_mode == "hash" else {"sources": folders}
        counts = task.publish({**_static(loaded, model), **settings, **where}, network)
        area.remove()
    return task.report(counts, started)


def _real_names(sources: Path | Sequence[Path]) -> list[str]:
    several = [sources] if isinstance(sources, Path) else sources
    return [printable(os.path.realpath(source)) for source in several]


class _Run:
    """What one attempt does, from the list of files to the table."""

    def __init__(
        self,
        target: Target,
        loaded: Bundle,
        config: Config,
        listing: Listing,
        area: WorkArea,
        incremental: bool,
    ) -> None:
        self._target = target
        self._loaded = loaded
        self._config = config
        self._listing = listing
        self._area = area
        self._incremental = incremental
        self._run_id = uuid.uuid4().hex
        self._began = datetime.datetime.now(datetime.UTC)
        self._timings = Timings()
        self._kept = 0
        self._changes = 0  # of rows that are kept: their flags, or that they go

    def _earlier(self) -> list[Iterator[FileRows]]:
        """Return rows that may be kept: of interrupted attempts, newest first, and the last table."""
        base = [by_file(iterate_rows(self._target.path))] if self._incremental else []
        return [*self._area.earlier(), *base]

    def _kept_rows(self, entry: Entry) -> FileRows:
        """Return the rows that are still valid for a file by size and time; []: read it again."""
        if entry.file is None or self._config.content:
            return []
        attempts = len(entry.rows) - self._incremental
        for number, rows in enumerate(entry.rows):
            if matches(entry.file, rows, also_errors=number < attempts):
                return rows
        return []

    def predict(self, network: Network, started: float) -> None:
        """Compute the rows that nothing else gives, and keep them in the work area."""
        config, area = self._config, self._area
        limit = None if config.max_runtime is None else started + config.max_runtime
        identity = {"model_id": self._loaded.model_id, "run_id": self._run_id}
        began = time.monotonic()
        with Progress("infer", "images", len(self._listing.files)) as progress:
            results = predict_files(
                self._files_to_predict(progress), self._loaded, network, config.batch_size,
                config.workers, config.seconds, config.max_frames, self._timings, network.known,
                config.formats,
            )  # fmt: skip
            finished = 0
            try:
                with contextlib.closing(results):
                    for rows in results:
                        area.add([{**identity, **row} for row in rows])
                        progress.advance()
                        finished += 1
                        if limit is not None and time.monotonic() >= limit:
                            raise _out_of_time(self._kept + finished, len(self._listing.files))
            except BaseException:
                with contextlib.suppress(OutputError):  # what ended the run is the news
                    area.flush()
                raise
            area.flush()
        self._timings.loading = network.loading
        self._timings.model -= network.loading
        self._timings.processing = time.monotonic() - began

    def _files_to_predict(self, progress: Progress) -> Iterator[FileToPredict]:
        for entry in aligned(self._listing.files, self._earlier()):
            marked_absent = any(ABSENT in flags(rows[0]) for rows in entry.rows if rows)
            if entry.file is None:
                self._changes += self._config.prune or not marked_absent
            elif self._kept_rows(entry):
                self._kept += 1
                self._changes += marked_absent
                progress.advance()
            else:
                earlier_rows = (
                    next((rows for rows in entry.rows if rows), []) if self._config.content else []
                )
                good = all(row["status"] in NO_ERRORS for row in earlier_rows)
                yield entry.file, tuple(earlier_rows if good else [])

    def nothing_new(self) -> bool:
        """Return whether the last table is still complete and current."""
        return (
            self._incremental
            and self._kept == len(self._listing.files)
            and not self._changes
            and not self._area.has_earlier()
        )

    def publish(self, static: Mapping[str, Any], network: Network) -> Counts:
        """Write the table.

        Args:
            static: Metadata that is known already.
            network: Tells what the run was made on.
        """
        writer = self._target.writer(static)
        with writer:
            counts = write_table(writer, self._chosen(), self._loaded.classes)
            refuse_too_many_errors(
                counts.statuses,
                self._config.max_error_rate,
                f"{self._target.path} was not written; what was computed is kept for the next run.",
            )
            finished = datetime.datetime.now(datetime.UTC)
            writer.finish(
                {
                    **static,
                    "run_id": self._run_id,
                    "files": sum(counts.statuses.values()),
                    "rows": counts.rows,
                    "kept_files": self._kept,
                    "absent_files": counts.absent,
                    "duplicate_files": counts.duplicates,
                    "statuses": dict(sorted(counts.row_statuses.items())),
                    "labels": dict(counts.labels),
                    "started": self._began.isoformat(timespec="seconds"),
                    "finished": finished.isoformat(timespec="seconds"),
                    "runtime": network.reason,
                    "processor": processor()[0],  # its kind decides the last bits
                    "batch_size": self._config.batch_size,
                    "place_in_batch_matters": network.place_matters,
                }
            )
        return counts

    def _chosen(self) -> Iterator[tuple[Entry, FileRows]]:
        base = int(self._incremental)
        streams = [self._area.current(), *self._earlier()]
        for entry_and_rows in aligned(self._listing.files, streams):
            entry = entry_and_rows._replace(rows=entry_and_rows.rows[1:])
            if entry.file is not None:
                yield entry, entry_and_rows.rows[0] or self._kept_rows(entry)
            elif base and entry.rows[-1] and not self._config.prune:
                yield entry, entry.rows[-1]

    def report(self, counts: Counts, started: float, unchanged: bool = False) -> Report:
        """Return the receipt."""
        return Report(
            model_id=self._loaded.model_id,
            files=len(self._listing.files),
            statuses=dict(counts.statuses),
            labels=dict(counts.labels),
            rows=counts.rows,
            files_kept=self._kept,
            absent=counts.absent,
            young=self._listing.young,
            others=self._listing.others,
            future=self._listing.future,
            litter=self._listing.litter,
            seconds=time.monotonic() - started,
            timings=dataclasses.replace(self._timings),
            bytes=self._target.bytes(),
            unchanged=unchanged,
        )


def _out_of_time(finished: int, files: int) -> TryAgainError:
    return TryAgainError(
        f"--max-runtime is over: {finished:,} of {files:,} files are done and kept. "
        "The same command continues."
    )


def _static(loaded: Bundle, model: Path) -> dict[str, Any]:
    """Return what determines the predictions."""
    return {
        "model_id": loaded.model_id,
        "model": printable(model.name),
        "architecture": loaded.architecture,
        "weights_sha256": loaded.weights_sha256,
        "preprocessing": loaded.preprocessing.to_dict(),
        "classes": list(loaded.classes),
        "threshold": loaded.threshold,
        "temperature": loaded.temperature,
        "trained_on_leaky_split": bool(loaded.training.get("leaky")),
        "training_shapes_known": "shapes" in loaded.training,
        "versions": versions(
            "tensorflow", "keras", "numpy", "opencv-python-headless", "pyarrow", "simplejpeg"
        ),
    }


def _counts_of(metadata: Mapping[str, str], files: int) -> Counts:
    """Return the counts of a table that stays as it is: every row in it is `ok`."""
    try:
        rows, absent = int(metadata["rows"]), int(metadata["absent_files"])
        labels = parse_object(metadata["labels"].encode(), {TEXT: COUNT})
        statuses = parse_object(metadata["statuses"].encode(), {TEXT: COUNT})
    except (KeyError, ValueError) as error:
        raise InputError(f"The table's metadata is damaged ({error}): use --overwrite.") from error
    counts = Counts(rows=rows, absent=absent)
    no_images = statuses.get(Status.NOT_AN_IMAGE.value, 0)  # one row each
    counts.statuses.update({Status.OK.value: files - no_images, Status.NOT_AN_IMAGE.value: no_images})
    counts.labels.update(labels)
    return counts


def _path_key(out: Path) -> bytes:
    """Return the secret that hides the paths of this table, the same in every run."""
    path = out.with_name(f".{out.name}.key")
    if not path.exists():
        create_key(path)
    return read_key(path)
