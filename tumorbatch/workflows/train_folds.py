"""Train one network for each fold, and join them into one bundle.

Each image of training and validation split is held out by one of the networks, so that temperature and
threshold are chosen on predictions of all of them. Finished networks wait in `.OUT.folds/`: the same
command continues from there after a kill.
"""

import functools
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tumorbatch import bundle, shardset
from tumorbatch.atomic import make_folder, real_folder, recover_folder
from tumorbatch.bundle import OUT_OF_FOLD, Bundle
from tumorbatch.checks import format_changes, refuse_nameless
from tumorbatch.errors import ConfigError
from tumorbatch.files import counted, is_empty
from tumorbatch.fold_images import fold_images
from tumorbatch.folds import GROUP, SHAPE, Fold, Folds
from tumorbatch.known_images import known_images_of
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.out_of_fold import OutOfFold, read
from tumorbatch.parts import Part as Task
from tumorbatch.runtime import load_tensorflow
from tumorbatch.shardset import DATASET, Dataset
from tumorbatch.train import pretrained, training
from tumorbatch.train.config import Config
from tumorbatch.workflows import ensemble, ensemble_bundle
from tumorbatch.workflows.ensemble import Report
from tumorbatch.workflows.ensemble_bundle import Joined, Part
from tumorbatch.workflows.steps import forget

log = logging.getLogger(__name__)


def trainer(
    count: int | None, by: str | None, part: Task | None = None
) -> Callable[[Path, Path, Config], training.Report | Report | None]:
    """Return the function that trains: one network, or one for each of `count` folds.

    With `part` it trains the folds of that part alone, publishes nothing, and returns None.

    Raises:
        ConfigError: `by` is given without `count`.
    """
    if count is None:
        if by is not None:
            raise ConfigError("--folds-by needs --folds.")
        return training.run
    folds = Folds(count, by or GROUP)
    if part is not None:
        return functools.partial(run_part, folds=folds, part=part)
    return functools.partial(run, folds=folds)


def run_part(tfrecords: Path, out: Path, config: Config, folds: Folds, part: Task) -> None:
    """Train every so-many-th fold, one task of several; `run` joins them when all are there.

    Args:
        tfrecords, out, config, folds: As for `run`.
        part: Which of them.

    Raises:
        TumorBatchError: As `run`.
    """
    _refuse_stream(config)
    out = real_folder(out)
    for _ in _trained(tfrecords, _work(out), config, part.share(folds.all())):
        pass


def _work(out: Path) -> Path:
    """Return the folder in which the networks of the folds wait; make it."""
    work = out.with_name(f".{out.name}.folds")
    make_folder(out.parent)
    make_folder(work)
    return work


def _refuse_stream(config: Config) -> None:
    if config.feed == "stream" or config.shards:
        option = "--stream" if config.shards else "--feed stream"
        raise ConfigError(f"Folds are held in memory: leave out {option}.")


def run(tfrecords: Path, out: Path, config: Config, folds: Folds) -> Report:
    """Train a network for each fold, and write their ensemble to `out`.

    Args:
        tfrecords: The shard set; its test split is not trained on.
        out: Folder of the bundle.
        config: How each network is trained; the seed rises by one from fold to fold.
        folds: See there.

    Raises:
        InputError: The shard set is missing, unfinished or damaged.
        ConfigError: It cannot be divided so often; `out` holds something else.
        OutputError: `out` cannot be written.
        TryAgainError: Another process trains the same fold, or writes `out`.
    """
    started = time.monotonic()
    _refuse_stream(config)
    dataset = shardset.load(tfrecords)
    if config.variants:
        dataset = dataset.select(config.variants)
    refuse_nameless(out)
    out = real_folder(out)
    wanted = folds.all()
    for by in dict.fromkeys(fold.by for fold in wanted):
        images = fold_images(tfrecords, dataset, folds.count, by)  # before anything costs time
        if images.imbalance:
            log.warning("by %s %s", by, images.imbalance)
    summary = _summary(tfrecords, dataset, config, folds)
    make_folder(out.parent)
    recover_folder(out)
    work = out.with_name(f".{out.name}.folds")
    if _already_done(out, summary, config.overwrite):
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed at its very end
        done = bundle.load(out)
        bundle.check_weights(out, done)
        return Report(done, bundle.read_metrics(out), time.monotonic() - started, True)
    work = _work(out)
    log.info(
        "%s, one after another; an image will then cost %s",
        counted(len(wanted), "training"), counted(folds.count, "network"),
    )  # fmt: skip
    parts = list(_trained(tfrecords, work, config, wanted))
    with output_lock(out, lock_beside(out)):
        made, metrics = _publish(out, parts, tfrecords, dataset, config, summary)
    shutil.rmtree(work, ignore_errors=True)
    return Report(made, metrics, time.monotonic() - started)


