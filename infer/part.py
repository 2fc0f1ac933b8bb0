"""One task of a job in several parts: its chunks are computed and kept, and nothing is published.

With a cluster there is one part, the whole: engines compute its chunks, and this process keeps them.
"""

import contextlib
import itertools
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tumorbatch.atomic import PRIVATE, write_json
from tumorbatch.checks import refuse_other_plan
from tumorbatch.errors import TryAgainError
from tumorbatch.file_list import Manifest, write_as_listed
from tumorbatch.infer.batching import FileToPredict, predict_files
from tumorbatch.infer.chunks import finished_chunk
from tumorbatch.infer.config import Report, Timings
from tumorbatch.infer.engine import Machine, Predictor, bundle_files
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
from tumorbatch.json_reader import read_own
from tumorbatch.lock import lock_beside
from tumorbatch.object_path import absolute
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
from tumorbatch.ray_cluster import Cluster, compute, refuse_missing
from tumorbatch.runtime import processor
from tumorbatch.signals import deferred
from tumorbatch.stores import OutageWatch

_PLAN = "plan.json"


def run_part(job: Job, part: Part, started: float) -> Report:
    """Compute the chunks of one part that are not finished yet, here or on `Config.cluster`.

    Args:
        job: What the whole is.
        part: Of it.
        started: When the command started, `time.monotonic()`.

    Raises:
        InputError: The folder is missing, empty, or its files cannot be seen here.
        ConfigError: The work area belongs to another job; or as `ray_cluster.compute`.
        TryAgainError: Another task computes this part; the table is being finished; or
            `Config.max_runtime` is over.
    """
    out, area, config = job.target.path, job.area, job.config
    if config.cluster is not None:
        refuse_missing()
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
            task = _Task(job, part, frozen, manifest, incremental, started)
            if config.cluster is None:
                task.run()
            else:
                task.run_on(config.cluster)
    return task.report(started)


