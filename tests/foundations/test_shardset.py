"""dataset.json: what `train` trusts before it opens a shard."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tumorbatch.atomic import write_json
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.shardset import DATASET, Dataset, Shard, file_sha256, load, read

DATA = bytes(11 * 1024 + 20)  # at least a byte for each pixel of 10 or 11 images
SHARDS = tuple(
    Shard(f"{split}-0000{number}-of-00002.tfrecord", split, 10 + number, len(DATA), "ab" * 32)
    for split in ("train", "validation", "test")
    for number in (0, 1)
)
MADE = Dataset(
    preprocessing=Preprocessing(size=32),
    classes=("Healthy", "Tumor"),
    split_by="group",
    patient_id=True,
    fractions={"train": 0.7, "validation": 0.15, "test": 0.15},
    seed=3,
    shard_bytes=1000,
    counts={split: {"Healthy": 10, "Tumor": 11} for split in ("train", "validation", "test")},
    files={"found": 3, "ok": 3},
    groups={"groups": 3},
    shared={"sha256": 0, "pixels": 0, "groups": 0},
    patients="ef" * 32,
    updates=2,
    shards=SHARDS,
    manifest_sha256="cd" * 32,
    versions={"tumorbatch": "0"},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tfrecords"
    folder.mkdir()
    for shard in SHARDS:
        (folder / shard.name).write_bytes(DATA)
    write_json(folder / DATASET, MADE.to_dict())
    return folder


def _edit(folder: Path, **changes: Any) -> None:
    value = json.loads((folder / DATASET).read_bytes()) | changes
    kept = {name: field for name, field in value.items() if field is not ...}
    (folder / DATASET).write_text(json.dumps(kept))


def test_round_trip(folder: Path) -> None:
    assert load(folder) == MADE
    value = json.loads((folder / DATASET).read_bytes())
    assert value["schema_version"] == 2
    assert value["preprocessing_fingerprint"] == MADE.preprocessing.fingerprint
    assert value["leaky"] is False


def test_splits_and_counts() -> None:
    assert [shard.name for shard in MADE.split("test")] == [
        "test-00000-of-00002.tfrecord",
        "test-00001-of-00002.tfrecord",
    ]
    assert MADE.records("train") == 21
    assert MADE.records("other") == 0


def test_what_is_leaky() -> None:
    assert not MADE.leaky
    assert not replace(MADE, split_by="shape").leaky
    assert replace(MADE, split_by="file").leaky
    for name in MADE.shared:  # the proof counts, whatever was intended
        assert replace(MADE, shared=MADE.shared | {name: 1}).leaky


def test_a_missing_folder_and_an_unfinished_set(folder: Path) -> None:
    with pytest.raises(InputError, match="Make the shards first: `tumorbatch shard`"):
        load(folder / "missing")
    (folder / DATASET).unlink()
    with pytest.raises(InputError, match=r"has no dataset\.json: the shard set is not finished"):
        load(folder)


def test_a_missing_shard(folder: Path) -> None:
    path = folder / SHARDS[3].name
    path.unlink()
    with pytest.raises(InputError, match=f"{path} is missing"):
        load(folder)


@pytest.mark.parametrize("content", [b"", DATA[:-1], DATA + b"x"])
def test_a_shard_of_another_size(folder: Path, content: bytes) -> None:
    path = folder / SHARDS[3].name
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=f"{path} has {len(content):,} bytes and should have {len(DATA):,}"
    ):
        load(folder)


def test_a_truncated_dataset_json(folder: Path) -> None:
    whole = (folder / DATASET).read_bytes().rstrip()
    for length in range(0, len(whole), 11):
        (folder / DATASET).write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"{folder / DATASET} is damaged"):
            load(folder)


@pytest.mark.parametrize("value", [b"[]", b"null", b"1", b'"text"', b"\xff\xfe", b"{}"])
def test_another_kind_of_json(folder: Path, value: bytes) -> None:
    (folder / DATASET).write_bytes(value)
    with pytest.raises(InputError, match="is damaged"):
        read(folder / DATASET)


@pytest.mark.parametrize("field", ["schema_version", "shards", "counts", "seed", "preprocessing"])
def test_a_missing_field(folder: Path, field: str) -> None:
    _edit(folder, **{field: ...})
    with pytest.raises(InputError, match=f"is damaged.*{field}"):
        load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shards", [{"name": "a"}]),
        ("shards", [3]),
        ("shards", None),
        ("counts", []),
        ("counts", {"train": 3}),
        ("fractions", 3),
        ("seed", "three"),
    ],
)
def test_a_field_of_another_type(folder: Path, field: str, value: Any) -> None:
    _edit(folder, **{field: value})
    with pytest.raises(InputError, match="is damaged"):
        load(folder)


def test_another_schema_version(folder: Path) -> None:
    _edit(folder, schema_version=3)
    with pytest.raises(ConfigError, match="has format version 3; this tumorbatch reads 1 and 2"):
        load(folder)


def test_a_set_of_the_first_version_is_read_and_called_leaky_orientation(folder: Path) -> None:
    _edit(folder, schema_version=1)
    old = load(folder)
    assert old == replace(MADE, schema_version=1)
    assert (old.leak, old.leaky, old.has_signatures) == ("leaky-orientation", True, False)
    assert old.to_dict()["leaky"] is False  # as it stands in the file
    assert replace(old, split_by="file").leak == "leaky"
    assert (MADE.leak, MADE.has_signatures) == (None, True)


def test_file_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000))
    assert file_sha256(path) == hashlib.sha256(bytes(300_000)).hexdigest()
