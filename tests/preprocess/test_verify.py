"""Every kind of damage to a shard set is found, and the file that has it is named."""

import hashlib
import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tumorbatch import tfrecord
from tumorbatch.errors import InputError
from tumorbatch.preprocess import shard as stage
from tumorbatch.preprocess import shard_writer
from tumorbatch.preprocess.verify import Report, run
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.tfrecord import ImageRecord, frame

ROOT = Path(__file__).resolve().parents[2]
SIZE = 32  # of the fixture `shard_set`

Change = Callable[[list[ImageRecord]], list[ImageRecord | bytes]]


@pytest.fixture
def folder(shard_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shard_set, tmp_path / "tfrecords"))


@pytest.fixture(scope="module")
def leaky_set(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("leaky") / "tfrecords"
    stage.run(sample, out, stage.Config(Preprocessing(size=SIZE), split_by="file", workers=1))
    return out


def test_the_report_says_whether_the_set_is_leaky(folder: Path, leaky_set: Path) -> None:
    assert (run(folder).leak, run(leaky_set).leak) == (None, "leaky")


def first_shard(folder: Path) -> Path:
    return sorted(folder.glob("train-*.tfrecord"))[0]


def dataset(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return value


def edit(folder: Path, **entries: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps(dataset(folder) | entries))


def forge(folder: Path) -> None:
    """Make dataset.json describe the files as they are, but for the number of records."""
    value = dataset(folder)
    for shard in value["shards"]:
        content = (folder / shard["name"]).read_bytes()
        shard |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = hashlib.sha256((folder / "manifest.parquet").read_bytes()).hexdigest()
    edit(folder, shards=value["shards"], manifest_sha256=manifest)


def rewrite(path: Path, change: Change) -> None:
    """Change the records of a shard, with checksums that fit."""
    changed = change([ImageRecord.decode(data) for data in tfrecord.read(path)])
    encoded = (one if isinstance(one, bytes) else one.encode() for one in changed)
    path.write_bytes(b"".join(map(frame, encoded)))


def rewrite_manifest(folder: Path, **columns: Callable[[list[Any]], None]) -> None:
    """Change columns of the manifest in place, with page checksums that fit."""
    table = pq.read_table(folder / "manifest.parquet")
    for name, change in columns.items():
        values = table[name].to_pylist()
        change(values)
        at = table.schema.get_field_index(name)
        table = table.set_column(
            at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
        )
    shard_writer.write_manifest(folder / "manifest.parquet", table)


def place(folder: Path, shard: Path, position: int) -> int:
    """The manifest's row of a record."""
    table = pq.read_table(folder / "manifest.parquet")
    places = zip(table["shard"].to_pylist(), table["position"].to_pylist(), strict=True)
    return list(places).index((shard.name, position))


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def frame_ends(path: Path) -> list[int]:
    ends = [0]
    for data in tfrecord.read(path):
        ends.append(ends[-1] + len(frame(data)))
    return ends


def told(report: Report, path: Path) -> str:
    """What was found about one file."""
    return "\n".join(problem.fault for problem in report.problems if problem.file == path)


def named(report: Report) -> set[str]:
    return {problem.file.name for problem in report.problems}


def test_a_sound_set_has_no_problems(shard_set: Path) -> None:
    report = run(shard_set)
    shard_files = list(shard_set.glob("*.tfrecord"))
    assert report.problems == ()
    assert report.shards == len(shard_files) > 3
    assert report.records == 96
    assert report.bytes == sum(path.stat().st_size for path in shard_files)
    assert report.seconds > 0


def test_nothing_is_written(folder: Path) -> None:
    def state() -> list[tuple[Path, int, int]]:
        entries = [folder, *sorted(folder.iterdir())]
        return [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in entries]

    before = state()
    run(folder)
    assert state() == before


def test_tensorflow_is_not_loaded() -> None:
    code = (
        "import sys, tumorbatch.preprocess.verify, tumorbatch.preprocess.equalize_folder, "
        "tumorbatch.imaging; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_a_missing_set_is_an_input_error(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"has no dataset\.json: the shard set is not finished"):
        run(folder)
    with pytest.raises(InputError, match="is not there"):
        run(folder / "elsewhere")


def cut_at_boundary(path: Path) -> None:
    cut(path, frame_ends(path)[3])


def cut_in_header(path: Path) -> None:
    cut(path, frame_ends(path)[3] + 5)


def cut_in_data(path: Path) -> None:
    cut(path, frame_ends(path)[3] + 500)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_data(path: Path) -> None:
    flip(path, 8 * (frame_ends(path)[2] + 700))


def flip_length(path: Path) -> None:
    flip(path, 8 * frame_ends(path)[2])


def replace_by_sister(path: Path) -> None:
    shutil.copy(sorted(path.parent.glob("train-*"))[1], path)


def swap_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SHARD_DAMAGE = [
    (cut_at_boundary, r"bytes and should have .*: it was cut off.*\n.*holds 3 records"),
    (cut_in_header, "is cut off inside the record at byte"),
    (cut_in_data, "is cut off inside the record at byte"),
    (empty, r"has 0 bytes and should have .*\nholds 0 records"),
    (flip_data, "is damaged: bad data checksum at byte"),
    (flip_length, "is damaged: bad length checksum at byte"),
    (Path.unlink, "is missing"),
    (replace_by_sister, r"does not agree with manifest\.parquet on the path of \d+ records"),
    (swap_with_folder, "is not a regular file"),
]


@pytest.mark.parametrize(
    ("damage", "found"), SHARD_DAMAGE, ids=[damage.__name__ for damage, _ in SHARD_DAMAGE]
)
def test_a_damaged_shard_is_named(folder: Path, damage: Callable[[Path], None], found: str) -> None:
    path = first_shard(folder)
    damage(path)
    report = run(folder)
    assert named(report) == {path.name}
    assert re.search(found, told(report, path))
    for problem in report.problems:
        assert "tumorbatch shard --overwrite" in problem.advice
        assert str(problem).startswith(str(path))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (flip_data, "is damaged: bad data checksum"),
        (cut_in_header, "is cut off inside the record"),
        (cut_at_boundary, "holds 3 records and should hold"),
        (empty, "holds 0 records and should hold"),
    ],
    ids=["flip_data", "cut_in_header", "cut_at_boundary", "empty"],
)
def test_damage_is_found_where_size_and_hash_were_forged(
    folder: Path, damage: Callable[[Path], None], found: str
) -> None:
    path = first_shard(folder)
    damage(path)
    forge(folder)
    report = run(folder)
    assert named(report) == {path.name}
    assert found in told(report, path)


def test_an_impossible_length_is_a_sentence(folder: Path) -> None:
    path = first_shard(folder)
    length = struct.pack("<Q", 2**63)
    crc = google_crc32c.value(length)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    path.write_bytes(length + struct.pack("<I", masked) + path.read_bytes()[12:])
    assert "is cut off inside the record at byte 0" in told(run(folder), path)


def test_a_foreign_shard_is_named(folder: Path) -> None:
    shutil.copy(first_shard(folder), folder / "train-00099-of-00100.tfrecord")
    shutil.copy(first_shard(folder), folder / "mine.tfrecord")
    report = run(folder)
    assert named(report) == {"train-00099-of-00100.tfrecord", "mine.tfrecord"}
    assert all("does not belong to this shard set" in problem.fault for problem in report.problems)
    assert all("Move it" in problem.advice for problem in report.problems)


def relabel(found: list[ImageRecord]) -> list[ImageRecord | bytes]:
    return [replace(found[0], label=1 - found[0].label), *found[1:]]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda old: [replace(old[0], label=2), *old[1:]],
            "a label that is none of Healthy, T",
        ),
        (lambda old: [old[0], replace(old[1], pixels=b"12"), *old[2:]], "of other than 32 x 32 pixels"),
        (
            lambda old: [replace(one, height=16, width=64) for one in old],
            "records .* of other than 32 x",
        ),
        (lambda old: [replace(old[0], sha256="none"), *old[1:]], "without the sha256 of a file"),
        (lambda old: [*old[:2], b"\xff\xff", *old[3:]], r"1 record \(position 2\) that cannot be dec"),
    ],
    ids=["label", "pixels", "shape", "sha256", "decode"],
)
def test_a_record_that_cannot_be_is_found(folder: Path, change: Change, found: str) -> None:
    path = first_shard(folder)
    rewrite(path, change)
    forge(folder)
    report = run(folder)
    assert named(report) == {path.name}
    assert re.search(found, told(report, path))


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (relabel, "class"),
        (lambda old: [replace(old[0], filename="Healthy/x.png"), *old[1:]], "path"),
        (lambda old: [replace(old[0], sha256="0" * 64), *old[1:]], "sha256"),
    ],
    ids=["class", "path", "sha256"],
)
def test_a_changed_record_is_found(folder: Path, change: Change, column: str) -> None:
    path = first_shard(folder)
    rewrite(path, change)
    report = run(folder)
    expected = f"does not agree with manifest.parquet on the {column} of 1 record (position 0)"
    assert expected in told(report, path)
    assert named(report) == {path.name}
    forge(folder)  # now neither is known to be the right one; that they differ is still found
    assert f"on the {column} of 1 record (position 0)" in told(run(folder), folder / "manifest.parquet")


