"""What a model or a baseline answered, as `compare` takes it: from an evaluation's predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tumorbatch.atomic import read_json
from tumorbatch.bundle import MODEL, Bundle
from tumorbatch.errors import InputError
from tumorbatch.evaluation.baselines import Baseline
from tumorbatch.evaluation.compare import Judged
from tumorbatch.evaluation.results import METRICS, PREDICTIONS
from tumorbatch.shardset import SPLIT_BY, file_sha256

_COLUMNS = ["path", "split", "label", "logit", "prob", "called", "group"]
_HALF = np.float32(0.5)


def fits(folder: Path, of: Bundle) -> bool:
    """Whether `folder` holds an evaluation of this very bundle, on its own shard set, undamaged.

    Not where weights, threshold or temperature are others than the bundle's: changed since, or never
    frozen; nor of an external shard set; nor where the predictions are not those of the figures.
    """
    try:
        about = read_json(folder / METRICS)
        there = (
            about["model"]["weights_sha256"],
            about["model"]["model_id"],
            about["dataset"]["sha256"],
            about["predictions_sha256"],
        )
        here = (
            of.weights_sha256,
            of.model_id,
            of.training.get("dataset_sha256"),
            file_sha256(folder / PREDICTIONS),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return there == here


def of_model(name: str, of: Bundle, folder: Path) -> Judged:
    """A model's answers on its test split.

    Args:
        name: Of the row.
        of: The bundle.
        folder: Its evaluation: one that `fits`.

    Raises:
        InputError: The predictions cannot be read, or the bundle does not say what it was trained on.
    """
    split_by, leaky = (of.training.get(name) for name in ("split_by", "leaky"))
    if split_by not in SPLIT_BY or not isinstance(leaky, bool):
        raise InputError(
            f"The {MODEL} of {name} does not say on which kind of split it was trained. Train it again."
        )
    path = folder / PREDICTIONS
    try:
        with path.open("rb") as file:  # Arrow takes no file name that is not UTF-8
            table = pq.read_table(file, columns=_COLUMNS, page_checksum_verification=True)
        rows = table.filter(pc.equal(table["split"], "test")).sort_by("path")
        columns = {column: rows[column].to_numpy() for column in _COLUMNS if column != "split"}
        if not (np.isfinite(columns["logit"]).all() and np.isfinite(columns["prob"]).all()):
            raise ValueError("some of its logits or probabilities are not finite")
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}). Evaluate the model again: `tumorbatch evaluate`."
        ) from error
    return Judged(
        name=name,
        architecture=of.architecture,
        model_id=of.model_id,
        split_by=split_by,
        leaky=leaky,
        dataset=str(of.training["dataset_sha256"]),
        threshold=of.threshold,
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
