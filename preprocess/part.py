"""One task of the first pass in several parts: its chunks are computed and kept.

With a cluster there is one part, the whole: engines read its chunks, and this process keeps them.
"""

import contextlib
import functools
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tumorbatch.atomic import PRIVATE, atomic_path, make_folder
from tumorbatch.file_list import Manifest, write_manifest
from tumorbatch.files import check_folder
from tumorbatch.json_reader import COUNT, TEXT, parse_object
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.lock import lock_inside
from tumorbatch.object_path import Location, absolute
from tumorbatch.parts import (
    CHUNK_FILES,
    Frozen,
    Part,
    at_work,
    chunk_size,
    find_chunks,
    join,
    new_chunk,
    refuse_finishing,
)
from tumorbatch.preprocess import shard
from tumorbatch.preprocess.chunks import read_texts, records_path, write_chunk
from tumorbatch.preprocess.classes import SourceFile, find_sources, refuse_inside
from tumorbatch.preprocess.engine import Reader, in_batches, read_files
from tumorbatch.preprocess.first_pass import KEY, WorkArea, journal_rows, spool_record, task_of
from tumorbatch.preprocess.given_splits import refuse_without_splits
from tumorbatch.preprocess.previous_set import PreviousSet
from tumorbatch.preprocess.shard import (
    Config,
    finished_set,
    job_plan,
    pixel_software,
    refuse_other,
    refuse_other_splits,
    settings_of,
)
from tumorbatch.preprocess.worker import FileResult, Task, status_of
from tumorbatch.progress import Progress
from tumorbatch.ray_cluster import Cluster, compute, refuse_missing
from tumorbatch.secret_key import read_key
from tumorbatch.shardset import WORK
from tumorbatch.signals import deferred
from tumorbatch.status import count_errors
from tumorbatch.stores import watched


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of one part.

    Attributes:
        part: "3/64".
        chunks: Of the part.
        chunks_kept: Those that an earlier task had computed.
        statuses: {status: files of the part}.
        seconds: Wall time.
    """

    part: str
    chunks: int
    chunks_kept: int
    statuses: dict[str, int]
    seconds: float

    @property
    def files(self) -> int:
        """Return the number of files of the part."""
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """Return the number of files that gave no record."""
        return count_errors(self.statuses)


def run_part(source: Location, out: Path, config: Config, part: Part) -> Report:
    """Read the files of one part, those of its chunks that are not finished yet, here or on a cluster.

    `shard.run` takes what the tasks have left, reads the other files, and makes the set.

    Raises:
        InputError: `source` is missing or empty, its files cannot be seen here, or `out` is damaged.
        ConfigError: As `shard.run`; or the work area belongs to another job.
        OutputError: `out` cannot be written.
        TryAgainError: Another task computes this part, or the set is being finished.
    """
    return _run_part(source, out, config, part)[0]


def _run_part(source: Location, out: Path, config: Config, part: Part) -> tuple[Report, int]:
    """Return the receipt of `run_part`, and the number of files of chunks that were there before."""
    started = time.monotonic()
    if config.cluster is not None:
        refuse_missing()
    check_folder(source)
    make_folder(out)
    refuse_finishing(out, lock_inside(out))
    settings = settings_of(config)
    old = None if config.overwrite else finished_set(out)
    if old is not None:
        refuse_other(out, old, settings)
    elif config.overwrite and not config.new_splits:
        refuse_other_splits(out, settings)
    area = out / WORK
    freeze = functools.partial(_freeze, source, out, config)
    frozen = join(out, lock_inside(out), area, job_plan(source, config), freeze, config.overwrite)
    with at_work(out, lock_inside(out), area, part), contextlib.ExitStack() as stack:
        previous_set = stack.enter_context(PreviousSet(out)) if old is not None else None
        manifest = stack.enter_context(Manifest(area, [source], frozen))
        task = _Task(area, config, part, frozen, manifest, previous_set)
        chunks_kept, kept, read = task.compute()
    chunks = len(part.chunks(frozen.chunks))
    seconds = time.monotonic() - started
    return Report(str(part), chunks, chunks_kept, dict(kept + read), seconds), kept.total()


def run_on_cluster(source: Location, out: Path, config: Config) -> shard.Report:
    """Make the shard set of `source` in `out`; the engines of `Config.cluster` read the files.

    Raises:
        TumorBatchError: As `run_part`, `shard.run` and `ray_cluster.compute`.
    """
    started = time.monotonic()
    made, kept = _run_part(source, out, config, Part(1, 1))
    report = shard.run(source, out, replace(config, cluster=None))
    return replace(
        report,
        taken_over=report.taken_over - (made.files - kept),
        seconds=time.monotonic() - started,
    )


def _freeze(source: Location, out: Path, config: Config) -> dict[str, Any]:
    """List the files, and make plan and key of the work area; hold its gate."""
    litter: list[str] = []
    files = find_sources(source, config.classes, litter)
    refuse_inside(out, source, files, config.classes)
    refuse_without_splits(source, files, config.split_by)
    work = WorkArea(out / WORK, settings_of(config), pixel_software(), config.overwrite)
    size = chunk_size(len(files))
    if config.cluster is not None:  # an engine returns all records of a chunk together
        size = min(size, CHUNK_FILES)
    notes = [file.note() for file in files]
    return {
        "run_id": uuid.uuid4().hex,
        "files": len(files),
        "chunk_files": size,
        "left_out": {"litter": len(litter)},
        "manifest_sha256": write_manifest(
            work.folder, [source], [file.file for file in files], size, notes
        ),
    }


@dataclass(frozen=True, slots=True)
class _Task:
    """The work of one part."""

    area: Path
    config: Config
    part: Part
    frozen: Frozen
    manifest: Manifest
    previous_set: PreviousSet | None

    def compute(self) -> tuple[int, Counter[str], Counter[str]]:
        """Compute what is missing.

        Returns:
            The number of chunks that were there, {status: their files}, {status: the other files}.
        """
        kept: Counter[str] = Counter()
        read: Counter[str] = Counter()
        todo = []
        paths = find_chunks(self.area)
        numbers = self.part.chunks(self.frozen.chunks)
        for number in numbers:
            texts = (read_texts(path, number, self.frozen) for path in paths.get(number, ()))
            footer = next(filter(None, texts), None)
            if footer is None:
                todo.append(number)
            else:
                kept.update(parse_object(footer["statuses"].encode(), {TEXT: COUNT}))
        if todo:
            self.manifest.probe(todo)
            cluster = self.config.cluster
            chunks = self._read_here(todo) if cluster is None else self._read_on(cluster, todo)
            total = min(len(todo) * self.frozen.chunk_files, self.frozen.files)
            with Progress("shard", "images", total) as progress, contextlib.closing(chunks):
                for number, results in chunks:
                    files = [SourceFile.noted(*pair) for pair in self.manifest.noted(number)]
                    read += _publish(
                        new_chunk(self.area, number), number, self.frozen, files, results,
                        self.previous_set, progress.advance,
                    )  # fmt: skip
        return len(numbers) - len(todo), kept, read

    def _read_here(self, todo: list[int]) -> Generator[tuple[int, Iterator[list[FileResult]]]]:
        """Yield each chunk's number with what its files give."""
        batches = (batch for number in todo for batch in in_batches(self._tasks(number)))
        computed = read_files(batches, self.config, read_key(self.area / KEY))
        results = watched(computed, next(self.manifest.chunk(todo[0])).path, status_of)
        with contextlib.closing(results):
            for number in todo:
                yield number, results

    def _read_on(
        self, cluster: Cluster, todo: list[int]
    ) -> Generator[tuple[int, Iterator[list[FileResult]]]]:
        """Yield the same, in the order in which the engines of a cluster finish the chunks."""
        some = [absolute(path) for path in self.manifest.some(todo)]
        arguments = (replace(self.config, cluster=None), read_key(self.area / KEY))
        chunks = ((number, [_anywhere(task) for task in self._tasks(number)]) for number in todo)
        cluster = replace(cluster, engines=min(cluster.engines, len(todo)))
        computed = compute(cluster, self.config.workers, Reader, arguments, some, chunks)
        with contextlib.closing(computed):
            for number, results in computed:
                yield number, watched((one for one in [results]), some[0], status_of)

    def _tasks(self, number: int) -> Iterator[Task]:
        """Yield the files of a chunk."""
        for pair in self.manifest.noted(number):
            yield task_of(SourceFile.noted(*pair), CLASS_NAMES, self.previous_set)


