"""Stage 2: a shard set to a model bundle."""

import contextlib
import hashlib
import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch import architectures, bundle, shardset
from tumorbatch.atomic import (
    PRIVATE,
    atomic_folder,
    make_folder,
    real_folder,
    recover_folder,
    remove_temporaries,
    write_bytes,
    write_json,
)
from tumorbatch.bundle import Bundle
from tumorbatch.bundle_weights import serialize_weights
from tumorbatch.checks import format_changes, refuse_nameless
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.evaluation.model_card import model_card
from tumorbatch.files import is_empty
from tumorbatch.known_images import known_images_of
from tumorbatch.labels import TUMOR
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.runtime import Runtime, load_tensorflow, resolve, versions
from tumorbatch.scoring import scorer
from tumorbatch.selftest import checked
from tumorbatch.shardset import DATASET, Dataset
from tumorbatch.train import history, object_shards, pretrained
from tumorbatch.train.checkpoint import Checkpoint
from tumorbatch.train.config import Config, DivergedError

if TYPE_CHECKING:
    from tumorbatch.train.fit import Fitted
    from tumorbatch.train.folded import FoldData

log = logging.getLogger(__name__)

# Steps between two returns to Python on a GPU, where one takes milliseconds; a signal waits for them.
_GPU_STRIDE = 8


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        bundle: What was written (or was already there).
        metrics: {"validation": ..., "test": ...}.
        leaky: Whether the test figures come from a leaky split.
        epochs: Trained (0 when nothing was done).
        fitted: How it went, or None when nothing was done.
        seconds: Wall time.
        unchanged: True when the same training had already been done.
    """

    bundle: Bundle
    metrics: dict[str, Any]
    leaky: bool
    epochs: int
    fitted: "Fitted | None"
    seconds: float
    unchanged: bool = False


def run(tfrecords: Path, out: Path, config: Config) -> Report:
    """Train one network and write its bundle to `out`.

    Raises:
        InputError: The shard set is missing, unfinished or damaged, or the bundle in `out` is, or the
            weights to start from are missing or do not fit.
        ConfigError: `out` holds another bundle or other files; no GPU where one was asked for.
        OutputError: `out` cannot be written; or it has been, and the checkpoint cannot be deleted.
        TryAgainError: Another process is training into `out`.
    """
    started = time.monotonic()
    dataset, out = _dataset(tfrecords, config), real_folder(out)
    if config.variants:
        dataset = dataset.select(config.variants)
    refuse_nameless(out)
    if config.gpus > 1 and config.schedule.batch_size % config.gpus:
        raise ConfigError(
            f"--batch-size {config.schedule.batch_size} cannot be shared by {config.gpus} GPUs evenly."
        )
    make_folder(out.parent)
    with output_lock(out, lock_beside(out)):
        recover_folder(out)
        if config.start == "imagenet":  # Keras may have to download it, and brings TensorFlow with it
            load_tensorflow(config.threads, config.onednn)
        start = pretrained.find(config.start, config.architecture)
        summary = summarise(config, shardset.file_sha256(tfrecords / DATASET), dataset, start)
        path = out.with_name(f".{out.name}.checkpoint")
        remove_temporaries(path.parent, path.name)
        checkpoint = Checkpoint(path, _plan(config, summary), config.checkpoint_minutes)
        if _already_done(out, summary, config.overwrite):
            old, metrics = _read_finished(out)
            checkpoint.remove_own_behind(out)
            return Report(old, metrics, dataset.leaky, 0, None, time.monotonic() - started, True)
        try:
            checkpoint.check()
        except (ConfigError, InputError):
            if not config.overwrite:
                raise
            checkpoint.remove()
        # Everything that can be refused without it has been: TensorFlow costs seconds.
        try:
            trained, metrics, fitted = _train(
                tfrecords, out, config, dataset, summary, checkpoint, start
            )
        except DivergedError:
            checkpoint.remove()  # the same command would end here again
            raise
        checkpoint.remove_behind(out)
    epochs = len(fitted.history["loss"])
    return Report(trained, metrics, dataset.leaky, epochs, fitted, time.monotonic() - started)


def _dataset(tfrecords: Path, config: Config) -> Dataset:
    """Return the description of the shard set; of one in S3, its shards are not looked at."""
    if not config.shards:
        return shardset.load(tfrecords)
    return replace(shardset.read(tfrecords / DATASET), location=config.shards)


def _train(
    tfrecords: Path,
    out: Path,
    config: Config,
    dataset: Dataset,
    summary: dict[str, Any],
    checkpoint: Checkpoint,
    start: "pretrained.Source | None",
) -> "tuple[Bundle, dict[str, Any], Fitted]":
    if config.shards:
        object_shards.connect(config.threads, config.onednn)
    runtime = _set_up(config, dataset)
    from tumorbatch.train.distribute import strategy
    from tumorbatch.train.familiarity import familiarity
    from tumorbatch.train.fit import Fit, Recipe
    from tumorbatch.train.phases import phases

    schedule = config.schedule
    data, feed, fold = _data(tfrecords, dataset, config)
    log.info("feed: %s", "images in memory" if feed == "ram" else "shards read in each epoch")
    devices = [f"GPU:{index}" for index in range(config.gpus)]
    spread = strategy(devices) if config.gpus > 1 else None
    with spread.scope() if spread is not None else contextlib.nullcontext():
        preprocessing = dataset.preprocessing
        network = architectures.build(
            config.architecture, preprocessing.size, schedule.dropout, len(preprocessing.channels)
        )
        if start is not None:
            pretrained.load(start.path, network.get_layer(architectures.BASE))
    stride = config.steps_per_execution or (_GPU_STRIDE if runtime.device == "gpu" else 1)
    board = history.board(config.tensorboard / out.name) if config.tensorboard else None
    recipe = Recipe(
        schedule,
        config.augmentation,
        runtime,
        phases(config.architecture, start is not None, schedule),
        stride,
        spread,
    )
    fitted = Fit(network, data["train"], data["validation"], recipe, checkpoint, board).run()
    log.info("%s", fitted.describe())
    score = scorer(network, schedule.batch_size, runtime)
    metrics, calibration, out_of_fold = _evaluate(
        tfrecords, dataset, score, summary["dataset_sha256"], fold
    )
    familiar, noticed = familiarity(
        network, data, tfrecords, dataset, runtime, schedule.batch_size, fold
    )
    shapes = fold.shapes if fold else shardset.shapes(tfrecords, dataset, "train")
    known_images = known_images_of(tfrecords, dataset, config.known_images)
    trained = _publish(
        out,
        network,
        dataset,
        summary,
        fitted,
        runtime,
        feed,
        metrics,
        calibration,
        shapes,
        known_images,
        {bundle.OUT_OF_FOLD: out_of_fold, bundle.FAMILIARITY: familiar},
        noticed,
    )
    return trained, metrics, fitted


def _data(
    tfrecords: Path, dataset: Dataset, config: Config
) -> "tuple[dict[str, Any], str, FoldData | None]":
    """Return {"train": ..., "validation": ...}, the kind of feed, and the fold if there is one."""
    from tumorbatch.train import folded
    from tumorbatch.train.group_weights import group_weights
    from tumorbatch.train.phases import class_weights
    from tumorbatch.train.stream import splits

    schedule = config.schedule
    if config.fold is not None:
        fold = folded.load(tfrecords, dataset, config.fold, schedule)
        return {"train": fold.train, "validation": fold.held_out}, "ram", fold
    tumors = dataset.counts["train"][dataset.classes[TUMOR]]
    weights = group_weights(
        tfrecords,
        dataset,
        schedule.group_weights,
        class_weights(schedule, dataset.records("train"), tumors),
    )
    return *splits(tfrecords, dataset, "stream" if config.shards else config.feed, weights), None


def _set_up(config: Config, dataset: Dataset) -> Runtime:
    """Choose device and precision, set TensorFlow and Keras up for them, and log the choice."""
    runtime = resolve(
        config.device, config.precision, config.xla, config.gpus, config.threads, config.onednn
    )
    import keras

    from tumorbatch.train.distribute import refuse_several_nodes

    refuse_several_nodes(os.environ)
    if runtime.device == "gpu" or runtime.precision != "float32":
        runtime = checked(runtime)
    log.info("%s %s", config.architecture, runtime.reason)
    if dataset.leaky:
        log.warning(
            "this split is leaky: the network sees copies of test images, and the test metrics will be "
            "too good"
        )
    keras.config.set_dtype_policy(runtime.precision)
    keras.utils.set_random_seed(config.schedule.seed)
    if config.deterministic:
        load_tensorflow().config.experimental.enable_op_determinism()
    return runtime


def _evaluate(
    tfrecords: Path, dataset: Dataset, score: Any, dataset_sha256: str, fold: "FoldData | None"
) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Calibrate on validation, or on the fold; return metrics, calibration, and out-of-fold logits."""
    from tumorbatch.evaluation.answers import score_split
    from tumorbatch.evaluation.choice import choose_and_measure
    from tumorbatch.evaluation.held_out import held_out_answers
    from tumorbatch.out_of_fold import OutOfFold, to_bytes

    # From disk, whatever the feed: shard by shard, in the manifest's order.
    test = score_split(tfrecords, dataset, "test", score)
    if fold is None:
        validation = score_split(tfrecords, dataset, "validation", score)
        metrics, calibration = choose_and_measure(
            {"validation": validation, "test": test}, dataset_sha256
        )
        return metrics, calibration, b""
    logits, _ = fold.held_out.scored(score)
    validation = held_out_answers(tfrecords, dataset, fold.index, logits)
    metrics, calibration = choose_and_measure({"validation": validation, "test": test}, dataset_sha256)
    numbers = fold.images.folds[fold.index].astype("int32")
    return metrics, calibration, to_bytes({fold.by: OutOfFold(fold.index, numbers, logits)})


