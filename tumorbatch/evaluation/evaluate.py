"""Evaluate a model on the validation and test splits: measures with intervals, and a report."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tumorbatch import bundle, shardset
from tumorbatch.atomic import make_folder, real_folder, recover_folder
from tumorbatch.bundle import Bundle
from tumorbatch.checks import differences
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.evaluation.answers import Answers, score_split, score_whole
from tumorbatch.evaluation.baseline_tests import beyond_metadata, measure_baselines, verdict
from tumorbatch.evaluation.config import Config, Report
from tumorbatch.evaluation.error_gallery import errors_gallery
from tumorbatch.evaluation.freeze import frozen, renew, with_calibration
from tumorbatch.evaluation.label_suspects import label_suspects, suspect_pictures
from tumorbatch.evaluation.model_card import model_card
from tumorbatch.evaluation.results import SCHEMA_VERSION, publish, refuse_foreign
from tumorbatch.evaluation.split_metrics import METHOD, by_format_and_size, split_metrics
from tumorbatch.files import printable
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.runtime import Runtime, resolve, versions
from tumorbatch.scoring import Scorer, scorer
from tumorbatch.shardset import DATASET, Dataset
from tumorbatch.statistics.calibration import DEFAULT_RULE, Rule, calibrate
from tumorbatch.statistics.weighting import headline

log = logging.getLogger(__name__)


def run(
    model: Path,
    tfrecords: Path,
    out: Path,
    config: Config,
    baselines: Sequence[Answers] = (),
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
            tuned on, which are left out; None if that could not be checked.

    Raises:
        InputError: The bundle or the shard set is missing, unfinished, empty or damaged, or nothing of
            an external set is new to the model.
        ConfigError: They do not belong together; `out` holds something else; no GPU where one was asked
            for.
        OutputError: `out` or the bundle cannot be written.
        TryAgainError: Another process writes `out` or the bundle.
    """
    started = time.monotonic()
    loaded, dataset = bundle.load(model), shardset.load(tfrecords)
    dataset_sha256 = shardset.file_sha256(tfrecords / DATASET)
    _fit_together(loaded, dataset, dataset_sha256, model, tfrecords, config.external)
    if out.name in ("", ".."):
        raise ConfigError(
            f"{out} cannot be replaced. Give the results a folder of their own with --out."
        )
    out = real_folder(out)
    make_folder(out.parent)
    with output_lock(out, lock_beside(out)):
        recover_folder(out)
        refuse_foreign(out, loaded, dataset_sha256, config.overwrite)
        runtime = resolve(config.device, precision="float32")
        log.info("model %s from %s, %s", loaded.model_id, model, runtime.reason)
        network = bundle.load_network(model, loaded)
        score = scorer(network, config.batch_size, runtime)
        answers = _scored(tfrecords, dataset, score, config, copies)
        as_is = config.external or config.as_is
        chosen = loaded if as_is else _calibrated(loaded, answers["validation"], config, dataset_sha256)
        answers = {
            split: replace(
                one.at(chosen.threshold, chosen.temperature),
                name=printable(model.resolve().name),
                architecture=chosen.architecture,
                model_id=chosen.model_id,
            )
            for split, one in answers.items()
        }
        freeze = config.freeze and not as_is
        about = {
            "schema_version": SCHEMA_VERSION,
            "model": _about_model(chosen, model, loaded, freeze),
            "dataset": _about_dataset(dataset, tfrecords, dataset_sha256),
            "protocol": answers["test"].protocol.key,
            **({"overlap": _overlap(copies)} if config.external else {}),
            **_measured(answers, baselines, config, runtime),
        }
        gallery = errors_gallery(network, tfrecords, dataset, answers["test"], config.gallery)
        about["errors"] = [picture.about for picture in gallery]
        about["label_suspects"] = label_suspects(answers)
        suspects = suspect_pictures(tfrecords, dataset, about["label_suspects"], config.gallery)
        # The bundle first: results that name a model which nobody has are worse than old results.
        metrics = {split: about[split] for split in answers}
        card = model_card(chosen, dataset, metrics, about["baselines"])
        renewed = freeze and renew(model, chosen, metrics, card)
        publish(out, about, answers, chosen, gallery, suspects)
    return Report(about, renewed, time.monotonic() - started)


