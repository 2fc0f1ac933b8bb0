"""Stage 3: a folder of images and a model bundle to one table of predictions."""

import contextlib
import dataclasses
import datetime
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tumorbatch.atomic import remove_temporaries
from tumorbatch.checks import refuse_too_many_errors
from tumorbatch.errors import InputError, OutputError, TryAgainError
from tumorbatch.file_list import Manifest
from tumorbatch.infer.batching import FileToPredict, predict_files
from tumorbatch.infer.config import Config, Report, Timings
from tumorbatch.infer.listing import LEFT_OUT, Listing
from tumorbatch.infer.network import Network
from tumorbatch.infer.part import run_part
from tumorbatch.infer.plan import Job
from tumorbatch.infer.predictions import iterate_rows, sidecar_path
from tumorbatch.infer.table import ABSENT, Counts, write_table
from tumorbatch.infer.work_area import (
    Entry,
    FileRows,
    WorkArea,
    aligned,
    by_file,
    kept_rows,
    to_predict,
)
from tumorbatch.json_reader import COUNT, TEXT, parse_object
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.object_path import Location
from tumorbatch.parts import Part, chunk_size, read_frozen, refuse_running, remove_gate
from tumorbatch.progress import Progress
from tumorbatch.runtime import processor
from tumorbatch.status import Status
from tumorbatch.stores import OutageWatch


def run(sources: Location | Sequence[Location], out: Location, model: Path, config: Config) -> Report:
    """Predict every image file below a folder and write the table to `out`; or compute one part of it.

    An interrupted run left its finished rows next to `out`, and this one continues from there; so it
    does with what the tasks of a job (`config.part`) have left.

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
        TryAgainError: Another process is writing `out`, or computes a part of it; or
            `Config.max_runtime` is over.
    """
    started = time.monotonic()
    job = Job.prepare(sources, out, model, config)
    if config.part is not None:
        return run_part(job, config.part, started)
    if config.cluster is not None:
        made = run_part(job, Part(1, 1), started)
        return run(sources, out, model, dataclasses.replace(config, cluster=None)).after(made)
    target, loaded = job.target, job.loaded
    out = target.path
    with output_lock(out, lock_beside(out)), contextlib.ExitStack() as reading:
        refuse_running(out, job.area)
        remove_temporaries(out.parent, out.name, sidecar_path(out).name, f".{out.name}.key")
        target.recover(config.overwrite)
        before = None if config.overwrite else target.refuse_foreign(loaded.model_id)
        key = job.key()
        settings = job.settings(key)
        if config.incremental and before is not None:
            target.refuse_no_base(before, settings)
        listing = None if read_frozen(job.area) else job.find_files(key)  # before anything is deleted
        area = WorkArea(job.area, job.plan(settings), config.overwrite, job.choices())
        if area.frozen is not None:
            manifest = reading.enter_context(Manifest(area.folder, job.sources, area.frozen))
            listing = Listing(manifest, **{name: area.frozen.left_out(name) for name in LEFT_OUT})
        if listing is None:  # --overwrite has ended another job
            listing = job.find_files(key)
        job.announce()
        task = _Run(job, listing, area, config.incremental and before is not None)
        network = Network(model, loaded, config)
        task.predict(network, started)
        if task.nothing_new() and before is not None:
            reading.close()  # NFS keeps a deleted file that is open, and with it the folder
            area.remove()
            remove_gate(area.folder)
            target.unchanged()
            return task.report(_counts_of(before, len(listing.files)), started, unchanged=True)
        # Paths that are hidden are not named here either.
        where = {} if config.path_mode == "hash" else {"sources": job.real_names()}
        counts = task.publish({**job.static(), **settings, **where}, network)
        target.upload()
        reading.close()
        area.remove()
        remove_gate(area.folder)
    return task.report(counts, started)


class _Run:
    """What one attempt does, from the list of files to the table."""

    def __init__(self, job: Job, listing: Listing, area: WorkArea, incremental: bool) -> None:
        self._job = job
        self._target = job.target
        self._loaded = job.loaded
        self._config = job.config
        self._listing = listing
        self._area = area
        self._incremental = incremental
        self._run_id = area.frozen.run_id if area.frozen else uuid.uuid4().hex
        self._began = datetime.datetime.now(datetime.UTC)
        self._timings = Timings()
        self._kept = 0
        self._changes = 0  # of rows that are kept: their flags, or that they go

    def _earlier(self) -> list[Iterator[FileRows]]:
        """Return rows that may be kept: of interrupted attempts, newest first, and the last table."""
        base = [by_file(iterate_rows(self._target.path))] if self._incremental else []
        return [*self._area.earlier(), *base]

    def _kept_rows(self, entry: Entry) -> FileRows:
        return kept_rows(entry, self._incremental, self._config.content)

    def predict(self, network: Network, started: float) -> None:
        """Compute the rows that nothing else gives, and keep them in the work area."""
        config, area = self._config, self._area
        limit = None if config.max_runtime is None else started + config.max_runtime
        identity = {"model_id": self._loaded.model_id, "run_id": self._run_id}
        began, watch = time.monotonic(), OutageWatch(self._job.sources[0])
        with Progress("infer", "images", len(self._listing.files)) as progress:
            results = predict_files(
                self._files_to_predict(progress), self._loaded, network, config.batch_size,
                config.workers, config.seconds, config.max_frames, self._timings, network.known,
                config.formats, self._job.secret(), network.load,
            )  # fmt: skip
            finished = 0
            try:
                with contextlib.closing(results):
                    for rows in filter(None, results):
                        watch.after(rows[0]["status"])
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
        self._timings.count_loading(network.loading)
        self._timings.processing = time.monotonic() - began

    def _files_to_predict(self, progress: Progress) -> Iterator[FileToPredict | None]:
        """Yield the files to read; batches end where chunks do, as when the table is made of parts."""
        frozen, files = self._area.frozen, len(self._listing.files)
        size = frozen.chunk_files if frozen else chunk_size(files)
        position = 0
        for entry in aligned(self._listing.files, self._earlier()):
            marked_absent = any(ABSENT in (rows[0]["flags"] or ()) for rows in entry.rows if rows)
            if entry.file is None:
                self._changes += self._config.prune or not marked_absent
                continue
            if self._kept_rows(entry):
                self._kept += 1
                self._changes += marked_absent
                progress.advance()
            else:
                yield to_predict(entry.file, entry, self._config.content)
            position += 1
            if position % size == 0:
                yield None

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
                f"{self._target.shown} was not written; what was computed is kept for the next run.",
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
                    "batch_size": self._config.batch_size,
                    **self._machines(network),
                }
            )
        return counts

    def _machines(self, network: Network) -> dict[str, Any]:
        """Return on what the rows were computed: here, and by the tasks of the job."""
        used = self._area.machines()
        if network.runtime is not None or not used["runtime"]:
            used["runtime"].add(network.reason)
            used["processor"].add(processor()[0])  # its kind decides the last bits
            used["place_in_batch_matters"].add(json.dumps(network.place_matters))
        places = used["place_in_batch_matters"]
        return {
            "runtime": "; ".join(sorted(used["runtime"])),
            "processor": "; ".join(sorted(used["processor"])),
            "place_in_batch_matters": True if "true" in places else json.loads(min(places)),
        }

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
