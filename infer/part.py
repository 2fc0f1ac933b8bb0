"""One task of a job in several parts: its chunks are computed and kept, and nothing is published."""

import contextlib
import itertools
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tumorbatch.atomic import PRIVATE, write_json
from tumorbatch.checks import refuse_other_plan
from tumorbatch.errors import TryAgainError
from tumorbatch.file_list import Manifest, write_as_listed
from tumorbatch.infer.batching import FileToPredict, predict_files
from tumorbatch.infer.chunks import finished_chunk
from tumorbatch.infer.config import Report, Timings
from tumorbatch.infer.listing import LEFT_OUT
from tumorbatch.infer.network import Network
from tumorbatch.infer.plan import Job
from tumorbatch.infer.predictions import PredictionsWriter, iterate_rows
from tumorbatch.infer.table import Counts
from tumorbatch.infer.work_area import (
    FileRows,
    aligned,
    attempt_files,
    by_file,
    earlier_attempts,
    kept_rows,
    to_predict,
)
from tumorbatch.json_reader import read_object
from tumorbatch.lock import lock_beside
from tumorbatch.parts import (
    Frozen,
    Part,
    at_work,
    find_chunks,
    join,
    new_chunk,
    refuse_finishing,
)
from tumorbatch.progress import Progress
from tumorbatch.runtime import processor
from tumorbatch.signals import deferred
from tumorbatch.stores import OutageWatch

_PLAN = "plan.json"


def run_part(job: Job, part: Part, started: float) -> Report:
    """Compute the chunks of one part that are not finished yet.

    Args:
        job: What the whole is.
        part: Of it.
        started: When the command started, `time.monotonic()`.

    Raises:
        InputError: The folder is missing, empty, or its files cannot be seen here.
        ConfigError: The work area belongs to another job.
        TryAgainError: Another task computes this part; the table is being finished; or
            `Config.max_runtime` is over.
    """
    out, area, config = job.target.path, job.area, job.config
    refuse_finishing(out, lock_beside(out))
    if not config.overwrite:
        job.target.bring()
    before = None if config.overwrite else job.target.refuse_foreign(job.loaded.model_id)
    frozen = _join(job)
    if config.incremental and before is not None:
        job.target.refuse_no_base(before, job.settings(job.key()))
    with at_work(out, lock_beside(out), area, part):
        job.announce()
        with Manifest(area, job.sources, frozen) as manifest:
            incremental = config.incremental and before is not None
            task = _Task(job, part, frozen, manifest, incremental)
            task.run(Network(job.model, job.loaded, config), started)
    return task.report(started)


def _join(job: Job) -> Frozen:
    """Return the plan of the job; list the files if no other task has done it."""
    area, out = job.area, job.target.path
    plan = {**job.plan(job.settings(None)), **job.choices()}
    del plan["path_key"]  # the first task makes the key

    def freeze() -> dict[str, Any]:
        key = job.key()
        whole = job.plan(job.settings(key))
        try:
            old = read_object(area / _PLAN)
        except (OSError, ValueError):
            old = None
        if old is not None and old != whole:
            if not job.config.overwrite:
                refuse_other_plan(area.name, old, whole)
            for path in (area / _PLAN, *attempt_files(area)):
                path.unlink()
        left_out: Counter[str] = Counter()
        written = write_as_listed(area, job.sources, job.stream_files(key, left_out))
        write_json(area / _PLAN, whole, PRIVATE)
        return {
            **whole,
            "run_id": uuid.uuid4().hex,
            **written,
            "left_out": {name: left_out[name] for name in LEFT_OUT},
        }

    return join(out, lock_beside(out), area, plan, freeze, job.config.overwrite)


