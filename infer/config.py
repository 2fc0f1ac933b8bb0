"""How to infer, and the receipt of it."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tumorbatch.checks import (
    IMAGE_FORMATS,
    check_batch_size,
    check_choice,
    check_error_rate,
    check_formats,
    check_workers,
)
from tumorbatch.errors import ConfigError
from tumorbatch.infer.listing import Selection
from tumorbatch.parts import Part
from tumorbatch.runtime import available_cores
from tumorbatch.status import count_errors
from tumorbatch.workers import SECONDS

if TYPE_CHECKING:
    from tumorbatch.ray_cluster import Cluster

FORMATS = ("auto", "parquet", "dataset", "csv", "jsonl")
MAX_FRAMES = 2_000  # pages or frames a file; long series of one acquisition have some hundreds
PATH_MODES = ("relative", "hash")


@dataclass(frozen=True, slots=True)
class Config:
    """How to infer.

    Attributes:
        workers: Decoding processes; default: the cores that this process may use.
        batch_size: Images a forward pass.
        device: "auto", "cpu" or "gpu".
        precision: One of `runtime.PRECISIONS`.
        xla: "auto", "on" or "off".
        threads: TensorFlow's, for one operation; None: the cores that this process may use.
        seconds: After so many a file that is still being decoded costs an error row.
        max_frames: A file of more pages or frames gets one row, `too_large`.
        formats: Of `IMAGE_FORMATS`: the decoders that may run; files in other formats are error rows.
        max_error_rate: Above this share of unreadable files nothing is published, 0 to 1.
        overwrite: Replace what was made differently, or is something else.
        selection: Which files of the folder.
        incremental: Keep the rows of files that have not changed since the table was written.
        content: Judge that by sha256 instead of size and time of change.
        prune: Drop the rows of files that are no longer there.
        max_runtime: Seconds, after which the run saves its state and ends; None: no limit.
        format: "parquet", "dataset" (a folder of Parquet files), "csv", "jsonl"; "auto": by name.
        path_mode: "relative", or "hash": an HMAC of it.
        identity_key: File with the key of the keyed hashes of DICOM's identifiers, made if it is not
            there; None: these columns are null.
        part: Compute this part only, and publish nothing; None: the whole.
        work: Folder of the unfinished work, for an output in an object store.
        cluster: Its engines compute; None: this machine.
        tta: "none", or "flip": the mean logit of an image and its mirror; None: as in the bundle.
    """

    workers: int = field(default_factory=available_cores)
    batch_size: int = 32
    device: str = "auto"
    precision: str = "auto"
    xla: str = "auto"
    threads: int | None = None
    seconds: float = SECONDS
    max_frames: int = MAX_FRAMES
    formats: tuple[str, ...] = IMAGE_FORMATS
    max_error_rate: float = 1.0
    overwrite: bool = False
    selection: Selection = field(default_factory=Selection)
    incremental: bool = False
    content: bool = False
    prune: bool = False
    max_runtime: float | None = None
    format: str = "auto"
    path_mode: str = "relative"
    identity_key: Path | None = None
    part: Part | None = None
    work: Path | None = None
    cluster: "Cluster | None" = None
    tta: str | None = None

    def __post_init__(self) -> None:
        check_workers(self.workers)
        check_batch_size(self.batch_size)
        if self.max_frames < 1:
            raise ConfigError(f"--max-frames must be at least 1. Received: {self.max_frames}.")
        check_formats(self.formats)
        check_error_rate(self.max_error_rate)
        check_choice("--format", self.format, FORMATS)
        check_choice("--path-mode", self.path_mode, PATH_MODES)
        for name, number in (
            ("--timeout", self.seconds),
            ("--max-runtime", 1.0 if self.max_runtime is None else self.max_runtime),
        ):
            if not 0 < number < math.inf:
                raise ConfigError(f"{name} must be above 0. Received: {number:g}.")
        if not 0 <= self.selection.min_age < math.inf:
            raise ConfigError(f"--min-age must be at least 0. Received: {self.selection.min_age:g}.")
        if (self.content or self.prune) and not self.incremental:
            raise ConfigError("--hash and --prune say how to do --incremental: give that too.")
        if self.cluster and self.part:
            raise ConfigError("--executor ray computes all parts: leave out --part.")


@dataclass(slots=True)
class Timings:
    """Where the time of a run went, seconds.

    Attributes:
        decoding: Sum over all worker processes.
        model: Of the forward passes.
        loading: Of TensorFlow and the network, while the workers decode already.
        waiting: In which the model had no images.
        processing: From the first file to the last, with the loading.
    """

    decoding: float = 0.0
    model: float = 0.0
    loading: float = 0.0
    waiting: float = 0.0
    processing: float = 0.0

    def add(self, other: "Timings", share: float) -> None:
        """Add what one of several networks did that run at a time; `share`: 1 of their number."""
        self.decoding += other.decoding
        self.model += share * other.model
        self.loading += share * other.loading
        self.waiting += share * other.waiting

    def count_loading(self, seconds: float) -> None:
        """Take the loading out of the model's time, once."""
        if not self.loading:
            self.loading = seconds
            self.model -= seconds

    def bound(self) -> str:
        """Return what limits the speed: "decoding", "model" or "neither"."""
        working = self.processing - self.loading
        if self.waiting > 0.3 * working:
            return "decoding"
        return "model" if self.model > 0.6 * working else "neither"


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        model_id: Of the bundle that was used.
        files: Input files.
        statuses: {status: files}.
        labels: {class: rows with status ok}.
        rows: Of the table: one a frame.
        files_kept: Files whose rows were taken from an earlier or interrupted run.
        absent: Files that have rows, but were not among this run's files.
        young, others, future, litter: As in `Listing`.
        seconds: Wall time, with the start of TensorFlow.
        timings: Where it went.
        bytes: Of the table; 0 where the file system does not tell.
        unchanged: There was nothing new: the table was left as it is.
        part: Of a run with --part, "3/64": files and rows are those of the part; else "".
        chunks: Of that part; `chunks_kept`: those that an earlier task had computed.
    """

    model_id: str
    files: int
    statuses: dict[str, int]
    labels: dict[str, int]
    rows: int
    files_kept: int
    absent: int
    young: int
    others: int
    seconds: float
    timings: Timings
    bytes: int
    unchanged: bool = False
    future: int = 0
    litter: int = 0
    part: str = ""
    chunks: int = 0
    chunks_kept: int = 0

    @property
    def errors(self) -> int:
        """Return the number of files without a prediction for one of their frames."""
        return count_errors(self.statuses)

    @property
    def images_per_second(self) -> float | None:
        """Return the number of files read per second; None if none was read."""
        return self.computed / self.timings.processing if self.computed else None

    @property
    def computed(self) -> int:
        """Return the number of files read in this run."""
        return self.files - self.files_kept

    def after(self, made: "Report") -> "Report":
        """Return the receipt of the run that finished what others have computed, with theirs."""
        timings = replace(made.timings)
        timings.add(self.timings, 1)
        timings.processing += self.timings.processing if self.computed else 0
        return replace(
            self,
            files_kept=self.files_kept - made.computed,
            seconds=self.seconds + made.seconds,
            timings=timings,
        )
