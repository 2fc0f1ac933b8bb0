"""`--executor ray` on two Ray nodes; whatever is lost, table and shards are those of one machine."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.ray_nodes import RayNodes, can_have_two_nodes, cluster, wait_until
from tests.infer.stub import write_bundle, write_images
from tests.preprocess.conftest import Build
from tests.preprocess.sets import content_of, image_files, write_file
from tumorbatch.infer.predictions import iterate_rows, read_metadata
from tumorbatch.parts import find_chunks

pytestmark = pytest.mark.cluster
pytest.importorskip("ray", reason="ray is not installed: run `make test-cluster`")
_NO_NODES = can_have_two_nodes()
if _NO_NODES:
    pytest.skip(_NO_NODES, allow_module_level=True)

BROKEN = "0007a.png"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """The head, and a place for the second node."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder, cluster(Path(folder)) as one:
        write_images(one.folder / "scans", 39)  # eight chunks of five
        (one.folder / "scans" / BROKEN).write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        write_images(one.folder / "unseen", 6)  # where the second node has nothing
        write_bundle(one.folder / "model")
        (one.folder / "other").mkdir()
        one.start_head()
        yield one


@pytest.fixture
def two(nodes: RayNodes) -> RayNodes:
    """Both nodes; the second one's bundle is damaged, which nobody notices: it gets the driver's."""
    for mark in ("busy-*", "deadly-*", "crash-*"):
        for path in nodes.folder.glob(mark):
            path.unlink()
    (nodes.folder / "hold").unlink(missing_ok=True)
    if not nodes.raylet("two"):
        nodes.start_second(_mounts(nodes))
    return nodes


def _mounts(nodes: RayNodes) -> str:
    return " && ".join(
        f"mount --bind {nodes.folder}/other {nodes.folder}/{name}" for name in ("model", "unseen")
    )


@pytest.fixture(scope="module")
def expected(nodes: RayNodes) -> list[dict[str, Any]]:
    """The table of one machine."""
    done = _start(nodes, "scans", "one.parquet", "--workers", 1)
    assert done.communicate(timeout=100) == ("", "")
    assert done.returncode == 3
    return _values(nodes.folder / "one.parquet")


def _values(out: Path) -> list[dict[str, Any]]:
    return [{**row, "run_id": ""} for row in iterate_rows(out)]


def _start(nodes: RayNodes, *arguments: object, command: str = "infer") -> "subprocess.Popen[str]":
    driver = [sys.executable, nodes.folder / "driver.py", command, *arguments, "--quiet"]
    driver += ["--model", "model", "--batch-size", 4] if command == "infer" else ["--size", 32]
    return subprocess.Popen(
        [str(word) for word in driver], cwd=nodes.folder, env=nodes.environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def start(two: RayNodes) -> Iterator[Start]:
    """Start the command with two engines of one core each."""
    started = []

    def begin(
        out: str, scans: str = "scans", workers: int = 1, command: str = "infer"
    ) -> "subprocess.Popen[str]":
        words = ("--executor", "ray", "--address", two.address, "--engines", 2, "--workers", workers)
        started.append(_start(two, scans, out, *words, command=command))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _hold(nodes: RayNodes) -> None:
    (nodes.folder / "hold").touch()


def _release(nodes: RayNodes) -> None:
    (nodes.folder / "hold").unlink()


def _finished(nodes: RayNodes, out: str, expected: list[dict[str, Any]]) -> None:
    path = nodes.folder / out
    assert _values(path) == expected
    assert {row["run_id"] for row in iterate_rows(path)} == {read_metadata(path)["run_id"]}
    assert not path.with_name(f".{out}.partial").exists()


def _gone(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


def test_two_nodes_compute_and_the_driver_publishes(start: Start, two: RayNodes, expected: Any) -> None:
    mounts = Path(f"/proc/{two.raylet('two')}/mounts").read_text()
    assert " /dev/shm tmpfs rw,relatime,size=307200k" in mounts
    process = start("plain.parquet")
    assert process.communicate(timeout=100) == ("", "")
    assert process.returncode == 3
    _finished(two, "plain.parquet", expected)
    assert len(two.busy("head")) == len(two.busy("two")) == 1  # one engine a node, one network each


def test_an_engine_is_killed(start: Start, two: RayNodes, expected: Any) -> None:
    _hold(two)
    process = start("engine.parquet")
    wait_until(lambda: len(two.busy()) == 2)
    os.kill(two.busy("two")[0], signal.SIGKILL)
    wait_until(lambda: len(two.busy()) == 3)
    _release(two)
    assert process.communicate(timeout=100) == ("", "")
    _finished(two, "engine.parquet", expected)


def test_a_raylet_is_killed(start: Start, two: RayNodes, expected: Any) -> None:
    _hold(two)
    process = start("raylet.parquet")
    wait_until(lambda: len(two.busy()) == 2)
    os.kill(two.raylet("two"), signal.SIGKILL)
    _release(two)
    assert process.communicate(timeout=100) == ("", "")
    _finished(two, "raylet.parquet", expected)
    two.kill("two")


def test_shard_with_a_raylet_and_an_engine_that_are_killed(start: Start, two: RayNodes) -> None:
    for name, data in image_files(Build, 13).items():
        write_file(two.folder / "raw" / name, data)
    write_file(two.folder / "raw" / "Healthy" / "broken.png", b"\x89PNG\r\n\x1a\n and no more")
    alone = _start(two, "raw", "one", "--workers", 1, command="shard")
    assert (*alone.communicate(timeout=100), alone.returncode) == ("", "", 3)
    _hold(two)
    process = start("set", "raw", command="shard")
    wait_until(lambda: len(two.busy()) == 2)
    os.kill(two.busy("head")[0], signal.SIGKILL)
    wait_until(lambda: len(two.busy()) == 3)
    os.kill(two.raylet("two"), signal.SIGKILL)
    _release(two)
    assert (*process.communicate(timeout=100), process.returncode) == ("", "", 3)
    assert content_of(two.folder / "set") == content_of(two.folder / "one")
    two.kill("two")


def test_the_driver_is_killed(start: Start, two: RayNodes, expected: Any) -> None:
    process = start("driver.parquet")
    area = two.folder / ".driver.parquet.partial"
    wait_until(lambda: len(find_chunks(area)) >= 2)
    process.kill()
    wait_until(lambda: all(map(_gone, two.busy())))
    kept = {path for paths in find_chunks(area).values() for path in paths}
    assert kept
    again = start("driver.parquet")
    assert again.communicate(timeout=100) == ("", "")
    _finished(two, "driver.parquet", expected)


def test_the_driver_is_interrupted(start: Start, two: RayNodes, expected: Any) -> None:
    _hold(two)
    process = start("signal.parquet")
    wait_until(lambda: len(two.busy()) == 2)
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, "Interrupted (SIGTERM)" in stderr) == (75, True), stderr


def test_the_cluster_shrinks_to_nothing(start: Start, two: RayNodes, expected: Any) -> None:
    _hold(two)
    process = start("shrunk.parquet", workers=2)  # these fit the second node alone
    wait_until(lambda: len(two.busy("two")) == 1)
    two.kill("two")
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stdout) == (75, "")
    assert "no engine for 6 s: no node answers that has 2 free CPUs" in stderr
    assert len(stderr.splitlines()) == 1
    _release(two)
    two.start_second(_mounts(two))
    again = start("shrunk.parquet", workers=2)
    assert again.communicate(timeout=100) == ("", "")
    _finished(two, "shrunk.parquet", expected)


