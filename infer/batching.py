"""Files to finished rows: worker processes decode while the network computes on full batches."""

import collections
import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from tumorbatch.bundle import Bundle
from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.familiarity import FLAGGED, UNFAMILIAR, unfamiliarity
from tumorbatch.files import FoundFile
from tumorbatch.infer.config import Timings
from tumorbatch.infer.shared_memory import Place, Ring
from tumorbatch.infer.worker import Decoded, KnownFile, Row, Task, decode_files, lost
from tumorbatch.scoring import Scorer, probability
from tumorbatch.status import Status
from tumorbatch.workers import CHUNKS_PER_WORKER, ordered_map

_CHUNK = 64  # files a task
_CHUNK_BYTES = 64 << 20  # of its files: what a few large ones hold must not pile up
# While TensorFlow starts, other cores decode as many images as fit into this much shared memory.
_AHEAD_BYTES = 32 << 20
_CHUNKS_AHEAD = 16  # a worker
_NOT_FINITE = "the network's output for this image is not a finite number"

FileToPredict = tuple[FoundFile, tuple[Row, ...]]


def predict_files(
    files: Iterable[FileToPredict | None],
    loaded: Bundle,
    score: Scorer,
    batch_size: int,
    workers: int,
    seconds: float,
    max_frames: int,
    timings: Timings,
    known_file: KnownFile | None = None,
    formats: Collection[str] = IMAGE_FORMATS,
    identity_key: bytes | None = None,
    prepare: Callable[[], object] | None = None,
) -> Generator[list[Row]]:
    """Yield the finished rows of each file, one a frame, in the order of `files`.

    Memory does not grow with the number of files: only so many chunks a worker are under way.

    Args:
        files: Each with the rows to keep if its content is still theirs, mostly none. None: a batch
            ends here, and [] is yielded when the files before it are finished.
        loaded: Gives preprocessing, threshold, temperature and the shapes seen in training.
        score: uint8 [n, *preprocessing.shape] -> logits.
        batch_size: Images a forward pass; the last one before a border or the end may have fewer.
        workers: Decoding processes.
        seconds: Limit for one file.
        max_frames: A file of more pages or frames gets one row, `too_large`.
        timings: Is added to.
        known_file: What the model was trained on, if its bundle says so: such images are flagged.
        formats: Of `IMAGE_FORMATS`: the decoders that may run.
        identity_key: Of the keyed hashes of DICOM's identifiers; None: there are none.
        prepare: Loads the network; is called once the workers decode, if a file has no rows to keep.
    """
    shape = loaded.preprocessing.shape
    ahead = _chunks_ahead(shape, workers)
    batches = _Batches(loaded, score, batch_size, timings)
    decode = functools.partial(
        decode_files,
        preprocessing=loaded.preprocessing,
        seconds=seconds,
        max_frames=max_frames,
        formats=formats,
        known_file=known_file,
        identity_key=identity_key,
    )
    files = iter(files)
    first = list(itertools.islice(files, _CHUNK))

    def load() -> None:
        if prepare is not None and any(item is not None and not item[1] for item in first):
            _load(prepare, timings)

    # One chunk more than `ordered_map` has under way: the one that is being consumed.
    with contextlib.ExitStack() as stack:
        ring = stack.enter_context(Ring((ahead * workers + 1) * _CHUNK, shape))
        borders: collections.deque[int] = collections.deque()  # files before each, from the first on
        chunks = _chunks(itertools.chain(first, files), ring, borders)
        results = ordered_map(decode, chunks, workers, lost, seconds, ahead, load)
        position = 0
        stack.enter_context(contextlib.closing(results))
        while True:
            started = time.monotonic()
            decoded = next(results, None)
            timings.waiting += time.monotonic() - started
            if decoded is None:
                break
            for entry in decoded:
                yield from batches.end_at(position, borders)
                timings.decoding += entry.seconds
                batches.add(entry, ring)
                position += 1
            yield from batches.end_at(position, borders)
            yield from batches.finished()
        batches.score()
        yield from batches.finished()
        yield from batches.end_at(position, borders)


