"""What a model or a baseline answered, as `compare` takes it: from an evaluation's predictions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tumorbatch.bundle import Bundle
from tumorbatch.errors import InputError
from tumorbatch.train.baselines import Baseline
from tumorbatch.train.compare import Judged
from tumorbatch.train.results import METRICS, PREDICTIONS

_COLUMNS = ["path", "split", "label", "logit", "prob", "called", "group"]
_HALF = np.float32(0.5)


def fits(folder: Path, of: Bundle) -> bool:
    """Whether `folder` holds an evaluation of this very bundle, on its own shard set.

    Not where weights, threshold or temperature have changed since, nor of an external shard set.
    """
    try:
        about = json.loads((folder / METRICS).read_bytes())
        there = (
            about["model"]["weights_sha256"],
            about["model"]["bundle_model_id"],
            about["dataset"]["sha256"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return there == (of.weights_sha256, of.model_id, of.training.get("dataset_sha256"))


def of_model(name: str, of: Bundle, folder: Path) -> Judged:
    """A model's answers on its test split.

    Args:
        name: Of the row.
        of: The bundle.
        folder: Its evaluation: one that `fits`.

    Raises:
        InputError: The predictions are missing, damaged, or not those of the bundle.
    """
    path = folder / PREDICTIONS
    try:
        table = pq.read_table(path, columns=_COLUMNS, page_checksum_verification=True)
        footer = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        rows = table.filter(pc.equal(table["split"], "test")).sort_by("path")
        if footer["tumorbatch.weights_sha256"] != of.weights_sha256:
            raise ValueError("they are another model's")
        threshold = float(footer["tumorbatch.threshold"])
        dataset = footer["tumorbatch.dataset_sha256"]
        columns = {column: rows[column].to_numpy() for column in _COLUMNS if column != "split"}
    except (OSError, KeyError, ValueError, AttributeError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}). Evaluate the model again: `tumorbatch evaluate`."
        ) from error
    return Judged(
        name=name,
        architecture=of.architecture,
        model_id=of.model_id,
        split_by=str(of.training["split_by"]),
        leaky=bool(of.training["leaky"]),
        dataset=dataset,
        threshold=threshold,
        paths=tuple(columns["path"].tolist()),
        labels=columns["label"].astype(np.int64),
        groups=columns["group"].astype(np.int64),
        scores=columns["logit"],  # not the probability: float32 makes ties of it near 0 and 1
        called=columns["called"] == 1,
        called_at_half=columns["prob"] >= _HALF,
    )


def of_baseline(baseline: Baseline, model: Judged) -> Judged:
    """A baseline's answers on the images that a model was judged by.

    Args:
        baseline: Of the model's shard set.
        model: Gives images, groups and protocol.

    Raises:
        ValueError: The baseline was scored on other images.
    """
    scores = _by_path(baseline.test_paths, baseline.test_scores)
    labels = _by_path(baseline.test_paths, baseline.test_labels)
    if (
        scores.keys() != set(model.paths)
        or [labels[path] for path in model.paths] != model.labels.tolist()
    ):
        raise ValueError(f"{baseline.name} was scored on other images than {model.name}")
    ordered = np.array([scores[path] for path in model.paths], np.float64)
    return Judged(
        name=baseline.name,
        architecture="",
        model_id="",
        split_by=model.split_by,
        leaky=model.leaky,
        dataset=model.dataset,
        threshold=0.5,
        paths=model.paths,
        labels=model.labels,
        groups=model.groups,
        scores=ordered,
        called=ordered >= 0.5,
        called_at_half=ordered >= 0.5,
    )


def _by_path(paths: tuple[str, ...], values: Any) -> Mapping[str, Any]:
    return dict(zip(paths, values.tolist(), strict=True))