def test_a_chunk_that_costs_three_engines_is_computed_here(
    start: Start, two: RayNodes, expected: Any
) -> None:
    (two.folder / f"deadly-{BROKEN}").touch()
    process = start("deadly.parquet")
    _, stderr = process.communicate(timeout=100)
    assert "3 engines were lost with one chunk: it is computed here" in stderr
    _finished(two, "deadly.parquet", expected)


def test_a_file_that_kills_its_decoder_costs_a_row_and_no_engine(start: Start, two: RayNodes) -> None:
    (two.folder / "crash-0003.png").touch()
    alone = _start(two, "scans", "alone.parquet", "--workers", 1)
    alone.communicate(timeout=100)
    process = start("crash.parquet")
    assert (*process.communicate(timeout=100), process.returncode) == ("", "", 3)
    crashed = _values(two.folder / "alone.parquet")
    assert [row["path"] for row in crashed if row["status"] == "decoder_crash"] == ["0003.png"]
    _finished(two, "crash.parquet", crashed)
    assert len(two.busy()) == 2


def test_a_node_that_does_not_see_the_files(start: Start, two: RayNodes) -> None:
    process = start("unseen.parquet", scans="unseen", workers=2)
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stdout) == (66, "")
    assert f"The node ray-two does not see {two.folder}/unseen/0000.png" in stderr
    assert not (two.folder / "unseen.parquet").exists()


def test_a_node_with_another_version(start: Start, two: RayNodes) -> None:
    two.kill("two")
    other = two.folder / "old" / "simplejpeg-0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: simplejpeg\nVersion: 0.1\n")
    two.start_second(_mounts(two), path=str(other.parent))
    process = start("version.parquet", workers=2)
    stdout, stderr = process.communicate(timeout=100)
    two.kill("two")
    assert (process.returncode, stdout) == (2, "")
    assert "The node ray-two has another version of simplejpeg: 0.1, and this machine has" in stderr
    assert not (two.folder / "version.parquet").exists()


def test_a_node_without_the_package(start: Start, two: RayNodes) -> None:
    two.kill("two")
    (two.folder / "bare").mkdir()
    (two.folder / "bare" / "tumorbatch.py").write_text("raise ImportError('there is no such package')")
    two.start_second(_mounts(two), path=f"{two.folder}/bare")
    process = start("bare.parquet", workers=2)
    stdout, stderr = process.communicate(timeout=100)
    two.kill("two")
    assert (process.returncode, stdout, len(stderr.splitlines())) == (2, "", 1), stderr
    assert "An engine cannot start: " in stderr
    assert "there is no such package" in stderr
    assert "Install the same packages on all nodes." in stderr


def test_the_head_dies_and_this_machine_finishes(start: Start, two: RayNodes, expected: Any) -> None:
    process = start("head.parquet")
    wait_until(lambda: find_chunks(two.folder / ".head.parquet.partial"))
    _hold(two)
    two.kill("two")
    two.kill("head")
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stdout, len(stderr.splitlines())) == (75, "", 1), stderr
    alone = _start(two, "scans", "head.parquet", "--workers", 1)
    assert alone.communicate(timeout=100) == ("", "")
    _finished(two, "head.parquet", expected)
    gone = start("none.parquet")
    _, stderr = gone.communicate(timeout=60)
    assert (gone.returncode, "There is no Ray cluster at 127.0.0.1:" in stderr) == (75, True)
