"""`--executor ray` where it cannot work; tests/cluster has the cluster."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.infer.stub import write_bundle, write_images

RAY = ("--executor", "ray")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--engines", 2), "give --executor ray"),
        ((*RAY, "--engines", 0), "--engines must be at least 1"),
        ((*RAY, "--gpus-per-engine", 1.5), "a whole number, or between 0 and 1"),
        ((*RAY, "--gpus-per-engine", "nan"), "a whole number, or between 0 and 1"),
        ((*RAY, "--address", "ray://head:10001"), "host:port of the cluster's head"),
        ((*RAY, "--part", "1/2"), "leave out --part"),
        ((*RAY, "--dry-run"), "leave out --executor ray"),
    ],
)
def test_what_cannot_work_is_refused(
    invoke: Any, tmp_path: Path, words: tuple[object, ...], sentence: str
) -> None:
    write_images(tmp_path / "scans", 1)
    model = write_bundle(tmp_path / "model")
    code, output = invoke("infer", tmp_path / "scans", tmp_path / "x.csv", "--model", model, *words)
    assert (code, sentence in output) == (2, True), output


@pytest.mark.parametrize("words", [("--part", "1/2"), ("--dry-run",)])
def test_shard_refuses_the_same(invoke: Any, tmp_path: Path, words: tuple[object, ...]) -> None:
    write_images(tmp_path / "raw" / "Healthy", 1)
    write_images(tmp_path / "raw" / "Tumor", 1)
    code, output = invoke("shard", tmp_path / "raw", tmp_path / "set", *RAY, *words)
    assert (code, "leave out" in output) == (2, True), output
    assert not (tmp_path / "set").exists()


def test_without_ray_nothing_is_begun(
    invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_images(tmp_path / "scans", 1)
    model = write_bundle(tmp_path / "model")
    code, output = invoke("infer", tmp_path / "scans", tmp_path / "x.csv", "--model", model, *RAY)
    assert (code, "pip install '.[ray]'" in output) == (2, True), output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "scans"]
