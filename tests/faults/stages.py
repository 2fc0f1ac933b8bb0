"""The commands that meet faults, and what their results must be."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors.numpy

from tumorbatch import bundle
from tumorbatch.bundle import Bundle
from tumorbatch.infer import verify as verify_table
from tumorbatch.infer.predictions import iterate_rows
from tumorbatch.preprocess import verify as verify_set
from tumorbatch.preprocessing_config import Preprocessing

Content = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A command, in a folder with `raw/`, `model/` and `work/`, which holds its output.

    Attributes:
        name: For the table.
        arguments: Of the command.
        result: What must be there for `content`, below `work/`.
        grown: Whether the output exists, of the images that were there before the last ones.
        content: What the output holds, without what differs from run to run.
        problems: What `verify` says of it.
    """

    name: str
    arguments: tuple[str, ...]
    result: str
    grown: bool
    content: Callable[[Path], Content]
    problems: Callable[[Path], tuple[Any, ...]]


def make_inputs(folder: Path) -> None:
    """Write sixteen images and a broken file into `raw/`, three more into `late/`, and a bundle."""
    for label, name in enumerate(("Healthy", "Brain Tumor")):
        (folder / "raw" / name).mkdir(parents=True)
        for k in range(8):
            _image(folder / "raw" / name / f"{k}.png", 10 * label + k)
    (folder / "raw" / "Healthy" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "late").mkdir()
    for k in range(3):
        _image(folder / "late" / f"late {k}.png", 100 + k)
    _bundle(folder / "model")
    (folder / "work").mkdir()


def add_late_images(folder: Path) -> None:
    """Let the source grow, and lose a file."""
    for path in (folder / "late").iterdir():
        shutil.copy2(path, folder / "raw" / "Healthy" / path.name)
    (folder / "raw" / "Healthy" / "7.png").unlink()


def _image(path: Path, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    grey = cv2.resize(coarse, (48, 40), interpolation=cv2.INTER_CUBIC)
    path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())


def _bundle(folder: Path) -> None:
    folder.mkdir()
    weights = safetensors.numpy.save({"w": np.zeros(1, np.float32)})
    (folder / bundle.WEIGHTS).write_bytes(weights)
    made = Bundle(
        architecture="cnn1",
        preprocessing=Preprocessing(size=32),
        classes=("Healthy", "Tumor"),
        threshold=0.5,
        temperature=1.0,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        training={},
        versions={},
    )
    (folder / bundle.MODEL).write_text(json.dumps(made.to_dict()))


def _files(work: Path) -> Content:
    return {
        str(path.relative_to(work)): path.read_bytes() for path in work.rglob("*") if path.is_file()
    }


def _names(work: Path) -> Content:
    return {str(path.relative_to(work)): None for path in work.rglob("*") if path.is_file()}


def _table(work: Path) -> Content:
    rows = [{**row, "run_id": ""} for row in iterate_rows(work / "out")]
    return {**_names(work), "rows": rows}


def _csv(work: Path) -> Content:
    lines = (work / "out").read_text().splitlines()
    return {**_names(work), "rows": [line.rpartition(",")[0] for line in lines]}


def _lines(work: Path) -> Content:
    rows = [json.loads(line) for line in (work / "out").read_text().splitlines()]
    return {**_names(work), "rows": [{**row, "run_id": ""} for row in rows]}


def _explored(work: Path) -> Content:
    value = json.loads((work / "out" / "explore.json").read_bytes())
    return {**_names(work), "rows": {name: value[name] for name in ("files", "classes", "images")}}


def _trained(work: Path) -> Content:
    names = ("weights.safetensors", "history.json", "metrics.json")
    return {**_names(work), "rows": [(work / "out" / name).read_bytes() for name in names]}


def _evaluated(work: Path) -> Content:
    value = json.loads((work / "out" / "metrics.json").read_bytes())
    return {**_names(work), "rows": value["model"]}


def _exported(work: Path) -> Content:
    """The bytes of two exports differ: what counts is that one is there."""
    return {**{name.partition("/")[0]: None for name in _names(work)}, "rows": "an export"}


def _no_verify(_: Path) -> tuple[Any, ...]:
    return ()


def _set(work: Path) -> tuple[Any, ...]:
    return verify_set.run(work / "out").problems


def _predictions(work: Path) -> tuple[Any, ...]:
    return verify_table.run(work / "out").problems


_SHARD = ("shard", "raw", "work/out", "--size", "32", "--workers", "1")
_INFER = ("infer", "raw", "work/out", "--model", "model", "--workers", "1", "--format")
_MORE = (*_INFER[:-1], "--incremental", "--format")

STAGES = (
    Stage("shard, first", _SHARD, "out/dataset.json", False, _files, _set),
    Stage("shard, grown", _SHARD, "out/dataset.json", True, _files, _set),
    Stage("infer, Parquet", (*_INFER, "parquet"), "out", True, _table, _predictions),
    Stage("infer, folder", (*_INFER, "dataset"), "out", True, _table, _predictions),
    Stage("infer, CSV", (*_INFER, "csv"), "out", True, _csv, _no_verify),
    Stage("infer, JSON lines", (*_INFER, "jsonl"), "out", True, _lines, _no_verify),
    Stage("infer, incremental", (*_MORE, "parquet"), "out", True, _table, _predictions),
    Stage("infer, incremental folder", (*_MORE, "dataset"), "out", True, _table, _predictions),
    Stage(
        "explore", ("explore", "raw", "--out", "work/out", "--workers", "1", "--quiet"),
        "out/explore.json", True, _explored, _no_verify,
    ),
)  # fmt: skip

# In processes of their own, on a shard set and a model that TensorFlow has made.
_TRAIN = (
    "train", "tfrecords", "--arch", "cnn1", "--out", "work/out", "--epochs", "2", "--batch-size", "8",
    "--device", "cpu", "--deterministic", "--threads", "1", "--onednn", "off", "--quiet",
    "--checkpoint-every", "0.06s",
)  # fmt: skip
_EVALUATE = (
    "evaluate", "cnn1", "tfrecords", "--out", "work/out", "--replicates", "2000", "--gallery", "2",
    "--device", "cpu", "--no-freeze", "--quiet",
)  # fmt: skip
TENSORFLOW_STAGES = (
    Stage("train", _TRAIN, "out/model.json", False, _trained, _no_verify),
    Stage("evaluate", _EVALUATE, "out/metrics.json", False, _evaluated, _no_verify),
    Stage(
        "export, Keras", ("export", "cnn1", "--format", "keras", "--out", "work/net.keras"),
        "net.keras", False, _exported, _no_verify,
    ),
    Stage(
        "export, SavedModel", ("export", "cnn1", "--format", "savedmodel", "--out", "work/net"),
        "net", False, _exported, _no_verify,
    ),
)  # fmt: skip
