"""One task of the first pass in several parts: its chunks are computed and kept."""

import contextlib
import functools
import itertools
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch.atomic import PRIVATE, atomic_path, make_folder
from tumorbatch.file_list import Manifest, write_manifest
from tumorbatch.files import check_folder
from tumorbatch.json_reader import COUNT, TEXT, parse_object
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.lock import lock_inside
from tumorbatch.object_path import Location
from tumorbatch.parts import (
    Frozen,
    Part,
    at_work,
    chunk_size,
    find_chunks,
    join,
    new_chunk,
    refuse_finishing,
)
from tumorbatch.preprocess.chunks import read_texts, records_path, write_chunk
from tumorbatch.preprocess.classes import SourceFile, find_sources, refuse_inside
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
from tumorbatch.preprocess.worker import (
    CHUNK,
    FileResult,
    Task,
    lost_file,
    process_files,
    status_of,
)
from tumorbatch.progress import Progress
from tumorbatch.secret_key import read_key
from tumorbatch.shardset import WORK
from tumorbatch.signals import deferred
from tumorbatch.status import count_errors
from tumorbatch.stores import watched
from tumorbatch.workers import ordered_map


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
    """Read the files of one part, those of its chunks that are not finished yet.

    `shard.run` takes what the tasks have left, reads the other files, and makes the set.

    Raises:
        InputError: `source` is missing or empty, its files cannot be seen here, or `out` is damaged.
        ConfigError: As `shard.run`; or the work area belongs to another job.
        OutputError: `out` cannot be written.
        TryAgainError: Another task computes this part, or the set is being finished.
    """
    started = time.monotonic()
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
        kept, statuses = _compute(area, config, part, frozen, manifest, previous_set)
    chunks = len(part.chunks(frozen.chunks))
    return Report(str(part), chunks, kept, dict(statuses), time.monotonic() - started)


def _freeze(source: Location, out: Path, config: Config) -> dict[str, Any]:
    """List the files, and make plan and key of the work area; hold its gate."""
    litter: list[str] = []
    files = find_sources(source, config.classes, litter)
    refuse_inside(out, source, files, config.classes)
    refuse_without_splits(source, files, config.split_by)
    work = WorkArea(out / WORK, settings_of(config), pixel_software(), config.overwrite)
    size = chunk_size(len(files))
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


def _compute(
    area: Path,
    config: Config,
    part: Part,
    frozen: Frozen,
    manifest: Manifest,
    previous_set: PreviousSet | None,
) -> tuple[int, Counter[str]]:
    """Compute what is missing; return the number of chunks that were there, and {status: files}."""
    statuses: Counter[str] = Counter()
    todo = []
    paths = find_chunks(area)
    numbers = part.chunks(frozen.chunks)
    for number in numbers:
        texts = (read_texts(path, number, frozen) for path in paths.get(number, ()))
        footer = next(filter(None, texts), None)
        if footer is None:
            todo.append(number)
        else:
            statuses.update(parse_object(footer["statuses"].encode(), {TEXT: COUNT}))
    if todo:
        manifest.probe(todo)
        work = functools.partial(
            process_files,
            preprocessing=config.preprocessing,
            secret=read_key(area / KEY),
            seconds=config.timeout,
            formats=config.formats,
        )
        tasks = _tasks(manifest, todo, previous_set)
        first = next(manifest.chunk(todo[0])).path
        computed = ordered_map(work, tasks, config.workers, lost_file, config.timeout)
        results = watched(computed, first, status_of)
        total = min(len(todo) * frozen.chunk_files, frozen.files)
        with Progress("shard", "images", total) as progress, contextlib.closing(results):
            for number in todo:
                files = [SourceFile.noted(*pair) for pair in manifest.noted(number)]
                statuses += _publish(
                    new_chunk(area, number),
                    number,
                    frozen,
                    files,
                    results,
                    previous_set,
                    progress.advance,
                )
    return len(numbers) - len(todo), statuses


def _tasks(
    manifest: Manifest, todo: list[int], previous_set: PreviousSet | None
) -> Iterator[list[Task]]:
    """Yield the files of chunks, so many a task; no task has files of two chunks."""
    for number in todo:
        tasks = (
            task_of(SourceFile.noted(*pair), CLASS_NAMES, previous_set)
            for pair in manifest.noted(number)
        )
        while some := list(itertools.islice(tasks, CHUNK)):
            yield some


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
