"""`tumorbatch shard`: what is written, what is refused, and what no fault can break."""

import hashlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preprocess.sets import (
    SIZE,
    by_path,
    content_of,
    image_files,
    records_of,
    rows_of,
    small_config,
    write_file,
)
from tumorbatch import shardset
from tumorbatch.copies import KINDS
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import ConfigError, ExitCode, InputError, OutputError, TooManyErrorsError
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocess.pixels import process
from tumorbatch.preprocess.shard import Report, run
from tumorbatch.preprocess.splits import Fractions
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.shardset import DATASET, MANIFEST

if TYPE_CHECKING:
    from tests.conftest import Cli
    from tests.preprocess.conftest import Build

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("--size", SIZE, "--workers", 2)  # of the command line, as `_config` has them
NOT_UTF8 = "Brain Tumor/caf\\xe9.png"  # how the manifest writes it


@pytest.fixture(scope="session")
def source(build: "type[Build]", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """161 readable files: three chunks of work. Do not change it."""
    folder = tmp_path_factory.mktemp("source") / "raw"
    for name, data in image_files(build, 80).items():
        write_file(folder / name, data)
    return folder


@pytest.fixture(scope="session")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shard set of `source`, in several shards. Do not change it."""
    out = tmp_path_factory.mktemp("finished") / "tfrecords"
    run(source, out, small_config(shard_bytes=20_000))
    return out


@pytest.fixture
def small(build: "type[Build]", tmp_path: Path) -> Path:
    """25 readable files of one's own."""
    for name, data in image_files(build, 12).items():
        write_file(tmp_path / "raw" / name, data)
    return tmp_path / "raw"


# --- what is written --------------------------------------------------------------------------------


def test_one_row_a_file(sample: Path, shard_set: Path) -> None:
    rows = rows_of(shard_set)
    names = sorted(path.relative_to(sample).as_posix() for path in sample.rglob("[!.]*.*"))
    assert [row["path"] for row in rows] == names
    for row in rows:
        data = (sample / row["path"]).read_bytes()
        assert row["class"] == {"Healthy": "Healthy", "Brain Tumor": "Tumor"}[row["path"].split("/")[0]]
        if data:
            assert row["file_size"] == len(data)
            assert row["sha256"] == hashlib.sha256(data).hexdigest()


def test_broken_files_say_why(shard_set: Path) -> None:
    rows = by_path(shard_set)
    bad = {path: row["status"] for path, row in rows.items() if row["status"] != "ok"}
    assert bad == {
        "Healthy/Not Cancer  (empty).jpg": "empty",
        "Healthy/Not Cancer  (truncated).png": "truncated",
        "Brain Tumor/Cancer (truncated).jpg": "truncated",
        "Brain Tumor/Cancer (text).jpg": "unsupported",
        "Brain Tumor/notes.txt": "unsupported",
    }
    of_images = (
        "pixel_hash", "turned_hash", "signature", "width", "height", "format", "bit_depth", "flags",
        "duplicate_group", "split", "shard", "position",
    )  # fmt: skip
    for path, row in rows.items():
        assert bool(row["error"]) is (path in bad)
        for name in of_images:
            assert (row[name] is None) is (path in bad), (path, name)


def test_rows_describe_the_files(sample: Path, shard_set: Path) -> None:
    magic = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"II": "tiff", b"MM": "tiff"}
    kinds: Counter[tuple[str, str, int]] = Counter()
    for path, row in by_path(shard_set).items():
        if row["status"] == "ok":
            data = (sample / path).read_bytes()
            done = process(data, Preprocessing(size=SIZE))
            assert row["format"] == magic[data[:2]]
            assert (row["height"], row["width"]) == done.decoded.grey.shape
            assert row["bit_depth"] == done.decoded.header.bit_depth
            assert row["channels"] == done.decoded.header.channels
            assert row["flags"] == ",".join(done.flags)
            assert ("16-bit" in row["flags"]) is (row["bit_depth"] == 16)
            kinds[Path(path).suffix.lower(), row["format"], row["bit_depth"]] += 1
    assert kinds[".tif", "tiff", 8] > 0  # Keras' own reader drops them all
    assert kinds[".tif", "tiff", 16] > 0
    assert kinds[".png", "png", 16] > 0
    assert kinds[".jpg", "png", 8] > 0  # the extension does not decide
    assert kinds[".jpg", "jpeg", 8] > 0


