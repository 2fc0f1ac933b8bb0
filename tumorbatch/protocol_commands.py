"""`evaluate --protocols`: one model's training under every protocol, and the figures side by side."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch import architectures, bundle, shardset
from tumorbatch import chain_commands as chain
from tumorbatch.atomic import make_folder
from tumorbatch.bundle import Bundle
from tumorbatch.chain_commands import Parts, ShardsPart, TrainingPart
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.limits import differences
from tumorbatch.lock import output_lock
from tumorbatch.shardset import DATASET, SPLIT_BY, Dataset

if TYPE_CHECKING:
    from tumorbatch.train.config import Config as TrainConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """How to build what is missing.

    Attributes:
        source: The images of the model's shard set.
        patients: The table of patients that went into it, or None.
        weights: What a pretrained network starts from, where the bundle's own start was a file.
        workers: Decoding processes; None: the cores that this process may use.
        device: "auto", "cpu" or "gpu".
        reuse: Folders with bundles that are taken where they are the very training that is wanted.
        yes: Start without asking.
    """

    source: Path = Path("data/raw")
    patients: Path | None = None
    weights: str | None = None
    workers: int | None = None
    device: str = "auto"
    reuse: tuple[Path, ...] = field(default_factory=tuple)
    yes: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """The model under one protocol.

    Attributes:
        split_by: The protocol.
        tfrecords: Its shard set.
        model: Its bundle.
    """

    split_by: str
    tfrecords: Path
    model: Path


def build(model: Path, tfrecords: Path, out: Path, config: Config) -> list[Trained]:
    """The model's training under every protocol; what is missing is made.

    The shard set of another protocol is TFRECORDS-file, TFRECORDS-group or TFRECORDS-shape, beside the
    model's own, so that all models share it. Bundles are made in `out`, never under models/: `infer`
    chooses among those by validation AUC, and a leaky one would win.

    Args:
        model: A bundle.
        tfrecords: The shard set that it was trained on.
        out: Folder for the other bundles.
        config: See there.

    Raises:
        TumorBatchError: As the stages; `ConfigError` without consent to the cost, or where a shard set
            or a bundle is there that is another one than wanted.
    """
    of = bundle.load(model)
    own = chain.load_own(tfrecords, of, model)
    training = _training(of, model, config)
    make_folder(out)
    with output_lock(out, out / ".lock"):
        shards = {
            split_by: ShardsPart(
                config.source,
                _beside(tfrecords, split_by),
                chain.shard_config(
                    own, tfrecords, split_by=split_by, patients=config.patients,
                    **({} if config.workers is None else {"workers": config.workers}),
                ),
            )
            for split_by in SPLIT_BY
            if split_by != own.split_by
        }  # fmt: skip
        for part in shards.values():
            if not part.missing:
                _refuse_other(part, own, tfrecords)
        trainings = {
            split_by: TrainingPart(
                part.out, _place(model, of, part, out / f"{model.name}-{split_by}", config), training
            )
            for split_by, part in shards.items()
        }
        parts = Parts(list(shards.values()), list(trainings.values()))
        if parts.missing:
            chain.confirmed(parts.missing, _cost(parts, of, own), config.yes)
        for part in shards.values():
            if part.missing:
                chain.make_shards(part)
                _refuse_other(part, own, tfrecords)
        for wanted in trainings.values():
            if wanted.out.parent == out:
                chain.make_training(wanted)
    found = {
        split_by: Trained(split_by, part.tfrecords, part.out) for split_by, part in trainings.items()
    }
    found[own.split_by] = Trained(own.split_by, tfrecords, model)
    return [found[split_by] for split_by in SPLIT_BY]


def _beside(tfrecords: Path, split_by: str) -> Path:
    return tfrecords.parent / f"{tfrecords.absolute().name}-{split_by}"


def _refuse_other(part: ShardsPart, own: Dataset, tfrecords: Path) -> None:
    """Raise `ConfigError` unless a shard set differs from the model's in its split alone."""
    wanted = {**own.config, "split_by": part.config.split_by}
    del wanted["shard_bytes"]
    changes = [
        f"{name}: {there} there, {asked} asked for"
        for name, there, asked in differences(shardset.load(part.out).config, wanted)
    ]
    if changes:
        raise ConfigError(
            f"{part.out} holds a shard set that does not fit {tfrecords} ({'; '.join(changes)}). Move "
            "it away, and it is made anew."
        )
    chain.refuse_other_images(tfrecords, part.out, same_split=False)


def _training(of: Bundle, model: Path, config: Config) -> "TrainConfig":
    """The configuration that a bundle was trained with."""
    from tumorbatch.train.config import Augmentation, Schedule
    from tumorbatch.train.config import Config as TrainConfig

    told = of.training
    try:
        schedule = Schedule(**told["schedule"])
        augmentation = None if told["augmentation"] is None else Augmentation(**told["augmentation"])
        start = _start(of, model, config)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{model / bundle.MODEL} does not say how the model was trained ({error}). Train it again."
        ) from error
    return TrainConfig(of.architecture, schedule, augmentation, start, device=config.device)


def _start(of: Bundle, model: Path, config: Config) -> str | None:
    """`--weights` of the bundle's training."""
    if of.architecture not in architectures.PRETRAINED:
        return None
    before = of.training["weights"]
    if before is None:
        return "none"
    if config.weights is None:
        if before["origin"] == "imagenet":
            return "imagenet"
        raise ConfigError(
            f"{model} started from the weights in {before['name']}: give that file with --weights."
        )
    path = Path(config.weights)
    if not path.is_file():
        raise InputError(f"{path} is no file. {model} started from {before['name']}.")
    if shardset.file_sha256(path) != before["sha256"]:
        raise ConfigError(f"{path} is not the file of weights that {model} started from.")
    return config.weights


def _place(model: Path, of: Bundle, part: ShardsPart, default: Path, config: Config) -> Path:
    """A bundle in `config.reuse` that is the very training that is wanted, or `default`."""
    if part.missing:
        return default
    wanted = _deciding(of.training) | {
        "dataset_sha256": shardset.file_sha256(part.out / DATASET),
        "split_by": part.config.split_by,
    }
    for folder in config.reuse:
        for path in sorted(folder.glob(f"[!.]*/{bundle.MODEL}")):
            try:
                found = bundle.load(path.parent).training
            except (ConfigError, InputError):
                continue
            if _deciding(found) == wanted:
                log.info("%s is taken for the protocol %s", path.parent, part.config.split_by)
                return path.parent
    return default


def _deciding(training: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two trainings the same."""
    names = ("architecture", "dataset_sha256", "split_by", "weights", "schedule", "augmentation")
    return {name: training.get(name) for name in names}


def _cost(parts: Parts, of: Bundle, own: Dataset) -> Any:
    """Of all that is missing."""
    from tumorbatch.preprocess.classes import find_sources
    from tumorbatch.train import cost as costs

    total = costs.Cost()
    for shards in parts.shards:
        if shards.missing:
            files = find_sources(shards.source, shards.config.classes)
            total += chain.shards_cost(files, own.preprocessing, shards.config.workers)
    missing = [part for part in parts.trainings if part.missing]
    if missing:
        size = own.preprocessing.size
        speed = costs.recorded(of.training) or chain.speed([], missing[0].config, size)
        log.info("%s: %.0f images/s, %s", of.architecture, speed.images_per_second, speed.source)
        images = own.records("train") + own.records("validation")
        for part in missing:
            total += chain.training_cost(part, images, size, speed)
    return total
