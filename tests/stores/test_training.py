"""`train` and `evaluate` with a shard set in a real S3 server, by TensorFlow: what a folder gives."""

import json
from pathlib import Path

import pytest

from tests.stores.conftest import Run, Store
from tumorbatch.preprocess.shard import Config
from tumorbatch.preprocess.shard import run as shard
from tumorbatch.preprocessing_config import Preprocessing

pytestmark = pytest.mark.cluster


def test_weights_and_metrics_are_those_of_a_set_on_disk(
    store: Store, sample: Path, run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shard(sample, folder, Config(Preprocessing(size=32), shard_bytes=20_000, workers=2))
    place = store.put(folder, "set")
    told = {}
    for name, tfrecords in (("disk", folder), ("s3", place)):
        model = tmp_path / name
        options = ("--arch", "cnn1", "--epochs", 1, "--batch-size", 8, "--deterministic", "--quiet")
        assert run("train", tfrecords, "--out", model, "--device", "cpu", *options) == (0, "")
        report = ("--out", tmp_path / f"report-{name}", "--device", "cpu", "--quiet")
        assert run("evaluate", model, tfrecords, *report) == (0, "")
        told[name] = [
            (model / "weights.safetensors").read_bytes(),
            json.loads((model / "metrics.json").read_text()),
        ]
    assert told["s3"] == told["disk"]
    shards = [path.name for path in folder.glob("*.tfrecord")]
    assert len(shards) > 3
    assert all(store.proxy.count("GET", name) == 1 for name in shards)  # `evaluate` took the copies