def _scored(
    tfrecords: Path,
    dataset: Dataset,
    score: Scorer,
    config: Config,
    copies: Mapping[str, str] | None,
) -> dict[str, Answers]:
    """Return the logits of validation and test; of an external set, of all images but the copies."""
    if not config.external:
        return {
            split: score_split(tfrecords, dataset, split, score) for split in ("validation", "test")
        }
    test = score_whole(tfrecords, dataset, score).without(copies or {})
    if not test.images.n:
        raise InputError(
            f"The model was trained on a copy or near copy of every image in {tfrecords}: nothing is "
            "left to judge it by. Give a set of other images."
        )
    return {"test": test}


def _measured(
    answers: Mapping[str, Answers], baselines: Sequence[Answers], config: Config, runtime: Runtime
) -> dict[str, Any]:
    """Return all measures, as metrics.json has them."""
    log.info("measures: %d replicates of the bootstrap", config.replicates)
    metrics = {
        split: split_metrics(one, config.replicates, config.seed) for split, one in answers.items()
    }
    rows = measure_baselines(answers["test"], baselines, config.replicates, config.seed)
    within = headline(metrics["test"])["within_file_kinds"]
    return {
        "method": METHOD | {"replicates": config.replicates, "seed": config.seed},
        **metrics,
        "parts": by_format_and_size(answers["test"], config.replicates, config.seed),
        "baselines": rows,
        "beats_baselines": all(row["beaten"] for row in rows) if rows else None,
        "verdict": verdict(rows),
        "beyond_metadata": beyond_metadata(within) if rows else "",
        "runtime": runtime.reason,
        "versions": versions("keras", "tensorflow", "numpy", "scipy", "scikit-learn"),
    }


def _fit_together(
    loaded: Bundle, dataset: Dataset, dataset_sha256: str, model: Path, tfrecords: Path, external: bool
) -> None:
    """Refuse a shard set whose test images may have been trained on, or which went another way."""
    if loaded.preprocessing != dataset.preprocessing:
        changes = "; ".join(
            f"{name}: {trained} in the model, {given} in the shards"
            for name, trained, given in differences(
                loaded.preprocessing.to_dict(), dataset.preprocessing.to_dict()
            )
        )
        raise ConfigError(
            f"{model} was trained on images that were prepared differently from those in {tfrecords} "
            f"({changes}). Give the shard set that it was trained on."
        )
    own = loaded.training.get("dataset_sha256") == dataset_sha256
    if own and external:
        raise ConfigError(f"{tfrecords} is what {model} was trained on: leave out --external.")
    if not own and not external:
        raise ConfigError(
            f"{model} was trained on another shard set than {tfrecords}: its test images may be among "
            "those that were trained on, and no figure would mean anything. Give the shard set that it "
            "was trained on; or --external, if you know that the two share no patient."
        )


def _calibrated(loaded: Bundle, validation: Answers, config: Config, dataset_sha256: str) -> Bundle:
    """Return the bundle with temperature and threshold: its own where they are what is asked for."""
    before = loaded.calibration.get("threshold", {}).get("rule")
    rule = Rule.parse(config.rule or before or DEFAULT_RULE)
    if before == str(rule) and loaded.calibration["dataset_sha256"] == dataset_sha256:
        return loaded  # not anew: another processor's last bits must not make another model
    temperature, threshold = calibrate(validation.scores, validation.labels, rule)
    log.info("temperature %g: %s", temperature.value, temperature.note)
    log.info("threshold %g: %s", threshold.value, threshold.note)
    if not threshold.reached:
        log.warning("threshold: %s", threshold.note)
    return with_calibration(loaded, frozen(asdict(temperature), asdict(threshold), dataset_sha256))


def _about_model(chosen: Bundle, model: Path, loaded: Bundle, freeze: bool) -> dict[str, Any]:
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
        "frozen": freeze or chosen == loaded,
        "bundle_model_id": chosen.model_id if freeze else loaded.model_id,
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
    """Return how many images were left out, by how they are known; None if that was not checked."""
    if copies is None:
        return None
    return {"left_out": len(copies), **dict(sorted(Counter(copies.values()).items()))}