def test_swapped_records_are_found(folder: Path) -> None:
    path = first_shard(folder)
    rewrite(path, lambda found: [found[1], found[0], *found[2:]])
    forge(folder)
    assert "on the path of 2 records (the first at position 0)" in told(
        run(folder), folder / "manifest.parquet"
    )


def set_to(row: int, value: Any) -> Callable[[list[Any]], None]:
    def change(values: list[Any]) -> None:
        values[row] = value(values[row]) if callable(value) else value

    return change


@pytest.mark.parametrize("forged", [False, True], ids=["plain", "forged"])
@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("path", "Healthy/x.png", r"on the path of 1 record \(position 2\)"),
        ("sha256", "0" * 64, r"on the sha256 of 1 record \(position 2\)"),
        ("class", lambda now: "Tumor" if now == "Healthy" else "Healthy", r"on the class of 1 record"),
        ("split", "test", r"on the split of 1 record \(position 2\)"),
        ("position", 99_999, "names positions of .* that do not exist, such as 99999"),
        ("position", 0, "puts two images at one position"),
        ("position", None, "1 rows whose status and position do not go together"),
        ("shard", "train-00077-of-00078.tfrecord", "which is not a shard of this set"),
        ("shard", None, r"on the existence of 1 record \(position 2\)"),
        ("status", "empty", "1 rows whose status and split do not go together"),
        (
            "duplicate_group",
            99_999,
            "has other duplicate groups or kinds of copies",
        ),
        (
            "copy_kind",
            "turned",
            "has other duplicate groups or kinds of copies",
        ),
        ("duplicate_group", None, "1 rows whose status and duplicate_group do not go together"),
        ("turned_hash", None, "has other duplicate groups or kinds of copies"),
        ("pixel_hash", None, "has other duplicate groups or kinds of copies"),
    ],
)
def test_an_edited_manifest_is_named(
    folder: Path, column: str, value: Any, found: str, forged: bool
) -> None:
    row = place(folder, first_shard(folder), 2)
    rewrite_manifest(folder, **{column: set_to(row, value)})
    if forged:
        forge(folder)
    report = run(folder)
    text = told(report, folder / "manifest.parquet")
    assert re.search(found, text)
    assert ("another sha256" in text) is not forged
    assert named(report) <= {"manifest.parquet", "dataset.json"}
    assert forged or named(report) == {"manifest.parquet"}


