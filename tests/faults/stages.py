"""The commands that meet faults, and what their results must be."""

import csv
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

from tests.faults.injection import Runs
from tumorbatch import bundle
from tumorbatch.bundle import Bundle
from tumorbatch.infer import verify as verify_table
from tumorbatch.infer.predictions import iterate_rows
from tumorbatch.preprocess import verify as verify_set
from tumorbatch.preprocessing_config import Preprocessing

Content = dict[str, Any]


def _no_problems(_: Path) -> tuple[Any, ...]:
    return ()


@dataclass(frozen=True)
class Stage:
    """A command, in a folder with `raw/`, `model/` and `work/`, which holds its output.

    Attributes:
        name: For the table.
        arguments: Of the command.
        result: What must be there for `content`, below `work/`.
        earlier: The command that has made what is there before; (): nothing is.
        content: What the output holds, without what differs from run to run.
        problems: What `verify` says of it.
        grown: Whether the source has grown since `earlier`.
        several: Whether it publishes one thing after another: an error may come in between.
    """

    name: str
    arguments: tuple[str, ...]
    result: str
    earlier: tuple[str, ...]
    content: Callable[[Path], Content]
    problems: Callable[[Path], tuple[Any, ...]] = _no_problems
    grown: bool = False
    several: bool = False


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


def make_trained_inputs(folder: Path, server: Runs) -> None:
    """Write a shard set `tfrecords/`, and `cnn1/`, a model trained on it for an epoch."""
    for label, name in enumerate(("Healthy", "Brain Tumor")):
        (folder / "raw" / name).mkdir(parents=True)
        for k in range(20):
            _image(folder / "raw" / name / f"{k}.png", 1000 * label + k)
    train = ("train", "tfrecords", "--arch", "cnn1", "--epochs", "1", "--batch-size", "8", *_CPU)
    for arguments in (
        ("shard", "raw", "tfrecords", "--size", "32", "--workers", "1"),
        (*train, "--out", "cnn1"),
    ):
        done = server.run(arguments, folder)
        assert done.status == 0, done.output
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
    with (work / "out").open(newline="") as file:
        return {**_names(work), "rows": [{**row, "run_id": ""} for row in csv.DictReader(file)]}


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
    return {**_names(work), "rows": [value["model"], value["method"]["replicates"]]}


def _frozen(work: Path) -> Content:
    names = [name for name in _names(work) if name.startswith("cnn1")]
    return {**dict.fromkeys(names), "rows": json.loads((work / "cnn1/model.json").read_bytes())}


def _exported(work: Path) -> Content:
    """The bytes of two exports differ: what counts is that one is there."""
    return {**{name.partition("/")[0]: None for name in _names(work)}, "rows": "an export"}


def _set(work: Path) -> tuple[Any, ...]:
    return verify_set.run(work / "out").problems


def _predictions(work: Path) -> tuple[Any, ...]:
    return verify_table.run(work / "out").problems


_SHARD = ("shard", "raw", "work/out", "--size", "32", "--workers", "1")
_INFER = ("infer", "raw", "work/out", "--model", "model", "--workers", "1", "--format")
_MORE = (*_INFER[:-1], "--incremental", "--format")

_EXPLORE = ("explore", "raw", "--out", "work/out", "--workers", "1", "--quiet")


def _growing(name: str, arguments: tuple[str, ...], *rest: Any, result: str = "out") -> Stage:
    return Stage(name, arguments, result, arguments, *rest, grown=True)


STAGES = (
    _growing("infer, Parquet", (*_INFER, "parquet"), _table, _predictions),
    _growing("infer, folder", (*_INFER, "dataset"), _table, _predictions),
    _growing("infer, CSV", (*_INFER, "csv"), _csv),
    _growing("infer, JSON lines", (*_INFER, "jsonl"), _lines),
    _growing("infer, incremental", (*_MORE, "parquet"), _table, _predictions),
    _growing("infer, incremental folder", (*_MORE, "dataset"), _table, _predictions),
    Stage("shard, first", _SHARD, "out/dataset.json", (), _files, _set),
    _growing("shard, grown", _SHARD, _files, _set, result="out/dataset.json"),
    _growing("explore", _EXPLORE, _explored, result="out/explore.json"),
)

# On a shard set and a model that TensorFlow has made.
_CPU = ("--device", "cpu", "--quiet")
_TRAIN = (
    "train", "tfrecords", "--arch", "cnn1", "--out", "work/out", "--epochs", "2", "--batch-size", "8",
    "--deterministic", "--threads", "1", "--onednn", "off", "--checkpoint-every", "0.06s", *_CPU,
)  # fmt: skip
_EVALUATE = (
    "evaluate", "cnn1", "tfrecords", "--out", "work/out", "--gallery", "2", "--no-freeze", *_CPU,
    "--replicates",
)  # fmt: skip
_FREEZE = (
    "evaluate", "work/cnn1", "tfrecords", "--out", "work/out", "--gallery", "2", "--replicates", "2000",
    "--threshold", "0.123", "--freeze", *_CPU,
)  # fmt: skip
_EXPORT = ("export", "cnn1", "--format")
TENSORFLOW_STAGES = (
    Stage("export, Keras", (*_EXPORT, "keras", "--out", "work/net.keras"), "net.keras", (), _exported),
    Stage("export, SavedModel", (*_EXPORT, "savedmodel", "--out", "work/net"), "net", (), _exported),
    Stage("evaluate, first", (*_EVALUATE, "2000"), "out/metrics.json", (), _evaluated),
    Stage(
        "evaluate, again", (*_EVALUATE, "2000"), "out/metrics.json", (*_EVALUATE, "2001"), _evaluated
    ),
    Stage(
        "evaluate --freeze", _FREEZE, "cnn1/model.json", ("copy", "cnn1", "work/cnn1"), _frozen,
        several=True,
    ),
    Stage("train, first", _TRAIN, "out/model.json", (), _trained),
    Stage(
        "train, again", (*_TRAIN, "--overwrite"), "out/model.json", (*_TRAIN, "--seed", "1"), _trained
    ),
)  # fmt: skip
