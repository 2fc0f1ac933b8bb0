"""The folder of an evaluation's results: written as a whole, and read for comparisons.

metrics.json         every figure with n and interval
predictions.parquet  one row an image of validation and test
figures/*.png        the figures, one by one
label_suspects.csv   held-out images whose label the model contradicts although it is sure
report.html          all of it for people
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tumorbatch.atomic import (
    PRIVATE,
    atomic_folder,
    atomic_path,
    make_folder,
    write_bytes,
    write_json,
)
from tumorbatch.bundle import MODEL, Bundle
from tumorbatch.errors import ConfigError, InputError, reason
from tumorbatch.evaluation import page, protocols
from tumorbatch.evaluation.answers import Answers, SplitImages
from tumorbatch.evaluation.error_gallery import GalleryPicture
from tumorbatch.evaluation.label_suspects import suspects_csv
from tumorbatch.files import foreign_entries, is_empty
from tumorbatch.json_reader import TEXT, read_object, read_own
from tumorbatch.parquet_reader import read_table
from tumorbatch.report.html import Picture
from tumorbatch.schema_descriptions import described
from tumorbatch.shardset import Dataset, file_sha256

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
REPORT = "report.html"
SUSPECTS = "label_suspects.csv"
FIGURES = "figures"
ABOUT_SHAPE = {  # of metrics.json: which shows whose results they are
    "model": {"weights_sha256": TEXT, "model_id": TEXT},
    "dataset": {"sha256": TEXT},
    "protocol": TEXT,
    "predictions_sha256": TEXT,
}
_FILES = {METRICS, PREDICTIONS, REPORT, FIGURES, SUSPECTS}

PREDICTIONS_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("logit", pa.float32(), nullable=False),
        pa.field("prob", pa.float32(), nullable=False),
        pa.field("called", pa.int8(), nullable=False),
        pa.field("group", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
    ]
)
_DESCRIPTIONS = {
    "path": "File, relative to the source folder of the shard set.",
    "split": "validation or test.",
    "label": "The true class: 0 Healthy, 1 Tumor.",
    "logit": "Output of the network, before calibration.",
    "prob": "Calibrated probability of Tumor, 0 to 1: sigmoid(logit / temperature).",
    "called": "The predicted class: 1 if prob is at least tumorbatch.threshold of the footer.",
    "group": "Number of the group of copies; images of one group have the same.",
    "width": "Of the file's image, pixels.",
    "height": "Of the file's image, pixels.",
    "format": "Image format by the file's first bytes.",
}
PREDICTIONS_SCHEMA = described(PREDICTIONS_SCHEMA, _DESCRIPTIONS)


def refuse_foreign(out: Path, loaded: Bundle, dataset_sha256: str, overwrite: bool) -> None:
    """Refuse to replace files that are not results, or, without `overwrite`, other results."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file. Give the results another folder with --out.")
    foreign = foreign_entries(out, _FILES)
    if foreign:
        raise ConfigError(
            f"{out} holds files that are not results of an evaluation ({foreign}). Give another folder "
            "with --out."
        )
    if overwrite or is_empty(out):
        return
    about = read_own(out / METRICS, ABOUT_SHAPE)
    if about is None:
        raise ConfigError(f"{out} holds damaged results. Give --overwrite to replace them.")
    existing = (about["model"]["weights_sha256"], about["dataset"]["sha256"])
    if existing != (loaded.weights_sha256, dataset_sha256):
        owner = "another model" if existing[0] != loaded.weights_sha256 else "another shard set"
        raise ConfigError(
            f"{out} holds the results of {owner}. Give another folder with --out, or --overwrite to "
            "replace them."
        )


def publish(
    out: Path,
    about: Mapping[str, Any],
    answers: Mapping[str, Answers],
    chosen: Bundle,
    gallery: Sequence[GalleryPicture],
    suspects: Sequence[Picture],
) -> None:
    """Write all results next to `out`, then exchange the folders.

    Args:
        out: The folder; its parent exists. Hold its lock.
        about: The content of metrics.json, but for the predictions' sha256.
        answers: {"validation": ..., "test": ...}, at the threshold and temperature of the figures.
        chosen: The bundle, with them.
        gallery: The most confident errors.
        suspects: Pictures of label suspects.
    """
    private = any("dicom" in split.images.formats for split in answers.values())
    mode = PRIVATE if private else None
    with atomic_folder(out) as folder:
        make_folder(folder / FIGURES)
        log.info("figures and report")
        drawn = page.draw(about, answers["test"])
        for name, data in drawn.items():
            write_bytes(folder / FIGURES / f"{name}.png", data, mode)
        for number, picture in enumerate(gallery, 1):
            write_bytes(folder / FIGURES / f"error-{number:02}.png", picture.png, mode)
        _write_predictions(folder / PREDICTIONS, answers, chosen, about, mode)
        sha256 = file_sha256(folder / PREDICTIONS)
        table = suspects_csv(about["label_suspects"])
        write_bytes(folder / SUSPECTS, table.encode("utf-8", "backslashreplace"), mode)
        write_json(folder / METRICS, {**about, "predictions_sha256": sha256}, mode)
        write_bytes(
            folder / REPORT, page.evaluation_page(about, drawn, gallery, suspects).encode(), mode
        )


