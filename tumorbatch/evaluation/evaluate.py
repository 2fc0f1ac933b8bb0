"""A model on the validation and test splits: what it is worth, with intervals, and a report."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tumorbatch import bundle, shardset
from tumorbatch.atomic import make_folder, real_folder, recover_folder
from tumorbatch.bundle import Bundle
from tumorbatch.checks import differences
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.evaluation.answers import Scored, score_split, whole
from tumorbatch.evaluation.baseline_tests import Baseline, beyond_metadata, stand_beside, verdict
from tumorbatch.evaluation.config import Config, Report
from tumorbatch.evaluation.error_gallery import errors_gallery
from tumorbatch.evaluation.freeze import frozen, renew, with_calibration
from tumorbatch.evaluation.model_card import model_card, protocol
from tumorbatch.evaluation.results import SCHEMA_VERSION, publish, refuse_foreign
from tumorbatch.evaluation.split_metrics import (
    METHOD,
    parts,
    size_bucket,
    size_buckets,
    split_metrics,
)
from tumorbatch.files import printable
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.runtime import resolve, versions
from tumorbatch.scoring import scorer
from tumorbatch.shardset import DATASET, Dataset
from tumorbatch.statistics.calibration import DEFAULT_RULE, Rule, calibrate

log = logging.getLogger(__name__)


def run(
    model: Path,
    tfrecords: Path,
    out: Path,
    config: Config,
    baselines: Sequence[Baseline] = (),
    copies: Mapping[str, str] | None = None,
) -> Report:
    """Evaluate the bundle `model` on the shard set `tfrecords`, and write the results to `out`.

    Args:
        model: The bundle.
        tfrecords: The shard set.
        out: Folder of the results.
        config: How.
        baselines: Scored on the images that are judged, to stand beside the model.
        copies: Of an external set: {path: how it is known} of the images that the model was trained or
            tuned on, which are left out; None where that could not be checked.

    Raises:
        InputError: The bundle or the shard set is missing, unfinished, empty or damaged, or nothing of
            an external set is new to the model.
        ConfigError: They do not belong together; `out` holds something else; no GPU where one was asked
            for.
        OutputError: `out` or the bundle cannot be written.
        TryAgainError: Another process writes `out` or the bundle.
    """
    started = time.monotonic()
    used, dataset = bundle.load(model), shardset.load(tfrecords)
    dataset_sha256 = shardset.file_sha256(tfrecords / DATASET)
    _fit_together(used, dataset, dataset_sha256, model, tfrecords, config.external)
    if out.name in ("", ".."):
        raise ConfigError(
            f"{out} cannot be replaced. Give the results a folder of their own with --out."
        )
    out = real_folder(out)
    make_folder(out.parent)
    with output_lock(out, lock_beside(out)):
        recover_folder(out)
        refuse_foreign(out, used, dataset_sha256, config.overwrite)
        runtime = resolve(config.device, precision="float32")
        log.info("model %s from %s, %s", used.model_id, model, runtime.reason)
        network = bundle.load_network(model, used)
        score = scorer(network, config.batch_size, runtime)
        if config.external:
            every = whole(tfrecords, dataset, score)
            scored = {"test": every.without(copies or {})}
            if not scored["test"].n:
                raise InputError(
                    f"The model was trained on a copy or near copy of every image in {tfrecords}: "
                    "nothing is left to judge it by. Give a set of other images."
                )
        else:
            scored = {
                split: score_split(tfrecords, dataset, split, score) for split in ("validation", "test")
            }
        as_is = config.external or config.as_is
        chosen = used if as_is else _calibrated(used, scored["validation"], config, dataset_sha256)
        log.info("figures: %d replicates of the bootstrap", config.replicates)
        metrics = {
            split: split_metrics(
                of, chosen.threshold, chosen.temperature, config.replicates, config.seed
            ).values
            for split, of in scored.items()
        }
        rows = stand_beside(scored["test"], baselines, config.replicates, config.seed)
        freeze = config.freeze and not as_is
        about = {
            "schema_version": SCHEMA_VERSION,
            "model": _about_model(chosen, model, used, freeze),
            "dataset": _about_dataset(dataset, tfrecords, dataset_sha256),
            "protocol": "external" if config.external else protocol(dataset),
            **({"overlap": _overlap(copies)} if config.external else {}),
            "method": METHOD | {"replicates": config.replicates, "seed": config.seed},
            **metrics,
            "parts": _parts(scored["test"], chosen, config),
            "baselines": rows,
            "beats_baselines": all(row["beaten"] for row in rows) if rows else None,
            "verdict": verdict(rows),
            "beyond_metadata": beyond_metadata(metrics["test"]["within_file_kinds"]) if rows else "",
            "runtime": runtime.reason,
            "versions": versions("keras", "tensorflow", "numpy", "scipy", "scikit-learn"),
        }
        gallery = errors_gallery(network, tfrecords, scored["test"], chosen, config.gallery)
        about["errors"] = [picture.about for picture in gallery]
        # The bundle first: results that name a model which nobody has are worse than old results.
        renewed = freeze and renew(model, chosen, metrics, model_card(chosen, dataset, metrics, rows))
        publish(out, about, scored, chosen, gallery)
    return Report(about, renewed, time.monotonic() - started)


def _fit_together(
    used: Bundle, dataset: Dataset, dataset_sha256: str, model: Path, tfrecords: Path, external: bool
) -> None:
    """Refuse a shard set whose test images may have been trained on, or which went another way."""
    if used.preprocessing != dataset.preprocessing:
        changes = "; ".join(
            f"{name}: {there} in the model, {here} in the shards"
            for name, there, here in differences(
                used.preprocessing.to_dict(), dataset.preprocessing.to_dict()
            )
        )
        raise ConfigError(
            f"{model} was trained on images that were prepared differently from those in {tfrecords} "
            f"({changes}). Give the shard set that it was trained on."
        )
    own = used.training.get("dataset_sha256") == dataset_sha256
    if own and external:
        raise ConfigError(f"{tfrecords} is what {model} was trained on: leave out --external.")
    if not own and not external:
        raise ConfigError(
            f"{model} was trained on another shard set than {tfrecords}: its test images may be among "
            "those that were trained on, and no figure would mean anything. Give the shard set that it "
            "was trained on; or --external, if you know that the two share no patient."
        )


def _calibrated(used: Bundle, validation: Scored, config: Config, dataset_sha256: str) -> Bundle:
    """The bundle with temperature and threshold: its own where they are what is asked for."""
    before = used.calibration.get("threshold", {}).get("rule")
    rule = Rule.parse(config.rule or before or DEFAULT_RULE)
    if before == str(rule) and used.calibration["dataset_sha256"] == dataset_sha256:
        return used  # not anew: another processor's last bits must not make another model
    temperature, threshold = calibrate(validation.logits, validation.labels, rule)
    log.info("temperature %g: %s", temperature.value, temperature.note)
    log.info("threshold %g: %s", threshold.value, threshold.note)
    if not threshold.reached:
        log.warning("threshold: %s", threshold.note)
    return with_calibration(used, frozen(asdict(temperature), asdict(threshold), dataset_sha256))


def _about_model(chosen: Bundle, model: Path, used: Bundle, freeze: bool) -> dict[str, Any]:
    return {
        "name": printable(model.resolve().name),
        "model_id": chosen.model_id,
        "architecture": chosen.architecture,
        "weights_sha256": chosen.weights_sha256,
        "preprocessing_fingerprint": chosen.preprocessing.fingerprint,
        "threshold": chosen.threshold,
        "temperature": chosen.temperature,
        "calibration": chosen.calibration,
        # False: `infer` decides by what the bundle still says.
        "frozen": freeze or chosen == used,
        "bundle_model_id": chosen.model_id if freeze else used.model_id,
        "parameters": chosen.training.get("parameters"),
        "epochs": chosen.training.get("epochs"),
        "seed": chosen.training.get("schedule", {}).get("seed"),
        "trained_on_leaky_split": bool(chosen.training.get("leaky")),
    }


def _about_dataset(dataset: Dataset, tfrecords: Path, sha256: str) -> dict[str, Any]:
    return {
        "name": printable(tfrecords.resolve().name),
        "sha256": sha256,
        "split_by": dataset.split_by,
        "leaky": dataset.leaky,
        "seed": dataset.seed,
        "counts": dataset.counts,
        "shared_between_splits": dataset.shared,
        "patients_known": dataset.groups.get("patients", 0),
    }


def _overlap(copies: Mapping[str, str] | None) -> dict[str, Any] | None:
    """How many images were left out, by how they are known; None where that was not checked."""
    if copies is None:
        return None
    return {"left_out": len(copies), **dict(sorted(Counter(copies.values()).items()))}


def _parts(test: Scored, chosen: Bundle, config: Config) -> dict[str, Any]:
    sizes = [size_bucket(int(w), int(h)) for w, h in zip(test.widths, test.heights, strict=True)]
    frequency = sorted(set(test.formats), key=lambda name: (-test.formats.count(name), name))
    at = (chosen.threshold, chosen.temperature, config.replicates, config.seed)
    return {
        "by_format": parts(test, test.formats, frequency, *at),
        "by_size": parts(test, sizes, size_buckets(), *at),
    }
