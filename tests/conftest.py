"""Tiny data that the tests build, once a session, and the command line through its real entry point."""

import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

ROOT = Path(__file__).resolve().parent.parent
SIZE = 32  # pixels; the smallest input that the networks take

# Files that take longest, for a run in several processes: they come first, so that none is left at the
# end with one process at work.
LONGEST = (
    "preprocess/test_shard.py", "train/test_checkpoint.py", "cli/test_compare.py",
    "evaluation/test_evaluate.py", "infer/test_resume.py", "test_surroundings.py", "test_notebooks.py",
    "train/test_train_cli.py", "workflows/test_train_many.py", "train/test_distribute.py",
    "infer/test_infer_cli.py", "preprocess/explore/test_explore.py", "foundations/test_export.py",
    "foundations/test_workers.py", "preprocess/test_hostile.py", "train/test_phases.py",
    "train/test_pretrained.py", "cli/test_experiment.py", "cli/test_streams.py",
)  # fmt: skip

Invoke = Callable[..., tuple[int, str]]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; see the Makefile's --no-loadscope-reorder."""
    rank = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """Hide what is loaded from the garbage collector: TensorFlow is a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set of 96 readable images and a few broken files. Do not change it."""
    from tumorbatch.synthetic import SampleConfig, run

    folder = tmp_path_factory.mktemp("sample") / "raw"
    run(folder, SampleConfig(images=96))
    return folder


@pytest.fixture(scope="session")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen images and a broken file, for processes of their own. Do not change it."""
    from tests.preprocess.conftest import Build
    from tests.preprocess.sets import image_files, write_file

    folder = tmp_path_factory.mktemp("few") / "raw"
    for name, data in image_files(Build, 6).items():
        write_file(folder / name, data)
    write_file(folder / "Healthy" / "broken.png", b"\x89PNG\r\n\x1a\n and no more")
    return folder


@pytest.fixture(scope="session")
def shard_set(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shard set of `sample`, 32 x 32 pixels, several train shards. Do not change it."""
    from tests.in_process import leave_out_workers
    from tumorbatch.preprocess.shard import Config, run
    from tumorbatch.preprocessing_config import Preprocessing

    folder = tmp_path_factory.mktemp("shards") / "tfrecords"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_workers(patch)
        run(sample, folder, Config(Preprocessing(size=SIZE), shard_bytes=20_000))
    return folder


@pytest.fixture(scope="session")
def model(shard_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cnn1 bundle, trained on `shard_set` for two epochs. Do not change it."""
    from tumorbatch.runtime import load_tensorflow

    load_tensorflow()
    from tumorbatch.train.config import Config, Schedule
    from tumorbatch.train.training import run

    folder = tmp_path_factory.mktemp("models") / "cnn1"
    run(shard_set, folder, Config("cnn1", Schedule(epochs=2, batch_size=8)))
    return folder


@pytest.fixture
def real_workers() -> None:
    """For tests of worker processes in a module that leaves them out with `in_process`."""


@pytest.fixture
def in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker processes and no waiting for the disk, for tests that are about something else."""
    from tests.in_process import leave_out_workers

    if "real_workers" not in request.fixturenames:
        leave_out_workers(monkeypatch)


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run `tumorbatch ARGUMENTS` in its own process; gives returncode, stdout, stderr."""

    def run(*arguments: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "tumorbatch", *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def native_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library in C, built from this checkout as setuptools does it at an installation."""
    build = tmp_path_factory.mktemp("native")
    subprocess.run(
        [
            sys.executable,
            "setup.py",
            "--quiet",
            "build_ext",
            "--build-lib",
            build,
            "--build-temp",
            build,
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    built = list(build.glob("tumorbatch/native/_native*"))
    if not built:
        pytest.skip("there is no C compiler")
    return built[0]


@pytest.fixture
def run_main() -> Iterator[Callable[..., Result]]:
    """Run `tumorbatch ARGUMENTS` in this process; a traceback reaches the test.

    For what does not hang on the process boundary: its own process spends seconds on loading
    TensorFlow, and half a second without it.
    """
    from tumorbatch.cli.main import main
    from tumorbatch.signals import SIGNALS

    logger = logging.getLogger("tumorbatch")
    before = (logger.handlers, logger.level, logger.propagate)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)

    yield run
    logger.handlers, logger.level, logger.propagate = before
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def invoke(run_main: Callable[..., Result]) -> Invoke:
    """Run `tumorbatch ARGUMENTS` in this process; gives the exit code and all output."""

    def run(*arguments: object) -> tuple[int, str]:
        result = run_main(*arguments)
        return result.exit_code, result.output

    return run


@pytest.fixture
def command(run_main: Callable[..., Result]) -> Cli:
    """Do what `cli` does, in this process."""

    def run(*arguments: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        with contextlib.chdir(cwd or os.getcwd()):
            result = run_main(*arguments)
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

    return run
