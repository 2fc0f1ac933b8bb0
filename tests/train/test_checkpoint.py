"""A training that is killed continues, and ends as if nothing had been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.test_fit import _CPU, _images, _network
from tumorbatch.errors import ConfigError, ExitCode, InputError
from tumorbatch.train.checkpoint import Checkpoint, Position
from tumorbatch.train.config import Augmentation, Schedule
from tumorbatch.train.fit import Fit, Fitted, Recipe

ROOT = Path(__file__).resolve().parents[2]
PLAN = {"architecture": "cnn1", "dataset_sha256": "ab", "schedule": {"seed": 0, "epochs": 5}}
EACH_STEP = 1e-9  # minutes between two checkpoints
SCHEDULE = Schedule(epochs=5, patience=5, batch_size=5, learning_rate=0.02)


class StopError(Exception):
    """Stands for the machine's end."""


class Stopping(Checkpoint):
    """Dies behind its n-th save."""

    left = 10**9

    def save(self, *arguments: Any) -> None:
        super().save(*arguments)
        self.left -= 1
        if not self.left:
            raise StopError


def _fit(checkpoint: Checkpoint | None) -> tuple[Fitted, list[Any]]:
    network = _network()
    recipe = Recipe(SCHEDULE, Augmentation(), _CPU)
    fitted = Fit(network, _images(1), _images(2), recipe, checkpoint).run()
    return fitted, network.get_weights()


@pytest.fixture(scope="module")
def whole() -> tuple[Fitted, list[Any]]:
    """An undisturbed training, and its weights."""
    return _fit(None)


@pytest.mark.parametrize(
    "stops",  # ten steps an epoch, the last one's save is its end's
    [(1, 10, 23), pytest.param((4, 9, 11, 48), marks=pytest.mark.slow)],
)
def test_stopped_anywhere_it_ends_with_the_same_bits(
    tmp_path: Path, stops: tuple[int, ...], whole: tuple[Fitted, list[Any]]
) -> None:
    undisturbed, weights = whole
    for saves in stops:
        checkpoint = Stopping(tmp_path / f"{saves}.checkpoint", PLAN, EACH_STEP)
        checkpoint.left = saves
        with pytest.raises(StopError):
            _fit(checkpoint)
        again, resumed = _fit(Checkpoint(checkpoint.path, PLAN, EACH_STEP))
        for one, other in zip(weights, resumed, strict=True):
            np.testing.assert_array_equal(one, other)
        assert again.best_epoch == undisturbed.best_epoch
        for name, values in undisturbed.history.items():
            exact = name.startswith("val_")
            np.testing.assert_allclose(again.history[name], values, rtol=0 if exact else 1e-5)