def test_records_are_what_the_manifest_says(sample: Path, shard_set: Path) -> None:
    rows, dataset = by_path(shard_set), shardset.load(shard_set)
    seen = []
    for shard, position, record in records_of(shard_set, dataset):
        row = rows[record.filename]
        assert (row["shard"], row["position"]) == (shard, position)
        assert shard.startswith(row["split"] + "-")
        assert CLASS_NAMES[record.label] == row["class"]
        assert record.sha256 == row["sha256"]
        assert (record.height, record.width) == (SIZE, SIZE)
        data = (sample / record.filename).read_bytes()
        assert record.pixels == process(data, Preprocessing(size=SIZE)).pixels.tobytes()
        seen.append(record.filename)
    assert sorted(seen) == [path for path, row in rows.items() if row["status"] == "ok"]


def test_classes_are_mixed_inside_a_split(shard_set: Path) -> None:
    dataset = shardset.load(shard_set)
    labels = [record.label for shard, _, record in records_of(shard_set, dataset) if "train" in shard]
    runs = 1 + sum(first != second for first, second in itertools.pairwise(labels))
    assert runs > len(labels) / 4


def test_duplicates_stay_together(shard_set: Path) -> None:
    rows = [row for row in rows_of(shard_set) if row["status"] == "ok"]
    splits: dict[int, set[str]] = {}
    for row in rows:
        splits.setdefault(row["duplicate_group"], set()).add(row["split"])
    assert all(len(of) == 1 for of in splits.values())
    assert list(splits) == list(range(len(splits)))  # numbered in the order of the rows
    assert len(splits) < len(rows)
    for key in ("sha256", "pixel_hash", "turned_hash", "signature"):
        groups: dict[str, set[int]] = {}
        for row in rows:
            groups.setdefault(row[key], set()).add(row["duplicate_group"])
        assert all(len(of) == 1 for of in groups.values())
        assert len(groups) < len(rows)


