"""What the tests of the shared modules need more than once."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

Python = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, set up as the commands set it up."""
    from tumorbatch.runtime import load_tensorflow

    return load_tensorflow()


@pytest.fixture
def python() -> Iterator[Python]:
    """Start `python -c SOURCE ARGUMENTS`, with pipes; what still runs at the test's end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", source, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was never sent to a process that is gone
                    stream.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose parents every user may enter, as `tmp_path`'s are not."""
    folder = Path(tempfile.mkdtemp(prefix="tumorbatch-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def unprivileged() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which permission bits count, for root too."""

    @contextlib.contextmanager
    def without_privileges() -> Iterator[None]:
        before = os.geteuid()
        if before == 0:
            try:
                os.seteuid(65534)
            except OSError:
                pytest.skip("root here cannot become another user")
        try:
            yield
        finally:
            os.seteuid(before)

    return without_privileges
