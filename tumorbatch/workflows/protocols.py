"""`evaluate --protocols`: one model's training under every protocol, and the figures side by side."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch import architectures, bundle, shardset
from tumorbatch.atomic import make_folder, remove_temporaries, write_bytes, write_json
from tumorbatch.bundle import Bundle
from tumorbatch.checks import format_changes, only_given
from tumorbatch.dataset_shape import GIVEN, SPLIT_BY
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import printable
from tumorbatch.lock import lock_inside, output_lock
from tumorbatch.report import style
from tumorbatch.shardset import DATASET, Dataset
from tumorbatch.workflows import checks
from tumorbatch.workflows import steps as chain
from tumorbatch.workflows.steps import Consent, ShardsStep, Steps, TrainingStep

if TYPE_CHECKING:
    from tumorbatch.evaluation.answers import Answers
    from tumorbatch.evaluation.config import Config as EvaluationConfig
    from tumorbatch.evaluation.protocol_drops import SideBySide
    from tumorbatch.preprocess.classes import SourceFile
    from tumorbatch.train.config import Config as TrainConfig

log = logging.getLogger(__name__)

PAGE = "protocols.html"
FIGURE = "protocols.png"
CSV = "protocols.csv"
JSON = "protocols.json"
EVALUATIONS = "evaluations"


@dataclass(frozen=True, slots=True)
class Config:
    """How to build what is missing.

    Attributes:
        evaluation: How to evaluate: device, seed, replicates and the like.
        source: The images of the model's shard set.
        patients: The table of patients that went into it, or None.
        allow_unmatched: Take the table though it does not cover the images.
        weights: What a pretrained network starts from, where the bundle's own start was a file.
        workers: Decoding processes; None: the cores that this process may use.
        reuse: Folders with bundles that are taken where they are the same training that is wanted.
    """

    evaluation: "EvaluationConfig"
    source: Path = Path("data/raw")
    patients: Path | None = None
    allow_unmatched: bool = False
    weights: str | None = None
    workers: int | None = None
    reuse: tuple[Path, ...] = ()


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


def run(model: Path, tfrecords: Path, out: Path, config: Config, consent: Consent) -> "SideBySide":
    """Train a model under every protocol, and evaluate it together with the baselines.

    The shard set of another protocol is TFRECORDS-file, TFRECORDS-group or TFRECORDS-shape, next to the
    model's own, so that all models share it. Bundles are made in `out`, never under models/: `infer`
    chooses among those by validation AUC, and a leaky one would win.

    Args:
        model: A bundle.
        tfrecords: The shard set that it was trained on.
        out: Folder for the other bundles, the evaluations and the tables.
        config: How to build what is missing.
        consent: Is asked before anything is made.

    Raises:
        TumorBatchError: As the stages and `consent`; `ConfigError` where a shard set or a bundle is
            there that is another one than wanted.
    """
    from tumorbatch.evaluation import compare_csv, protocols_page
    from tumorbatch.evaluation.protocol_drops import side_by_side

    name = printable(model.resolve().name)
    make_folder(out)
    with output_lock(out, lock_inside(out)):
        names = {PAGE, FIGURE, CSV, JSON}
        bundles = {f"{model.resolve().name}-{split_by}" for split_by in SPLIT_BY}
        checks.refuse_foreign(out, {*names, *bundles, EVALUATIONS})
        remove_temporaries(out, *names)
        judged = [
            answer
            for trained in _built(model, tfrecords, out, config, consent)
            for answer in _answers(name, trained, out / EVALUATIONS, config.evaluation)
        ]
        how = config.evaluation
        result = side_by_side(judged, how.replicates, how.seed)
        write_bytes(out / CSV, compare_csv.models_csv(result.comparison).encode())
        write_bytes(out / FIGURE, style.png(protocols_page.draw(result.comparison)))
        write_bytes(out / PAGE, protocols_page.page(name, result).encode())
        write_json(out / JSON, {"model": name, **result.to_dict()})
    return result


def _answers(name: str, trained: Trained, folder: Path, config: "EvaluationConfig") -> "list[Answers]":
    """Return the answers of model and baselines under one protocol; evaluate if missing."""
    from tumorbatch.evaluation import baselines
    from tumorbatch.evaluation.results import fits, read_answers

    description = bundle.load(trained.model)
    baseline_answers = baselines.evaluate(trained.tfrecords, config.seed)
    evaluation = folder / trained.split_by
    if not fits(evaluation, description):
        chain.make_evaluation(trained.model, trained.tfrecords, evaluation, config, baseline_answers)
    judged = read_answers(name, description, evaluation, shardset.load(trained.tfrecords))
    return [judged, *(baseline.on(judged.images) for baseline in baseline_answers)]


def _built(model: Path, tfrecords: Path, out: Path, config: Config, consent: Consent) -> list[Trained]:
    """Return the training under each protocol; make missing shard sets and trainings."""
    from tumorbatch.preprocess.classes import find_sources

    description = bundle.load(model)
    _refuse_ignored(description, config)
    own = checks.load_own(tfrecords, description, model)
    _refuse_given(own, tfrecords)
    shards = {
        split_by: ShardsStep(
            config.source,
            _sibling(tfrecords, split_by),
            chain.shard_config(
                own, tfrecords, split_by=split_by, patients=config.patients,
                allow_unmatched=config.allow_unmatched,
                **only_given(workers=config.workers),
            ),
        )
        for split_by in SPLIT_BY
        if split_by != own.split_by
    }  # fmt: skip
    for step in shards.values():
        if not step.missing:
            _refuse_other(step, own, tfrecords)
    ours = {split_by: out / f"{model.resolve().name}-{split_by}" for split_by in shards}
    places = {
        split_by: _reused(description, step, config) or ours[split_by]
        for split_by, step in shards.items()
    }
    any_missing = any(not (place / bundle.MODEL).is_file() for place in places.values())
    training = _training(description, model, config, any_missing)
    trainings = {
        split_by: TrainingStep(step.out, places[split_by], training)
        for split_by, step in shards.items()
    }
    steps = Steps(list(shards.values()), list(trainings.values()))
    missing_sets = [step for step in steps.shards if step.missing]
    files = find_sources(config.source, missing_sets[0].config.classes) if missing_sets else []
    if missing_sets:
        checks.refuse_changed_source(tfrecords, config.source, files)
    if steps.missing:
        consent(steps.missing, _cost(steps, files, description, own))
    for step in shards.values():
        if step.missing:
            new = not os.path.lexists(step.out)
            chain.make_shards(step)
            try:
                _refuse_other(step, own, tfrecords)
            except ConfigError:
                if new:  # made here and now: it would only be in the way of the next try
                    shutil.rmtree(step.out)
                raise
    for split_by, training_part in trainings.items():
        if training_part.missing:
            chain.make_training(training_part)
        else:
            _refuse_other_training(description, training_part, shards[split_by])
    models = {
        split_by: Trained(split_by, step.tfrecords, step.out) for split_by, step in trainings.items()
    }
    models[own.split_by] = Trained(own.split_by, tfrecords, model)
    return [models[split_by] for split_by in SPLIT_BY]


def _refuse_given(own: shardset.Dataset, tfrecords: Path) -> None:
    """Raise `ConfigError` for a set whose splits its source gave: the protocols make their own."""
    if own.split_by == GIVEN:
        raise ConfigError(
            f"{tfrecords} keeps the splits of its source's folders, which no other protocol can be "
            "compared with. Make a set without --splits given, train on it, and compare there."
        )


def _refuse_ignored(description: Bundle, config: Config) -> None:
    """Raise where an option names what is not there, or what would not be used."""
    if description.members:
        raise ConfigError(
            "The model is an ensemble: --protocols trains one network anew. Give one of its networks: "
            f"{', '.join(member.name for member in description.members)}."
        )
    if config.weights is not None and description.architecture not in architectures.PRETRAINED:
        raise ConfigError(f"{description.architecture} starts from no weights: leave out --weights.")
    if config.patients is not None and not config.patients.is_file():
        raise InputError(f"{config.patients}, given with --groups, is not there.")
    for folder in config.reuse:
        if not folder.is_dir():
            raise InputError(f"{folder}, given with --reuse, is not a folder.")


def _sibling(tfrecords: Path, split_by: str) -> Path:
    named = tfrecords if tfrecords.name not in ("", "..") else tfrecords.resolve()
    return named.with_name(f"{named.name}-{split_by}")


def _refuse_other(step: ShardsStep, own: Dataset, tfrecords: Path) -> None:
    """Raise `ConfigError` unless a shard set differs from the model's in its split alone."""
    expected = {**own.config, "split_by": step.config.split_by}
    del expected["shard_bytes"]
    changes = format_changes(shardset.load(step.out).config, expected)
    if changes:
        raise ConfigError(
            f"{step.out} holds a shard set that does not fit {tfrecords} ({changes}). Move "
            "it away, and it is made again."
        )
    checks.refuse_other_images(tfrecords, step.out, same_split=False)


