"""Copies across two shard sets, from manifests that say what they hold."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pictures import head
from tumorbatch.copies import SIGNATURE_BYTES, signature
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.orientation import orient
from tumorbatch.preprocess.overlap import copies
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.shardset import DATASET, MANIFEST, Dataset, Shard, file_sha256

Row = tuple[str, str | None, str | None, str | None, str | None, bytes | None]

HEADS = [head(seed) for seed in range(6)]
SEEN: list[Row] = [
    ("a", "train", "file-a", "pixels-a", "turned-a", signature(HEADS[0])),
    ("b", "validation", "file-b", "pixels-b", "turned-b", signature(HEADS[1])),
    ("c", "train", "file-c", "pixels-c", "turned-c", signature(HEADS[2])),
    ("d", "train", "file-d", "pixels-d", "turned-d", signature(HEADS[3])),
    ("e", "test", "file-e", "pixels-e", "turned-e", signature(HEADS[4])),
    ("bad", None, None, None, None, None),
]


def _digits(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def _set(folder: Path, rows: list[Row], **changes: Any) -> Path:
    """A folder with dataset.json and a manifest, and no shards."""
    folder.mkdir()
    names = ("path", "split", "sha256", "pixel_hash", "turned_hash")
    *texts, signatures = zip(*rows, strict=True)
    columns = {
        name: pa.array(map(_digits, text) if name in names[2:] else text, pa.string())
        for name, text in zip(names, texts, strict=True)
    }
    columns["signature"] = pa.array(signatures, pa.binary(SIGNATURE_BYTES))
    pq.write_table(pa.table(columns), folder / MANIFEST)
    dataset = Dataset(
        preprocessing=Preprocessing(), classes=("Healthy", "Tumor"), split_by="group",
        patient_id=True, fractions={}, seed=0, shard_bytes=1,
        counts={split: {"Healthy": 1, "Tumor": 1} for split in SPLITS}, files={}, groups={},
        shared={}, patients=None, updates=0, shards=(Shard("train-0", "train", 1, 1, "0" * 64),),
        manifest_sha256=file_sha256(folder / MANIFEST), versions={},
    )  # fmt: skip
    (folder / DATASET).write_text(json.dumps(dataset.to_dict() | changes))
    return folder


def test_each_copy_is_known_by_the_surest_kind(tmp_path: Path) -> None:
    seen = _set(tmp_path / "seen", SEEN)
    darker = (np.ascontiguousarray(orient(HEADS[3], 5)) * 0.7).astype(np.uint8)
    judged = _set(
        tmp_path / "judged",
        [
            ("same file", "train", "file-a", "pixels-a", "turned-a", signature(HEADS[0])),
            ("same pixels", "test", "file-1", "pixels-b", "turned-b", signature(HEADS[1])),
            ("turned", "test", "file-2", "p-2", "turned-c", signature(HEADS[2][::-1].copy())),
            ("altered", "test", "file-3", "p-3", "t-3", signature(darker)),
            ("the other's test", "train", "file-e", "pixels-e", "turned-e", signature(HEADS[4])),
            ("its own", "train", "file-5", "pixels-5", "turned-5", signature(HEADS[5])),
            ("broken", None, None, None, None, None),
        ],
    )
    expected = {
        "same file": "bytes",
        "same pixels": "pixels",
        "turned": "turned",
        "altered": "altered",
    }
    assert copies(judged, seen, ("train", "validation")) == expected
    assert copies(judged, seen) == expected | {"the other's test": "bytes"}
    assert set(copies(judged, judged).values()) == {"bytes"}


def test_a_set_of_the_first_version_cannot_be_searched(tmp_path: Path) -> None:
    new, old = _set(tmp_path / "new", SEEN), _set(tmp_path / "old", SEEN, schema_version=1)
    for pair in ((new, old), (old, new)):
        with pytest.raises(ConfigError, match=r"old cannot be searched.*tumorbatch shard --overwrite"):
            copies(*pair)


def test_a_damaged_manifest_is_a_sentence(tmp_path: Path) -> None:
    good, bad = _set(tmp_path / "good", SEEN), _set(tmp_path / "bad", SEEN)
    (bad / MANIFEST).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"bad/manifest\.parquet is damaged"):
        copies(good, bad)