def _join(job: Job) -> Frozen:
    """Return the plan of the job; list the files if no other task has done it."""
    area, out = job.area, job.target.path
    plan = {**job.plan(job.settings(None)), **job.choices()}
    del plan["path_key"]  # the first task makes the key

    def freeze() -> dict[str, Any]:
        key = job.key()
        whole = job.plan(job.settings(key))
        old = read_own(area / _PLAN)
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
    """The work of one part.

    Attributes:
        timings: Where the time went.
        read: Number of files that were read.
    """

    def __init__(
        self,
        job: Job,
        part: Part,
        frozen: Frozen,
        manifest: Manifest,
        incremental: bool,
        started: float,
    ) -> None:
        self._job = job
        self._part = part
        self._frozen = frozen
        self._manifest = manifest
        self._incremental = incremental
        self._started = started
        self.timings = Timings()
        self._statuses: Counter[str] = Counter()
        self._labels: Counter[str] = Counter(dict.fromkeys(job.loaded.classes, 0))
        self._rows = 0
        self._finished = 0  # chunks of earlier tasks
        self._kept = 0  # files whose rows --incremental or an interrupted run has
        self.read = 0
        self._watch = OutageWatch(job.sources[0])

    def run(self) -> None:
        """Compute what is missing of the part."""
        config, loaded = self._job.config, self._job.loaded
        todo = self._missing()
        if not todo:
            return
        network = Network(self._job.model, loaded, config)
        with self._progress(todo) as progress:
            results = predict_files(
                self._files_to_predict(todo, progress), loaded, network, config.batch_size,
                config.workers, config.seconds, config.max_frames, self.timings, network.known,
                config.formats, self._job.secret(), network.load,
            )  # fmt: skip
            with contextlib.closing(results):
                for done, number in enumerate(todo, 1):
                    self._publish(number, itertools.takewhile(bool, results), network, progress)
                    self._end_in_time(done, len(todo))
        self.timings.count_loading(network.loading)

    def run_on(self, cluster: Cluster) -> None:
        """Compute what is missing on the engines of a cluster; they read, and this process writes."""
        config, loaded, todo = self._job.config, self._job.loaded, self._missing()
        if not todo:
            return
        count = min(cluster.engines, len(todo))
        with self._progress(todo) as progress:
            chunks = self._chunks_to_predict(todo, progress)
            first = next(chunks, None)
            if first is None:
                return
            arguments = (
                bundle_files(self._job.model, loaded),
                replace(config, cluster=None),
                self._job.secret(),
            )
            paths = [absolute(path) for path in self._manifest.some(todo)]
            results = compute(
                replace(cluster, engines=count), config.workers, Predictor, arguments, paths,
                itertools.chain([first], chunks),
            )  # fmt: skip
            with contextlib.closing(results):
                for done, (number, result) in enumerate(results, 1):
                    self._publish(number, result.rows, result.machine, progress)
                    self.timings.add(result.timings, 1 / count)
                    self._end_in_time(done, len(todo))

    def _chunks_to_predict(
        self, todo: list[int], progress: Progress
    ) -> Iterator[tuple[int, list[FileToPredict]]]:
        """Yield the files of each chunk; one without any is finished at once."""
        files = self._files_to_predict(todo, progress)
        for number in todo:
            some = [
                (replace(file, path=absolute(file.path)), rows)
                for file, rows in iter(lambda: next(files), None)
            ]
            if some:
                yield number, some
            else:
                nothing = Machine("no image was new", processor()[0], None)
                self._publish(number, (), nothing, progress)

    def _missing(self) -> list[int]:
        """Return the numbers of the chunks to compute; count the others."""
        paths = find_chunks(self._job.area)
        todo = []
        for number in self._part.chunks(self._frozen.chunks):
            chunk = finished_chunk(self._job.area, number, self._frozen, paths)
            if chunk is None:
                todo.append(number)
            else:
                self._finished += 1
                self._count(chunk.rows, chunk.counts("statuses"), chunk.counts("labels"))
        if todo:
            self._manifest.probe(todo)
        return todo

    @contextlib.contextmanager
    def _progress(self, todo: list[int]) -> Iterator[Progress]:
        """Show how far the chunks are, and measure their time."""
        began = time.monotonic()
        total = min(len(todo) * self._frozen.chunk_files, self._frozen.files)
        with Progress("infer", "images", total) as progress:
            yield progress
        self.timings.processing = time.monotonic() - began

    def _end_in_time(self, done: int, chunks: int) -> None:
        limit = self._job.config.max_runtime
        if limit is not None and time.monotonic() >= self._started + limit and done < chunks:
            raise TryAgainError(
                f"--max-runtime is over: {done:,} chunks of part {self._part} are done and kept, "
                f"{chunks - done:,} are missing. The same command continues."
            )

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
        self,
        number: int,
        results: Iterable[FileRows],
        machine: Machine | Network,
        progress: Progress,
    ) -> None:
        """Write the rows of one chunk; `machine`: on what they are computed."""
        counts = Counts()
        identity = {"model_id": self._job.loaded.model_id, "run_id": self._frozen.run_id}
        path = new_chunk(self._job.area, number)
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(PredictionsWriter(path, sidecar=False))
            for rows in results:
                self._watch.after(rows[0]["status"])
                writer.write([{**identity, **row} for row in rows])
                counts.add(rows, present=True)
                self.read += 1
                progress.advance()
            writer.finish(
                {
                    "plan": self._frozen.fingerprint,
                    "chunk": number,
                    "rows": counts.rows,
                    "part": str(self._part),
                    "statuses": dict(counts.statuses),
                    "labels": dict(counts.labels),
                    **(Machine.of(machine) if isinstance(machine, Network) else machine)._asdict(),
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
            files_kept=sum(self._statuses.values()) + self._kept - self.read,
            absent=0,
            young=0,
            others=0,
            seconds=time.monotonic() - started,
            timings=self.timings,
            bytes=0,
            part=str(self._part),
            chunks=len(self._part.chunks(self._frozen.chunks)),
            chunks_kept=self._finished,
        )
