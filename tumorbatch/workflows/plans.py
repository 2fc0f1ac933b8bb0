"""What `shard`, `train` and `infer` would do, and its cost: for --dry-run. Nothing is written."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tumorbatch import bundle, shardset
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.files import FoundFile, counted, printable
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.parts import area_beside, find_chunks
from tumorbatch.workflows import checks, steps
from tumorbatch.workflows.cost import Cost

if TYPE_CHECKING:
    from tumorbatch.infer.config import Config as InferConfig
    from tumorbatch.preprocess.shard import Config as ShardConfig
    from tumorbatch.train.config import Config as TrainConfig

_BATCHES = 3  # that are timed
_ROW = 110  # bytes of a row of predictions in Parquet beside its path, about: mostly the sha256


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command would do.

    Attributes:
        sentences: For people.
        facts: The same as JSON values.
    """

    sentences: tuple[str, ...]
    facts: dict[str, Any]


def _costs(cost: Cost) -> dict[str, Any]:
    return {
        "seconds": round(cost.seconds, 1),
        "seconds_at_most": round(cost.seconds_at_most, 1),
        "bytes": cost.bytes,
        "bytes_while_working": cost.bytes_while_working,
    }


def _megabytes(files: Sequence[FoundFile]) -> str:
    return f"{sum(file.size for file in files) / 1e6:,.1f} MB"


def of_shard(source: Path, out: Path, config: "ShardConfig") -> Plan:
    """Return what `shard` would do; a few files are decoded to time it.

    Raises:
        InputError, ConfigError: As `preprocess.shard.run`, as far as can be seen without decoding.
    """
    from tumorbatch.preprocess.classes import find_sources, refuse_inside
    from tumorbatch.preprocess.given_splits import refuse_without_splits
    from tumorbatch.preprocess.shard_writer import shard_count

    files = find_sources(source, config.classes)
    refuse_inside(out, source, files, config.classes)
    refuse_without_splits(source, files, config.split_by)
    known = _known_files(out) if not config.overwrite else {}
    new = [entry for entry in files if known.get(entry.file.name, -1) not in (entry.file.size, None)]
    cost = steps.shards_cost(new, config) if new else Cost()
    classes = {
        name: sum(entry.label == label for entry in files) for label, name in enumerate(CLASS_NAMES)
    }
    record = math.prod(config.preprocessing.shape)
    shards = sum(
        shard_count(math.ceil(share * len(files)) * record, config.shard_bytes)
        for share in config.fractions.values()
    )
    gone = len(known.keys() - {entry.file.name for entry in files})
    names = ", ".join(f"{count:,} {name}" for name, count in classes.items())
    sentences = [
        f"{len(files):,} files ({names}), {_megabytes([entry.file for entry in files])}, would give "
        f"about {counted(shards, 'shard')} in {printable(str(out))}.",
    ]
    if known:
        sentences.append(
            f"The set is there: {len(new):,} files are new or have another size, {gone:,} are gone. A "
            "file of the same size is read again if its content may have changed."
        )
    sentences.append(f"Cost with {counted(config.workers, 'worker')}: {cost.text()}.")
    facts = {"files": len(files), "classes": classes, "shards": shards, "new": len(new), "gone": gone}
    return Plan(tuple(sentences), {**facts, **_costs(cost)})


def _known_files(out: Path) -> dict[str, int | None]:
    """Return {path: bytes, or None of one that could not be read} of a finished set; {} without one."""
    if not (out / shardset.DATASET).is_file():
        return {}
    paths, sizes = checks.columns(out, "path", "file_size")
    return dict(zip(paths, sizes, strict=True))


def of_train(tfrecords: Path, trainings: Mapping[Path, "TrainConfig"]) -> Plan:
    """Return what `train` would do; a few steps are made to time it.

    Args:
        tfrecords: The shard set.
        trainings: {folder of the bundle: how it is trained}.

    Raises:
        InputError, ConfigError: The shard set is missing or damaged; no GPU where one was asked for.
    """
    dataset = shardset.load(tfrecords)
    images = {split: dataset.records(split) for split in SPLITS}
    size = dataset.preprocessing.size
    counts = ", ".join(f"{count:,} {split}" for split, count in images.items())
    sentences = [f"{printable(str(tfrecords))}: {counts} images of {size} x {size} pixels."]
    facts: list[dict[str, Any]] = []
    total = Cost()
    for out, config in trainings.items():
        step = steps.TrainingStep(tfrecords, out, config)
        speed = steps.speed([], config, size)
        cost = steps.training_cost(step, images["train"] + images["validation"], size, speed)
        schedule = config.schedule
        epochs = schedule.epochs + schedule.finetune_epochs
        per_epoch = math.ceil(images["train"] / schedule.batch_size)
        exists = "" if step.missing else "; a bundle is there, and is kept if it is this training"
        sentences.append(
            f"{printable(str(out))}: {config.architecture}, at most {counted(epochs, 'epoch')} of "
            f"{counted(per_epoch, 'step')}, {speed.images_per_second:,.0f} images/s ({speed.source}): "
            f"{cost.text()}{exists}."
        )
        facts.append(
            {"out": printable(str(out)), "architecture": config.architecture, "epochs_at_most": epochs,
             "steps_per_epoch": per_epoch, "exists": not step.missing,
             "images_per_second": round(speed.images_per_second, 1), **_costs(cost)}
        )  # fmt: skip
        total += cost
    if len(trainings) > 1:
        sentences.append(f"All {len(trainings)} trainings: {total.text()}.")
    return Plan(tuple(sentences), {"images": images, "trainings": facts, **_costs(total)})


