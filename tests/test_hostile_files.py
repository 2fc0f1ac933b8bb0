"""Files that an attacker, a bug or an editor wrote: every command ends with a sentence and its code.

Each kind of file that is read x what may be in its place x each command that reads it. The commands run
in this process; none of them gets as far as real work.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tumorbatch import plots
from tumorbatch.atomic import write_json
from tumorbatch.bundle import HISTORY, METRICS, MODEL, WEIGHTS, Bundle
from tumorbatch.errors import ExitCode, InputError
from tumorbatch.infer import api
from tumorbatch.infer.predictions import PredictionsWriter
from tumorbatch.preprocessing_config import Preprocessing

if TYPE_CHECKING:
    from tests.conftest import Invoke

Maker = Callable[[Path], object]
SECONDS = 60  # after which a command that waits for a FIFO counts as hanging

TRAIN = "train --arch cnn1 --epochs 1 --out models/new"
# File -> the commands that read it.
READERS = {
    "tfrecords/dataset.json": ["verify", TRAIN, "evaluate cnn1", "explore raw --tfrecords tfrecords"],
    "tfrecords/manifest.parquet": ["verify", "explore raw --tfrecords tfrecords"],
    "tfrecords/SHARD": ["verify", TRAIN],
    "models/cnn1/model.json": [
        "infer raw new.parquet", "infer raw new.parquet --model cnn1", "export cnn1 --out new.keras",
        "evaluate cnn1", "compare --device cpu", "train --arch cnn1 --epochs 1",
    ],
    "models/cnn1/metrics.json": ["infer raw new.parquet"],
    "models/cnn1/weights.safetensors": ["infer raw new.parquet", "export cnn1 --out new.keras"],
    "out.parquet": ["verify out.parquet", "show out.parquet"],
    "out.parquet.json": ["verify out.parquet"],
    "table/_SUCCESS": ["verify table"],
    "groups.csv": ["shard raw new --groups groups.csv"],
    "groups.parquet": ["shard raw new --groups groups.parquet"],
    "list": ["infer raw new.parquet --model cnn1 --files list"],
    ".key.parquet.key": ["infer raw key.parquet --model cnn1 --path-mode hash"],
}  # fmt: skip


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has at most 107 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)  # sparse


DAMAGES: dict[str, bytes | Maker] = {
    "empty": b"",
    "junk": bytes(range(256)) * 20,
    "list": b"[]",
    "null": b"null",
    "object": b"{}",
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "utf-16": '{"schema_version": 1}'.encode("utf-16"),
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": _socket,
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}
_WITHOUT = {  # what is no damage of this file
    "list": {"junk", "list", "null", "object", "deep list", "deep object", "utf-16", "empty"},
    "table/_SUCCESS": {"empty", "object", "folder", "link to nowhere", "link to itself"},
    ".key.parquet.key": {"link to nowhere", "link to itself"},
    "groups.csv": {"junk", "list", "null", "object", "deep list", "deep object", "utf-16", "empty"},
}
CASES = [
    pytest.param(name, damage, command, id=f"{name}-{damage}-{command.split()[0]}{number}")
    for name, commands in READERS.items()
    for number, command in enumerate(commands)
    for damage in DAMAGES
    if damage not in _WITHOUT.get(name, ())
]


def _write_bundle(folder: Path) -> None:
    """A bundle that is whole but for its weights, which are of no network."""
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"weights of no network")
    description = Bundle(
        architecture="cnn1",
        preprocessing=Preprocessing(size=32),
        classes=("Healthy", "Tumor"),
        threshold=0.5,
        temperature=1.0,
        weights_sha256=hashlib.sha256(b"weights of no network").hexdigest(),
        training={"epochs": 1, "best_epoch": 1, "phases": {"training": 1}, "dataset_sha256": "0" * 64},
        versions={"tumorbatch": "0"},
    )
    write_json(folder / MODEL, description.to_dict())
    write_json(folder / METRICS, {"validation": {"figures": {"auc": {"value": 0.9}}}})
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "val_auc")
    write_json(folder / HISTORY, {name: [0.5] for name in names})


def _write_table(path: Path) -> None:
    row = {"path": "a.png", "frame": 1, "status": "empty", "model_id": "cnn1-0", "run_id": "0"}
    with PredictionsWriter(path) as writer:
        writer.write([row])
        writer.finish({"model_id": "cnn1-0", "rows": 1, "statuses": {"empty": 1}})


@pytest.fixture(scope="module")
def whole(shard_set: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with one file of each kind, all whole. Do not change it."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(shard_set, folder / "tfrecords")
    (folder / "raw").symlink_to(sample)
    _write_bundle(folder / "models" / "cnn1")
    _write_table(folder / "out.parquet")
    (folder / "table").mkdir()
    _write_table(folder / "table" / "part-00000.parquet")
    sidecar = json.loads((folder / "table" / "part-00000.parquet.json").read_text())
    (folder / "table" / "part-00000.parquet.json").unlink()
    part = {"name": "part-00000.parquet", "bytes": sidecar["bytes"], "sha256": sidecar["sha256"]}
    write_json(folder / "table" / "_SUCCESS", {**sidecar, "files": [part]})
    (folder / ".key.parquet.key").write_bytes(bytes(32))
    (folder / ".key.parquet.key").chmod(0o600)
    for name in ("groups.csv", "groups.parquet", "list"):
        (folder / name).write_bytes(b"path,patient\n")
    return folder


@pytest.fixture
def work(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of `whole`, as working folder, where nothing may hang."""
    folder = tmp_path / "work"
    shutil.copytree(whole, folder, symlinks=True)
    monkeypatch.chdir(folder)

    def hangs(*_: object) -> None:
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    yield folder
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _replace(path: Path, content: bytes | Maker) -> None:
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)


