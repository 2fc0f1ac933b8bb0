"""Stage 3: a folder of images and a model bundle to one Parquet file."""

import datetime
import functools
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tumorbatch import bundle
from tumorbatch.atomic import make_folder, remove_temporaries
from tumorbatch.bundle import Bundle
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import FoundFile, find_files, printable
from tumorbatch.infer.decoding import Decoded, decode_files, lost
from tumorbatch.infer.predictions import (
    PredictionsWriter,
    refuse_foreign,
    refuse_special,
    sidecar_path,
)
from tumorbatch.limits import check_error_rate, check_workers, refuse_too_many_errors
from tumorbatch.lock import output_lock
from tumorbatch.pool import ordered_map
from tumorbatch.progress import Progress
from tumorbatch.runtime import available_cores, resolve, versions
from tumorbatch.scoring import Scorer, probability, scorer
from tumorbatch.status import Status

log = logging.getLogger(__name__)

_CHUNK = 64  # files a task, rounded up to whole batches


@dataclass(frozen=True, slots=True)
class Config:
    """How to infer.

    Attributes:
        workers: Decoding processes; default: the cores that this process may use.
        batch_size: Images a forward pass.
        device: "auto", "cpu" or "gpu".
        max_error_rate: Above this share of unreadable files nothing is published, 0 to 1.
        overwrite: Replace a file that holds something else.
    """

    workers: int = field(default_factory=available_cores)
    batch_size: int = 32
    device: str = "auto"
    max_error_rate: float = 1.0
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if not 1 <= self.batch_size <= 4096:
            raise ConfigError(f"--batch-size must lie between 1 and 4096. Received: {self.batch_size}.")
        check_error_rate(self.max_error_rate)


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        model_id: Of the bundle that was used.
        statuses: {status: files}.
        labels: {class: files with status ok}.
        seconds: Wall time, with the start of TensorFlow.
        processing_seconds: From the first file to the last.
        bytes: Of the Parquet file.
    """

    model_id: str
    statuses: dict[str, int]
    labels: dict[str, int]
    seconds: float
    processing_seconds: float
    bytes: int

    @property
    def files(self) -> int:
        """Rows of the table."""
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """Rows without a prediction."""
        return self.files - self.statuses.get(Status.OK.value, 0)


def run(folder: Path, out: Path, model: Path, config: Config) -> Report:
    """Predict every file below `folder` and write the table to `out`.

    Raises:
        InputError: `folder` is missing or empty, or the bundle is missing or damaged.
        ConfigError: `out` holds something else; no GPU where one was asked for.
        OutputError: `out` cannot be written.
        TooManyErrorsError: See `Config.max_error_rate`; what was there before is untouched.
        TryAgainError: Another process is writing `out`.
    """
    started = time.monotonic()
    refuse_special(out)
    used = bundle.load(model)
    files = _inputs(folder, out)
    make_folder(out.parent)
    with output_lock(out, out.with_name(f".{out.name}.lock")):
        remove_temporaries(out.parent, out.name)
        if not config.overwrite:
            refuse_foreign(out, used.model_id)
        runtime = resolve(config.device, precision="float32")
        log.info("model %s from %s, %s", used.model_id, model, runtime.reason)
        score = scorer(bundle.load_network(model, used), config.batch_size, runtime)
        began = datetime.datetime.now(datetime.UTC)
        processing = time.monotonic()
        run_id = uuid.uuid4().hex
        statuses: Counter[str] = Counter()
        labels: Counter[str] = Counter(dict.fromkeys(used.classes, 0))
        with PredictionsWriter(out) as writer:
            with Progress("infer", "images", len(files)) as progress:
                size = -(-_CHUNK // config.batch_size) * config.batch_size
                chunks = (files[at : at + size] for at in range(0, len(files), size))
                decode = functools.partial(decode_files, preprocessing=used.preprocessing)
                for decoded in ordered_map(decode, chunks, config.workers, lost):
                    rows = _predict(decoded, score, used, run_id)
                    writer.write(rows)
                    statuses.update(row["status"] for row in rows)
                    labels.update(row["label"] for row in rows if "label" in row)
                    progress.advance(len(rows))
            refuse_too_many_errors(statuses, config.max_error_rate, f"{out} was not written.")
            processed = time.monotonic() - processing
            writer.finish(
                {
                    "model_id": used.model_id,
                    "run_id": run_id,
                    "model": printable(model.name),
                    "architecture": used.architecture,
                    "weights_sha256": used.weights_sha256,
                    "preprocessing": used.preprocessing.to_dict(),
                    "preprocessing_fingerprint": used.preprocessing.fingerprint,
                    "classes": list(used.classes),
                    "threshold": used.threshold,
                    "temperature": used.temperature,
                    "trained_on_leaky_split": bool(used.training.get("leaky")),
                    "statuses": dict(sorted(statuses.items())),
                    "labels": dict(labels),
                    "started": began.isoformat(timespec="seconds"),
                    "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "runtime": runtime.reason,
                    "versions": versions(
                        "tensorflow", "keras", "numpy", "opencv-python-headless", "pyarrow"
                    ),
                }
            )
    return Report(
        used.model_id,
        dict(statuses),
        dict(labels),
        time.monotonic() - started,
        processed,
        out.stat().st_size,
    )


def _inputs(folder: Path, out: Path) -> list[FoundFile]:
    """All files of `folder`, without what this command itself writes there."""
    own = {os.path.realpath(out), os.path.realpath(sidecar_path(out))}
    files = find_files(folder)
    if out.resolve().is_relative_to(folder.resolve()):
        # Not Path.resolve: below Python 3.13 it raises at the symbolic link loops among the files.
        files = [file for file in files if os.path.realpath(file.path) not in own]
    if not files:
        raise InputError(f"{folder} holds no files. Give the folder that holds the images.")
    return files


def _predict(
    decoded: Sequence[Decoded], score: Scorer, used: Bundle, run_id: str
) -> list[dict[str, Any]]:
    rows = [{**entry.row, "model_id": used.model_id, "run_id": run_id} for entry in decoded]
    good = [index for index, entry in enumerate(decoded) if entry.pixels is not None]
    if good:
        logits = score(np.stack([entry.pixels for entry in decoded if entry.pixels is not None]))
        probabilities = probability(logits, used.temperature)
        for index, logit, prob in zip(good, logits, probabilities, strict=True):
            rows[index] |= {
                "logit": float(logit),
                "prob_tumor": float(prob),
                "label": used.classes[int(prob >= np.float32(used.threshold))],
            }
    return rows
