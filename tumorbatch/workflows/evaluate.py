"""Evaluate a bundle and compare it with baselines, on its own shard set or on an external one."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tumorbatch import bundle, shardset
from tumorbatch.bundle import Bundle
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import ConfigError
from tumorbatch.evaluation import baselines
from tumorbatch.evaluation import evaluate as evaluation
from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.config import Config, Patients, Report
from tumorbatch.known_images import KnownImages
from tumorbatch.preprocess import overlap
from tumorbatch.preprocess.duplicates import unite
from tumorbatch.preprocess.patients import read_patients, refuse_unmatched
from tumorbatch.runtime import load_tensorflow
from tumorbatch.workflows import checks


def run(
    model: Path,
    tfrecords: Path,
    out: Path,
    config: Config,
    trained_on: Path | None = None,
    patients: Path | None = None,
    allow_unmatched: bool = False,
) -> Report:
    """Evaluate a bundle and write the results to `out`.

    Args:
        model: The bundle.
        tfrecords: The shard set that it was trained on or, with `config.external`, another one.
        out: Folder of the results.
        config: How to evaluate.
        trained_on: With `config.external`, the shard set that the bundle was trained on. None: it is
            looked for among the tfrecords* folders of the working folder.
        patients: With `config.external`, a table of patients, as `preprocess.patients` reads it:
            intervals are taken over patients as well as copies.
        allow_unmatched: Take a table that does not cover the images, or names others.

    Raises:
        ConfigError: `trained_on` or `patients` without `config.external`, or a shard set that the
            bundle was not trained on, or a table that does not fit.
        TumorBatchError: As `evaluation.evaluate.run`.
    """
    load_tensorflow()  # before anything else imports it

    copies = groups = None
    if config.external:
        if patients is not None:
            groups = _patient_groups(tfrecords, patients, allow_unmatched)
        baseline_answers, copies = _external(model, tfrecords, trained_on, config.seed)
    elif trained_on is not None:
        raise ConfigError("--trained-on needs --external.")
    elif patients is not None:
        raise ConfigError(
            "--groups needs --external: the groups of a model's own shard set are those of `shard`."
        )
    else:
        baseline_answers = baselines.evaluate(tfrecords, config.seed)
    return evaluation.run(model, tfrecords, out, config, baseline_answers, copies, groups)


def _patient_groups(tfrecords: Path, table: Path, allow_unmatched: bool) -> Patients:
    """Join the groups of copies of a shard set's images by a table of patients."""
    manifest = shardset.manifest(
        tfrecords, shardset.load(tfrecords), "path", "split", "duplicate_group"
    )
    rows = manifest.filter(pc.is_in(manifest["split"], pa.array(SPLITS, pa.string())))
    paths = rows["path"].to_pylist()
    images = set(paths)
    # A file that could not be read may stand in the table, and need not.
    patients = read_patients(table, manifest["path"].to_pylist(), lambda name: name not in images)
    if not allow_unmatched:
        refuse_unmatched(table, patients)
    names = [patients.by_path.get(path) for path in paths]
    groups = unite(rows["duplicate_group"].to_numpy(), names)
    known = len(set(names) - {None})
    return Patients(dict(zip(paths, groups.tolist(), strict=True)), known, patients.counts())


def _known_to(description: Bundle, model: Path, tfrecords: Path) -> dict[str, str] | None:
    """Return {path: how it is known} of an external set's images that the bundle carries, or None."""
    dataset = shardset.load(tfrecords)
    if not description.known_images_sha256 or not dataset.has_signatures:
        return None
    known_images = KnownImages.read(model / bundle.KNOWN_IMAGES, description.known_images_sha256)
    table = shardset.manifest(tfrecords, dataset, "path", "split", "sha256", "signature")
    rows = table.filter(pc.is_in(table["split"], pa.array(SPLITS, pa.string())))
    columns = (rows[name].to_pylist() for name in ("path", "sha256", "signature"))
    return known_images.kinds(*columns)


def _external(
    model: Path, tfrecords: Path, trained_on: Path | None, seed: int
) -> tuple[Sequence[Answers], dict[str, str] | None]:
    """Return the baselines and the known images of an external set, as the model's own set has them."""
    description = bundle.load(model)
    if trained_on is None:
        shard_sets = checks.shard_sets(sorted(Path().glob("tfrecords*")))
        trained_on = shard_sets.get(str(description.training.get("dataset_sha256")))
    else:
        checks.load_own(trained_on, description, model)
    if trained_on is None:
        return [], _known_to(description, model, tfrecords)
    # Not its test split: the model has not seen that.
    copies = overlap.copies(tfrecords, trained_on, ("train", "validation"))
    return baselines.evaluate(trained_on, seed, external=tfrecords), copies