def _path(work: Path, name: str) -> Path:
    if name.endswith("SHARD"):
        return min((work / "tfrecords").glob("train-*.tfrecord"))
    return work / name


@pytest.mark.parametrize(("name", "damage", "command"), CASES)
def test_a_damaged_file_is_a_sentence(
    name: str, damage: str, command: str, work: Path, invoke: "Invoke"
) -> None:
    _replace(_path(work, name), DAMAGES[damage])
    code, output = invoke(*command.split())  # a traceback reaches this test as the exception that it is
    # "No such bundle" and "no such column" are usage; an existing bundle that cannot be read too.
    assert code in (ExitCode.NO_INPUT, ExitCode.USAGE), output
    assert "Error: " in output
    assert not (work / "new.parquet").exists()
    assert not (work / "models" / "new").exists()


@pytest.mark.parametrize(
    "name", ["tfrecords/dataset.json", "models/cnn1/model.json", "out.parquet.json"]
)
def test_a_file_of_any_size_is_not_read(name: str, work: Path, invoke: "Invoke") -> None:
    _replace(work / name, _huge)
    command = next(command for command in READERS[name])
    assert invoke(*command.split())[0] == ExitCode.NO_INPUT


VALUES = (
    "null", '"x"', "[]", "{}", "[[[]]]", "true", "-1", "1.5", "1e999", "NaN", "1" + "0" * 400,
    '"\\ud800"', '"\\u001b[2J\\u202e"', '"../../x"', '"/etc/passwd"', '{"x": null}', "[null]",
)  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each place in a JSON value, down to the first entry of lists."""
    if at:
        yield at
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, (*at, name))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*at, 0))


def _with(value: Any, at: tuple[Any, ...], text: str | None) -> str:
    """The JSON text of `value` with another text at a place, or with nothing."""
    changed = json.loads(json.dumps(value))
    here = changed
    for name in at[:-1]:
        here = here[name]
    if text is None:
        del here[at[-1]]
        return json.dumps(changed)
    here[at[-1]] = "THE PLACE"
    return json.dumps(changed).replace('"THE PLACE"', text)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tfrecords/dataset.json", "verify"),
        ("models/cnn1/model.json", "export cnn1 --out new.keras"),  # ends at the weights at the latest
        ("out.parquet.json", "verify out.parquet"),
        ("table/_SUCCESS", "verify table"),
    ],
)
def test_any_value_in_any_place_of_a_json_file(
    name: str, command: str, work: Path, invoke: "Invoke"
) -> None:
    value = json.loads((work / name).read_bytes())
    for at in _places(value):
        for text in (None, *VALUES):
            (work / name).write_text(_with(value, at, text))
            code, output = invoke(*command.split())
            # 0: a value that nothing depends on, such as a version, in a table that is sound.
            assert code in (ExitCode.OK, ExitCode.NO_INPUT, ExitCode.USAGE), (at, text, output)
            assert not {"\x1b", "\u202e"} & set(output), (at, text)
            assert code != ExitCode.OK or name != "models/cnn1/model.json"


def test_every_place_of_a_shard_sets_description_matters_to_train(work: Path, invoke: "Invoke") -> None:
    """`train` finds what is wrong by itself, before TensorFlow reads a byte."""
    path = work / "tfrecords/dataset.json"
    value = json.loads(path.read_bytes())
    for at in (("shards", 0, "name"), ("shards", 0, "split"), ("counts", "train"), ("classes",)):
        for text in (None, '"../x"', '"/dev/zero"', "null", "[]"):
            path.write_text(_with(value, at, text))
            assert invoke(*TRAIN.split())[0] == ExitCode.NO_INPUT, (at, text)
    path.write_text(_with(value, ("shards", 0, "records"), str(10**15)))
    code, output = invoke(*TRAIN.split())
    assert (code, "cannot hold 1,000,000,000,000,000 images" in output) == (ExitCode.NO_INPUT, True)


COLUMNS: dict[str, pa.Array] = {
    "null": pa.nulls(1),
    "number": pa.array([7]),
    "list": pa.array([["x"]]),
    "struct": pa.array([{"x": 1}]),
    "not UTF-8": pa.array([b"\xff"]).view(pa.string()),
    "escape": pa.array(["\x1b[2J\u202e"]),
    "binary": pa.array([b"x"]),
    "date": pa.array([2**62], pa.timestamp("us")),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_any_column_of_a_table_of_predictions(kind: str, work: Path, invoke: "Invoke") -> None:
    table = pq.read_table("out.parquet")
    for at, name in enumerate(table.column_names):
        pq.write_table(table.set_column(at, name, COLUMNS[kind]), "out.parquet")
        for command in ("verify", "show"):
            code, output = invoke(command, "out.parquet")
            assert code in (ExitCode.NO_INPUT, ExitCode.OK), (name, output)
            assert command == "show" or code == ExitCode.NO_INPUT
            assert not {"\x1b", "\u202e"} & set(output), name


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_notebooks_functions(damage: str, work: Path) -> None:
    _replace(work / "models/cnn1" / HISTORY, DAMAGES[damage])
    with pytest.raises(InputError, match=HISTORY):
        plots.training_history("models/cnn1")
    _replace(work / "models/cnn1" / MODEL, DAMAGES[damage])
    with pytest.raises(InputError, match=MODEL):
        api.predict("raw", "models/cnn1")


def test_history_that_does_not_fit_its_model(work: Path) -> None:
    path = work / "models/cnn1" / HISTORY
    value = json.loads(path.read_bytes())
    for name in value:
        for text in (None, "[]", "[1, 2]", "[null]", '["x"]', "[1e999]", "7"):
            path.write_text(_with(value, (name,), text))
            with pytest.raises(InputError, match="missing or damaged"):
                plots.training_history("models/cnn1")
