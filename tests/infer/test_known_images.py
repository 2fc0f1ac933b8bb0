"""Rows of images that the model was trained or tuned on, and of their copies, say so."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.bundles import rewrite
from tumorbatch import bundle
from tumorbatch.errors import ExitCode
from tumorbatch.known_images import FLAGS

pytestmark = pytest.mark.usefixtures("in_process")


def _flags(table: Path) -> dict[str, set[str]]:
    rows = pq.read_table(table).to_pylist()
    return {row["path"]: set(row["flags"] or ()) & set(FLAGS) for row in rows}


def test_images_of_the_training_and_their_copies_are_flagged(
    model: Path, sample: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    rows = pq.read_table(shard_set / "manifest.parquet").to_pylist()
    chosen = {
        split: [row["path"] for row in rows if row["split"] == split and row["format"] == "jpeg"][:4]
        for split in ("train", "validation", "test")
    }
    folder = tmp_path / "scans"
    folder.mkdir()
    for split, paths in chosen.items():
        for number, path in enumerate(paths):
            shutil.copy(sample / path, folder / f"{split}-{number}{Path(path).suffix}")
            if split == "train":
                data = np.frombuffer((sample / path).read_bytes(), np.uint8)
                grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
                _, png = cv2.imencode(".png", grey[:, ::-1])
                (folder / f"mirrored-{number}.png").write_bytes(png)
    _, noise = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8))
    (folder / "noise.png").write_bytes(noise)
    out = tmp_path / "out.parquet"
    assert invoke("infer", folder, out, "--model", model, "--workers", 2)[0] == ExitCode.OK
    flags = _flags(out)
    for path, found in flags.items():
        kind = path.split("-")[0]
        if kind in ("train", "validation", "mirrored", "noise.png"):
            expected = {
                "train": {"trained-on"}, "validation": {"validated-on"},
                "mirrored": {"copy-of-training"}, "noise.png": set(),
            }[kind]  # fmt: skip
            assert found == expected, path
    assert len(flags) == 17  # four of each split, four mirrored ones, and noise


def test_a_bundle_without_its_images_flags_none(
    model: Path, sample: Path, tmp_path: Path, invoke: Any
) -> None:
    """One from before, and one of a training with --known-images off."""
    plain = Path(shutil.copytree(model, tmp_path / "plain"))
    rewrite(plain, known_images_sha256="")
    (plain / bundle.KNOWN_IMAGES).unlink()
    out = tmp_path / "out.parquet"
    code, _ = invoke("infer", sample, out, "--model", plain, "--workers", 2)
    assert code == ExitCode.SOME_ERRORS  # the sample's broken files
    assert not any(_flags(out).values())