def summarise(
    config: Config, dataset_sha256: str, dataset: Dataset, start: "pretrained.Source | None"
) -> dict[str, Any]:
    """Return what determines the result: stored in model.json, compared before a run."""
    return {
        "architecture": config.architecture,
        "dataset_sha256": dataset_sha256,
        "split_by": dataset.split_by,
        "leaky": dataset.leaky,
        **({"variants": list(dataset.preprocessing.channels)} if dataset.variants else {}),
        "weights": None if start is None else start.to_dict(),
        "schedule": asdict(config.schedule),
        "augmentation": asdict(config.augmentation) if config.augmentation else None,
        **({"fold": config.fold.to_dict()} if config.fold else {}),
    }


def _plan(config: Config, summary: dict[str, Any]) -> dict[str, Any]:
    """Return what an interrupted training must share with the one that continues it."""
    return {
        **summary,
        "feed": "stream" if config.shards else config.feed,
        "device": config.device,
        "precision": config.precision,
        "xla": config.xla,
        "threads": config.threads,
        "onednn": config.onednn,
        "gpus": config.gpus,
        "deterministic": config.deterministic,
        "versions": versions("keras", "tensorflow", "numpy"),
    }


def _already_done(out: Path, summary: dict[str, Any], overwrite: bool) -> bool:
    """Return whether `out` holds the result of the same training.

    Raises:
        ConfigError: It holds something else, and may not be replaced.
    """
    bundle.refuse_foreign(out)
    if overwrite or not out.exists() or is_empty(out):
        return False
    changes = format_changes(bundle.load(out).training, summary)
    if changes:
        raise ConfigError(
            f"{out} already holds a model that was trained differently ({changes}). "
            "Give another folder with --out, or --overwrite to replace it."
        )
    return True