def _write_predictions(
    path: Path,
    answers: Mapping[str, Answers],
    chosen: Bundle,
    about: Mapping[str, Any],
    mode: int | None,
) -> None:
    """Write one row an image of validation and test, so that models can be paired on them."""
    tables = []
    for split in answers.values():
        images = split.images
        columns = {
            "path": images.paths,
            "split": [images.split] * images.n,
            "label": images.labels,
            "logit": split.scores,
            "prob": split.probabilities,
            "called": split.called,
            "group": images.groups,
            "width": images.widths,
            "height": images.heights,
            "format": images.formats,
        }
        arrays = [
            pa.array(np.asarray(columns[field.name]).astype(np.int64), pa.int64()).cast(field.type)
            if pa.types.is_integer(field.type)
            else pa.array(columns[field.name], field.type)
            for field in PREDICTIONS_SCHEMA
        ]
        tables.append(pa.Table.from_arrays(arrays, schema=PREDICTIONS_SCHEMA))
    footer = {
        "schema_version": SCHEMA_VERSION,
        "model_id": chosen.model_id,
        "weights_sha256": chosen.weights_sha256,
        "threshold": chosen.threshold,
        "temperature": chosen.temperature,
        "dataset_sha256": about["dataset"]["sha256"],
        "protocol": about["protocol"],
    }
    table = pa.concat_tables(tables).replace_schema_metadata(
        {f"tumorbatch.{name}": str(value) for name, value in footer.items()}
    )
    with atomic_path(path, mode) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def fits(folder: Path, model: Bundle) -> bool:
    """Return whether `folder` holds an evaluation of this bundle, on its own shard set, undamaged.

    Not where weights, threshold or temperature are others than the bundle's: changed since, or never
    frozen; nor of an external shard set; nor where the predictions are not those of the figures.
    """
    try:
        about = read_object(folder / METRICS, ABOUT_SHAPE)
        recorded = (
            about["model"]["weights_sha256"],
            about["model"]["model_id"],
            about["dataset"]["sha256"],
            about["predictions_sha256"],
        )
        expected = (
            model.weights_sha256,
            model.model_id,
            model.training.get("dataset_sha256"),
            file_sha256(folder / PREDICTIONS),
        )
    except (OSError, ValueError):
        return False
    return recorded == expected


def _check_rows(rows: pa.Table) -> None:
    """Raise `ValueError` unless test rows can be judged: both classes, each image once, numbers."""
    if set(rows["label"].to_pylist()) != {0, 1}:
        raise ValueError("its test images must be of both classes, 0 and 1")
    if pc.count_distinct(rows["path"]).as_py() != len(rows):
        raise ValueError("it names an image twice")
    if not all(np.isfinite(rows[name].to_numpy()).all() for name in ("logit", "prob")):
        raise ValueError("some of its logits or probabilities are not finite")


def read_answers(name: str, model: Bundle, folder: Path, dataset: Dataset | None = None) -> Answers:
    """Read a model's answers on its test split.

    Args:
        name: Of the model.
        model: The bundle.
        folder: Its evaluation: one that `fits`.
        dataset: Its shard set, if available. It knows the protocol better than the bundle, which may
            be older than the record of which copies were found.

    Raises:
        InputError: The predictions cannot be read, or the bundle does not say what it was trained on.
    """
    try:
        protocol = (
            protocols.training_protocol(model.training)
            if dataset is None
            else protocols.dataset_protocol(dataset)
        )
    except ValueError as error:
        raise InputError(f"The {MODEL} of {name} is too old: {error}. Train it again.") from error
    path = folder / PREDICTIONS
    try:
        table = read_table(path, PREDICTIONS_SCHEMA)
        rows = table.filter(pc.equal(table["split"], "test")).sort_by("path")
        _check_rows(rows)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is missing or damaged: {reason(error)}. Evaluate the model again: `tumorbatch "
            "evaluate`."
        ) from error
    columns = {column: rows[column].to_numpy() for column in rows.column_names}
    images = SplitImages(
        split="test",
        dataset=str(model.training["dataset_sha256"]),
        protocol=protocol.key,
        paths=tuple(columns["path"].tolist()),
        formats=tuple(columns["format"].tolist()),
        labels=columns["label"].astype(np.int64),
        groups=columns["group"].astype(np.int64),
        widths=columns["width"].astype(np.int64),
        heights=columns["height"].astype(np.int64),
    )
    return Answers(
        name,
        images,
        columns["logit"],  # not the probability: float32 makes ties of it near 0 and 1
        model.threshold,
        model.temperature,
        architecture=model.architecture,
        model_id=model.model_id,
    )
