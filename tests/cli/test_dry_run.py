"""--dry-run tells files, parts and cost, and leaves no trace."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tumorbatch.errors import ExitCode

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(invoke: Any) -> Ask:
    """Run a command with --dry-run --json; gives the exit code and what it told."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code, output = invoke(*arguments, "--dry-run", "--json", "--quiet")
        return code, json.loads(output.splitlines()[-1])

    return run


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_shard(sample: Path, tmp_path: Path, ask: Ask, shard_set: Path, invoke: Any) -> None:
    out = tmp_path / "tfrecords"
    code, told = ask("shard", sample, out, "--workers", 1)
    assert code == ExitCode.OK
    assert (told["dry_run"], told["files"], told["new"], told["gone"]) == (
        True, sum(told["classes"].values()), told["files"], 0,
    )  # fmt: skip
    assert told["seconds"] >= 0
    assert told["bytes"] > told["files"] * 150 * 150
    assert _names(tmp_path) == set()
    before = {path: path.stat().st_mtime_ns for path in shard_set.rglob("*")}
    code, told = ask("shard", sample, shard_set, "--size", 32, "--workers", 1)
    assert (code, told["new"], told["gone"]) == (ExitCode.OK, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in shard_set.rglob("*")} == before
    code, output = invoke("shard", tmp_path / "absent", out, "--dry-run")
    assert (code, str(tmp_path / "absent") in output) == (ExitCode.NO_INPUT, True)
    code, output = invoke("shard", sample, out, "--workers", 1, "--dry-run", "--quiet")
    assert output.endswith("Nothing was done (--dry-run).\n")


def test_train(shard_set: Path, tmp_path: Path, ask: Ask) -> None:
    given = ("--epochs", 3, "--batch-size", 8, "--device", "cpu", "--seeds", 2, "--out", tmp_path / "m")
    code, told = ask("train", shard_set, "--arch", "cnn1", *given)
    assert (code, len(told["trainings"])) == (ExitCode.OK, 2)
    first = told["trainings"][0]
    assert (first["out"], first["epochs_at_most"], first["exists"]) == (
        str(tmp_path / "m" / "cnn1-seed0"), 3, False,
    )  # fmt: skip
    assert first["steps_per_epoch"] == -(-told["images"]["train"] // 8)
    assert first["seconds"] > 0
    assert told["bytes"] == 2 * first["bytes"] > 0
    assert _names(tmp_path) == set()


def test_infer(sample: Path, model: Path, tmp_path: Path, ask: Ask, invoke: Any) -> None:
    out = tmp_path / "out.parquet"
    command = (sample, out, "--model", model, "--workers", 1, "--device", "cpu")
    prom = tmp_path / "x.prom"
    code, told = ask("infer", *command, "--metrics-file", prom)
    assert (code, told["kept"], told["format"]) == (ExitCode.OK, 0, "parquet")
    assert told["new"] == told["files"] > 96
    assert told["seconds"] > 0
    assert _names(tmp_path) == set()
    assert invoke("infer", *command, "--quiet")[0] == ExitCode.SOME_ERRORS
    names, rows = _names(tmp_path), told["files"]
    code, told = ask("infer", *command, "--incremental")
    assert 0 < told["kept"] < rows  # files with errors are tried again
    assert told["new"] == rows - told["kept"]
    assert abs(told["bytes"] - out.stat().st_size) < out.stat().st_size  # about
    assert _names(tmp_path) == names
    code, output = invoke(
        "infer", sample, tmp_path / "typo" / "out.parquet", "--model", model, "--dry-run"
    )
    assert (code, "does not exist" in output) == (ExitCode.CANNOT_WRITE, True)