def _training(description: Bundle, model: Path, config: Config, trains: bool) -> "TrainConfig":
    """Return the training configuration of a bundle; `trains`: it will be used for a training."""
    from tumorbatch.train.config import Augmentation, Schedule
    from tumorbatch.train.config import Config as TrainConfig

    recorded = description.training
    try:
        schedule = Schedule(**recorded["schedule"])
        augmentation = (
            None if recorded["augmentation"] is None else Augmentation(**recorded["augmentation"])
        )
        start = _start(description, model, config.weights, trains)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{model / bundle.MODEL} does not say how the model was trained ({error}). Train it again."
        ) from error
    return TrainConfig(
        description.architecture,
        schedule,
        augmentation,
        start,
        tuple(recorded.get("variants", ())),
        device=config.evaluation.device,
    )


def _start(description: Bundle, model: Path, weights: str | None, trains: bool) -> str | None:
    """Return the `--weights` of the bundle's training."""
    if description.architecture not in architectures.PRETRAINED:
        return None
    start = description.training["weights"]
    if start is None:
        return "none"
    if start["origin"] == "imagenet" or not trains:
        return "imagenet"
    if weights is None:
        raise ConfigError(
            f"{model} started from the weights in {start['name']}: give that file with --weights."
        )
    path = Path(weights)
    if not path.is_file():
        raise InputError(f"{path} is not a file. {model} started from {start['name']}.")
    if shardset.file_sha256(path) != start["sha256"]:
        raise ConfigError(f"{path} is not the file of weights that {model} started from.")
    return weights


