"""Each file that a command reads x whatever may be in its place: a result, or a sentence; never a hang.

`test_hostile_files` does this through commands. Here each file meets its reader alone, which takes
milliseconds: so all of them meet all damages, their own content cut, flipped and exchanged included.
What is kept for the next run (plans, journals, parts, waiting sidecars) may also be a link to a file of
somebody's, which must stay as it is.
"""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from tests.test_hostile_files import DAMAGES, VALUES, _places, _with, _write_bundle, _write_table
from tumorbatch import bundle, keras_settings, shardset, survey, tfrecord
from tumorbatch.atomic import write_json
from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.cli import prometheus
from tumorbatch.errors import ConfigError, TumorBatchError
from tumorbatch.evaluation import results
from tumorbatch.file_list import Manifest, write_manifest
from tumorbatch.files import FoundFile
from tumorbatch.infer import listing, verify
from tumorbatch.infer.predictions import (
    PredictionsWriter,
    iterate_rows,
    recover_sidecar,
    sidecar_of,
)
from tumorbatch.infer.target import Target
from tumorbatch.infer.work_area import WorkArea as InferArea
from tumorbatch.known_images import KnownImages
from tumorbatch.lock import output_lock
from tumorbatch.manifest_schema import MANIFEST_SCHEMA
from tumorbatch.parts import read_frozen
from tumorbatch.preprocess import equalize_folder
from tumorbatch.preprocess.explore import explore
from tumorbatch.preprocess.first_pass import WorkArea
from tumorbatch.preprocess.patients import read_patients
from tumorbatch.preprocess.previous_set import PreviousSet, PreviousSplits
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.secret_key import read_key
from tumorbatch.train.checkpoint import Checkpoint

SECONDS = 20
PLAN = {"model_id": "cnn1-0", "folder": "/x"}
SHARD_PLAN: dict[str, Any] = {"seed": 0}
SOFTWARE = {"numpy": "2"}
EXPLORED = {"source": "raw", "seed": 0}


def _model() -> bundle.Bundle:
    return bundle.load(Path("models/cnn1"))


def _known() -> object:
    sha256 = hashlib.sha256(b"").hexdigest()
    return KnownImages.read(Path("models/cnn1/known_images.safetensors"), sha256)


def _set() -> object:
    dataset = shardset.load(Path("tfrecords"))
    shardset.manifest(Path("tfrecords"), dataset, *MANIFEST_SCHEMA.names)
    with PreviousSet(Path("tfrecords")) as previous_set:
        known = [path for path in sorted(previous_set.paths) if previous_set.sha256(path, "Healthy")]
        return [previous_set.record(row["path"]) for row in previous_set.rows(known) if row["shard"]]


def _shard_area() -> object:
    area = WorkArea(Path("new/.partial"), SHARD_PLAN, SOFTWARE, overwrite=False)
    read_key(area.folder / "patients.key")
    rows = area._journalled(None)
    with area._spool.open("ab"), area._journal.open("ab"):
        return rows


def _infer_area() -> object:
    area = InferArea(Path(".out.parquet.partial"), PLAN, overwrite=False)
    return [list(rows) for rows in area.earlier()]


def _job() -> object:
    area = InferArea(Path(".job.partial"), PLAN, overwrite=False)
    rows = [list(rows) for rows in area.earlier()]
    survey.take(Path("job"))
    if area.frozen is None:
        return rows
    with Manifest(area.folder, [Path("images")], area.frozen) as manifest:
        return rows, [list(manifest.chunk(number)) for number in manifest.chunks]


def _write_job(area: Path) -> None:
    """Write what the tasks of a job leave: a list of two files, and the first of two chunks."""
    InferArea(area, PLAN, overwrite=False)
    files = [FoundFile(f"images/{name}", name) for name in "ab"]
    sha256 = write_manifest(area, [Path("images")], files, 1)
    plan = {"run_id": "0", "files": 2, "chunk_files": 1, "manifest_sha256": sha256, "left_out": {}}
    write_json(area / "parts.json", {**PLAN, **plan})
    frozen = read_frozen(area)
    assert frozen is not None
    with PredictionsWriter(area / "chunk-00000000-00000000.parquet", sidecar=False) as writer:
        writer.write([{"path": "a", "frame": 1, "status": "empty", "model_id": "m", "run_id": "0"}])
        texts = {"statuses": {"empty": 1}, "labels": {}, "runtime": "", "processor": ""}
        plan = {"plan": frozen.fingerprint, "chunk": 0, "rows": 1, "place_in_batch_matters": None}
        writer.finish({**texts, **plan})
    note = {"since": "2026-11-27T10:00:00+00:00", "host": "n1", "pid": 1}
    write_json(area / "part-00001-of-00002.json", note)
    (area / "part-00001-of-00002.lock").write_text('{"pid": 1, "host": "x", "since": "y"}')