def test_dataset_json_tells_the_truth(shard_set: Path) -> None:
    value = json.loads((shard_set / DATASET).read_bytes())
    rows = rows_of(shard_set)
    good = [row for row in rows if row["status"] == "ok"]
    assert value["files"] == {"found": len(rows), **Counter(row["status"] for row in rows)}
    assert value["counts"] == {
        split: {
            name: sum((row["split"], row["class"]) == (split, name) for row in good)
            for name in CLASS_NAMES
        }
        for split in SPLITS
    }
    assert [shard["name"] for shard in value["shards"]] == sorted(
        {row["shard"] for row in good}, key=lambda name: (SPLITS.index(name.split("-")[0]), name)
    )
    for shard in value["shards"]:
        data = (shard_set / shard["name"]).read_bytes()
        assert shard == {
            "name": shard["name"],
            "split": shard["name"].split("-")[0],
            "records": sum(row["shard"] == shard["name"] for row in good),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    of_train = [shard["name"] for shard in value["shards"] if shard["split"] == "train"]
    digits = [shard["sha256"][:8] for shard in value["shards"] if shard["split"] == "train"]
    count = len(of_train)
    assert of_train == [f"train-{k:05}-of-{count:05}-{digits[k]}.tfrecord" for k in range(count)]
    assert len(of_train) > 1
    assert value["manifest_sha256"] == hashlib.sha256((shard_set / MANIFEST).read_bytes()).hexdigest()
    sizes = Counter(row["duplicate_group"] for row in good)
    assert value["groups"] == {
        "groups": len(sizes),
        "largest_group": max(sizes.values()),
        "byte_identical": len(good) - len({row["sha256"] for row in good}),
        "pixel_identical": len(good) - len({row["pixel_hash"] for row in good}),
        "near_duplicate": len(good) - len(sizes),
        **{f"copies_{kind}": sum(row["copy_kind"] == kind for row in good) for kind in KINDS},
        "patients": 0,
    }
    assert value["shared_between_splits"] == {"sha256": 0, "pixels": 0, "groups": 0, "copies": 0}
    assert value["leaky"] is False
    assert value["classes"] == ["Healthy", "Tumor"]
    assert value["preprocessing"] == Preprocessing(size=SIZE).to_dict()
    assert value["preprocessing_fingerprint"] == Preprocessing(size=SIZE).fingerprint


def test_the_manifest_columns_are_pinned(shard_set: Path) -> None:
    assert {field.name: str(field.type) for field in pq.read_schema(shard_set / MANIFEST)} == {
        "path": "string",
        "class": "string",
        "status": "string",
        "error": "string",
        "file_size": "int64",
        "sha256": "string",
        "pixel_hash": "string",
        "turned_hash": "string",
        "signature": "fixed_size_binary[576]",
        "width": "int32",
        "height": "int32",
        "format": "string",
        "bit_depth": "int16",
        "channels": "int16",
        "flags": "string",
        "duplicate_group": "int64",
        "copy_kind": "string",
        "split": "string",
        "shard": "string",
        "position": "int64",
    }


def test_a_flipped_bit_in_the_manifest_is_seen(shard_set: Path, tmp_path: Path) -> None:
    data = bytearray((shard_set / MANIFEST).read_bytes())
    data[len(data) // 4] ^= 1
    (tmp_path / MANIFEST).write_bytes(data)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.read_table(tmp_path / MANIFEST, page_checksum_verification=True)


def test_a_name_that_is_not_utf8_survives(finished: Path) -> None:
    row = by_path(finished)[NOT_UTF8]
    assert (row["status"], row["class"]) == ("ok", "Tumor")
    names = {record.filename for *_, record in records_of(finished, shardset.load(finished))}
    assert NOT_UTF8 in names


@pytest.mark.usefixtures("in_process")
def test_a_split_by_file_is_called_leaky(sample: Path, tmp_path: Path, command: "Cli") -> None:
    out = tmp_path / "leaky"
    done = command("shard", sample, out, *OPTIONS, "--split-by", "file")
    assert done.returncode == ExitCode.SOME_ERRORS
    assert done.stderr == ""
    value = json.loads((out / DATASET).read_bytes())
    shared = value["shared_between_splits"]
    assert value["leaky"] is True
    assert shared["groups"] >= shared["sha256"] > 0
    assert f"LEAKY: {shared['groups']} groups ({shared['sha256']} identical files)" in done.stdout
    assert "5 files" not in done.stdout
    assert "rejected: 1 empty, 2 truncated, 2 unsupported" in done.stdout
    assert f"Next: tumorbatch train --arch cnn1 {out}" in done.stdout
    splits: dict[str, set[str]] = {}
    for row in rows_of(out):
        if row["status"] == "ok":
            splits.setdefault(row["sha256"], set()).add(row["split"])
    assert sum(len(of) > 1 for of in splits.values()) == shared["sha256"]


# --- the same bytes, always -------------------------------------------------------------------------


def test_bytes_depend_on_input_and_config_alone(
    build: "type[Build]", finished: Path, tmp_path: Path
) -> None:
    files = list(image_files(build, 80).items())
    random.Random(0).shuffle(files)
    for age, (name, data) in enumerate(files):
        write_file(tmp_path / "elsewhere" / name, data)
        os.utime(tmp_path / "elsewhere" / name, (age, age))
    for workers in (1, 3):
        out = tmp_path / f"by {workers}"
        report = run(tmp_path / "elsewhere", out, small_config(shard_bytes=20_000, workers=workers))
        assert (report.files_found, report.errors, report.taken_over) == (161, 0, 0)
        assert content_of(out) == content_of(finished)


def test_nothing_to_say_and_nothing_to_do(small: Path, tmp_path: Path, cli: "Cli") -> None:
    out = tmp_path / "deep" / "er" / "tfrecords"
    done = cli("shard", small, out, *OPTIONS, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = cli("shard", small, out, "--size", SIZE, "--workers", 1)
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing to do" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.usefixtures("in_process")
def test_another_seed_moves_images(small: Path, tmp_path: Path) -> None:
    placed = []
    for seed in (0, 1):
        run(small, tmp_path / str(seed), small_config(seed=seed))
        placed.append({path: row["split"] for path, row in by_path(tmp_path / str(seed)).items()})
    assert placed[0] != placed[1]


# --- a finished set and another wish ----------------------------------------------------------------


@pytest.fixture
def own(finished: Path, source: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of `source` and `finished`, to be changed."""
    shutil.copytree(source, tmp_path / "raw")
    shutil.copytree(finished, tmp_path / "tfrecords")
    return tmp_path / "raw", tmp_path / "tfrecords"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed: 0 there, 1 asked for"),
        ({"preprocessing": Preprocessing(size=33)}, "size: 32 there, 33 asked for"),
        (
            {"preprocessing": Preprocessing(size=SIZE, clahe=False)},
            "clahe: True there, False asked for",
        ),
        (
            {"preprocessing": Preprocessing(size=SIZE, clahe_clip=3.0)},
            "clahe_clip: 2.0 there, 3.0 asked for",
        ),
        ({"patient_id": False}, "patient_id: True there, False asked for"),
        ({"split_by": "file"}, "split_by: group there, file asked for"),
        ({"fractions": Fractions(0.6, 0.2, 0.2)}, "train: 0.7 there, 0.6 asked for"),
        ({"shard_bytes": 20_001}, "shard_bytes: 20000 there, 20001 asked for"),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_other_options_are_refused(
    source: Path, finished: Path, changes: dict[str, Any], named: str
) -> None:
    before = content_of(finished)
    with pytest.raises(ConfigError) as caught:
        run(source, finished, small_config(**({"shard_bytes": 20_000} | changes)))
    assert named in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert content_of(finished) == before


@pytest.mark.usefixtures("in_process")
def test_overwrite_replaces_the_whole_set(source: Path, own: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = own
    (out / "notes.txt").write_text("mine")
    (out / "train-part.tfrecord").write_text("mine too")
    config = small_config(shard_bytes=1 << 20, seed=5)
    run(source, tmp_path / "fresh", config)
    run(source, out, small_config(shard_bytes=1 << 20, seed=5, overwrite=True, new_splits=True))
    assert len(shardset.load(out).shards) == 3
    assert content_of(out) == {
        **content_of(tmp_path / "fresh"),
        "notes.txt": b"mine",
        "train-part.tfrecord": b"mine too",
    }


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema_version": 99}', '{"schema_version": 1}'])
@pytest.mark.usefixtures("in_process")
def test_overwrite_mends_a_damaged_dataset_json(
    source: Path, own: tuple[Path, Path], finished: Path, damage: str
) -> None:
    _, out = own
    (out / DATASET).write_text(damage)
    with pytest.raises((InputError, ConfigError), match="--overwrite"):
        run(source, out, small_config(shard_bytes=20_000))
    run(source, out, small_config(shard_bytes=20_000, overwrite=True))
    assert content_of(out) == content_of(finished)


@pytest.mark.parametrize("name", [MANIFEST, "train-00000"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"?")])
@pytest.mark.usefixtures("in_process")
def test_a_damaged_set_is_not_nothing_to_do(
    source: Path, own: tuple[Path, Path], finished: Path, name: str, damage: Callable[[Path], None]
) -> None:
    _, out = own
    (path,) = out.glob(f"{name}*")
    damage(path)
    with pytest.raises(InputError, match="--overwrite") as caught:
        run(source, out, small_config(shard_bytes=20_000))
    assert name in str(caught.value)
    run(source, out, small_config(shard_bytes=20_000, overwrite=True))
    assert content_of(out) == content_of(finished)


# --- exit codes -------------------------------------------------------------------------------------


def _refused(done: "subprocess.CompletedProcess[str]", code: ExitCode, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_usage_exits_2(source: Path, tmp_path: Path, command: "Cli") -> None:
    out = tmp_path / "out"
    _refused(command("shard", source, out, "--split", "70/30"), ExitCode.USAGE, "70/15/15")
    (tmp_path / "raw" / "Glioma").mkdir(parents=True)
    _refused(command("shard", tmp_path / "raw", out), ExitCode.USAGE, "Error: ", "'Glioma'", "--class")
    assert not out.exists()


def test_other_options_exit_2(source: Path, finished: Path, command: "Cli") -> None:
    done = command("shard", source, finished, *OPTIONS, "--seed", 1)
    _refused(done, ExitCode.USAGE, "seed: 0 there, 1 asked for")


def test_no_input_exits_66(tmp_path: Path, command: "Cli") -> None:
    done = command("shard", cwd=tmp_path)
    _refused(done, ExitCode.NO_INPUT, "data/raw is not there", "`tumorbatch sample data/raw`")
    assert not any(tmp_path.iterdir())


def test_an_output_that_is_a_file_exits_73(source: Path, tmp_path: Path, command: "Cli") -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    _refused(command("shard", source, file), ExitCode.CANNOT_WRITE, f"Cannot write {file}")
    with pytest.raises(OutputError, match="A part of that path is a file"):
        run(source, file / "tfrecords", small_config())
    assert file.read_text() == "mine"


def test_a_lock_of_another_process_exits_75(source: Path, tmp_path: Path, command: "Cli") -> None:
    out = tmp_path / "out"
    out.mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys; from tumorbatch.lock import output_lock\n"
            "out = pathlib.Path(sys.argv[1])\n"
            "with output_lock(out, out / '.lock'): print('held', flush=True); sys.stdin.read()",
            str(out),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = command("shard", source, out)
        _refused(done, ExitCode.TRY_AGAIN, "in use by", f"process {holder.pid} ", "Try again")
        holder.communicate("")
    assert not any(out.iterdir())


@pytest.mark.usefixtures("in_process")
def test_too_many_errors_exit_4_and_publish_nothing(
    sample: Path, shard_set: Path, tmp_path: Path, command: "Cli"
) -> None:
    out = tmp_path / "out"
    as_there = (*OPTIONS, "--shard-mb", 20_000 / (1 << 20))
    done = command("shard", sample, out, *as_there, "--max-error-rate", 0.01)
    _refused(done, ExitCode.TOO_MANY_ERRORS, "5 of 101 files", "allows 1.00%", "Nothing was published")
    assert os.listdir(out) == [".partial"]
    # The work is kept for a run that allows more.
    assert run(sample, out, small_config(shard_bytes=20_000)).taken_over == 101
    assert content_of(out) == content_of(shard_set)


# --- files that stand in each other's way -----------------------------------------------------------


@pytest.mark.usefixtures("in_process")
def test_the_error_rate_is_a_bound_that_may_be_met(small: Path, tmp_path: Path) -> None:
    for k in range(5):
        (small / "Healthy" / f"text {k}.png").write_text("x")  # 5 of 30
    with pytest.raises(TooManyErrorsError):
        run(small, tmp_path / "out", small_config(max_error_rate=0.166))
    report = run(small, tmp_path / "out", small_config(max_error_rate=5 / 30))
    assert (report.files_found, report.errors, report.taken_over) == (30, 5, 30)


@pytest.mark.usefixtures("in_process")
def test_one_image_under_both_classes_is_left_out(
    small: Path, tmp_path: Path, build: "type[Build]", caplog: pytest.LogCaptureFixture
) -> None:
    pixels = build.smooth(50, 50, 777)
    for name, data in {
        "Healthy/same.png": build.png(pixels),
        "Brain Tumor/same.png": build.png(pixels),
        "Brain Tumor/other format.tif": build.tiff(pixels),
    }.items():
        write_file(small / name, data)
    report = run(small, tmp_path / "out", small_config())
    rows = by_path(tmp_path / "out")
    conflict = {path for path, row in rows.items() if row["status"] == "label_conflict"}
    assert conflict == {"Healthy/same.png", "Brain Tumor/same.png", "Brain Tumor/other format.tif"}
    assert all("both classes" in rows[path]["error"] for path in conflict)
    assert all(rows[path]["split"] is None for path in conflict)
    assert report.errors == 3
    assert report.dataset.files["label_conflict"] == 3
    assert sum(shard.records for shard in report.dataset.shards) == 25
    assert "3 files are left out" in caplog.text


@pytest.mark.usefixtures("in_process")
def test_near_copies_under_both_classes_are_counted(
    small: Path, tmp_path: Path, build: "type[Build]"
) -> None:
    pixels = build.smooth(50, 50, 777)
    write_file(small / "Healthy/one.png", build.png(pixels))
    write_file(small / "Brain Tumor/two.jpg", build.encode(".jpg", pixels))
    report = run(small, tmp_path / "out", small_config())
    rows = by_path(tmp_path / "out")
    one, two = rows["Healthy/one.png"], rows["Brain Tumor/two.jpg"]
    assert len(report.near_conflicts) == 1
    assert one["duplicate_group"] == two["duplicate_group"]
    assert one["split"] == two["split"]
    assert one["status"] == two["status"] == "ok"


@pytest.mark.usefixtures("in_process")
def test_no_readable_file_does_not_block_the_next_run(tmp_path: Path, build: "type[Build]") -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in image_files(build, 12):
        write_file(raw / name, b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"None of the 25 files .* can be read \(25 unsupported\)"):
        run(raw, out, small_config())
    for name, data in image_files(build, 12).items():
        write_file(raw / name, data)
    assert run(raw, out, small_config()).errors == 0


@pytest.mark.usefixtures("in_process")
def test_the_way_out_of_too_few_groups_is_open(tmp_path: Path, build: "type[Build]") -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in image_files(build, 12):
        seed = 0 if name.startswith("Healthy") else 1
        write_file(raw / name, build.png(build.smooth(40, 48, seed)))
    with pytest.raises(ConfigError, match="--split-by file"):
        run(raw, out, small_config())
    assert run(raw, out, small_config(split_by="file")).dataset.leaky


# --- interrupted runs -------------------------------------------------------------------------------


def _interrupted(raw: Path, out: Path) -> None:
    """Leave the work area of a run that stopped before it published."""
    (raw / "Healthy" / "broken.png").write_text("x")
    with pytest.raises(TooManyErrorsError):
        run(raw, out, small_config(max_error_rate=0))
    assert [path.name for path in out.iterdir()] == [".partial"]


@pytest.mark.usefixtures("in_process")
def test_an_interrupted_run_of_something_else_is_not_thrown_away(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _interrupted(small, out)
    before = content_of(out)
    with pytest.raises(ConfigError, match="seed: 0 then, 1 now") as caught:
        run(small, out, small_config(seed=1))
    assert "--overwrite" in str(caught.value)
    assert content_of(out) == before
    (small / "Healthy" / "broken.png").unlink()
    report = run(small, out, small_config(overwrite=True))
    assert (report.taken_over, report.errors) == (0, 0)
    assert ".partial" not in os.listdir(out)


@pytest.mark.usefixtures("in_process")
def test_a_work_area_cut_anywhere_is_taken_up(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a crash of the machine may leave: journal and spool of any length."""
    monkeypatch.setattr("tumorbatch.preprocess.first_pass.CHUNK", 10)
    _interrupted(small, tmp_path / "cut")
    config = small_config(max_error_rate=1)
    run(small, tmp_path / "whole", config)
    whole = content_of(tmp_path / "whole")
    taken_over = set()
    cuts: list[tuple[float | None, float | None]]
    shares = (0.2, 0.5, 0.95)
    cuts = [(None, 1), (0, 1), (1, None), (1, 0), (1, 1)]
    cuts += [(share, 1) for share in shares] + [(1, share) for share in shares]
    cuts += [(share, other) for share in shares for other in shares]
    for case, (journal, spool) in enumerate(cuts):
        out = tmp_path / f"out {case}"
        shutil.copytree(tmp_path / "cut", out)
        for name, kept in (("journal.jsonl", journal), ("records", spool)):
            path = out / ".partial" / name
            if kept is None:
                path.unlink()
            else:
                os.truncate(path, int(kept * path.stat().st_size))
        taken_over.add(run(small, out, config).taken_over)
        assert content_of(out) == whole
    assert taken_over == {0, 10, 20, 26}


DRIVER = '''
import errno, itertools, json, os, shutil, stat, sys
from pathlib import Path

from tumorbatch import shardset
from tumorbatch.errors import OutputError
from tumorbatch.preprocess import first_pass
from tumorbatch.preprocess import shard as stage
from tumorbatch.preprocess import verify
from tumorbatch.preprocessing_config import Preprocessing

first_pass.ordered_map = lambda function, chunks, *_: map(function, chunks)
first_pass.CHUNK = 6
raw, area = map(Path, sys.argv[1:3])
mode, kind, every = sys.argv[3:]  # kill or full; fresh, overwrite or grow; take each n-th step
out, whole, before = area / "out", area / "whole", area / "before"


SAME, OTHER = Preprocessing(size=32), Preprocessing(size=32, clahe=False)


def config(preprocessing=SAME, **more):
    return stage.Config(preprocessing, shard_bytes=8_000, workers=1, **more)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".partial" not in path.parts
    }


def in_a_child(step=0):
    """Run the stage in a process that meets its fault at that step; its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = itertools.count(1)

    def patched(name, real):
        def call(*arguments, **options):
            if mode == "kill":
                if next(steps) == step:
                    os._exit(9)
            elif stat.S_ISREG(os.fstat(arguments[0]).st_mode) and next(steps) == step:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return None if name == "fsync" else real(*arguments, **options)

        setattr(os, name, call)

    names = ("fsync", "replace", "unlink", "mkdir", "rmdir", "ftruncate", "link")
    for name in names if mode == "kill" else ("fsync",):
        patched(name, getattr(os, name))
    try:
        stage.run(raw, out, config(overwrite=kind == "overwrite"))
    except OutputError as error:
        assert "disk is full" in str(error), error
        os._exit(73)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


if kind == "grow":
    area.mkdir()
    late = [*raw.rglob("*.jpg"), *raw.rglob("*2.png")]
    for path in late:
        path.rename(area / f"{path.parent.name} {path.name}")
    stage.run(raw, before, config())
    for path in late:
        (area / f"{path.parent.name} {path.name}").rename(path)
    shutil.copytree(before, whole)
    assert stage.run(raw, whole, config()).changes.keys() == {"kept", "new"}
else:
    stage.run(raw, whole, config())
    if kind == "overwrite":
        stage.run(raw, before, config(OTHER))
os.fsync = lambda _: None  # nobody cuts the power here
expected, old = content(whole), content(before)
for step in itertools.count(1, int(every)):
    if kind != "fresh":
        shutil.copytree(before, out)
    status = in_a_child(step)
    if status == 0:
        assert content(out) == expected, step
        break
    assert status == {"kill": 9, "full": 73}[mode], (step, status)
    if kind != "fresh" or (out / "dataset.json").exists():  # whole: the old set or the new one
        assert verify.run(out).problems == (), step
        described = (out / "dataset.json").read_bytes()
        assert described in (old.get("dataset.json"), expected["dataset.json"]), step
    if mode == "full":
        assert content(out) == old, (step, "the old set was touched")
    assert in_a_child() == 0, step
    left = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert left == expected, (step, sorted(left.keys() ^ expected.keys()))
    shutil.rmtree(out)
print(step)
'''


FAULTS = (
    ("kill", "fresh"), ("kill", "overwrite"), ("kill", "grow"), ("full", "overwrite"), ("full", "grow"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "kind", "every"),
    [
        *((*fault, 5 if fault[0] == "kill" else 3) for fault in FAULTS),
        *(pytest.param(*fault, 1, marks=pytest.mark.slow) for fault in FAULTS),
    ],
)
def test_a_fault_at_every_step(
    tmp_path: Path, build: "type[Build]", mode: str, kind: str, every: int
) -> None:
    """Killed before each change of the file system, or out of space at each one that is to last.

    The set that was there is whole until the new one takes its place, and the same command again
    ends with the bytes of an undisturbed run and nothing else.
    """
    for name, data in image_files(build, 6).items():
        write_file(tmp_path / "raw" / name, data)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, tmp_path / "raw", tmp_path / "area", mode, kind, str(every)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > {"kill": 35, "full": 12}[mode]


# --- real processes, real signals -------------------------------------------------------------------


@pytest.fixture(scope="session")
def long_source(build: "type[Build]", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """330 images, six chunks of work, that take a second or two. Do not change it."""
    folder = tmp_path_factory.mktemp("long") / "raw"
    noise = np.random.default_rng(0).integers(-12, 13, (256, 256))
    for k in range(330):
        pixels = (build.smooth(256, 256, k) + np.roll(noise, k)).astype(np.uint8)
        write_file(folder / ("Healthy", "Tumor")[k % 2] / f"{k:03}.jpg", build.encode(".jpg", pixels))
    return folder


@pytest.fixture(scope="session")
def undisturbed(long_source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a shard set of `long_source` must hold."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(long_source, out, small_config())
    return content_of(out)


def _start(
    source: Path, out: Path, *arguments: str, path: str = str(ROOT), **options: Any
) -> "subprocess.Popen[str]":
    """The command on its way; `path`: Python's, `options`: of `Popen`."""
    command = [sys.executable, "-m", "tumorbatch", "shard", source, out, *OPTIONS, *arguments]
    return subprocess.Popen(
        list(map(str, command)),
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _lines(out: Path) -> int:
    try:
        return (out / ".partial" / "journal.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _wait_for(process: "subprocess.Popen[str]", moment: Callable[[], bool]) -> None:
    """Until the moment has come, or the process has ended before it."""
    deadline = time.monotonic() + 60
    while not moment() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_kill_9_at_any_moment(long_source: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    rng = random.Random(0)
    moments: list[Callable[[], bool]] = [
        lambda: _lines(out) >= 1,
        lambda: _lines(out) >= 3,
        lambda: any(out.glob(".partial/*.tfrecord")),
    ]
    killed = 0
    for moment in moments:
        process = _start(long_source, out)
        _wait_for(process, moment)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2  # the last moment is short: the run may end before the signal comes
    process = _start(long_source, out)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert "already decoded by an interrupted run" in stdout or "nothing to do" in stdout
    assert content_of(out) == undisturbed


def test_signals_save_the_work_and_exit_75(
    long_source: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for lines, number, everyone in (
        (1, signal.SIGTERM, False),
        (3, signal.SIGINT, True),  # Ctrl-C reaches the workers too
    ):
        process = _start(long_source, out, start_new_session=True)
        _wait_for(process, lambda lines=lines: _lines(out) >= lines)  # type: ignore[misc]
        if everyone:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == ExitCode.TRY_AGAIN, stderr
        assert stdout == ""
        assert f"Interrupted ({number.name})" in stderr
        assert "the same command continues it" in stderr
        assert "Traceback" not in stderr
        assert os.listdir(out) == [".partial"]
    assert _lines(out) >= 3
    report: Report = run(long_source, out, small_config())
    assert report.taken_over >= 3 * 64
    assert content_of(out) == undisturbed


@pytest.mark.usefixtures("in_process")
def test_a_full_disk_exits_73_and_loses_nothing(
    source: Path, own: tuple[Path, Path], tmp_path: Path
) -> None:
    """The limit on a file's size stands for the disk's."""
    _, out = own
    before = content_of(out)
    process = _start(
        source,
        out,
        "--overwrite",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitCode.CANNOT_WRITE, stderr
    assert stdout == ""
    assert f"Cannot write {out}" in stderr
    assert "ulimit -f" in stderr
    assert "Traceback" not in stderr
    assert content_of(out, hidden=False) == before
    report = run(source, out, small_config(overwrite=True))
    assert report.taken_over == 64  # two chunks of 64 records are above the limit
    run(source, tmp_path / "fresh", small_config())
    assert content_of(out) == content_of(tmp_path / "fresh")


KILLER = """
import os, signal, time
import cv2

_decode = cv2.imdecode


def imdecode(data, flags):
    if b"KILLER" in bytes(data):
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"SLEEPER" in bytes(data):
        time.sleep(600)
    return _decode(data, flags)


cv2.imdecode = imdecode
"""


def test_a_file_that_kills_its_decoder_costs_one_row(
    small: Path, tmp_path: Path, build: "type[Build]"
) -> None:
    expected = {
        "KILLER": ("decoder_crash", "crashed (SIGSEGV)"),
        "SLEEPER": ("timeout", "not decoded within 2 s"),
    }
    digests = {}
    for word in expected:
        pixels = build.smooth(40, 48, 500)
        pixels[0, : len(word)] = list(word.encode())  # a BMP file holds them as they are
        killer = build.encode(".bmp", pixels)
        assert word.encode() in killer
        write_file(small / "Healthy" / f"005 {word}.png", killer)
        digests[word] = hashlib.sha256(killer).hexdigest()
    write_file(tmp_path / "site" / "sitecustomize.py", KILLER.encode())
    path = f"{tmp_path / 'site'}{os.pathsep}{ROOT}"
    out = tmp_path / "out"
    # The second run tries both again, and finds the same.
    for code, line in (
        (ExitCode.SOME_ERRORS, "1 decoder_crash, 1 timeout"), (ExitCode.OK, "nothing to do")
    ):  # fmt: skip
        process = _start(small, out, "--timeout", "2", path=path)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == code, stderr
        assert line in stdout
    rows = by_path(out)
    for word, (status, reason) in expected.items():
        row = rows.pop(f"Healthy/005 {word}.png")
        assert row["status"] == status
        assert reason in row["error"]
        assert row["sha256"] == digests[word]
        assert row["split"] is None
    assert {other["status"] for other in rows.values()} == {"ok"}
