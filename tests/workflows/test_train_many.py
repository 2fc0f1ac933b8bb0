"""Several trainings in one command: one that fails does not end the others."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.untrained import leave_out_training
from tumorbatch import bundle
from tumorbatch.errors import ConfigError, ExitCode, InputError, TryAgainError
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.train.config import Config
from tumorbatch.workflows import train_many
from tumorbatch.workflows.train_many import Outcome

SHORT = ("--epochs", 1, "--batch-size", 64, "--device", "cpu")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_training(monkeypatch)


@pytest.mark.usefixtures("untrained")
def test_seeds_make_a_bundle_each(shard_set: Path, tmp_path: Path, invoke: Any) -> None:
    code, output = invoke(
        "train", shard_set, "--arch", "cnn1", "--seeds", 2, "--seed", 3, *SHORT, "--out", tmp_path
    )
    assert code == ExitCode.OK
    bundles = [bundle.load(tmp_path / f"cnn1-seed{seed}") for seed in (3, 4)]
    assert [of.training["schedule"]["seed"] for of in bundles] == [3, 4]
    assert bundles[0].weights_sha256 != bundles[1].weights_sha256
    assert any(line.startswith("cnn1-seed4") for line in output.splitlines())


@pytest.mark.usefixtures("untrained")
def test_all_goes_on_behind_a_failure(shard_set: Path, tmp_path: Path, invoke: Any) -> None:
    """Pretrained weights that do not exist: three fail, and the two small networks are trained."""
    code, output = invoke(
        "train", shard_set, "--arch", "all", "--weights", tmp_path / "absent.h5",
        "--finetune-epochs", 1, *SHORT, "--out", tmp_path / "models",
    )  # fmt: skip
    assert code == ExitCode.NO_INPUT
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["cnn1", "cnn2"]
    assert output.count("FAILED: ") == 3
    assert "absent.h5 is not a file" in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("untrained")
def test_tasks_share_the_trainings_and_the_command_without_a_part_does_the_rest(
    shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    command = ("train", shard_set, "--arch", "cnn1", "--seeds", 3, *SHORT, "--out", tmp_path)
    assert invoke(*command, "--part", "2/2", "--quiet") == (ExitCode.OK, "")
    assert [path.name for path in tmp_path.iterdir()] == ["cnn1-seed1"]
    first = bundle.load(tmp_path / "cnn1-seed1")
    assert invoke(*command, "--part", "9/9", "--quiet") == (ExitCode.OK, "")  # there is none
    with output_lock(tmp_path / "cnn1-seed2", lock_beside(tmp_path / "cnn1-seed2")):
        code, output = invoke(*command, "--part", "1/2", "--quiet")
        assert (code, "is in use by" in output) == (ExitCode.TRY_AGAIN, True)
    assert invoke(*command, "--quiet") == (ExitCode.OK, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"cnn1-seed{k}" for k in range(3)]
    assert bundle.load(tmp_path / "cnn1-seed1") == first
    code, output = invoke("train", shard_set, "--arch", "cnn1", *SHORT, "--part", "1/2")
    assert (code, "this command has one" in output) == (ExitCode.USAGE, True)


def test_a_bug_in_one_is_told_and_the_next_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(tfrecords: Path, out: Path, config: Config) -> Any:
        if config.architecture == "cnn1":
            raise ZeroDivisionError("a bug")
        return config.architecture

    monkeypatch.setattr(train_many, "train", train)
    trainings = {"one": Config("cnn1"), "two": Config("cnn2")}
    outcomes = list(train_many.run(tmp_path, tmp_path, trainings))
    assert [str(outcome.result) for outcome in outcomes] == ["a bug", "cnn2"]
    assert train_many.exit_code(outcomes) == ExitCode.BUG


def test_the_exit_code_is_the_one_that_needs_a_person() -> None:
    def code(*errors: Exception) -> int:
        return train_many.exit_code([Outcome("x", Path(), error) for error in errors])

    assert code(TryAgainError("busy"), ConfigError("wrong")) == ExitCode.USAGE
    assert code(InputError("gone"), ConfigError("wrong")) == ExitCode.NO_INPUT
    assert code(TryAgainError("busy")) == ExitCode.TRY_AGAIN


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("densenet121", marks=pytest.mark.slow),
    ],
)
def test_the_large_networks_train_and_predict(
    name: str, shard_set: Path, sample: Path, tmp_path: Path, invoke: Any
) -> None:
    """From random weights, for one epoch, through the command line, to a table of predictions."""
    out = tmp_path / name
    code, output = invoke(
        "train", shard_set, "--arch", name, "--weights", "none", *SHORT, "--out", out, "--quiet"
    )
    assert (code, output) == (ExitCode.OK, "")
    about = json.loads((out / "model.json").read_text())
    assert about["training"]["weights"] is None
    assert about["training"]["phases"] == {"training": 1}
    table = tmp_path / "out.parquet"
    code, _ = invoke("infer", sample, table, "--model", out, "--quiet")
    assert code == ExitCode.SOME_ERRORS
    import pyarrow.parquet as pq

    rows = pq.read_table(table).to_pylist()
    assert {row["model_id"] for row in rows} == {about["model_id"]}
    assert sum(row["label"] is not None for row in rows) == 96