def _table() -> object:
    target = Target.choose(Path("out.parquet"), "auto")
    target.recover(overwrite=False)
    verify.run(target.path)
    return target.before(), list(iterate_rows(target.path))


def _folder_table() -> object:
    target = Target.choose(Path("table"), "auto")
    target.recover(overwrite=False)
    verify.run(target.path)
    return target.before(), list(iterate_rows(target.path))


def _results() -> object:
    model = _model()
    fits = results.fits(Path("results"), model)
    results.refuse_foreign(Path("results"), model, "0" * 64, overwrite=False)
    return fits, results.read_answers("cnn1", model, Path("results"))


def _lock() -> None:
    with output_lock(Path("out"), Path("lock")):
        pass


# File -> what reads it, in the working folder.
READERS: dict[str, Callable[[], object]] = {
    "tfrecords/dataset.json": _set,
    "tfrecords/manifest.parquet": _set,
    "tfrecords/SHARD": _set,
    "new/.partial/plan.json": _shard_area,
    "new/.partial/journal.jsonl": _shard_area,
    "new/.partial/records": _shard_area,
    "new/.partial/patients.key": _shard_area,
    "models/cnn1/model.json": _model,
    "models/cnn1/metrics.json": lambda: bundle.read_metrics(Path("models/cnn1"), {"validation": {}}),
    "models/cnn1/weights.safetensors": lambda: bundle.check_weights(Path("models/cnn1"), _model()),
    "models/cnn1/known_images.safetensors": _known,
    "models/.checkpoint": lambda: Checkpoint(Path("models/.checkpoint"), {}).check(),
    "results/metrics.json": _results,
    "results/predictions.parquet": _results,
    ".out.parquet.partial/plan.json": _infer_area,
    ".out.parquet.partial/00001-00000.parquet": _infer_area,
    ".job.partial/parts.json": _job,
    ".job.partial/LIST": _job,
    ".job.partial/chunk-00000000-00000000.parquet": _job,
    ".job.partial/part-00001-of-00002.json": _job,
    ".job.partial/part-00001-of-00002.lock": _job,
    "out.parquet": _table,
    "out.parquet.json": _table,
    ".out.parquet.json.new": lambda: (sidecar_of(Path("out.parquet")), _table()),
    "table/_SUCCESS": _folder_table,
    "table/part-00000.parquet": _folder_table,
    "explored/explore.json": lambda: explore._refuse_other(Path("explored"), EXPLORED, False),
    "equalized/equalize.json": lambda: equalize_folder._prepare(Path("equalized"), {}, False),
    "equalized/.equalize.json": lambda: equalize_folder._prepare(Path("equalized"), {}, False),
    "metrics.prom": lambda: prometheus._last_success(Path("metrics.prom")),
    "keras.json": keras_settings.ignored,
    "patients.csv": lambda: read_patients(Path("patients.csv"), {"a"}, lambda _: False),
    "patients.parquet": lambda: read_patients(Path("patients.parquet"), {"a"}, lambda _: False),
    "list": lambda: listing._listed(Path(), "list"),
    "key": lambda: read_key(Path("key")),
    "lock": _lock,
}


def _link(path: Path) -> None:
    path.symlink_to(os.path.abspath("victim"))


def _second_name(path: Path) -> None:
    path.hardlink_to("victim")


FOREIGN = {**DAMAGES, "link to a file": _link, "second name": _second_name}
OWN: dict[str, Callable[[bytes], bytes]] = {
    "cut to a byte": lambda data: data[:1],
    "cut to half": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "twice": lambda data: data * 2,
    "zeros": lambda data: bytes(len(data)),
    **{
        f"bit {part}/9": lambda data, part=part: _flipped(data, len(data) * part // 9)  # type: ignore[misc]
        for part in (0, 1, 4, 8)
    },
}


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] if data else data


def _checkpoint() -> bytes:
    state = json.dumps({"plan": {}, "position": {}})
    data = safetensors.numpy.save({"network/0": np.zeros(1)}, metadata={"state": state})
    return hashlib.sha256(data).digest() + data


def _predictions(path: Path) -> None:
    values = {
        pa.string(): ["a", "b"], pa.int8(): [0, 1], pa.float32(): [0.25, 0.75], pa.int64(): [0, 1],
        pa.int32(): [32, 32],
    }  # fmt: skip
    arrays = [pa.array(values[field.type], field.type) for field in results.PREDICTIONS_SCHEMA]
    table = pa.Table.from_arrays(arrays, schema=results.PREDICTIONS_SCHEMA)
    table = table.set_column(1, results.PREDICTIONS_SCHEMA.field("split"), pa.array(["test"] * 2))
    pq.write_table(table, path, write_page_checksum=True)


