"""Tests with a real scheduler: only where `-m cluster` asks for them."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm, cluster
from tests.quick import QUICK
from tumorbatch.parts import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these files alone in every other run."""
    wanted = config.getoption("markexpr") == "cluster"
    return None if wanted or collection_path.is_dir() else True


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command `tumorbatch`, which needs no TensorFlow and takes its time."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "quick.py").write_text(QUICK)
    command = folder / "tumorbatch"
    command.write_text(
        f'#!/bin/bash\nexec {sys.executable} {folder}/quick.py ${{PAUSE:-0.05}} 100 0 "$@"\n'
    )
    command.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def environment(program: Path) -> dict[str, str]:
    """Variables of the tasks: chunks of five files."""
    path = f"{program}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), ENVIRONMENT: "5"}


@pytest.fixture(scope="session")
def slurm(environment: dict[str, str]) -> Iterator[Slurm]:
    """A Slurm of two nodes, two cores each."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm") as folder,
        cluster(Path(folder), environment) as one,
    ):
        yield one