def _chunks_ahead(shape: tuple[int, ...], workers: int) -> int:
    """Return how many chunks a worker may be under way."""
    fit = _AHEAD_BYTES // (_CHUNK * math.prod(shape) * workers)
    return max(CHUNKS_PER_WORKER, min(_CHUNKS_AHEAD, fit))


def _load(prepare: Callable[[], object], timings: Timings) -> None:
    started = time.monotonic()
    prepare()
    timings.loading = time.monotonic() - started
    timings.waiting -= timings.loading


def _chunks(
    files: Iterable[FileToPredict | None], ring: Ring, borders: collections.deque[int]
) -> Iterator[list[Task]]:
    tasks: list[Task] = []
    total = first = position = 0
    for item in files:
        if item is None:
            borders.append(position)
            continue
        position += 1
        file, rows = item
        tasks.append(Task(file, ring.place(first + len(tasks)), rows))
        total += file.size
        if len(tasks) == _CHUNK or total >= _CHUNK_BYTES:
            yield tasks
            tasks, total = [], 0
            first += _CHUNK
    if tasks:
        yield tasks


def _add_flag(row: Row, flag: str) -> None:
    row["flags"] = sorted([*row["flags"], flag])


class _Batches:
    """Rows that wait for their logit, and the images that give it."""

    def __init__(self, loaded: Bundle, score: Scorer, batch_size: int, timings: Timings) -> None:
        self._loaded = loaded
        self._score = score
        self._timings = timings
        self._images: NDArray[np.uint8] = np.empty((batch_size, *loaded.preprocessing.shape), np.uint8)
        self._owners: list[Row] = []
        self._waiting: collections.deque[list[Row]] = collections.deque()
        shapes = loaded.training.get("shapes")
        self._shapes = frozenset(shapes) if isinstance(shapes, list) else None

    def add(self, entry: Decoded, ring: Ring) -> None:
        """Take a file; score the batch when it is full."""
        self._waiting.append(entry.rows)
        for row, pixels in zip(entry.rows, entry.pixels, strict=True):
            if pixels is None:
                continue
            self._flag(row)
            image = ring.read(pixels) if isinstance(pixels, Place) else pixels
            self._images[len(self._owners)] = image
            self._owners.append(row)
            if len(self._owners) == len(self._images):
                self.score()

    def _flag(self, row: Row) -> None:
        if self._shapes is not None and f"{row['width']}x{row['height']}" not in self._shapes:
            _add_flag(row, "unseen-shape")

    def score(self) -> None:
        """Give the waiting rows their predictions."""
        if not self._owners:
            return
        started = time.monotonic()
        scores = self._score(self._images[: len(self._owners)])
        columns = scores.reshape(len(scores), -1).T
        logits = columns[0]
        self._timings.model += time.monotonic() - started
        loaded = self._loaded
        probabilities = probability(logits, loaded.temperature)
        for row, logit, prob in zip(self._owners, logits, probabilities, strict=True):
            # Not a number compares as false with any threshold: it would be called Healthy.
            if not (np.isfinite(logit) and np.isfinite(prob)):
                row["status"], row["error"] = Status.NOT_FINITE.value, _NOT_FINITE
                continue
            row["logit"], row["prob_tumor"] = float(logit), float(prob)
            row["label"] = loaded.classes[int(prob >= np.float32(loaded.threshold))]
        if len(columns) > 1:
            self._judge_familiarity(columns[1])
        self._owners.clear()

    def end_at(self, position: int, borders: collections.deque[int]) -> Iterator[list[Row]]:
        """Finish all files that wait, and yield them and [], for each border at this position."""
        while borders and borders[0] == position:
            borders.popleft()
            self.score()
            yield from self.finished()
            yield []

    def _judge_familiarity(self, distances: NDArray[np.float32]) -> None:
        """Say of the waiting rows how unfamiliar they are."""
        for row, value in zip(self._owners, unfamiliarity(distances), strict=True):
            if row["status"] == Status.OK and np.isfinite(value):
                row[UNFAMILIAR] = float(value)
                if value >= FLAGGED:
                    _add_flag(row, UNFAMILIAR)

    def finished(self) -> Iterator[list[Row]]:
        """Yield the files at the front whose rows are all finished."""
        while self._waiting and all(
            row["status"] != Status.OK or "logit" in row for row in self._waiting[0]
        ):
            yield self._waiting.popleft()
