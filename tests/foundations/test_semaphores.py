"""What is left in /dev/shm of a run that was killed with all its processes."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import semaphores

SHARED = Path("/dev/shm")

PARENT = """
import multiprocessing, os, signal, sys
from tumorbatch import semaphores
os.setsid()
semaphores.claim()
lock = multiprocessing.get_context("spawn").Lock()
print(os.getpid(), flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not SHARED.is_dir(), reason="no /dev/shm here")
def test_the_next_run_frees_what_a_killed_one_left(python: Any) -> None:
    process = python(PARENT)
    pid = int(process.stdout.readline())

    def left() -> list[Path]:
        return list(SHARED.glob(f"sem.tumorbatch-*-{pid}-*"))

    assert len(left()) == 1
    before = multiprocessing.current_process()._config["semprefix"]  # type: ignore[attr-defined]
    try:
        semaphores.claim()
        assert len(left()) == 1  # of a run that lives
        os.killpg(pid, signal.SIGKILL)
        process.wait()
        assert len(left()) == 1
        semaphores.claim()
        assert left() == []
    finally:
        multiprocessing.current_process()._config["semprefix"] = before  # type: ignore[attr-defined]