def test_a_dropped_row_is_found(folder: Path) -> None:
    path = folder / "manifest.parquet"
    row = place(folder, first_shard(folder), 1)
    table = pq.read_table(path)
    shard_writer.write_manifest(path, table.filter(pc.not_equal(pa.array(range(len(table))), row)))
    forge(folder)
    report = run(folder)
    assert "on the existence of 1 record (position 1)" in told(report, path)
    assert "is wrong about files" in told(report, folder / "dataset.json")
    assert "is wrong about counts" in told(report, folder / "dataset.json")


def test_a_manifest_saved_by_another_program_is_named(folder: Path) -> None:
    path = folder / "manifest.parquet"
    frame = pq.read_table(path).to_pandas()
    frame.loc[place(folder, first_shard(folder), 0), "class"] = "Unknown"
    frame.to_parquet(path)  # its integers with gaps are floats now
    report = run(folder)
    assert named(report) == {"manifest.parquet"}
    assert "another sha256" in told(report, path)
    assert "on the class of 1 record (position 0)" in told(report, path)


@pytest.mark.parametrize("forged", [False, True], ids=["plain", "forged"])
def test_a_flipped_bit_in_the_manifest_is_found(folder: Path, forged: bool) -> None:
    path = folder / "manifest.parquet"
    chunk = pq.read_metadata(path).row_group(0).column(pq.read_schema(path).get_field_index("sha256"))
    flip(path, 8 * (chunk.data_page_offset + chunk.total_compressed_size // 2))
    if forged:  # only the page checksums are left
        forge(folder)
    report = run(folder)
    assert named(report) == {"manifest.parquet"}
    assert "cannot be read" in told(report, path)
    assert ("another sha256" in told(report, path)) is not forged


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"path,class\n"])
def test_a_manifest_that_is_none_is_found(folder: Path, content: bytes | None) -> None:
    path = folder / "manifest.parquet"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    report = run(folder)
    assert named(report) == {"manifest.parquet"}
    assert ("is missing" if content is None else "cannot be read") in told(report, path)
    assert report.records == 96


def test_a_manifest_without_a_column_is_found(folder: Path) -> None:
    path = folder / "manifest.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["split"]), path)
    assert "cannot be read (it has no column 'split')" in told(run(folder), path)


