"""Copies across two shard sets, from manifests that say what they hold."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tumorbatch.errors import InputError
from tumorbatch.preprocess.overlap import BYTES, NEAR, PIXELS, copies

Row = tuple[str, str | None, str | None, str | None, int | None]  # path, split, three hashes


def _manifest(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir()
    paths, splits, files, pixels, words = zip(*rows, strict=True)
    table = pa.table(
        {
            "path": pa.array(paths, pa.string()),
            "split": pa.array(splits, pa.string()),
            "sha256": pa.array(files, pa.string()),
            "pixel_hash": pa.array(pixels, pa.string()),
            "perceptual_hash": [None if word is None else f"{word:016x}" for word in words],
        }
    )
    pq.write_table(table, folder / "manifest.parquet")
    return folder


def test_each_copy_is_known_by_the_surest_of_three_hashes(tmp_path: Path) -> None:
    far = 0xFFFF << 40
    seen = _manifest(
        tmp_path / "seen",
        [
            ("a", "train", "file-a", "pixels-a", 1),
            ("b", "validation", "file-b", "pixels-b", far),
            ("c", "test", "file-c", "pixels-c", far << 8),
            ("bad", None, None, None, None),
        ],
    )
    judged = _manifest(
        tmp_path / "judged",
        [
            ("same file", "train", "file-a", "pixels-a", 1),
            ("same pixels", "test", "file-1", "pixels-b", far),
            ("four bits", "test", "file-2", "pixels-2", 1 ^ 0b11110),
            ("five bits", "test", "file-3", "pixels-3", 1 ^ 0b111110),
            ("the other's test", "train", "file-c", "pixels-c", far << 8),
            ("broken", None, None, None, None),
        ],
    )
    expected = {"same file": BYTES, "same pixels": PIXELS, "four bits": NEAR}
    assert copies(judged, seen, ("train", "validation")) == expected
    assert copies(judged, seen) == expected | {"the other's test": BYTES}
    assert copies(judged, judged) == {
        "same file": BYTES, "same pixels": BYTES, "four bits": BYTES, "five bits": BYTES,
        "the other's test": BYTES,
    }  # fmt: skip


def test_near_copies_are_those_of_a_loop_over_all_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 1 << 63, 40, np.uint64)
    flips = [int(np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, bits).astype(np.uint64)))
             for bits in rng.integers(1, 9, 40)]  # fmt: skip
    near = [int(word) ^ flip for word, flip in zip(base, flips, strict=True)]
    seen = _manifest(
        tmp_path / "seen", [(str(i), "train", f"s{i}", f"s{i}", int(w)) for i, w in enumerate(base)]
    )
    judged = _manifest(
        tmp_path / "judged", [(str(i), "test", f"j{i}", f"j{i}", w) for i, w in enumerate(near)]
    )
    expected = {
        str(index): NEAR
        for index, word in enumerate(near)
        if any((word ^ int(other)).bit_count() <= 4 for other in base)
    }
    assert 0 < len(expected) < 40
    assert copies(judged, seen) == expected


def test_a_damaged_manifest_is_a_sentence(tmp_path: Path) -> None:
    good = _manifest(tmp_path / "good", [("a", "train", "a", "a", 1)])
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"bad/manifest\.parquet is missing or damaged"):
        copies(good, bad)
