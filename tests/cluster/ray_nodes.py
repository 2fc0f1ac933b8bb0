"""A Ray cluster of two nodes on this machine; the second has its own /dev/shm, name and mounts."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.stores.conftest import free_port

_MARK = "TUMORBATCH_TEST_NODE"  # all processes of a node inherit it

# An engine without TensorFlow, which the tests can stop. Its logits differ from image to image.
ENGINE = """
import os, pathlib, signal, time
import numpy as np
from tumorbatch.infer import batching, engine, network, worker
from tumorbatch.preprocess import engine as reading

FOLDER, NODE = pathlib.Path(__file__).parent, os.environ.get("TUMORBATCH_TEST_NODE", "driver")

def load(self):
    return lambda images: images.reshape(len(images), -1).astype(np.float32).mean(1) / 64 - 1

def decode_files(tasks, **settings):
    if any((FOLDER / f"crash-{task.file.name}").exists() for task in tasks):
        os.kill(os.getpid(), signal.SIGSEGV)
    return worker.decode_files(tasks, **settings)

network.Network.load = load
batching.decode_files = decode_files

def attend(names):
    (FOLDER / f"busy-{NODE}-{os.getpid()}").touch()
    if any((FOLDER / f"deadly-{name}").exists() for name in names):
        os._exit(1)
    while (FOLDER / "hold").exists():
        time.sleep(0.05)

class Predictor(engine.Predictor):
    def compute(self, work):
        attend([file.name for file, _ in work])
        return super().compute(work)

class Reader(reading.Reader):
    def compute(self, work):
        attend([task.source.file.name for task in work])
        return super().compute(work)
"""
DRIVER = """
import sys
import quick_engine
from tumorbatch import ray_cluster
from tumorbatch.cli.main import main
from tumorbatch.infer import part
from tumorbatch.preprocess import part as shard_part

part.Predictor = quick_engine.Predictor
shard_part.Reader = quick_engine.Reader
ray_cluster._PATIENCE = 6.0
if __name__ == "__main__":
    main(sys.argv[1:])
"""


def can_have_two_nodes() -> str:
    """Return why there can be no second node, or ""."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = ["unshare", "--mount", "--uts", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    done = subprocess.run(tried, capture_output=True, check=False)
    return "" if done.returncode == 0 else "only root can give a node its own /dev/shm"


def processes(mark: str) -> list[int]:
    """Return the processes of a node."""
    wanted, found = f"{_MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def wait_until(happened: Callable[[], object], seconds: float = 60) -> None:
    """Wait for an event."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.1)


class RayNodes:
    """The cluster.

    Args:
        folder: Short: the path of a socket in it must have less than 108 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        root = Path(__file__).resolve().parents[2]
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{root}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "TUMORBATCH_CHUNK_FILES": "5",
        }
        (folder / "quick_engine.py").write_text(ENGINE)
        (folder / "driver.py").write_text(DRIVER)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _start(
        self, name: str, options: Sequence[object], before: Sequence[str] = (), path: str = ""
    ) -> None:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        ray += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", *map(str, options)]
        environment = {**self.environment, _MARK: name}
        if path:
            environment["PYTHONPATH"] = f"{path}{os.pathsep}{environment['PYTHONPATH']}"
        with (self.folder / f"{name}.log").open("wb") as output:
            self._started[name] = subprocess.Popen(
                [*before, *ray], env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: b"block forever" in (self.folder / f"{name}.log").read_bytes())

    def start_head(self) -> None:
        """Start the head, which has one core."""
        options = ["--head", f"--port={self.port}", "--include-dashboard=false", "--num-cpus=1"]
        self._start("head", [*options, f"--temp-dir={self.folder}/ray"])

    def start_second(self, mounts: str, path: str = "") -> None:
        """Start the second node, which has two cores.

        Args:
            mounts: Commands that mount what only it sees.
            path: A folder that its Python looks into first.
        """
        prepare = f"mount -t tmpfs -o size=300m tmpfs /dev/shm && hostname ray-two && {mounts}"
        before = ["unshare", "--mount", "--uts", "bash", "-c", f'{prepare} && exec "$@"', "node"]
        self._start("two", [f"--address={self.address}", "--num-cpus=2"], before, path)

    def raylet(self, name: str) -> int:
        """Return the number of a node's raylet, or 0."""
        for number in processes(name):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{number}/comm").read_text() == "raylet\n":
                    return number
        return 0

    def kill(self, name: str) -> None:
        """Kill all of a node."""
        while numbers := processes(name):
            for number in numbers:
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)
            if name in self._started:
                self._started[name].poll()
            time.sleep(0.1)
        if name in self._started:
            self._started.pop(name).wait()

    def busy(self, name: str = "") -> list[int]:
        """Return the numbers of the engines that have got a chunk, of one node."""
        marks = self.folder.glob(f"busy-{name or '*'}-*")
        return sorted(int(mark.name.rpartition("-")[2]) for mark in marks)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[RayNodes]:
    """Give a cluster that is not started yet; kill it in the end."""
    nodes = RayNodes(folder)
    try:
        yield nodes
    finally:
        nodes.kill("two")
        nodes.kill("head")