def _anywhere(task: Task) -> Task:
    """Return a task that means the same in another current folder."""
    file = replace(task.source.file, path=absolute(task.source.file.path))
    return task._replace(source=replace(task.source, file=file))


def _publish(
    path: Path,
    number: int,
    frozen: Frozen,
    files: list[SourceFile],
    results: Iterator[list[FileResult]],
    previous_set: PreviousSet | None,
    advance: Callable[[int], None],
) -> Counter[str]:
    """Write one chunk, records first; return {status: files}."""
    rows: list[dict[str, Any]] = []
    places: list[tuple[int, int]] = []
    generation = None if previous_set is None else previous_set.dataset.manifest_sha256
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(records_path(path), PRIVATE))
        with temporary.open("wb") as spool:
            while len(rows) < len(files):
                some = next(results)
                rows += journal_rows(
                    files[len(rows) : len(rows) + len(some)], some, CLASS_NAMES, previous_set
                )
                places += [spool_record(spool, result) for result in some]
                advance(len(some))
        finished = stack.pop_all()
    statuses = Counter(str(row["status"]) for row in rows)
    states = [(file.file.size, file.file.mtime_ns) for file in files]
    texts = {"statuses": json.dumps(statuses), "host": os.uname().nodename}
    with deferred():  # a signal waits until the chunk is whole
        finished.close()
        write_chunk(path, number, frozen, rows, places, states, generation, texts)
    return statuses
