"""The column and the flag `unfamiliar`; tables of earlier versions."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.bundles import rewrite
from tests.infer.earlier import rewrite_as_version_2
from tumorbatch import bundle
from tumorbatch.errors import ExitCode
from tumorbatch.familiarity import read, to_bytes
from tumorbatch.infer import verify
from tumorbatch.infer.predictions import SCHEMA, iterate_rows


@pytest.fixture
def pictures(sample: Path, tmp_path: Path) -> Path:
    """Three images of the sample, and noise."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, path in enumerate(sorted(sample.rglob("*.png"))[:3]):
        shutil.copy(path, folder / f"brain{number}.png")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    (folder / "noise.png").write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    return folder


def test_it_is_the_last_column_from_0_to_1(
    model: Path, pictures: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "out.parquet"
    code, output = invoke("infer", pictures, out, "--model", model, "--workers", 1)
    assert code == ExitCode.OK, output
    assert pq.read_schema(out).names[-1] == SCHEMA.names[-1] == "unfamiliar"
    values = [row["unfamiliar"] for row in iterate_rows(out)]
    assert len(values) == 4
    assert all(0 <= value <= 1 for value in values)
    assert "Unfamiliar images" in (model / bundle.CARD).read_text()


def test_the_flag_is_that_of_the_limit(
    model: Path, pictures: Path, tmp_path: Path, invoke: Any
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "strict"))
    path = folder / bundle.FAMILIARITY
    (one,) = read(path, bundle.load(folder).familiarity_sha256)
    one.limit[:] = 1e-6
    data = to_bytes([one])
    path.write_bytes(data)
    import hashlib

    rewrite(folder, familiarity_sha256=hashlib.sha256(data).hexdigest())
    out = tmp_path / "out.parquet"
    assert invoke("infer", pictures, out, "--model", folder, "--workers", 1)[0] == ExitCode.OK
    assert all("unfamiliar" in row["flags"] for row in iterate_rows(out))


def test_bundles_without_it_give_null_and_their_old_tables_are_continued(
    model: Path, pictures: Path, tmp_path: Path, invoke: Any
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "old"))
    rewrite(folder, familiarity_sha256="")
    (folder / bundle.FAMILIARITY).unlink()
    out = tmp_path / "out.parquet"
    command = ("infer", pictures, out, "--model", folder, "--workers", 1)
    assert invoke(*command)[0] == ExitCode.OK
    assert {row["unfamiliar"] for row in iterate_rows(out)} == {None}
    rewrite_as_version_2(out)
    assert not [text for text in verify.run(out).problems if "columns" in text]
    (pictures / "new.png").write_bytes((pictures / "brain0.png").read_bytes())
    code, output = invoke(*command, "--incremental")
    assert code == ExitCode.OK, output
    assert [row["path"] for row in iterate_rows(out)] == [
        "brain0.png", "brain1.png", "brain2.png", "new.png", "noise.png"
    ]  # fmt: skip
    assert verify.run(out).problems == ()
    flags = {row["path"]: row["flags"] for row in iterate_rows(out)}
    assert flags["new.png"] == sorted([*flags["brain0.png"], "duplicate"])
