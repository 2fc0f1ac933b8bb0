"""Run several stages one after another: shard sets and trainings, with their cost.

Each stage's `run` does one step. It does nothing if the result exists already, and continues after
an interruption; so the whole does the same.
"""

import contextlib
import functools
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch import architectures, bundle
from tumorbatch.errors import ConfigError
from tumorbatch.files import counted, read_file
from tumorbatch.shardset import DATASET, Dataset
from tumorbatch.status import FileError
from tumorbatch.workflows import checks

if TYPE_CHECKING:
    from tumorbatch.evaluation.answers import Answers
    from tumorbatch.evaluation.config import Config as EvaluationConfig
    from tumorbatch.preprocess.classes import SourceFile
    from tumorbatch.preprocess.shard import Config as ShardConfig
    from tumorbatch.train.config import Config as TrainConfig
    from tumorbatch.workflows.cost import Cost, Speed

log = logging.getLogger(__name__)

# Called before anything is made, with what is missing and its cost; raises `ConfigError` if refused.
Consent = Callable[[str, "Cost"], None]

_SAMPLED = 24  # files that are decoded to time the decoding
_RECORD = 300  # bytes of a record in addition to its pixels, about


@dataclass(frozen=True, slots=True)
class ShardsStep:
    """A shard set that is wanted.

    Attributes:
        source: The images.
        out: Where it is, or shall be.
        config: How it is made.
    """

    source: Path
    out: Path
    config: "ShardConfig"

    @property
    def missing(self) -> bool:
        """Return whether the shard set is missing or unfinished."""
        return not (self.out / DATASET).is_file()


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A training that is wanted.

    Attributes:
        tfrecords: What it is trained on.
        out: Where its bundle is, or shall be.
        config: How it is trained.
    """

    tfrecords: Path
    out: Path
    config: "TrainConfig"

    @property
    def missing(self) -> bool:
        """Return whether the bundle is missing."""
        return not (self.out / bundle.MODEL).is_file()


@dataclass(frozen=True, slots=True)
class Steps:
    """All that is wanted, in the order in which it is made."""

    shards: Sequence[ShardsStep] = field(default_factory=list)
    trainings: Sequence[TrainingStep] = field(default_factory=list)

    @property
    def missing(self) -> str:
        """Describe what is missing: `2 shard sets and 4 trainings`, or "" if nothing is."""
        counts = {
            "shard set": sum(step.missing for step in self.shards),
            "training": sum(step.missing for step in self.trainings),
        }
        missing = [counted(count, name) for name, count in counts.items() if count]
        return " and ".join(missing)


def shard_config(dataset: Dataset, folder: Path, **changes: Any) -> "ShardConfig":
    """Return the settings that made a shard set, with some of them changed.

    Args:
        dataset: Its description.
        folder: Where it is; its manifest knows which folder of the source holds which class.
        changes: Attributes of `preprocess.shard.Config`.

    Raises:
        InputError: The manifest is missing or damaged.
        ConfigError: A table of patients went into it, and none is given.
    """
    from tumorbatch.preprocess.shard import Config
    from tumorbatch.preprocess.splits import Fractions

    if dataset.patients is not None and changes.get("patients") is None:
        raise ConfigError(
            f"{folder} was made with a table of patients: give the same one with --groups FILE."
        )
    own: dict[str, Any] = {
        "preprocessing": dataset.preprocessing.select(dataset.available),
        "classes": _class_folders(folder),
        "split_by": dataset.split_by,
        "formats": dataset.formats,
        "patient_id": dataset.patient_id,
        "fractions": Fractions(**dataset.fractions),
        "seed": dataset.seed,
        "shard_bytes": dataset.shard_bytes,
    }
    return Config(**{**own, **changes})


def _class_folders(folder: Path) -> dict[str, list[str]]:
    """Return {class: its folders in the source}, from the paths in the manifest."""
    from tumorbatch.preprocess.classes import class_folder

    folders_of_class: dict[str, set[str]] = {}
    for path, name in zip(*checks.columns(folder, "path", "class"), strict=True):
        folders_of_class.setdefault(name, set()).add(class_folder(path))
    return {name: sorted(folders) for name, folders in folders_of_class.items()}


def shards_cost(files: "Sequence[SourceFile]", config: "ShardConfig") -> "Cost":
    """Estimate the cost of one shard set from the time that a few of its files take.

    They are decoded in a worker process, as by `shard`: a file may crash its decoder.

    Args:
        files: The source.
        config: What is done to them.

    Raises:
        TryAgainError: The worker process cannot start.
    """
    from tumorbatch.workers import ordered_map
    from tumorbatch.workflows.cost import Cost

    some = files[:: math.ceil(len(files) / _SAMPLED)]
    work = functools.partial(seconds_of, config=config)
    (times,) = ordered_map(work, [some], 1, lambda *_: config.timeout, config.timeout)
    seconds = sum(times) * len(files) / len(some) / config.workers
    size = len(files) * (math.prod(config.preprocessing.shape) + _RECORD)
    return Cost(seconds, seconds, size, size)  # the spool holds every record once more


def seconds_of(files: "Sequence[SourceFile]", config: "ShardConfig") -> list[float]:
    """Return how long the pixel path takes for each file, in a worker process."""
    from tumorbatch.preprocess.pixels import process
    from tumorbatch.workers import limited

    times = []
    for source in limited(files, config.timeout):
        started = time.monotonic()
        with contextlib.suppress(FileError):  # costs what it costs; `shard` gives it a row
            process(read_file(source.file)[0], config.preprocessing, formats=config.formats)
        times.append(time.monotonic() - started)
    return times


def speed(finished: Sequence[TrainingStep], config: "TrainConfig", size: int) -> "Speed":
    """Return the speed of a training: recorded in a finished one, or measured in a few steps.

    Args:
        finished: Trainings like it.
        config: The training.
        size: Side of the images, pixels.
    """
    from tumorbatch.runtime import load_tensorflow
    from tumorbatch.workflows import cost

    for step in finished:
        recorded = cost.recorded(bundle.load(step.out).training)
        if recorded is not None:
            return recorded
    load_tensorflow(config.threads, config.onednn)
    return cost.probed(config, size)


def training_cost(step: TrainingStep, images: int, size: int, speed: "Speed") -> "Cost":
    """Estimate the time and disk space of one training.

    Args:
        step: The training.
        images: Of training and validation split together.
        size: Side of the images, pixels.
        speed: Measured.
    """
    from tumorbatch.runtime import load_tensorflow
    from tumorbatch.workflows import cost

    load_tensorflow(step.config.threads, step.config.onednn)
    return cost.training(speed, step.config, images, _parameters(step.config.architecture, size))


@functools.lru_cache
def _parameters(architecture: str, size: int) -> int:
    """Return the number of weights of a network of this architecture."""
    count = int(architectures.build(architecture, size).count_params())
    forget()
    return count


def forget() -> None:
    """Free what Keras keeps of the networks so far."""
    if "keras" in sys.modules:
        import keras

        keras.backend.clear_session()


def make_shards(step: ShardsStep) -> Dataset:
    """Return the shard set; make it or bring it up to date first.

    Raises:
        TumorBatchError: As `preprocess.shard.run`.
    """
    from tumorbatch.preprocess import shard

    if step.missing:
        log.info("making the shard set %s", step.out)
    return shard.run(step.source, step.out, step.config).dataset


def make_training(step: TrainingStep) -> bundle.Bundle:
    """Return the trained bundle; train it first if it is missing.

    Raises:
        TumorBatchError: As `train.training.run`.
    """
    from tumorbatch.train import training

    if step.missing:
        log.info("training %s on %s", step.out, step.tfrecords)
    trained = training.run(step.tfrecords, step.out, step.config).bundle
    forget()
    return trained


def evaluation_folder(model: Path, description: bundle.Bundle, results: Path) -> Path:
    """Return the folder of a bundle's evaluation: by its name; if taken, by its id too.

    Results of another model of that name, on an external shard set, or at a threshold that the bundle
    does not have, stay as they are.
    """
    from tumorbatch.evaluation.results import ABOUT_SHAPE, METRICS, fits
    from tumorbatch.json_reader import read_object

    folder = results / model.resolve().name
    try:
        about = read_object(folder / METRICS, ABOUT_SHAPE)
        # Another threshold: a result worth keeping, or of another bundle with the same weights.
        outdated = (
            about["model"]["model_id"] == description.model_id and about["protocol"] != "external"
        )
    except FileNotFoundError:
        outdated = True
    except (OSError, ValueError):
        outdated = False
    if outdated or fits(folder, description):
        return folder
    return results / f"{model.resolve().name}-{description.model_id.rsplit('-', 1)[1]}"


def make_evaluation(
    model: Path, tfrecords: Path, out: Path, config: "EvaluationConfig", baselines: "Sequence[Answers]"
) -> None:
    """Evaluate a bundle on its own shard set; the bundle stays as it is.

    Args:
        model: The bundle.
        tfrecords: Its shard set.
        out: Folder of the results: free, or of this bundle.
        config: How.
        baselines: The baselines on that shard set.

    Raises:
        TumorBatchError: As `evaluation.evaluate.run`.
    """
    from tumorbatch.runtime import load_tensorflow

    log.info("evaluating %s on %s", model, tfrecords)
    load_tensorflow()
    from tumorbatch.evaluation import evaluate as evaluation

    config = replace(config, as_is=True, external=False, rule=None, overwrite=True)
    evaluation.run(model, tfrecords, out, config, baselines)
    forget()