def test_stopped_again_and_again(tmp_path: Path, whole: tuple[Fitted, list[Any]]) -> None:
    _, weights = whole
    for _ in range(100):
        checkpoint = Stopping(tmp_path / "checkpoint", PLAN, EACH_STEP)
        checkpoint.left = 17
        try:
            _, resumed = _fit(checkpoint)
        except StopError:
            continue
        break
    for one, other in zip(weights, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_finished_training_has_nothing_left_to_do(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", PLAN, EACH_STEP)
    fitted, weights = _fit(checkpoint)
    again, restored = _fit(checkpoint)
    assert again.history == fitted.history
    for one, other in zip(weights, restored, strict=True):
        np.testing.assert_array_equal(one, other)


def _saved(path: Path) -> Checkpoint:
    checkpoint = Checkpoint(path / "checkpoint", PLAN)
    network = _network()
    network.compile("adam", "mse")
    network.optimizer.build(network.trainable_variables)
    checkpoint.save(
        network, network.optimizer, network.get_weights(), Position(epoch=2, best=(0.75, -0.5))
    )
    return checkpoint


def test_another_plan_is_refused_with_the_difference(tmp_path: Path) -> None:
    checkpoint = _saved(tmp_path)
    checkpoint.check()
    for plan, words in (
        ({**PLAN, "schedule": {"seed": 1, "epochs": 5}}, "seed: 0 then, 1 now"),
        ({**PLAN, "dataset_sha256": "cd"}, "another shard set"),
    ):
        with pytest.raises(ConfigError, match=words):
            Checkpoint(checkpoint.path, plan).check()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "header"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    checkpoint = _saved(tmp_path)
    data = bytearray(checkpoint.path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    damaged = {"flip": data, "cut": data[:-9], "empty": b"", "header": bytes(32) + b"\xff" * 99}
    checkpoint.path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match="cannot be used"):
        checkpoint.check()


def test_another_network_is_refused(tmp_path: Path) -> None:
    import keras

    checkpoint = _saved(tmp_path)
    image = keras.Input((8, 8, 1), dtype="uint8")
    network = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    network.compile("adam", "mse")
    network.optimizer.build(network.trainable_variables)
    saved = checkpoint.load()
    assert saved is not None
    with pytest.raises(InputError, match="variables are other ones"):
        saved.restore(network, network.optimizer)


# --- real processes, real signals -------------------------------------------------------------------

TRAIN = (
    # So many that none of the kills comes behind the end.
    "--arch", "cnn1", "--epochs", "8", "--patience", "8", "--batch-size", "8", "--device", "cpu",
    "--deterministic",
    "--checkpoint-every", "0.06s", "--threads", "1", "--onednn", "off",
)  # fmt: skip


# One process for several trainings: TensorFlow takes longer to start than they take.
COMMAND = """
import json, sys
from tumorbatch.cli.main import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            raise
"""


def _start(shard_set: Path, *outs: Path) -> "subprocess.Popen[str]":
    """Start a process that trains into each of some folders."""
    commands = [["train", str(shard_set), "--out", str(out), *TRAIN] for out in outs]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, json.dumps(commands)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Under nohup the suite ignores SIGHUP, and so would the command, which respects that.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def _wait(process: "subprocess.Popen[str]", moment: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not moment() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_kills_and_signals_change_no_bit(
    shard_set: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = tmp_path / "undisturbed" / "cnn1"
    out = tmp_path / "killed" / "cnn1"
    checkpoint = out.with_name(".cnn1.checkpoint")
    rng = random.Random(0)
    for number in (signal.SIGKILL, signal.SIGHUP):  # SIGTERM, SIGINT, SIGUSR2: tests/infer
        process = _start(shard_set, out)
        for _ in range(rng.randint(1, 2)):  # counted in checkpoints, not in seconds
            before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            _wait(
                process,
                lambda before=before: checkpoint.exists() and checkpoint.stat().st_mtime_ns > before,  # type: ignore[misc]
            )
        process.send_signal(number)
        _, stderr = process.communicate(timeout=300)
        expected = -number if number == signal.SIGKILL else ExitCode.TRY_AGAIN
        assert process.returncode == expected, stderr
        assert "Traceback" not in stderr
        assert not out.exists()
    saved = checkpoint.read_bytes()
    code, output = invoke("train", shard_set, "--out", out, *TRAIN, "--seed", 1)
    assert (code, "seed: 0 then, 1 now" in output) == (ExitCode.USAGE, True), output
    process = _start(shard_set, out, undisturbed)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == ExitCode.OK, stderr
    assert "continuing an interrupted training after epoch" in stderr
    for name in ("weights.safetensors", "metrics.json", "history.json", "history.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    runtime = json.loads((out / "model.json").read_bytes())["training"]["runtime"]
    assert runtime["threads"] == 1
    assert "oneDNN off" in runtime["reason"]
    # Neither lock nor checkpoint, nor what kills have left of them.
    assert os.listdir(out.parent) == ["cnn1"]

    # Killed, or the disk failed, between the commit and the deletion of the checkpoint.
    checkpoint.write_bytes(saved)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda _: os.rmdir(out / "model.json"))
        code, output = invoke("train", shard_set, "--out", out, *TRAIN)
    assert (code, "is in its place and whole" in output) == (ExitCode.CANNOT_WRITE, True), output
    assert invoke("train", shard_set, "--out", out, *TRAIN, "--quiet") == (ExitCode.OK, "")
    assert os.listdir(out.parent) == ["cnn1"]
    _fit(Checkpoint(checkpoint, PLAN, EACH_STEP))  # of another training, which may continue
    assert invoke("train", shard_set, "--out", out, *TRAIN, "--quiet") == (ExitCode.OK, "")
    assert checkpoint.exists()
