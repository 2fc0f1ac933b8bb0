"""`train --stream`: TensorFlow reads the shards in S3 itself; `make test-io`."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quick import ROOT
from tests.stores.conftest import Run, Start, Store
from tumorbatch import shardset, tfrecord
from tumorbatch.preprocess.shard import Config
from tumorbatch.preprocess.shard import run as shard
from tumorbatch.preprocessing_config import Preprocessing

pytestmark = [
    pytest.mark.io,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow_io") is None, reason="tensorflow-io is not installed"
    ),
]

ARCH = ("--arch", "cnn1", "--batch-size", 8, "--device", "cpu")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the real command: how it leaves is part of what is tested."""
    processes = []

    def command(*arguments: object, **_: object) -> "subprocess.Popen[str]":
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tumorbatch", *map(str, arguments)],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield command
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def made(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "set"
    shard(sample, folder, Config(Preprocessing(size=32), shard_bytes=20_000, workers=2))
    return folder


def test_the_weights_are_those_of_a_training_from_disk(
    store: Store, made: Path, run: Run, sample: Path, tmp_path: Path
) -> None:
    place = store.put(made, "set")
    same = (*ARCH, "--epochs", 1, "--deterministic", "--quiet")
    assert run("train", made, "--out", tmp_path / "disk", "--feed", "stream", *same) == (0, "")
    assert run("train", place, "--out", tmp_path / "s3", "--stream", *same) == (0, "")
    said = [json.loads((tmp_path / name / "model.json").read_text()) for name in ("disk", "s3")]
    assert said[0]["weights_sha256"] == said[1]["weights_sha256"]
    shards = [path.name for path in made.glob("*.tfrecord")]
    assert all(store.proxy.count("GET", name) for name in shards)
    assert not list((tmp_path / "cache").rglob("*.tfrecord"))  # nothing was copied
    # The same environment infers, too; the sample has broken files.
    assert run("infer", sample, tmp_path / "o.parquet", "--model", tmp_path / "s3", "--quiet")[0] == 3


def test_a_shard_that_lacks_records_is_damage(
    store: Store, made: Path, run: Run, tmp_path: Path
) -> None:
    """Cut between two records, it reads as a clean end: only the count shows it."""
    place = store.put(made, "set")
    last = shardset.read(made / "dataset.json").split("train")[-1]
    records = list(tfrecord.read(made / last.name))
    short = tmp_path / "short"
    short.write_bytes(b"".join(map(tfrecord.frame, records[:-1])))
    store.put(short, f"set/{last.name}")
    code, text = run("train", place, "--out", tmp_path / "m", "--stream", *ARCH)
    assert code == 66, text
    assert "A train shard in" in text
    assert not (tmp_path / "m").exists()


def test_an_interruption_is_75_and_the_same_command_continues(
    store: Store, made: Path, start: Start, run: Run, tmp_path: Path
) -> None:
    place = store.put(made, "set")
    command = ("train", place, "--out", tmp_path / "m", "--stream", *ARCH, "--epochs", 200)
    process = start(*command, "--patience", 200)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob(".m.checkpoint*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    store.proxy.rule = lambda method, path: 503 if ".tfrecord" in path else None
    code, text = run(*command, "--patience", 200)
    assert code == 75, text
    assert "cannot be read just now" in text