def _summary(tfrecords: Path, dataset: Dataset, config: Config, folds: Folds) -> dict[str, Any]:
    """Return what determines the result."""
    if config.start == "imagenet":  # Keras may have to download it, and brings TensorFlow with it
        load_tensorflow(config.threads, config.onednn)
    start = pretrained.find(config.start, config.architecture)
    sha256 = shardset.file_sha256(tfrecords / DATASET)
    return {
        **training.summarise(config, sha256, dataset, start),
        "folds": {"count": folds.count, "by": folds.by},
    }


def _already_done(out: Path, summary: dict[str, Any], overwrite: bool) -> bool:
    """Return whether `out` holds this result; raise `ConfigError` if it may not be replaced."""
    bundle.refuse_foreign(out)
    if overwrite or not out.exists() or is_empty(out):
        return False
    of_members = bundle.load(out).training.get("members_training", {})
    changes = format_changes(of_members, summary)
    if changes:
        raise ConfigError(
            f"{out} already holds a model that was trained differently ({changes}). "
            "Give another folder with --out, or --overwrite to replace it."
        )
    return True


def _trained(tfrecords: Path, work: Path, config: Config, wanted: list[Fold]) -> Iterator[Part]:
    """Yield the trained network of each fold; those that are there already are kept."""
    seconds: list[float] = []
    for done, fold in enumerate(wanted):
        if seconds:
            left = (len(wanted) - done) * sum(seconds) / len(seconds)
            log.info("%d of %d trainings left, about %.0f s", len(wanted) - done, len(wanted), left)
        folder = work / f"{fold.by}-{fold.number}"
        schedule = replace(config.schedule, seed=config.schedule.seed + fold.number)
        own = replace(
            config, schedule=schedule, fold=fold, feed="ram", known_images="off", overwrite=False
        )
        started = time.monotonic()
        try:
            report = training.run(tfrecords, folder, own)
        except ConfigError:  # of other settings, from an earlier command that did not end
            if not folder.exists() and not _unfinished(folder):
                raise
            report = training.run(tfrecords, folder, replace(own, overwrite=True))
        if not report.unchanged:
            seconds.append(time.monotonic() - started)
        forget()
        yield Part(folder, folder.name, report.bundle)


def _unfinished(folder: Path) -> bool:
    return folder.with_name(f".{folder.name}.checkpoint").exists()


def _publish(
    out: Path,
    parts: list[Part],
    tfrecords: Path,
    dataset: Dataset,
    config: Config,
    summary: dict[str, Any],
) -> tuple[Bundle, dict[str, Any]]:
    logits: dict[str, list[OutOfFold]] = {}
    for part in parts:
        for by, one in read(part.folder / OUT_OF_FOLD, part.bundle.out_of_fold_sha256).items():
            logits.setdefault(by, []).append(one)
    by_folds = {by: OutOfFold.joined(several) for by, several in logits.items()}
    kept = GROUP if GROUP in by_folds else SHAPE
    networks = [part for part in parts if part.bundle.training["fold"]["by"] == kept]
    joined = Joined(
        networks,
        ensemble.join(networks),
        by_folds,
        known_images_of(tfrecords, dataset, config.known_images, all_trained_on=True),
        {"members_training": summary},
    )
    load_tensorflow(config.threads, config.onednn)
    how = ensemble_bundle.Config(config.device, config.schedule.batch_size)
    return ensemble_bundle.publish(out, joined, tfrecords, dataset, how)
