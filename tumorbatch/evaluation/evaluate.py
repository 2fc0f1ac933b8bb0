"""Evaluate a model on the validation and test splits: measures with intervals, and a report."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tumorbatch.atomic import make_folder, real_folder, recover_folder
from tumorbatch.bundle import Bundle
from tumorbatch.bundle_weights import load_network
from tumorbatch.checks import refuse_nameless
from tumorbatch.errors import InputError
from tumorbatch.evaluation.answers import Answers, score_split, score_whole
from tumorbatch.evaluation.baseline_tests import beyond_metadata, measure_baselines, verdict
from tumorbatch.evaluation.choice import choose
from tumorbatch.evaluation.config import Config, Patients, Report
from tumorbatch.evaluation.error_gallery import errors_gallery
from tumorbatch.evaluation.freeze import renew, with_calibration
from tumorbatch.evaluation.held_out import as_validation, read_out_of_fold
from tumorbatch.evaluation.label_suspects import label_suspects, suspect_pictures
from tumorbatch.evaluation.model_card import model_card
from tumorbatch.evaluation.results import SCHEMA_VERSION, publish, refuse_foreign
from tumorbatch.evaluation.selective import selective
from tumorbatch.evaluation.split_metrics import METHOD, by_format_and_size, split_metrics
from tumorbatch.evaluation.subject import Subject
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.runtime import Runtime, resolve, versions
from tumorbatch.scoring import Scorer, scorer
from tumorbatch.statistics.calibration import DEFAULT_RULE, Rule
from tumorbatch.statistics.weighting import headline

log = logging.getLogger(__name__)


def run(
    model: Path,
    tfrecords: Path,
    out: Path,
    config: Config,
    baselines: Sequence[Answers] = (),
    copies: Mapping[str, str] | None = None,
    patients: Patients | None = None,
) -> Report:
    """Evaluate the bundle `model` on the shard set `tfrecords`, and write the results to `out`.

    Args:
        model: The bundle.
        tfrecords: The shard set.
        out: Folder of the results.
        config: How.
        baselines: Scored on the same images, for comparison with the model.
        copies: Of an external set: {path: how it is known} of the images that the model was trained or
            tuned on, which are left out; None if that could not be checked.
        patients: Of an external set: the groups over which intervals are taken; None: the shard set's.

    Raises:
        InputError: The bundle or the shard set is missing, unfinished, empty or damaged, or nothing of
            an external set is new to the model.
        ConfigError: They do not belong together; `out` holds something else; no GPU where one was asked
            for.
        OutputError: `out` or the bundle cannot be written.
        TryAgainError: Another process writes `out` or the bundle.
    """
    started = time.monotonic()
    subject = Subject.load(model, tfrecords, config.external)
    refuse_nameless(out)
    out = real_folder(out)
    make_folder(out.parent)
    with output_lock(out, lock_beside(out)):
        recover_folder(out)
        refuse_foreign(out, subject.bundle, subject.dataset_sha256, config.overwrite)
        runtime = resolve(config.device, precision="float32")
        log.info("model %s from %s, %s", subject.bundle.model_id, model, runtime.reason)
        network = load_network(model, subject.bundle)
        wanted = subject.bundle.with_tta(config.tta)
        score = scorer(network, config.batch_size, runtime, wanted.tta)
        answers = _score(subject, score, config, copies)
        if patients is not None:
            answers = {split: one.grouped(patients.groups) for split, one in answers.items()}
        as_is = config.external or config.as_is
        by_folds = {} if config.external else _by_folds(subject)
        if by_folds:
            answers["validation"] = as_validation(by_folds)
        chosen = wanted if as_is else _calibrate(subject, wanted, answers, by_folds, config)
        answers = {split: each.by_bundle(subject.name, chosen) for split, each in answers.items()}
        unchanged = chosen == subject.bundle
        freeze = not as_is and (unchanged if config.freeze is None else config.freeze)
        about = {
            "schema_version": SCHEMA_VERSION,
            "model": subject.about_model(chosen, freeze),
            "dataset": subject.about_dataset(patients),
            "protocol": answers["test"].protocol.key,
            **({"overlap": _overlap(copies)} if config.external else {}),
            **_measure(answers, baselines, config, runtime),
        }
        gallery = errors_gallery(network, tfrecords, subject.dataset, answers["test"], config.gallery)
        about["errors"] = [picture.about for picture in gallery]
        suspects = about["label_suspects"] = label_suspects(answers)
        pictures = suspect_pictures(tfrecords, subject.dataset, suspects, config.gallery)
        # The bundle first: old results are better than new ones of a model that is nowhere.
        metrics = {split: about[split] for split in answers}
        card = model_card(chosen, subject.dataset, metrics, about["baselines"])
        renewed = freeze and renew(model, chosen, metrics, card)
        publish(out, about, answers, chosen, gallery, pictures)
    return Report(about, renewed, subject.bundle.model_id, time.monotonic() - started)


def _score(
    subject: Subject, score: Scorer, config: Config, copies: Mapping[str, str] | None
) -> dict[str, Answers]:
    """Return the logits of validation and test; of an external set, of all images but the copies."""
    tfrecords, dataset = subject.tfrecords, subject.dataset
    if not config.external:
        # By folds, every validation image was trained on: `_by_folds` has its logit.
        splits = ("test",) if subject.bundle.out_of_fold_sha256 else ("validation", "test")
        return {split: score_split(tfrecords, dataset, split, score) for split in splits}
    test = score_whole(tfrecords, dataset, score).without(copies or {})
    if not test.images.n:
        raise InputError(
            f"The model was trained on a copy or near copy of every image in {tfrecords}: nothing is "
            "left to judge it by. Give a set of other images."
        )
    return {"test": test}


def _by_folds(subject: Subject) -> dict[str, Answers]:
    """Return the bundle's out-of-fold answers, {} if it was not trained by folds."""
    return read_out_of_fold(subject.model, subject.bundle, subject.tfrecords, subject.dataset)


