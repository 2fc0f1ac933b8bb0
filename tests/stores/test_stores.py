"""`infer` and `shard` on real S3 servers: the same tables, and what happens when requests fail."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bundles import write_bundle
from tests.stores.conftest import STORES, Run, Start, Store
from tumorbatch.parts import ENVIRONMENT

pytestmark = pytest.mark.cluster
on_every_server = pytest.mark.parametrize("store", STORES, indirect=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("models") / "cnn1")


@pytest.fixture(scope="module")
def images(little: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `little` whose names a store can have."""
    folder = tmp_path_factory.mktemp("images") / "raw"
    for path in little.rglob("*"):
        name = path.relative_to(little)
        if path.is_file() and str(name).isprintable():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, folder / name)
    return folder


def _table(path: Path) -> pa.Table:
    """The table without what differs between a folder and a store, and between runs."""
    return pq.read_table(path).drop_columns(["run_id", "mtime"])


def _statuses(path: Path) -> dict[str, str]:
    table = pq.read_table(path)
    return dict(zip(table["path"].to_pylist(), table["status"].to_pylist(), strict=True))


@on_every_server
def test_folder_bundle_and_table_in_a_store(
    store: Store, images: Path, bundle: Path, run: Run, tmp_path: Path
) -> None:
    scans, models = store.put(images, "scans"), store.put(bundle, "models/cnn1")
    assert run("infer", images, tmp_path / "local.parquet", "--model", bundle)[0] == 3
    (tmp_path / "work").mkdir()
    out = f"{store.uri}/out.parquet"
    code, text = run("infer", scans, out, "--model", models, "--work", tmp_path / "work")
    assert code == 3, text
    assert f"{out}: 13 rows" in text
    (tmp_path / "remote.parquet").write_bytes(store.get("out.parquet") or b"")
    assert _table(tmp_path / "remote.parquet").equals(_table(tmp_path / "local.parquet"))
    assert run("verify", out) == (0, f"{out} is intact (13 rows in 1 file, 0.0 MB).\n")
    assert "Healthy/broken.png" in run("show", out, "--errors")[1]
    assert not list((tmp_path / "work").rglob("*.parquet"))
    # Nothing has changed: nothing is uploaded.
    uploads = store.proxy.count("PUT", "out.parquet")
    code, text = run(
        "infer", scans, out, "--model", models, "--work", tmp_path / "work", "--incremental"
    )
    assert code == 3, text
    assert "12 unchanged files" in text
    assert store.proxy.count("PUT", "out.parquet") >= uploads


def test_the_parts_of_a_table_in_a_store(
    store: Store, images: Path, bundle: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, "5")  # files a chunk: there are three
    scans, out = store.put(images, "scans"), f"{store.uri}/out.parquet"
    command = ("infer", scans, out, "--model", bundle, "--work", tmp_path)
    code, text = run(*command, "--part", "2/2")
    assert code in (0, 3), text
    assert store.get("out.parquet") is None
    text = run("status", out, "--work", tmp_path)[1]
    assert f"{out}: 2 parts: 1 done, 1 never started; 2 of 3 chunks computed" in text
    assert "Give --work DIR" in run("status", out)[1]
    code, text = run(*command)
    assert code == 3, text
    assert "Kept the rows of" in text
    (tmp_path / "remote.parquet").write_bytes(store.get("out.parquet") or b"")
    assert run("infer", images, tmp_path / "local.parquet", "--model", bundle)[0] == 3
    assert _table(tmp_path / "remote.parquet").equals(_table(tmp_path / "local.parquet"))
    assert "is there, and no part of it" in run("status", out, "--work", tmp_path)[1]


@on_every_server
def test_an_upload_that_breaks_leaves_the_old_table(
    store: Store, images: Path, bundle: Path, run: Run, tmp_path: Path
) -> None:
    command = ("infer", images, f"{store.uri}/out.parquet", "--model", bundle, "--work", tmp_path)
    assert run(*command)[0] == 3
    old = store.get("out.parquet")
    store.proxy.rule = lambda method, path: "cut" if method == "PUT" and "out.parquet" in path else None
    code, text = run(*command)
    assert code == 75, text
    assert "does not answer" in text
    assert store.get("out.parquet") == old
    store.proxy.rule = lambda method, path: 503 if "out.parquet" in path else None
    assert run(*command)[0] == 75
    store.proxy.rule = lambda method, path: None
    assert store.get("out.parquet") == old
    code, text = run(*command)
    assert code == 3, text
    assert "Kept the rows of 13 unchanged files" in text  # nothing was computed again
    new = store.get("out.parquet")
    assert new is not None
    assert new != old


