"""Test-time augmentation: the mean logit of an image and its mirror, told by id and footer."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tumorbatch import bundle
from tumorbatch.bundle_weights import load_network
from tumorbatch.errors import ExitCode
from tumorbatch.infer.predictions import read_metadata
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import scorer

CPU = Runtime("cpu", "float32", False, 1, "for a test")


def test_the_logit_is_the_mean_of_the_image_and_its_mirror(model: Path) -> None:
    network = load_network(model, bundle.load(model))
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    plain = scorer(network, 4, CPU)
    expected = (plain(images) + plain(images[:, :, ::-1].copy())) / 2
    flipped = scorer(network, 4, CPU, "flip")(images)
    np.testing.assert_allclose(flipped, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(flipped - plain(images)).max() > 1e-4


def test_infer_and_evaluate_take_it(
    model: Path, sample: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "cnn1"))
    plain = bundle.load(folder)
    table = tmp_path / "flipped.parquet"
    code, output = invoke("infer", sample, table, "--model", folder, "--workers", 1, "--tta", "flip")
    assert code == ExitCode.SOME_ERRORS, output
    assert "chosen with --tta none" in output
    footer = read_metadata(table)
    assert footer["tta"] == "flip"
    assert footer["model_id"] == plain.with_tta("flip").model_id != plain.model_id
    code, output = invoke(
        "evaluate",
        folder,
        shard_set,
        "--out",
        tmp_path / "out",
        "--tta",
        "flip",
        "--gallery",
        0,
        "--freeze",
    )
    assert code == ExitCode.OK, output
    frozen = bundle.load(folder)
    assert (frozen.tta, frozen.temperature == plain.temperature) == ("flip", False)
    assert "two, as it is and mirrored" in (folder / bundle.CARD).read_text()
    # From here on it is the bundle's own; and a table of the old model is not continued.
    code, output = invoke("infer", sample, table, "--model", folder, "--workers", 1)
    assert (code, "this run would use" in output) == (ExitCode.USAGE, True)
    code, output = invoke("infer", sample, tmp_path / "own.parquet", "--model", folder, "--workers", 1)
    assert code == ExitCode.SOME_ERRORS, output
    first, second = (
        pq.read_table(path)["logit"].to_pylist() for path in (table, tmp_path / "own.parquet")
    )
    assert first == second


def test_a_bundle_that_names_another_tta_is_refused(model: Path, tmp_path: Path, invoke: Any) -> None:
    from tests.bundles import rewrite

    folder = Path(shutil.copytree(model, tmp_path / "cnn1"))
    rewrite(folder, tta="rotate")
    code, output = invoke("infer", tmp_path, tmp_path / "x.parquet", "--model", folder)
    assert (code, "has another tta than none, flip" in output) == (ExitCode.NO_INPUT, True)
