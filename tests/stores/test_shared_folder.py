"""Locks on a real file system that several machines share: two JuiceFS mounts of one volume."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import write_bundle
from tests.stores.conftest import Run, Start, program

pytestmark = pytest.mark.cluster


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two places where one folder is mounted, each by its own process."""
    juicefs, meta = program("juicefs"), f"sqlite3://{tmp_path}/meta.db"
    (tmp_path / "data").mkdir()
    form = [juicefs, "format", "--storage", "file", "--bucket", f"{tmp_path}/data/", meta, "vol"]
    subprocess.run(form, check=True, capture_output=True, timeout=60)
    places = (tmp_path / "first", tmp_path / "second")
    processes = []
    try:
        for place in places:
            place.mkdir()
            quiet = ["--no-usage-report", "--cache-dir", f"{tmp_path}/cache-{place.name}"]
            processes.append(
                subprocess.Popen(
                    [juicefs, "mount", *quiet, meta, str(place)], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while not all(place.is_mount() for place in places):
            if time.monotonic() > deadline or any(one.poll() is not None for one in processes):
                pytest.skip("this machine cannot mount by FUSE")
            time.sleep(0.1)
        yield places
    finally:
        for place in places:
            subprocess.run([juicefs, "umount", str(place)], capture_output=True, timeout=60)
        for process in processes:
            process.kill()
            process.wait()


def test_a_run_on_another_node_is_seen_and_its_death_too(
    mounts: tuple[Path, Path], little: Path, start: Start, run: Run, tmp_path: Path
) -> None:
    model = write_bundle(tmp_path / "cnn1")
    outs = [mount / "out.parquet" for mount in mounts]
    command = ("infer", little, "--model", model, "--workers", 1)
    first = start("infer", little, outs[0], *command[2:], "--batch-size", 1, stand_still=2)
    deadline = time.monotonic() + 60
    while not (mounts[1] / ".out.parquet.partial").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    code, text = run("infer", little, outs[1], *command[2:])
    assert (code, "is in use by process" in text) == (75, True), text
    code, text = run("infer", little, outs[1], *command[2:], "--part", "1/2")
    assert (code, "is in use by process" in text) == (75, True), text
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(1)
    code, text = run("infer", little, outs[1], *command[2:])
    assert code == 3, text
    assert outs[0].read_bytes() == outs[1].read_bytes()
