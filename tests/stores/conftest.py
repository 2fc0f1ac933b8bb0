"""Real servers of object stores, each started once; `make test-cluster` installs them."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.quick import Start, starting
from tests.stores.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
# Where `make test-cluster` has put moto_server, rclone and juicefs.
SERVERS = Path(os.environ.get("TUMORBATCH_SERVERS", ROOT / ".venv-servers" / "bin"))
KEY, SECRET = "testkey1", "testsecret1"
BUCKET = "mybucket"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these files alone in every other run: they need servers, and minutes."""
    wanted = config.getoption("markexpr") in ("cluster", "io") or collection_path.is_dir()
    return None if wanted else True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """Return the path of a server's program, or skip the test."""
    path = shutil.which(name, path=os.pathsep.join([str(SERVERS), os.environ["PATH"]]))
    if path is None:
        pytest.skip(f"{name} is not installed: run `make test-cluster`")
    return path


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{process.args} does not listen")


def _rclone(folder: Path, port: int) -> list[list[str]]:
    (folder / "data" / BUCKET).mkdir(parents=True)
    where = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    nothing = ["--config", str(folder / "none.conf")]
    return [[program("rclone"), "serve", "s3", str(folder / "data"), *where, *nothing]]


def _juicefs(folder: Path, port: int) -> list[list[str]]:
    juicefs, meta = program("juicefs"), f"sqlite3://{folder}/meta.db"
    (folder / "data").mkdir()
    form = [juicefs, "format", "--storage", "file", "--bucket", f"{folder}/data/", meta, BUCKET]
    quiet = ["--no-usage-report", "--cache-dir", str(folder / "cache")]
    return [form, [juicefs, "gateway", meta, f"127.0.0.1:{port}", *quiet]]


def _moto(_: Path, port: int) -> list[list[str]]:
    return [[program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]]


STORES = {"rclone": _rclone, "juicefs": _juicefs, "moto": _moto}


@dataclass
class Store:
    """A server with an empty bucket, behind a proxy.

    Attributes:
        proxy: Passes on what tests do not break.
        port: Of the server itself.
        uri: Of a folder that belongs to one test.
        environment: With what commands find it.
    """

    proxy: Proxy
    port: int
    uri: str
    environment: dict[str, str] = field(default_factory=dict)

    def put(self, source: Path, key: str) -> str:
        """Upload a file, or all files of a folder; return the URI."""
        from tumorbatch import stores
        from tumorbatch.object_path import ObjectPath

        place = ObjectPath.parse(self.uri) / key
        if source.is_file():
            stores.publish(source, place)
        for path in sorted(source.rglob("*")) if source.is_dir() else ():
            if path.is_file() and path.stat().st_size:
                stores.publish(path, place / path.relative_to(source).as_posix())
        return str(place)

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes, or None."""
        from tumorbatch import stores
        from tumorbatch.object_path import ObjectPath

        try:
            return stores.read_small(ObjectPath.parse(self.uri) / key, 1 << 30)
        except FileNotFoundError:
            return None


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], int]]:
    """Start a server by its name, once; gives its port."""
    ports: dict[str, int] = {}
    processes = []

    def start(name: str) -> int:
        if name not in ports:
            port = free_port()
            folder = tmp_path_factory.mktemp(name)
            *before, command = STORES[name](folder, port)
            env = os.environ | {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET}
            for one in before:
                subprocess.run(one, check=True, capture_output=True, env=env, timeout=60)
            process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            processes.append(process)
            _wait_for(port, process)
            if name == "moto":
                request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
                urllib.request.urlopen(request, timeout=10)
            ports[name] = port
        return ports[name]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def store(
    request: pytest.FixtureRequest,
    servers: Callable[[str], int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Store]:
    """A server, "rclone" unless the test is parametrized with others, as commands would find it."""
    from tumorbatch import store_connection

    port = servers(getattr(request, "param", "rclone"))
    proxy = Proxy(f"127.0.0.1:{port}")
    environment = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "TUMORBATCH_CACHE": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store_connection._s3.cache_clear()
    yield Store(proxy, port, f"s3://{BUCKET}/{tmp_path.name}", environment)
    store_connection._s3.cache_clear()
    proxy.close()


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    yield from starting(tmp_path_factory.mktemp("quick"))


@pytest.fixture
def run(start: Start) -> Run:
    """Run `tumorbatch ARGUMENTS` to its end; gives exit code and all output."""

    def to_the_end(*arguments: object, pause: float = 0) -> tuple[int, str]:
        process = start(*arguments, pause=pause)
        stdout, stderr = process.communicate(timeout=200)
        return process.returncode, stdout + stderr

    return to_the_end