class _Task:
    """The work of one part."""

    def __init__(
        self, job: Job, part: Part, frozen: Frozen, manifest: Manifest, incremental: bool
    ) -> None:
        self._job = job
        self._part = part
        self._frozen = frozen
        self._manifest = manifest
        self._incremental = incremental
        self._timings = Timings()
        self._statuses: Counter[str] = Counter()
        self._labels: Counter[str] = Counter(dict.fromkeys(job.loaded.classes, 0))
        self._rows = 0
        self._finished = 0  # chunks of earlier tasks
        self._kept = 0  # files whose rows --incremental or an interrupted run has
        self._read = 0  # files
        self._watch = OutageWatch(job.sources[0])

    def run(self, network: Network, started: float) -> None:
        """Compute what is missing of the part."""
        area, config, loaded = self._job.area, self._job.config, self._job.loaded
        paths = find_chunks(area)
        todo = []
        for number in self._part.chunks(self._frozen.chunks):
            chunk = finished_chunk(area, number, self._frozen, paths)
            if chunk is None:
                todo.append(number)
            else:
                self._finished += 1
                self._count(chunk.rows, chunk.counts("statuses"), chunk.counts("labels"))
        if not todo:
            return
        self._manifest.probe(todo)
        limit = None if config.max_runtime is None else started + config.max_runtime
        began = time.monotonic()
        total = min(len(todo) * self._frozen.chunk_files, self._frozen.files)
        with Progress("infer", "images", total) as progress:
            results = predict_files(
                self._files_to_predict(todo, progress), loaded, network, config.batch_size,
                config.workers, config.seconds, config.max_frames, self._timings, network.known,
                config.formats, self._job.secret(), network.load,
            )  # fmt: skip
            with contextlib.closing(results):
                for done, number in enumerate(todo, 1):
                    self._publish(number, results, network, progress)
                    if limit is not None and time.monotonic() >= limit and done < len(todo):
                        raise TryAgainError(
                            f"--max-runtime is over: {done:,} chunks of part {self._part} are done and "
                            f"kept, {len(todo) - done:,} are missing. The same command continues."
                        )
        self._timings.count_loading(network.loading)
        self._timings.processing = time.monotonic() - began

    def _files_to_predict(self, todo: list[int], progress: Progress) -> Iterator[FileToPredict | None]:
        area = self._job.area
        base = [by_file(iterate_rows(self._job.target.path))] if self._incremental else []
        files = itertools.chain.from_iterable(map(self._manifest.chunk, todo))
        size, position = self._frozen.chunk_files, 0
        for entry in aligned(files, [*earlier_attempts(attempt_files(area)), *base]):
            if entry.file is None:
                continue
            if kept_rows(entry, self._incremental, self._job.config.content):
                self._kept += 1
                progress.advance()
            else:
                yield to_predict(entry.file, entry, self._job.config.content)
            position += 1
            if position % size == 0:
                yield None
        if position % size:  # the last chunk of all has fewer
            yield None

    def _publish(
        self, number: int, results: Iterator[FileRows], network: Network, progress: Progress
    ) -> None:
        """Write the rows of one chunk, up to the next border."""
        counts = Counts()
        identity = {"model_id": self._job.loaded.model_id, "run_id": self._frozen.run_id}
        path = new_chunk(self._job.area, number)
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(PredictionsWriter(path, sidecar=False))
            for rows in results:
                if not rows:
                    break
                self._watch.after(rows[0]["status"])
                writer.write([{**identity, **row} for row in rows])
                counts.add(rows, present=True)
                self._read += 1
                progress.advance()
            writer.finish(
                {
                    "plan": self._frozen.fingerprint,
                    "chunk": number,
                    "rows": counts.rows,
                    "part": str(self._part),
                    "statuses": dict(counts.statuses),
                    "labels": dict(counts.labels),
                    "runtime": network.reason,
                    "processor": processor()[0],
                    "place_in_batch_matters": network.place_matters,
                }
            )
            finished = stack.pop_all()
        with deferred():  # it takes milliseconds, and a signal waits for it
            finished.close()
        self._count(counts.rows, counts.statuses, counts.labels)

    def _count(self, rows: int, statuses: Mapping[str, int], labels: Mapping[str, int]) -> None:
        self._rows += rows
        self._statuses.update(statuses)
        self._labels.update(labels)

    def report(self, started: float) -> Report:
        """Return the receipt."""
        return Report(
            model_id=self._job.loaded.model_id,
            files=sum(self._statuses.values()) + self._kept,
            statuses=dict(self._statuses),
            labels=dict(self._labels),
            rows=self._rows,
            files_kept=sum(self._statuses.values()) + self._kept - self._read,
            absent=0,
            young=0,
            others=0,
            seconds=time.monotonic() - started,
            timings=self._timings,
            bytes=0,
            part=str(self._part),
            chunks=len(self._part.chunks(self._frozen.chunks)),
            chunks_kept=self._finished,
        )