@pytest.fixture(scope="module")
def whole(shard_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with one of each file, all whole. Do not change it."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(shard_set, folder / "tfrecords")
    _write_bundle(folder / "models" / "cnn1")
    (folder / "models/cnn1/known_images.safetensors").write_bytes(b"")
    (folder / "models/.checkpoint").write_bytes(_checkpoint())
    area = WorkArea(folder / "new" / ".partial", SHARD_PLAN, SOFTWARE, overwrite=False)
    entry = {"base": None, "rows": [{"path": "a", "class": "Healthy", "status": "empty"}]}
    journal = json.dumps({**entry, "places": [[0, 0]], "states": [[0, 0]]}) + "\n"
    (area.folder / "journal.jsonl").write_text(journal)
    (area.folder / "records").write_bytes(b"a record")
    InferArea(folder / ".out.parquet.partial", PLAN, overwrite=False)
    _write_job(folder / ".job.partial")
    _write_table(folder / "out.parquet")
    shutil.copy(folder / "out.parquet", folder / ".out.parquet.partial" / "00001-00000.parquet")
    shutil.copy(folder / "out.parquet.json", folder / ".out.parquet.json.new")
    (folder / "table").mkdir()
    shutil.copy(folder / "out.parquet", folder / "table" / "part-00000.parquet")
    write_json(folder / "table" / "_SUCCESS", {"model_id": "cnn1-0", "files": []})
    (folder / "results").mkdir()
    _predictions(folder / "results" / "predictions.parquet")
    about = {"model": {"weights_sha256": "0" * 64}, "dataset": {"sha256": "0" * 64}}
    write_json(folder / "results" / "metrics.json", about)
    (folder / "explored").mkdir()
    write_json(folder / "explored" / "explore.json", {"figures": [], "settings": EXPLORED})
    (folder / "equalized").mkdir()
    for name in ("equalize.json", ".equalize.json"):
        write_json(folder / "equalized" / name, {"preprocessing": {}, "formats": [*IMAGE_FORMATS]})
    (folder / "metrics.prom").write_text("tumorbatch_infer_last_success_timestamp_seconds 1.5\n")
    write_json(folder / "keras.json", {"backend": "torch"})
    (folder / "patients.csv").write_text("path,patient\na,1\n")
    pq.write_table(pa.table({"path": ["a"], "patient": ["1"]}), folder / "patients.parquet")
    (folder / "list").write_text("victim\n")
    (folder / "key").write_bytes(bytes(32))
    (folder / "key").chmod(0o600)
    (folder / "lock").write_text('{"pid": 1, "host": "x", "since": "y"}')
    (folder / "victim").write_bytes(b"a file of somebody's\n")
    return folder


def _needed(whole: Path, name: str) -> Iterator[Path]:
    """The entries of `whole` that the reader of a file looks at; of no file: all."""
    top = name.partition("/")[0]
    for entry in whole.iterdir():
        beside = "out.parquet" in top and "out.parquet" in entry.name
        of_results = top == "results" and entry.name == "models"
        if not name or entry.name in (top, "victim") or beside or of_results:
            yield entry


@pytest.fixture
def work(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A copy of what a test needs of `whole`, as working folder, where nothing may hang."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    (tmp_path / "work").mkdir()
    for entry in _needed(whole, parameters.get("name", "")):
        copy = shutil.copytree if entry.is_dir() else shutil.copy
        copy(entry, tmp_path / "work" / entry.name)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("KERAS_HOME", ".")

    def hangs(*_: object) -> None:
        raise TimeoutError("the reader hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    yield tmp_path / "work"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _path(name: str) -> Path:
    if name.endswith("LIST"):
        return min(Path(name).parent.glob("manifest-*"))
    return min(Path("tfrecords").glob("train-*")) if name.endswith("SHARD") else Path(name)


def _read(name: str) -> TumorBatchError | None:
    """Read a file; return the sentence, if that is the end. Anything else that is raised is a bug."""
    try:
        READERS[name]()
    except TumorBatchError as error:
        return error
    return None


@pytest.mark.parametrize("name", READERS)
def test_the_files_themselves_are_read(name: str, work: Path) -> None:
    """The damages below meet files that are whole, or they would show nothing."""
    error = _read(name)
    if not name.startswith(("results", "models/.checkpoint", "models/cnn1/known")):
        assert error is None  # those need a network for more than a header


@pytest.mark.parametrize("damage", FOREIGN)
@pytest.mark.parametrize("name", READERS)
def test_something_else_in_its_place(name: str, damage: str, work: Path) -> None:
    path, content = _path(name), FOREIGN[damage]
    before = {file: file.read_bytes() for file in Path().glob("tfrecords/*") if file != path}
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    _read(name)
    assert Path("victim").read_bytes() == b"a file of somebody's\n"
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("damage", OWN)
@pytest.mark.parametrize("name", READERS)
def test_its_own_content_damaged(name: str, damage: str, work: Path) -> None:
    path = _path(name)
    path.write_bytes(OWN[damage](path.read_bytes()))
    _read(name)


JSON_FILES = [name for name in READERS if name.endswith((".json", ".new", "_SUCCESS", "lock"))]


@pytest.mark.parametrize("name", JSON_FILES)
def test_any_value_in_any_place(name: str, work: Path) -> None:
    value = json.loads(_path(name).read_bytes())
    for at in _places(value):
        for text in (None, *VALUES):
            folder = _path(name).parent
            folder.mkdir(exist_ok=True)
            _path(name).write_text(_with(value, at, text))
            _read(name)


def test_a_table_without_a_column_or_with_another_type(work: Path) -> None:
    for name in (name for name in READERS if name.endswith(".parquet") and name != "patients.parquet"):
        data = _path(name).read_bytes()
        table = pq.read_table(_path(name))
        for at, column in enumerate(table.column_names):
            for changed in (
                table.remove_column(at),
                table.append_column(column, table.column(at)),
                table.set_column(at, column, pa.nulls(len(table))),
                table.set_column(at, column, pa.array([b"\xff"] * len(table)).view(pa.string())),
                table.set_column(at, column, pa.array([{"x": [1]}] * len(table))),
            ):
                _path(name).parent.mkdir(exist_ok=True)
                pq.write_table(changed, _path(name))
                _read(name)
        _path(name).parent.mkdir(exist_ok=True)
        _path(name).write_bytes(data)


def test_a_footer_that_is_not_utf8(work: Path) -> None:
    for name in ("out.parquet", "results/predictions.parquet", "tfrecords/manifest.parquet"):
        table = pq.read_table(_path(name))
        footer = {b"tumorbatch.model_id": b"\xff\xfe", b"\xff": b"\xff"}
        pq.write_table(table.replace_schema_metadata(footer), _path(name))
        _read(name)


def test_splits_are_found_in_shards_without_a_description(work: Path) -> None:
    """`--overwrite` keeps the splits of a damaged set: whatever is in its files."""
    for damage in ("FIFO", "device", "folder", "junk", "link to itself"):
        path = _path("tfrecords/SHARD")
        data = path.read_bytes()
        path.unlink()
        content = DAMAGES[damage]
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        Path("tfrecords/dataset.json").write_text("{}")
        assert PreviousSplits.read(Path("tfrecords"))._by_content
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        path.write_bytes(data)
        assert next(iter(tfrecord.read(path)))


def test_a_work_area_with_a_link_is_made_anew(work: Path) -> None:
    for reader, path in (
        (_shard_area, Path("new/.partial/journal.jsonl")),
        (_shard_area, Path("new/.partial/records")),
        (_infer_area, Path(".out.parquet.partial/00001-00000.parquet")),
    ):
        path.unlink()
        _link(path)
        reader()
        assert not path.is_symlink()
        path.parent.mkdir(exist_ok=True)
    Path("elsewhere").mkdir()
    Path("elsewhere/plan.json").write_text("{}")
    for reader, folder in (
        (_shard_area, Path("new/.partial")),
        (_infer_area, Path(".out.parquet.partial")),
    ):
        shutil.rmtree(folder)
        folder.symlink_to(os.path.abspath("elsewhere"))
        reader()
        assert not folder.is_symlink()
    assert Path("elsewhere/plan.json").read_text() == "{}"


def test_another_runs_plan_is_refused_in_words(work: Path) -> None:
    """The readers above take up what is theirs: with another plan they say so."""
    with pytest.raises(ConfigError, match="seed: 0 then, 1 now"):
        WorkArea(Path("new/.partial"), {"seed": 1}, SOFTWARE, overwrite=False)
    with pytest.raises(ConfigError, match="model_id: cnn1-0 then, other now"):
        InferArea(Path(".out.parquet.partial"), {**PLAN, "model_id": "other"}, overwrite=False)
    recover_sidecar(Path("out.parquet"))
    assert Preprocessing() == _model().preprocessing or _model().preprocessing.size == 32