def _read_finished(out: Path) -> tuple[Bundle, dict[str, Any]]:
    old = bundle.load(out)
    try:
        metrics = bundle.read_metrics(out)
        bundle.check_weights(out, old)
    except InputError as error:
        raise InputError(f"{error} To train it again: --overwrite.") from error
    return old, metrics


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if data else ""


def _publish(
    out: Path,
    network: Any,
    dataset: Dataset,
    summary: dict[str, Any],
    fitted: "Fitted",
    runtime: Runtime,
    feed: str,
    metrics: dict[str, Any],
    calibration: dict[str, Any],
    shapes: list[str],
    known_images: bytes,
    arrays: dict[str, bytes],
    noticed: dict[str, Any],
) -> Bundle:
    """Write the whole bundle next to `out`, then exchange the two."""
    weights = serialize_weights(network)
    description = Bundle(
        architecture=summary["architecture"],
        preprocessing=dataset.preprocessing,
        classes=dataset.classes,
        threshold=calibration["threshold"]["value"],
        temperature=calibration["temperature"]["value"],
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        training={
            **summary,
            "epochs": len(fitted.history["loss"]),
            "best_epoch": fitted.best_epoch,
            "parameters": network.count_params(),
            "phases": fitted.phases,
            "runtime": asdict(runtime),
            "feed": feed,
            "images_per_second": round(fitted.images_per_second, 1),
            "waiting_share": fitted.waiting_share,
            "compile_seconds": fitted.compiling,
            "shapes": shapes,  # `infer` flags an image whose size is none of these
            "leak": dataset.leak,
            "unfamiliar": noticed,
        },
        versions=versions("keras", "tensorflow", "numpy"),
        calibration=calibration,
        known_images_sha256=_sha256(known_images),
        out_of_fold_sha256=_sha256(arrays[bundle.OUT_OF_FOLD]),
        familiarity_sha256=_sha256(arrays[bundle.FAMILIARITY]),
    )
    with atomic_folder(out) as folder:
        for name, data in arrays.items():
            if data:
                write_bytes(folder / name, data)
        if known_images:
            write_bytes(
                folder / bundle.KNOWN_IMAGES, known_images, PRIVATE
            )  # who was in the training set
        write_bytes(folder / bundle.WEIGHTS, weights)
        write_json(folder / bundle.HISTORY, fitted.history)
        write_bytes(folder / bundle.HISTORY_CSV, history.csv(fitted.history).encode())
        write_bytes(
            folder / bundle.CURVES,
            history.png(fitted.history, fitted.phases, fitted.best_epoch, description.model_id),
        )
        write_json(folder / bundle.METRICS, metrics)
        write_bytes(folder / bundle.CARD, model_card(description, dataset, metrics).encode())
        write_json(folder / bundle.MODEL, description.to_dict())
    return description
