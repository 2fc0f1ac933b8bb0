"""`tumorbatch train` as its users meet it: bundles, reruns, refusals, signals, exit codes."""

import csv
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.untrained import leave_out_training
from tumorbatch import bundle, shardset
from tumorbatch.bundle_weights import load_network
from tumorbatch.errors import ExitCode
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import scorer
from tumorbatch.statistics.calibration import Rule, calibrate
from tumorbatch.statistics.classification import Measures
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.train.feed import load_split

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "weights.safetensors", "model.json", "history.json", "history.csv", "curves.png", "metrics.json",
    "model_card.md", "known_images.safetensors", "familiarity.safetensors",
}  # fmt: skip
# How tests/conftest.py trains `model`; anything else is another training.
SAME = ("--arch", "cnn1", "--epochs", 2, "--batch-size", 8)
SHORT = ("--arch", "cnn2", "--epochs", 1, "--batch-size", 16, "--device", "cpu", "--seed", 7)
BOARD = ("--tensorboard", "board", "--onednn", "on", "--feed", "ram")


Process = subprocess.Popen[str]


def _start(*arguments: object, cwd: Path | None = None) -> Process:
    return subprocess.Popen(
        [sys.executable, "-m", "tumorbatch", "train", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module", autouse=True)
def running(
    shard_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Process]]:
    """A training in its own process, beside the first tests: it spends seconds on TensorFlow."""
    folder = tmp_path_factory.mktemp("fresh")
    process = _start(shard_set, *SHORT, *BOARD, "--quiet", cwd=folder)
    yield folder, process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def fresh(running: tuple[Path, Process]) -> Path:
    """Its bundle, in the default place, models/ARCH."""
    folder, process = running
    stdout, stderr = process.communicate(timeout=200)
    assert (process.returncode, stdout, stderr) == (0, "", "")  # --quiet means silence
    return folder / "models" / "cnn2"


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the training itself out, which takes seconds: for tests of what is around it."""
    leave_out_training(monkeypatch)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "models" / "cnn1"))


# ----------------------------------------------------------------------- reruns, and what is there


def test_the_same_again_is_nothing_to_do(model: Path, shard_set: Path, copy: Path, invoke: Any) -> None:
    times = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    code, output = invoke("train", shard_set, *SAME, "--out", copy)
    assert code == ExitCode.OK
    assert "nothing to do" in output
    assert bundle.load(model).model_id in output
    assert {path: path.stat().st_mtime_ns for path in copy.iterdir()} == times
    assert [path.name for path in copy.parent.iterdir()] == ["cnn1"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--arch", "cnn2", "--epochs", 2, "--batch-size", 8), "architecture: cnn1 there, cnn2"),
        (("--arch", "cnn1", "--epochs", 3, "--batch-size", 8), "(epochs: 2 there, 3 asked for)"),
        ((*SAME, "--seed", 1), "(seed: 0 there, 1 asked for)"),
        ((*SAME, "--no-augment"), "augmentation"),
        ((*SAME, "--no-flip"), "(flip: True there, False asked for)"),
    ],
)
def test_another_training_is_refused(
    options: tuple[object, ...], named: str, shard_set: Path, copy: Path, invoke: Any
) -> None:
    before = _content(copy)
    code, output = invoke("train", shard_set, *options, "--out", copy)
    assert code == ExitCode.USAGE
    assert named in output
    assert "--overwrite" in output
    assert _content(copy) == before


def test_another_shard_set_is_another_training(
    shard_set: Path, copy: Path, tmp_path: Path, invoke: Any
) -> None:
    other = Path(shutil.copytree(shard_set, tmp_path / "tfrecords"))
    value = _json(other / "dataset.json") | {"seed": 1}
    (other / "dataset.json").write_text(json.dumps(value))
    code, output = invoke("train", other, *SAME, "--out", copy)
    assert (code, "another shard set" in output) == (ExitCode.USAGE, True)


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_a_folder_with_other_files_is_never_replaced(
    options: tuple[str, ...], shard_set: Path, copy: Path, invoke: Any
) -> None:
    (copy / "thesis.doc").write_text("the only copy")
    before = _content(copy)
    code, output = invoke("train", shard_set, *SAME, "--out", copy, *options)
    assert code == ExitCode.USAGE
    assert "thesis.doc" in output
    assert _content(copy) == before


@pytest.mark.parametrize("out", [".", "/", "..", "a file"])
def test_an_impossible_out_is_a_sentence(
    out: str, shard_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.chdir(tmp_path)
    code, output = invoke("train", shard_set, *SAME, "--out", out)
    assert code == ExitCode.USAGE
    assert output.startswith(f"Error: {out} ")
    assert os.listdir() == ["a file"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", None),
        ("metrics.json", b"{"),
        ("weights.safetensors", b"?"),
        ("model.json", b"{}"),
    ],
)
def test_a_damaged_bundle_is_not_taken_for_a_finished_one(
    name: str, content: bytes | None, shard_set: Path, copy: Path, invoke: Any
) -> None:
    (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
    code, output = invoke("train", shard_set, *SAME, "--out", copy)
    assert code == ExitCode.NO_INPUT
    assert str(copy) in output


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """Stands for a full disk: writing more than `size` bytes into one file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("untrained")
def test_a_full_disk_leaves_the_old_bundle_as_it_was(shard_set: Path, copy: Path, invoke: Any) -> None:
    before = _content(copy)
    with _file_size_limit(100_000):  # the weights have more
        code, output = invoke("train", shard_set, *SHORT, "--out", copy, "--overwrite")
    assert code == ExitCode.CANNOT_WRITE
    assert "Cannot write" in output
    assert _content(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["cnn1"]


# ------------------------------------------------------------------------------- what can go wrong


def _flipped(folder: Path) -> str:
    path = sorted(folder.glob("test-*.tfrecord"))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.name


def _cut(folder: Path) -> str:
    path = sorted(folder.glob("train-*.tfrecord"))[-1]
    path.write_bytes(path.read_bytes()[:-1])
    return path.name


def _unfinished(folder: Path) -> str:
    (folder / "dataset.json").unlink()
    return "has no dataset.json"


def _gone(folder: Path) -> str:
    shutil.rmtree(folder)
    return f"{folder} is not there"


@pytest.mark.parametrize("damage", [_flipped, _cut, _unfinished, _gone])
def test_a_damaged_shard_set_is_a_sentence(
    damage: Any, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    folder = Path(shutil.copytree(shard_set, tmp_path / "tfrecords"))
    named = damage(folder)
    code, output = invoke("train", folder, *SAME, "--out", tmp_path / "models" / "cnn1")
    assert code == ExitCode.NO_INPUT
    assert named in output
    assert "tumorbatch shard" in output
    assert not (tmp_path / "models" / "cnn1").exists()


def test_options_out_of_range_are_a_sentence(shard_set: Path, tmp_path: Path, invoke: Any) -> None:
    for option, value in (("--epochs", 0), ("--shear", 2), ("--batch-size", 10**7)):
        code, output = invoke(
            "train", shard_set, "--arch", "cnn1", option, value, "--out", tmp_path / "m"
        )
        assert (code, "Received" in output) == (ExitCode.USAGE, True), option
    code, output = invoke("train", shard_set, "--arch", "cnn1", "--seed", 2**32)
    assert (code, "4294967296 is not in the range" in output) == (ExitCode.USAGE, True)
    assert not (tmp_path / "m").exists()


def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(
    shard_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda *_: [])
    code, output = invoke("train", shard_set, *SAME, "--device", "gpu", "--out", tmp_path / "cnn1")
    assert (code, "--device gpu was asked for" in output) == (ExitCode.USAGE, True)
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------- bundles


@pytest.mark.parametrize("which", ["model", "fresh"])
def test_the_bundle_is_complete_and_its_files_agree(
    which: str, shard_set: Path, request: pytest.FixtureRequest
) -> None:
    out: Path = request.getfixturevalue(which)
    dataset = shardset.load(shard_set)
    assert {path.name for path in out.iterdir()} == FILES
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # no lock, nothing half-written

    about, history, metrics = (_json(out / f"{name}.json") for name in ("model", "history", "metrics"))
    loaded = bundle.load(out)
    assert about["schema_version"] == 1
    assert about["architecture"] == {"fresh": "cnn2", "model": "cnn1"}[which]
    assert about["classes"] == ["Healthy", "Tumor"]
    assert about["model_id"] == loaded.model_id
    assert (
        about["weights_sha256"]
        == hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest()
    )
    assert Preprocessing.from_dict(about["preprocessing"]) == dataset.preprocessing
    assert about["preprocessing_fingerprint"] == dataset.preprocessing.fingerprint

    training = about["training"]
    assert training["dataset_sha256"] == shardset.file_sha256(shard_set / "dataset.json")
    assert training["leaky"] is False
    epochs = {"fresh": 1, "model": 2}[which]
    assert training["epochs"] == training["schedule"]["epochs"] == epochs
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy", "val_auc"), epochs
    )
    best = training["best_epoch"] - 1
    assert history["val_auc"][best] == max(history["val_auc"])
    uncalibrated = metrics["validation"]["uncalibrated"]["log_loss"]["value"]
    assert uncalibrated == pytest.approx(history["val_loss"][best], rel=1e-6)
    assert metrics["validation"]["figures"]["auc"]["value"] == history["val_auc"][best]

    for split in ("validation", "test"):
        of = metrics[split]
        assert of["n"] == sum(of["confusion"].values()) == sum(dataset.counts[split].values())
        assert of["confusion"]["tp"] + of["confusion"]["fn"] == dataset.counts[split]["Tumor"]
        accuracy = of["figures"]["accuracy"]
        assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1


def test_the_history_is_a_table_and_a_figure_too(fresh: Path) -> None:
    history = _json(fresh / "history.json")
    with (fresh / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1"]
    for name, values in history.items():
        assert [float(row[name]) for row in rows] == pytest.approx(values, rel=1e-8)
    width, height = struct.unpack(">II", (fresh / "curves.png").read_bytes()[16:24])
    assert (width, height) == (1200, 528)


def test_tensorboard_reads_the_same_figures(fresh: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(fresh.parents[1] / "board" / "cnn2"))
    events.Reload()
    history = _json(fresh / "history.json")
    tensors = events.Tags()["tensors"]
    assert set(tensors) == set(history)
    for name, values in history.items():
        found = events.Tensors(name)
        assert [event.step for event in found] == [1]
        assert [event.tensor_proto.float_val[0] for event in found] == pytest.approx(values, rel=1e-6)


def test_model_json_tells_speed_and_choices(fresh: Path) -> None:
    training = _json(fresh / "model.json")["training"]
    assert training["feed"] == "ram"
    assert training["phases"] == {"training": 1}
    assert training["weights"] is None
    assert training["images_per_second"] > 0
    assert 0 <= training["waiting_share"] < 1
    assert training["compile_seconds"] >= 0
    assert training["runtime"]["device"] == "cpu"
    assert "float32, XLA off, oneDNN on" in training["runtime"]["reason"]


def test_the_card_says_in_words_what_the_files_say(model: Path) -> None:
    card = (model / "model_card.md").read_text()
    test, loaded = _json(model / "metrics.json")["test"], bundle.load(model)
    accuracy = Estimate.from_dict(test["per_group"]["figures"]["accuracy"])
    assert card.startswith("---\nlibrary_name: keras\n")
    assert f"---\n\n# cnn1 ({bundle.load(model).model_id})\n" in card
    assert f"| test | {test['groups']} groups | {accuracy.text()} |" in card
    assert f"threshold {loaded.threshold:g} (frozen) | threshold 0.5" in card
    assert loaded.calibration["threshold"]["note"] in card
    assert "Grouped:" in card
    assert "Not measured yet" in card  # until `evaluate`
    assert "Leaky" not in card
    assert "Not a medical device" in card


@pytest.mark.usefixtures("untrained")
def test_a_leaky_split_is_called_leaky_everywhere(sample: Path, tmp_path: Path, invoke: Any) -> None:
    tfrecords, out = tmp_path / "tfrecords", tmp_path / "models" / "leaky"
    code, _ = invoke("shard", sample, tfrecords, "--size", 32, "--split-by", "file", "--workers", 2)
    assert code == ExitCode.SOME_ERRORS
    code, output = invoke("train", tfrecords, *SHORT, "--out", out)
    assert code == ExitCode.OK
    assert "Warning: this split is leaky" in output
    assert "LEAKY:" in output
    card = (out / "model_card.md").read_text()
    assert "Leaky: the split was drawn file by file" in card
    assert "Grouped" not in card
    assert _json(out / "model.json")["training"]["leaky"] is True
    code, output = invoke("train", tfrecords, *SHORT, "--out", out)
    assert (code, "LEAKY:" in output) == (ExitCode.OK, True)  # also when there is nothing to do


def test_the_saved_weights_give_the_saved_figures(fresh: Path, shard_set: Path) -> None:
    """Loaded afresh, from the file alone: what was measured is what was saved."""
    loaded = bundle.load(fresh)
    runtime = Runtime("cpu", "float32", False, 1, "for a test")
    score = scorer(load_network(fresh, loaded), 16, runtime)
    for split in ("validation", "test"):
        images = load_split(shard_set, shardset.load(shard_set), split)
        got = Measures(score(images.pixels), images.labels, loaded.threshold, loaded.temperature)
        saved = _json(fresh / "metrics.json")[split]
        assert got.decisions.confusion == saved["confusion"]
        for name, values in got(np.ones((1, images.count))).items():
            value = saved["figures"][name]["value"]
            assert values[0] == pytest.approx(
                math.nan if value is None else value, rel=1e-5, nan_ok=True
            )


def test_threshold_and_temperature_come_from_validation_alone(fresh: Path, shard_set: Path) -> None:
    loaded, dataset = bundle.load(fresh), shardset.load(shard_set)
    score = scorer(load_network(fresh, loaded), 16, Runtime("cpu", "float32", False, 1, ""))
    images = load_split(shard_set, dataset, "validation")
    temperature, threshold = calibrate(score(images.pixels), images.labels, Rule("sensitivity", 0.95))
    assert loaded.temperature == pytest.approx(temperature.value, rel=1e-4)
    assert loaded.threshold == pytest.approx(threshold.value, rel=1e-4)
    chosen = loaded.calibration["threshold"]
    assert (chosen["rule"], chosen["reached"]) == ("sensitivity=0.95", True)
    assert chosen["sensitivity"] >= 0.95
    assert loaded.calibration["dataset_sha256"] == loaded.training["dataset_sha256"]
    metrics = _json(fresh / "metrics.json")["validation"]
    assert metrics["figures"]["sensitivity"]["value"] == pytest.approx(chosen["sensitivity"])


def test_overwrite_replaces_the_bundle_by_the_one_that_the_seed_decides(
    fresh: Path, shard_set: Path, copy: Path, invoke: Any
) -> None:
    code, output = invoke("train", shard_set, *SHORT, "--out", copy, "--overwrite")
    assert code == ExitCode.OK
    assert "Next: tumorbatch infer" in output
    assert f"Next: compare with simple baselines: tumorbatch evaluate {copy} {shard_set}\n" in output
    assert [path.name for path in copy.parent.iterdir()] == ["cnn1"]
    # The same training as in the process of `fresh`, bit by bit.
    assert bundle.load(copy).model_id == bundle.load(fresh).model_id
    assert _content(copy)["weights.safetensors"] == _content(fresh)["weights.safetensors"]
    assert _content(copy)["metrics.json"] == _content(fresh)["metrics.json"]


# ------------------------------------------------------------------------------------- signals


def test_a_running_training_holds_the_lock_and_ends_at_sigterm(
    model: Path, shard_set: Path, copy: Path, invoke: Any
) -> None:
    endless = ("--epochs", 10**6, "--patience", 10**6, "--overwrite")
    process = _start(shard_set, "--arch", "cnn1", *endless, "--out", copy)
    try:
        assert process.stderr is not None
        seen = ""
        while "epoch 1/" not in seen:  # said after that epoch: it is in the middle of the next one
            line = process.stderr.readline()
            assert line, f"it ended early: {seen}"
            seen += line

        code, output = invoke("train", shard_set, *SAME, "--out", copy)
        assert code == ExitCode.TRY_AGAIN
        assert f"process {process.pid}" in output

        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == ExitCode.TRY_AGAIN
    assert stderr.endswith(
        "Interrupted (SIGTERM). Nothing was published; the same command continues from the "
        "checkpoint.\n"
    )
    assert (stdout, "Traceback" in stderr) == ("", False)
    assert _content(copy) == _content(model)
    assert sorted(path.name for path in copy.parent.iterdir()) == [".cnn1.checkpoint", "cnn1"]