def of_infer(sources: Sequence[Path], out: Path, model: Path, config: "InferConfig") -> Plan:
    """Return what `infer` would do; a few files are decoded and predicted to time it.

    Raises:
        InputError, ConfigError, OutputError: As `infer.inference.run`.
    """
    from tumorbatch.infer.listing import list_files
    from tumorbatch.infer.target import Target

    target = Target.choose(out, config.format)
    loaded = bundle.load(model)
    target.refuse_missing_folder()
    before = None if config.overwrite else target.refuse_foreign(loaded.model_id)
    own = frozenset(map(os.path.realpath, map(str, target.outputs())))
    listing = list_files(sources, config.selection, own, None)
    files = list(listing.files)
    hidden = config.path_mode == "hash"
    kept = 0
    if config.incremental and before is not None and not (config.content or hidden):
        kept = _kept(target.path, files)
    waiting = _waiting_rows(target.path)
    new = len(files) - kept
    decoding, network = _times(files, model, loaded, config)
    seconds = new * (decoding + network)
    rows = len(files)
    table = rows * _ROW + sum(min(64, len(file.name)) for file in files)
    sentences = [
        f"{rows:,} files, {_megabytes(files)}, would be {rows:,} rows or more in "
        f"{printable(str(target.path))} ({target.format}, about {max(1, round(table / 1e6)):,} MB), by "
        f"model {loaded.model_id}. Left out: {listing.others:,} not images or not selected, "
        f"{listing.young:,} too young.",
    ]
    if config.incremental:
        sentences.append(
            f"{kept:,} rows of the last table are kept, {new:,} files are read."
            if not (config.content or hidden)
            else "Which rows are kept is seen only when the files are read."
        )
    if waiting:
        sentences.append(f"An interrupted run has left {waiting:,} rows, which are taken over.")
    minutes = max(1, math.ceil(seconds / 60))
    sentences.append(
        f"Cost with {counted(config.workers, 'worker')}: about {counted(minutes, 'minute')} (decoding "
        f"{decoding * 1e3:.1f} ms a file, network {network * 1e3:.1f} ms, measured now on a few), and "
        "some seconds to load TensorFlow. Files of many frames take longer."
    )
    facts = {
        "files": rows, "bytes_of_files": sum(file.size for file in files), "kept": kept,
        "new": new, "others": listing.others, "young": listing.young, "waiting_rows": waiting,
        "format": target.format, "model_id": loaded.model_id, "seconds": round(seconds, 1),
        "bytes": table,
    }  # fmt: skip
    return Plan(tuple(sentences), facts)


def _kept(table: Path, files: Sequence[FoundFile]) -> int:
    """Return how many files have rows in the last table that are still valid."""
    from tumorbatch.infer.predictions import iterate_rows
    from tumorbatch.infer.work_area import aligned, by_file, matches

    return sum(
        entry.file is not None and matches(entry.file, entry.rows[0], also_errors=False)
        for entry in aligned(files, [by_file(iterate_rows(table))])
    )


def _waiting_rows(out: Path) -> int:
    """Return how many rows an interrupted run, or the tasks of a job, have left next to a table."""
    import pyarrow.parquet as pq

    from tumorbatch.infer.work_area import attempt_files

    area, count = area_beside(out), 0
    chunks = [paths[0] for paths in find_chunks(area).values()]  # two tasks may have computed one
    for path in (*attempt_files(area), *chunks):
        try:
            count += pq.read_metadata(path).num_rows
        except (OSError, ValueError):
            continue  # it is computed again
    return count


def _times(
    files: Sequence[FoundFile], model: Path, loaded: bundle.Bundle, config: "InferConfig"
) -> tuple[float, float]:
    """Return the seconds that a file takes to decode, with all workers, and in the network."""
    from tumorbatch.infer.network import Network
    from tumorbatch.preprocess.classes import SourceFile
    from tumorbatch.preprocess.shard import Config as ShardConfig

    how = ShardConfig(
        preprocessing=loaded.preprocessing, formats=config.formats, workers=config.workers,
        timeout=min(config.seconds, 86_400),
    )  # fmt: skip
    decoding = steps.shards_cost([SourceFile(file, 0) for file in files], how).seconds / len(files)
    network = Network(model, loaded, config)
    score = network.load()
    images = np.zeros((config.batch_size, *loaded.preprocessing.shape), np.uint8)
    started = time.monotonic()
    for _ in range(_BATCHES):
        score(images)
    return decoding, (time.monotonic() - started) / (_BATCHES * config.batch_size)
