"""`tumorbatch infer` and `show` as their users meet them: every file a row, whatever happens."""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.bundles import rewrite
from tumorbatch import bundle, shardset, tfrecord
from tumorbatch.errors import ExitCode
from tumorbatch.files import find_files
from tumorbatch.infer import inference
from tumorbatch.infer.config import Config
from tumorbatch.infer.predictions import SCHEMA, iterate_rows, read_metadata
from tumorbatch.infer.worker import Task, decode_files, lost
from tumorbatch.preprocess.pixels import process
from tumorbatch.status import FileError, Status
from tumorbatch.tfrecord import ImageRecord

pytestmark = pytest.mark.usefixtures("in_process")

ROOT = Path(__file__).resolve().parents[2]
Process = subprocess.Popen[str]
Rows = dict[str, dict[str, Any]]


def _start(*arguments: object, cwd: Path | None = None) -> Process:
    return subprocess.Popen(
        [sys.executable, "-m", "tumorbatch", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _rows(path: Path) -> Rows:
    rows = list(iterate_rows(path))
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    found = {row["path"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# ---------------------------------------------------------------------------------- hostile files


def _picture(seed: int, dtype: type = np.uint8, channels: int = 1) -> NDArray[Any]:
    """64 x 48 with a bright disc, in grey, colour or with an alpha channel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :48]
    disc = (x - 20 - seed % 9) ** 2 + (y - 30) ** 2 < 200
    image = 40 + 120 * disc + rng.integers(0, 40, disc.shape)
    image = np.repeat(image[..., None], channels, axis=2) if channels > 1 else image
    return (image * (257 if dtype is np.uint16 else 1)).astype(dtype)


def _encode(suffix: str, image: NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def _huge_png() -> bytes:
    """A header that promises 100,000 x 100,000 pixels, and nothing else."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


_JPEG, _PNG, _TIFF = (_encode(suffix, _picture(0)) for suffix in (".jpg", ".png", ".tif"))
# Name (bytes, as the disk has it) -> content; what `infer` must say of it.
_HOSTILE: dict[bytes, tuple[bytes, str]] = {
    b"good.jpg": (_JPEG, "ok"),
    b"good.tif": (_TIFF, "ok"),
    b"png in truth.jpg": (_PNG, "ok"),
    b"16 bit.png": (_encode(".png", _picture(1, np.uint16)), "ok"),
    b"alpha.png": (_encode(".png", _picture(2, channels=4)), "ok"),
    b"colour.png": (_encode(".png", _picture(3, channels=3)), "ok"),
    b"no suffix": (_encode(".png", _picture(4)), "ok"),
    b"folder.jpg/inside.png": (_encode(".png", _picture(5)), "ok"),
    b"deep/deeper/deepest/.png.png": (_PNG, "hidden"),
    b"deep/deeper/deepest/very.png": (_encode(".png", _picture(6)), "ok"),
    b"caf\xe9.png": (_encode(".png", _picture(7)), "ok"),
    "Zürich\n[1].png".encode(): (_encode(".png", _picture(8)), "ok"),
    b".hidden.png": (_PNG, "hidden"),
    b".folder/hidden.png": (_PNG, "hidden"),
    b"empty.jpg": (b"", "empty"),
    b"half.jpg": (_JPEG[: len(_JPEG) // 2], "truncated"),
    b"half.png": (_PNG[: len(_PNG) // 2], "truncated"),
    b"half.tif": (_TIFF[: len(_TIFF) // 2], "truncated"),
    b"start.jpg": (_JPEG[:20], "truncated"),
    b"broken.png": (_PNG[:60] + bytes(20) + _PNG[80:], "decode_error"),
    b"text.jpg": (b"This is no picture.\n", "unsupported"),
    b"notes.txt": (b"Patient cancelled.\n", "no image"),
    b"movie.gif": (b"GIF89a" + bytes(100), "unsupported"),
    b"dot.png": (_encode(".png", np.zeros((8, 8), np.uint8)), "too_small"),
    b"bomb.png": (_huge_png(), "too_large"),
}
_LINKS = {"loop.jpg": "loop.jpg", "round": ".", "dangling.png": "nowhere.png", "link.png": "alpha.png"}
_SPECIAL = {
    "fifo.jpg": "unsupported",
    "loop.jpg": "unsupported",
    "round": "unsupported",
    "dangling.png": "vanished",
    "link.png": "ok",
}


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


EXPECTED = {
    _shown(name): status
    for name, (_, status) in _HOSTILE.items()
    if status not in ("hidden", "no image")
}
EXPECTED |= _SPECIAL


def _make_hostile(folder: Path) -> Path:
    for name, (content, _) in _HOSTILE.items():
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.mkfifo(folder / "fifo.jpg")
    for name, target in _LINKS.items():
        (folder / name).symlink_to(target)
    (folder / "empty folder").mkdir()
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make_hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def scans(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sample` and the hostile files in one tree."""
    folder = tmp_path_factory.mktemp("scans")
    shutil.copytree(sample, folder / "sample")
    _make_hostile(folder / "hostile")
    return folder


# ------------------------------------------------------------------------- one run, in a process


@pytest.fixture(scope="module")
def working(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with models/: `best` is `model`, the others are worse, broken or unfinished."""
    folder = tmp_path_factory.mktemp("working")
    for name in ("a-worse", "best", "c-broken", "d-worse"):
        shutil.copytree(model, folder / "models" / name)
    for name, auc in (("a-worse", 0.3), ("best", 0.9), ("d-worse", 0.8)):
        path = folder / "models" / name / "metrics.json"
        value = json.loads(path.read_text())
        value["validation"]["figures"]["auc"]["value"] = auc
        path.write_text(json.dumps(value))
    (folder / "models" / "c-broken" / "metrics.json").write_text("{")
    (folder / "models" / "unfinished").mkdir()
    return folder


@pytest.fixture(scope="module", autouse=True)
def running(working: Path, scans: Path) -> Iterator[Process]:
    """The run that most tests look at, in its own process, beside the first tests."""
    process = _start("infer", scans, "out.parquet", "--workers", 3, cwd=working)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def finished(running: Process, working: Path) -> tuple[Path, str, str]:
    """OUT, what was said on stdout, what on stderr."""
    stdout, stderr = running.communicate(timeout=200)
    assert running.returncode == ExitCode.SOME_ERRORS, stderr
    return working / "out.parquet", stdout, stderr


@pytest.fixture(scope="module")
def whole(finished: tuple[Path, str, str]) -> Rows:
    return _rows(finished[0])


def _copy_five(sample: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in sorted((sample / "Healthy").glob("*[0-9]).*"))[:5]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def few(sample: Path, tmp_path: Path) -> Path:
    """Five readable images."""
    return _copy_five(sample, tmp_path / "few")


@pytest.fixture(scope="module")
def small(model: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """out.parquet of five readable images and two others, one with a name full of rich's markup."""
    folder = tmp_path_factory.mktemp("small")
    images = _copy_five(sample, folder / "images")
    (images / "[red]empty[.png").touch()
    (images / "text.jpg").write_text("no picture")
    out = folder / "out" / "out.parquet"
    out.parent.mkdir()
    report = inference.run(images, out, model, Config(workers=1))
    assert (report.files, report.errors) == (7, 2)
    return out


# -------------------------------------------------------------- what is refused, and with what code


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("absent", "does not exist"), ("empty", "no files")],
)
def test_a_folder_without_files_is_a_sentence(
    folder: str, reason: str, model: Path, tmp_path: Path, invoke: Any
) -> None:
    (tmp_path / "empty" / "also empty").mkdir(parents=True)
    (tmp_path / "empty" / ".hidden").touch()
    code, output = invoke("infer", tmp_path / folder, tmp_path / "out.parquet", "--model", model)
    assert (code, reason in output) == (ExitCode.NO_INPUT, True)
    assert not (tmp_path / "out.parquet").exists()


def _flip_weights(folder: Path) -> None:
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1000] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_flip_weights, "damaged or was exchanged"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "missing or cannot be read"),
        (lambda folder: (folder / "model.json").write_text("{}"), "is damaged"),
        (shutil.rmtree, "is not a model bundle"),
    ],
    ids=["one bit", "no weights", "empty json", "gone"],
)
def test_a_damaged_bundle_is_a_sentence(
    damage: Any, reason: str, model: Path, few: Path, tmp_path: Path, invoke: Any
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "bundle"))
    damage(copy)
    code, output = invoke("infer", few, tmp_path / "out.parquet", "--model", copy)
    assert (code, reason in output) == (ExitCode.NO_INPUT, True), output
    assert str(copy) in output
    assert not (tmp_path / "out.parquet").exists()


def test_without_any_bundle_the_default_model_is_a_sentence(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = invoke("infer", few, "out.parquet")
    assert code == ExitCode.NO_INPUT
    assert "tumorbatch train" in output


def test_an_out_that_holds_something_else_is_refused(
    model: Path, few: Path, tmp_path: Path, invoke: Any
) -> None:
    text, foreign, pipe = (tmp_path / name for name in ("a.csv", "foreign.parquet", "pipe"))
    text.write_text("the only copy")
    pq.write_table(pa.table({"a": [1]}), foreign)
    os.mkfifo(pipe)
    before = _content(tmp_path)
    for out in (text, foreign):
        code, output = invoke("infer", few, out, "--model", model)
        assert (code, "not a predictions file" in output) == (ExitCode.USAGE, True)
    for out in (tmp_path, Path("/"), pipe, Path("/dev/null")):
        for options in ((), ("--overwrite",)):  # never these
            code, output = invoke("infer", few, out, "--model", model, *options)
            assert (code, f"Error: {out} is" in output) == (ExitCode.USAGE, True)
    assert _content(tmp_path) == before


def test_a_mistyped_output_folder_is_not_created(
    model: Path, few: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "reslts" / "out.parquet"
    code, output = invoke("infer", few, out, "--model", model)
    assert code == ExitCode.CANNOT_WRITE
    assert f"the folder {out.parent} does not exist" in " ".join(output.split())
    assert not out.parent.exists()


def test_the_folder_is_looked_at_before_the_model(tmp_path: Path, invoke: Any) -> None:
    code, output = invoke("infer", tmp_path / "scns", tmp_path / "out.parquet", "--model", "absent")
    assert code == ExitCode.NO_INPUT
    assert "scns does not exist" in output


def test_an_out_below_a_file_cannot_be_written(
    model: Path, few: Path, tmp_path: Path, invoke: Any
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out.parquet", tmp_path / "file" / "folder" / "out.parquet"):
        code, output = invoke("infer", few, out, "--model", model)
        assert (code, "Cannot write" in output) == (ExitCode.CANNOT_WRITE, True)


def test_options_out_of_range_are_a_sentence(
    model: Path, few: Path, tmp_path: Path, invoke: Any
) -> None:
    for option in (
        ("--batch-size", 0),
        ("--batch-size", 10**6),
        ("--workers", 0),
        ("--max-error-rate", 2),
    ):
        code, output = invoke("infer", few, tmp_path / "out.parquet", "--model", model, *option)
        assert (code, option[0] in output) == (ExitCode.USAGE, True)


# ---------------------------------------------------------------------------- tensors, as in `shard`


def test_tensors_are_those_of_the_shards(sample: Path, shard_set: Path) -> None:
    dataset = shardset.load(shard_set)
    trained_on = {}
    for shard in dataset.shards:
        for data in tfrecord.read(shard_set / shard.name):
            record = ImageRecord.decode(data)
            trained_on[record.filename] = record
    size = dataset.preprocessing.size
    seen = 0
    for entry in decode_files([Task(file) for file in find_files(sample)], dataset.preprocessing):
        (row,), (pixels,) = entry.rows, entry.pixels
        record = trained_on.get(row["path"])
        assert (pixels is None) == (record is None) == (row["status"] != "ok")
        if record is not None:
            assert isinstance(pixels, np.ndarray)
            assert (pixels.dtype, pixels.shape) == (np.uint8, (size, size))
            assert pixels.tobytes() == record.pixels
            assert row["sha256"] == record.sha256
            data = (sample / record.filename).read_bytes()
            assert process(data, dataset.preprocessing).pixels.tobytes() == record.pixels
            seen += 1
    assert seen == len(trained_on) > 90


def test_rows_of_odd_files_fit_the_schema(tmp_path: Path, model: Path) -> None:
    """Gone before it was read, killed its decoder, or changed in the year 36812."""
    path = tmp_path / "late.png"
    path.write_bytes(_PNG)
    os.utime(path, (0, 2**40))  # some file systems clamp it
    (file,) = find_files(tmp_path)
    (late,) = decode_files([Task(file)], bundle.load(model).preprocessing)
    path.unlink()
    (vanished,) = decode_files([Task(file)], bundle.load(model).preprocessing)
    crash = lost(Task(file), FileError(Status.DECODER_CRASH, "killed"))
    rows = [row for entry in (late, vanished, crash) for row in entry.rows]
    assert [row["status"] for row in rows] == ["ok", "vanished", "decoder_crash"]
    rows = [{**row, "model_id": "m", "run_id": "r"} for row in rows]
    table = pa.Table.from_pylist(rows, SCHEMA)
    assert table["path"].to_pylist() == ["late.png"] * 3
    assert all(table["error"].to_pylist()[1:])


def test_a_time_beyond_the_calendar_is_null(tmp_path: Path, model: Path) -> None:
    """ext4 clamps such times, tmpfs keeps them: one file must not end the run."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("no tmpfs here")
    folder = shared / f"tumorbatch-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "late.png").write_bytes(_PNG)
        os.utime(folder / "late.png", (0, 2**40))
        if os.stat(folder / "late.png").st_mtime != 2**40:
            pytest.skip("this file system clamps it")
        tasks = [Task(file) for file in find_files(folder)]
        (entry,) = decode_files(tasks, bundle.load(model).preprocessing)
    finally:
        shutil.rmtree(folder)
    assert (entry.rows[0]["status"], entry.rows[0]["mtime"]) == ("ok", None)


# ------------------------------------------------------------------------ batches, workers, subsets


@pytest.fixture(scope="module")
def good(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty readable images of several kinds, without a bad neighbour."""
    folder = tmp_path_factory.mktemp("good")
    for path in sorted((scans / "sample" / "Brain Tumor").glob("*[0-9]).*"))[:20]:
        shutil.copy(path, folder)
    for name in ("good.jpg", "good.tif", "16 bit.png", "alpha.png", "png in truth.jpg"):
        shutil.copy(scans / "hostile" / name, folder)
    return folder


def _logits(invoke: Any, folder: Path, out: Path, *options: object) -> dict[str, float]:
    code, output = invoke("infer", folder, out, *options)
    assert code == ExitCode.OK, output
    return {name: row["logit"] for name, row in _rows(out).items()}


@pytest.mark.usefixtures("real_workers")
def test_predictions_do_not_depend_on_neighbours_subsets_or_batches(
    good: Path, tmp_path: Path, whole: Rows, working: Path, invoke: Any
) -> None:
    """To the bit for any workers; for other neighbours too where places in a batch are equal."""
    best = working / "models" / "best"
    one = _logits(invoke, good, tmp_path / "one.parquet", "--model", best, "--workers", 1)
    three = _logits(invoke, good, tmp_path / "three.parquet", "--model", best, "--workers", 3)
    assert three == one
    same_places = read_metadata(tmp_path / "one.parquet")["place_in_batch_matters"] == "false"
    # The big run had other neighbours, and broken files among them.
    renamed = {
        name: whole[f"hostile/{name}" if f"hostile/{name}" in whole else f"sample/Brain Tumor/{name}"]
        for name in one
    }
    found = {name: row["logit"] for name, row in renamed.items()}
    assert found == (one if same_places else pytest.approx(one, abs=1e-6))
    assert len(set(one.values())) > 20  # the images differ by far more

    half = {name: one[name] for name in sorted(one)[1::2]}
    folder = tmp_path / "half"
    folder.mkdir()
    for name in half:
        shutil.copy(good / name, folder)
    found = _logits(invoke, folder, tmp_path / "half.parquet", "--model", best, "--workers", 1)
    assert found == (half if same_places else pytest.approx(half, abs=1e-6))

    other = _logits(
        invoke, good, tmp_path / "batches.parquet", "--model", best, "--workers", 1, "--batch-size", 7
    )
    assert other == pytest.approx(one, abs=1e-5)


def test_half_precision_by_flag_gives_nearly_the_same(
    good: Path, tmp_path: Path, working: Path, invoke: Any
) -> None:
    best = working / "models" / "best"
    one = _logits(invoke, good, tmp_path / "one.parquet", "--model", best, "--workers", 1)
    options = ("--model", best, "--workers", 1, "--precision", "mixed_float16", "--xla", "on")
    half = _logits(invoke, good, tmp_path / "half.parquet", *options)
    assert half == pytest.approx(one, abs=0.02)
    assert half != one
    assert "mixed_float16, XLA on" in read_metadata(tmp_path / "half.parquet")["runtime"]


# ---------------------------------------------------------------- reruns, OUT inside FOLDER, limits


def test_a_rerun_renews_and_another_model_is_refused(
    model: Path, few: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "out.parquet"
    command = ("infer", few, out, "--workers", 1)
    assert invoke(*command, "--model", model)[0] == ExitCode.OK
    first = _rows(out)
    shutil.copy(next(few.iterdir()), few / "new.png")
    assert invoke(*command, "--model", model)[0] == ExitCode.OK
    second = _rows(out)
    assert set(second) == set(first) | {"new.png"}
    assert {row["run_id"] for row in first.values()}.isdisjoint(
        row["run_id"] for row in second.values()
    )

    other = Path(shutil.copytree(model, tmp_path / "other"))
    rewrite(other, threshold=0.25, calibration={})
    before = _content(out.parent)
    code, output = invoke(*command, "--model", other)
    assert code == ExitCode.USAGE
    assert bundle.load(model).model_id in output
    assert bundle.load(other).model_id in output
    assert _content(out.parent) == before

    code, output = invoke(*command, "--model", other, "--overwrite")
    assert (code, "6 files: 6 predicted" in output) == (ExitCode.OK, True)
    assert {row["model_id"] for row in _rows(out).values()} == {bundle.load(other).model_id}
    for row in _rows(out).values():
        assert row["label"] == ("Tumor" if row["prob_tumor"] >= 0.25 else "Healthy")


def test_out_inside_folder_is_no_input_of_the_next_run(model: Path, few: Path, invoke: Any) -> None:
    (few / "loop").symlink_to("loop")  # its path cannot be resolved
    names = {path.name for path in few.iterdir()}
    (few / "sub").mkdir()
    for _ in range(2):
        out = few / "sub" / "out.parquet"
        code, _ = invoke("infer", few, out, "--model", model, "--workers", 1)
        assert code == ExitCode.SOME_ERRORS
        assert set(_rows(out)) == names
    # Another run's file is an input like any other: it is a file there.
    command = ("infer", few, few / "second.parquet", "--model", model, "--workers", 1)
    assert invoke(*command, "--all-files")[0] == ExitCode.SOME_ERRORS
    assert set(_rows(few / "second.parquet")) == names | {"sub/out.parquet", "sub/out.parquet.json"}


def test_more_errors_than_allowed_publish_nothing(model: Path, tmp_path: Path, invoke: Any) -> None:
    """29 of 100 are not more than 0.29, though 0.29 * 100 is less than 29 in floating point."""
    folder, out = tmp_path / "scans", tmp_path / "out" / "out.parquet"
    folder.mkdir()
    out.parent.mkdir()
    for index in range(71):
        (folder / f"{index}.png").write_bytes(_PNG)
    command = ("infer", folder, out, "--model", model, "--workers", 1)
    assert invoke(*command, "--max-error-rate", 0)[0] == ExitCode.OK
    before = _content(out.parent)
    for index in range(71, 100):
        (folder / f"{index}.png").touch()

    code, output = invoke(*command, "--max-error-rate", 0.28)
    assert code == ExitCode.TOO_MANY_ERRORS
    assert "29 of 100 files" in output
    assert "29 empty" in output
    assert _content(out.parent) == before

    assert invoke(*command, "--max-error-rate", 0.29)[0] == ExitCode.SOME_ERRORS
    assert len(_rows(out)) == 100


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(
    small: Path, model: Path, few: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "out" / "out.parquet"
    shutil.copytree(small.parent, out.parent)
    before = _content(out.parent)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        code, output = invoke("infer", few, out, "--model", model, "--workers", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == ExitCode.CANNOT_WRITE
    assert f"Cannot write {out.parent}" in output
    assert "size limit" in output
    assert _content(out.parent) == before
    assert invoke("infer", few, out, "--model", model, "--workers", 1)[0] == ExitCode.OK  # continues


# ----------------------------------------------------------------------- the run in its own process


def test_every_file_is_a_row_with_the_right_status(scans: Path, whole: Rows) -> None:
    statuses = {
        name.removeprefix("hostile/"): row["status"]
        for name, row in whole.items()
        if name.startswith("hostile/")
    }
    assert statuses == EXPECTED
    on_disk = {
        path.relative_to(scans).as_posix()
        for path in (scans / "sample").rglob("[!.]*")
        if path.is_file() and path.suffix != ".txt"
    }
    assert {name for name in whole if name.startswith("sample/")} == on_disk


def test_rows_say_what_the_files_are(scans: Path, whole: Rows, model: Path) -> None:
    used = bundle.load(model)
    assert used.temperature != 1  # calibrated: a test with 1 would not see whether it is used
    threshold = np.float32(used.threshold)
    for name, row in whole.items():
        good = row["status"] == "ok"
        assert (row["error"] is None) == good
        for column in ("label", "prob_tumor", "logit", "width", "height", "format", "flags"):
            assert (row[column] is not None) == good, (name, column)
        if good:
            assert 0 <= row["prob_tumor"] <= 1
            assert row["prob_tumor"] == pytest.approx(
                1 / (1 + np.exp(-row["logit"] / used.temperature)), abs=1e-6
            )
            assert row["label"] == (
                "Tumor" if np.float32(row["prob_tumor"]) >= threshold else "Healthy"
            )

    def of(name: str, *columns: str) -> list[Any]:
        return [whole[f"hostile/{name}"][column] for column in columns]

    assert of("png in truth.jpg", "format", "width", "height") == ["png", 48, 64]
    assert of("good.tif", "format") == ["tiff"]
    # 48 x 64 is no size that the model was trained on; alpha.png has a link to it further down.
    assert of("16 bit.png", "flags") == [["16-bit", "unseen-shape"]]
    assert of("alpha.png", "flags") == [["alpha", "unseen-shape"]]
    assert of("good.jpg", "flags") == [["unseen-shape"]]
    assert of("link.png", "flags") == [["alpha", "duplicate", "unseen-shape"]]
    assert of("half.jpg", "file_size") == [len(_JPEG) // 2]
    assert of("fifo.jpg", "error", "sha256") == ["not a regular file", None]
    assert of("loop.jpg", "error") == ["symbolic link loop"]
    assert of("alpha.png", "logit", "sha256") == of("link.png", "logit", "sha256")
    stat = (scans / "hostile" / "good.jpg").stat()
    mtime = of("good.jpg", "mtime")[0]
    assert int(mtime.timestamp() * 1_000_000 + 0.5) == stat.st_mtime_ns // 1000


def test_the_best_bundle_is_the_default_and_is_named(
    finished: tuple[Path, str, str], working: Path
) -> None:
    out, stdout, stderr = finished
    best = bundle.load(working / "models" / "best")
    # Behind the warning about the bundle that cannot be used.
    named = [line for line in stderr.splitlines() if "model cnn" in line]
    assert f"model {best.model_id} from models/best" in named[0]
    assert best.model_id in stdout
    footer = read_metadata(out)
    assert (footer["model"], footer["model_id"]) == ("best", best.model_id)


def test_footer_and_report_count_what_the_rows_hold(
    finished: tuple[Path, str, str], whole: Rows, model: Path
) -> None:
    out, stdout, _ = finished
    footer, used = read_metadata(out), bundle.load(model)
    assert footer["preprocessing_fingerprint"] == used.preprocessing.fingerprint
    assert json.loads(footer["preprocessing"]) == used.preprocessing.to_dict()
    assert footer["weights_sha256"] == used.weights_sha256
    assert json.loads(footer["classes"]) == ["Healthy", "Tumor"]
    assert float(footer["threshold"]) == used.threshold
    assert float(footer["temperature"]) == used.temperature
    assert footer["trained_on_leaky_split"] == "false"
    assert all(Path(folder).is_dir() for folder in json.loads(footer["sources"]))
    assert {row["run_id"] for row in whole.values()} == {footer["run_id"]}
    statuses = [row["status"] for row in whole.values()]
    assert json.loads(footer["statuses"]) == {
        name: statuses.count(name) for name in sorted(set(statuses))
    }
    labels = [row["label"] for row in whole.values()]
    assert json.loads(footer["labels"]) == {name: labels.count(name) for name in ("Healthy", "Tumor")}
    assert footer["started"] <= footer["finished"]
    assert set(json.loads(footer["versions"])) >= {"tumorbatch", "python", "tensorflow", "pyarrow"}
    assert f"{len(whole)} files: {statuses.count('ok')} predicted" in stdout
    assert f"{statuses.count('truncated')} truncated" in stdout


def test_accuracy_on_the_test_split_is_that_of_the_bundle(
    whole: Rows, model: Path, shard_set: Path
) -> None:
    manifest = pq.read_table(shard_set / "manifest.parquet").to_pylist()
    test = [row for row in manifest if row["split"] == "test"]
    metrics = json.loads((model / "metrics.json").read_text())["test"]
    assert len(test) == metrics["n"]
    right = [whole["sample/" + row["path"]]["label"] == row["class"] for row in test]
    assert sum(right) / len(right) == metrics["figures"]["accuracy"]["value"]


@pytest.mark.usefixtures("real_workers")
def test_decoders_print_nothing(
    hostile: Path, model: Path, tmp_path: Path, invoke: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _ = invoke("infer", hostile, tmp_path / "out.parquet", "--model", model, "--workers", 1)
    assert code == ExitCode.SOME_ERRORS
    assert capfd.readouterr().err == ""


# --------------------------------------------------------------------------------------------- show


def test_show_prints_metadata_and_rows(small: Path, model: Path, invoke: Any) -> None:
    code, output = invoke("show", small)
    assert code == ExitCode.OK
    assert f"model_id: {bundle.load(model).model_id}\n" in output
    assert 'statuses: {"empty": 1, "ok": 5, "unsupported": 1}\n' in output
    rows = _rows(small)
    for name, row in rows.items():
        assert name in output
        if row["status"] == "ok":
            assert f"{row['prob_tumor']:.4f}" in output
            assert f"{row['width']}x{row['height']}" in output

    code, output = invoke("show", small, "--rows", 2)
    assert [name in output for name in rows] == [True] * 2 + [False] * 5

    code, output = invoke("show", small, "--errors")
    assert code == ExitCode.OK
    assert [name in output for name in rows] == [row["status"] != "ok" for row in rows.values()]
    assert "the file has no bytes" in output


def test_show_refuses_other_files_with_a_sentence(small: Path, tmp_path: Path, invoke: Any) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no table")
    (tmp_path / "text.csv").write_text("a,b\n1\n")
    column = pq.read_metadata(small).row_group(0).column(SCHEMA.get_field_index("logit"))
    end = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size
    data = bytearray(small.read_bytes())
    data[end - 5] ^= 4
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(data)
    reasons = {
        tmp_path / "text.csv": "line 2 has 1 cells, not 2",
        text: "not a whole Parquet file",
        damaged: "is damaged",
        tmp_path: "not a finished table",
        tmp_path / "absent": "does not exist",
    }
    for path, reason in reasons.items():
        code, output = invoke("show", path)
        assert (code, reason in output) == (ExitCode.NO_INPUT, True), output
        assert str(path) in output