@pytest.mark.parametrize(
    ("entry", "change", "found"),
    [
        ("preprocessing_fingerprint", lambda _: "0" * 64, "preprocessing_fingerprint is 000"),
        ("preprocessing", lambda now: now | {"clahe_clip": 3.0}, "preprocessing_fingerprint is"),
        ("preprocessing", lambda now: now | {"size": 64}, "preprocessing_fingerprint is"),
        ("leaky", lambda _: True, "leaky is True, and by its other entries False"),
        (
            "counts",
            lambda now: now | {"test": {"Healthy": 1, "Tumor": 2}},
            "test has 3 images by",
        ),
        ("counts", lambda now: {"train": now["train"]}, "counts must have each of train, validation"),
        ("files", lambda now: now | {"found": 7}, "files is .* which does not add up"),
        ("files", lambda now: now | {"empty": 2, "truncated": 1}, "is wrong about files"),
        ("groups", lambda now: now | {"largest_group": 1}, "is wrong about groups"),
        ("split_by", lambda _: "patient", "split_by is 'patient'"),
        ("shared_between_splits", lambda now: now | {"groups": 3}, "says that 3 groups are in more"),
        ("shared_between_splits", lambda _: {}, "says that None sha256 are in more than one split"),
        ("comment", lambda _: "mine", "comment is mine, and by its other entries None"),
    ],
)
def test_an_edited_dataset_json_is_named(
    folder: Path, entry: str, change: Callable[[Any], Any], found: str
) -> None:
    edit(folder, **{entry: change(dataset(folder).get(entry))})
    report = run(folder)
    assert re.search(found, told(report, folder / "dataset.json"))
    assert report.records == 96


def shard_entry(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["shards"][0].update(entries)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.clear(),
        lambda value: value.update(schema_version=99),
        lambda value: value.update(shards=[]),
        lambda value: value.update(shards=value["shards"] + value["shards"][:1]),
        lambda value: value.update(counts=[1]),
        lambda value: value["counts"]["test"].update(Healthy="7"),
        lambda value: value["preprocessing"].update(size=7),
        lambda value: value["preprocessing"].update(decode_version=99),
        lambda value: value.update(classes=[1, 2]),
        shard_entry(name="../elsewhere.tfrecord"),
        shard_entry(records="7"),
        shard_entry(bytes=-1),
        shard_entry(sha256=None),
        shard_entry(unknown=1),
        lambda value: value.update(seed="0"),
    ],
)
def test_a_dataset_json_that_cannot_be_used_is_named(
    folder: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    value = dataset(folder)
    change(value)
    (folder / "dataset.json").write_text(json.dumps(value))
    report = run(folder)
    assert named(report) == {"dataset.json"}
    assert "cannot be used, so nothing else was checked" in told(report, folder / "dataset.json")
    assert "tumorbatch shard --overwrite" in report.problems[0].advice


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_dataset_json_that_is_no_json_is_named(folder: Path, content: bytes) -> None:
    (folder / "dataset.json").write_bytes(content)
    assert "cannot be used" in told(run(folder), folder / "dataset.json")


def test_all_problems_are_collected(folder: Path) -> None:
    missing, cut_off, flipped = sorted(folder.glob("train-*.tfrecord"))[:3]
    missing.unlink()
    cut_at_boundary(cut_off)
    flip_data(flipped)
    shutil.copy(flipped, folder / "other.tfrecord")
    rewrite_manifest(folder, status=lambda values: values.__setitem__(0, "empty"))
    edit(folder, leaky=True)
    report = run(folder)
    assert named(report) == {
        "dataset.json", "manifest.parquet", missing.name, cut_off.name, flipped.name, "other.tfrecord",
    }  # fmt: skip
    assert all(problem.file.parent == folder for problem in report.problems)


def test_a_leaky_set_that_says_so_is_sound(leaky_set: Path) -> None:
    assert all(dataset(leaky_set)["shared_between_splits"].values())
    assert run(leaky_set).problems == ()


def test_a_false_proof_is_found(leaky_set: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(leaky_set, tmp_path / "tfrecords"))
    true = dataset(folder)["shared_between_splits"]
    edit(folder, shared_between_splits=dict.fromkeys(true, 0))
    text = told(run(folder), folder / "dataset.json")
    for name, count in true.items():
        assert f"says that 0 {name} are in more than one split; the records say {count}." in text
    assert "promises" not in text
    edit(folder, split_by="group", leaky=False)
    report = run(folder)
    assert named(report) == {"dataset.json"}
    assert "promises a split by group, and the same images are in more" in str(report.problems[-1])


def test_a_leak_is_found_in_what_is_left_of_a_set(leaky_set: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(leaky_set, tmp_path / "tfrecords"))
    (gone,) = folder.glob("test-*.tfrecord")
    gone.unlink()
    report = run(folder)
    assert named(report) == {gone.name}  # fewer leaks than were counted then are no contradiction
    edit(
        folder,
        split_by="group",
        shared_between_splits={"sha256": 0, "pixels": 0, "groups": 0, "copies": 0},
    )
    text = told(run(folder), folder / "dataset.json")
    assert "promises a split by group" in text
    assert "says that 0 groups are in more than one split" in text