def _expected_training(description: Bundle, step: ShardsStep) -> dict[str, Any]:
    """Return what determines the training under another protocol."""
    return _deciding(description.training) | {
        "dataset_sha256": shardset.file_sha256(step.out / DATASET),
        "split_by": step.config.split_by,
    }


def _reused(description: Bundle, step: ShardsStep, config: Config) -> Path | None:
    """Return the bundle in `config.reuse` that is exactly the missing training, or None."""
    if step.missing:
        return None
    for folder in config.reuse:
        for path in sorted(folder.glob(f"[!.]*/{bundle.MODEL}")):
            try:
                training = bundle.load(path.parent).training
            except (ConfigError, InputError):
                continue
            if _deciding(training) == _expected_training(description, step):
                log.info("%s is taken for the protocol %s", path.parent, step.config.split_by)
                return path.parent
    return None


def _refuse_other_training(description: Bundle, training: TrainingStep, shards: ShardsStep) -> None:
    """Raise `ConfigError` unless a bundle that is there is the model's training on another split."""
    existing = bundle.load(training.out)
    changes = format_changes(_deciding(existing.training), _expected_training(description, shards))
    if changes:
        raise ConfigError(
            f"{training.out} holds a model that was trained differently ({changes}). Move "
            "it away, and it is trained again."
        )


def _deciding(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes two trainings equal."""
    names = (
        "architecture", "dataset_sha256", "split_by", "variants", "weights", "schedule", "augmentation",
    )  # fmt: skip
    return {name: training.get(name) for name in names}


def _cost(steps: Steps, files: "Sequence[SourceFile]", description: Bundle, own: Dataset) -> Any:
    """Return the cost of everything that is missing."""
    from tumorbatch.workflows import cost as costs

    total = costs.Cost()
    for shards in steps.shards:
        if shards.missing:
            total += chain.shards_cost(files, shards.config)
    missing = [step for step in steps.trainings if step.missing]
    if missing:
        size = own.preprocessing.size
        speed = costs.recorded(description.training) or chain.speed([], missing[0].config, size)
        log.info(
            "%s: %.0f images/s, %s", description.architecture, speed.images_per_second, speed.source
        )
        images = own.records("train") + own.records("validation")
        for step in missing:
            total += chain.training_cost(step, images, size, speed)
    return total