@on_every_server
def test_a_large_upload_that_breaks_or_is_killed_leaves_the_old_object(
    store: Store, start: Start, tmp_path: Path
) -> None:
    """In several parts: pyarrow's stream completes what it has when it is given up."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    new.write_bytes(os.urandom(24 << 20))
    store.put(old, "large")
    script = (
        "import sys; from pathlib import Path; from tumorbatch import stores, object_path;"
        "stores.publish(Path(sys.argv[1]), object_path.ObjectPath.parse(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(new), f"{store.uri}/large"]
    store.proxy.rule = lambda method, path: "cut" if "partNumber=2" in path else None
    assert subprocess.run(command, capture_output=True, timeout=100).returncode == 1
    assert store.get("large") == b"old"

    def stall(method: str, path: str) -> None:
        if "partNumber=2" in path:
            time.sleep(3)

    store.proxy.rule = stall
    process = subprocess.Popen(command)
    while not store.proxy.count("PUT", "partNumber=1"):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.get("large") == b"old"
    store.proxy.rule = lambda method, path: None
    assert subprocess.run(command, timeout=100).returncode == 0
    assert store.get("large") == new.read_bytes()


@on_every_server
def test_a_5xx_is_a_retry_and_then_a_row_that_the_next_run_tries_again(
    store: Store, images: Path, bundle: Path, run: Run, tmp_path: Path
) -> None:
    scans, out = store.put(images, "scans"), tmp_path / "out.parquet"
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.*g"))
    sometimes, never = f"/scans/{names[0]}", f"/scans/{names[1]}"

    def rule(method: str, path: str) -> int | None:
        if path.endswith(never) and method == "GET":
            return 500
        return 503 if path.endswith(sometimes) and store.proxy.count(method, sometimes) < 2 else None

    store.proxy.rule = rule
    code, text = run("infer", scans, out, "--model", bundle)
    assert code == 3, text
    statuses = _statuses(out)
    assert (statuses[names[0]], statuses[names[1]]) == ("ok", "io_error")
    assert "the store does not hand it over" in run("show", out, "--where", "status=io_error")[1]
    assert store.proxy.count("GET", never) >= 3
    store.proxy.rule = lambda method, path: None
    code, text = run("infer", scans, out, "--model", bundle, "--incremental")
    assert code == 3, text
    assert "io_error" not in _statuses(out).values()
    assert "Kept the rows of 11 unchanged files" in text


def test_a_store_that_goes_away_is_not_the_files_fault(
    store: Store, sample: Path, bundle: Path, run: Run, tmp_path: Path
) -> None:
    scans, out = store.put(sample, "scans"), tmp_path / "out.parquet"
    store.proxy.rule = lambda method, path: "cut" if store.proxy.count("GET", "/scans/") > 40 else None
    code, text = run("infer", scans, out, "--model", bundle, "--workers", 1)
    assert code == 75, text
    assert "does not answer" in text
    assert not out.exists()
    store.proxy.rule = lambda method, path: None
    code, text = run("infer", scans, out, "--model", bundle)
    assert code == 3, text
    assert "Kept the rows of" in text
    assert set(_statuses(out).values()) <= {"ok", "truncated", "unsupported", "decode_error"}


def test_a_set_made_from_a_store_has_the_bytes_of_one_made_from_a_folder(
    store: Store, images: Path, run: Run, tmp_path: Path
) -> None:
    scans = store.put(images, "raw")
    assert run("shard", images, tmp_path / "local", "--size", 32)[0] == 3
    code, text = run("shard", scans, tmp_path / "set", "--size", 32)
    assert code == 3, text
    local = {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()} == local
    uploaded = store.put(tmp_path / "set", "set")
    assert "is intact" in run("verify", uploaded)[1]
    shard = next(path for path in (tmp_path / "set").glob("train-*"))
    gets = store.proxy.count("GET", shard.name)
    assert run("verify", uploaded)[0] == 0
    assert store.proxy.count("GET", shard.name) == gets  # the copy was checked, and used
    damaged = tmp_path / "damaged"
    damaged.write_bytes(shard.read_bytes()[:-1] + b"\0")
    store.put(damaged, f"set/{shard.name}")
    code, text = run("verify", uploaded, "--cache-dir", tmp_path / "other")
    assert (code, f"set/{shard.name} is damaged" in text) == (66, True), text


def test_mistakes_are_sentences_that_name_the_culprit(
    store: Store, images: Path, bundle: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infer(folder: object, out: object, *more: object) -> tuple[int, str]:
        return run("infer", folder, out, "--model", bundle, *more)

    scans, out = store.put(images, "scans"), tmp_path / "out.parquet"
    code, text = infer("s3://no-such-bucket/scans", out)
    assert (code, "has no bucket no-such-bucket" in text) == (66, True), text
    code, text = infer(f"{store.uri}/nothing", out)
    assert (code, "/nothing does not exist, or is empty" in text) == (66, True), text
    code, text = infer(images, "s3://no-such-bucket/out.parquet", "--work", tmp_path)
    assert (code, "has no bucket no-such-bucket" in text) == (73, True), text
    code, text = infer(images, f"{store.uri}/out.parquet")
    assert (code, "Give --work DIR" in text) == (2, True), text
    code, text = run("infer", images, out, "--model", f"{store.uri}/nothing")
    assert (code, "has no model.json" in text) == (66, True), text
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, text = infer(scans, out)
    assert (code, "does not accept the credentials" in text) == (2, True), text
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("HOME", str(tmp_path))
    code, text = infer(scans, out)
    assert (code, "no credentials were found" in text) == (2, True), text
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    code, text = infer(scans, out)
    assert (code, "http://127.0.0.1:1 does not answer" in text) == (75, True), text
    assert not out.exists()