def _measure(
    answers: Mapping[str, Answers], baselines: Sequence[Answers], config: Config, runtime: Runtime
) -> dict[str, Any]:
    """Return all measures, as metrics.json has them."""
    log.info("measures: %d replicates of the bootstrap", config.replicates)
    metrics = {
        split: split_metrics(each, config.replicates, config.seed) for split, each in answers.items()
    }
    rows = measure_baselines(answers["test"], baselines, config.replicates, config.seed)
    within = headline(metrics["test"])["within_file_kinds"]
    return {
        "method": METHOD | {"replicates": config.replicates, "seed": config.seed},
        **metrics,
        "selective": selective(answers["test"], config.replicates, config.seed),
        "parts": by_format_and_size(answers["test"], config.replicates, config.seed),
        "baselines": rows,
        "beats_baselines": all(row["beaten"] for row in rows) if rows else None,
        "verdict": verdict(rows),
        "beyond_metadata": beyond_metadata(within) if rows else "",
        "runtime": runtime.reason,
        "versions": versions("keras", "tensorflow", "numpy", "scipy", "scikit-learn"),
    }


def _calibrate(
    subject: Subject,
    bundle: Bundle,
    answers: Mapping[str, Answers],
    by_folds: Mapping[str, Answers],
    config: Config,
) -> Bundle:
    """Return the bundle with temperature and threshold; with its own if they follow the same rule."""
    own_rule = bundle.calibration.get("threshold", {}).get("rule")
    rule = Rule.parse(config.rule or own_rule or DEFAULT_RULE)
    unchanged = bundle.tta == subject.bundle.tta or bool(by_folds)  # folds have seen no mirrors
    same_set = own_rule and bundle.calibration["dataset_sha256"] == subject.dataset_sha256
    if own_rule == str(rule) and same_set and unchanged:
        return bundle  # not anew: the last bits of another processor must not make another model
    calibration = choose(
        answers["validation"], by_folds, rule, subject.dataset_sha256, config.replicates
    )
    threshold = calibration["threshold"]
    if not threshold["reached"]:
        log.warning("threshold: %s", threshold["note"])
    return with_calibration(bundle, calibration)


def _overlap(copies: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Return how many images were left out, by how they are known; None if that was not checked."""
    if copies is None:
        return None
    return {"left_out": len(copies), **dict(sorted(Counter(copies.values()).items()))}
