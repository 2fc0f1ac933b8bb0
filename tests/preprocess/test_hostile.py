"""Every hostile file is one row with its reason, and no good file notices."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.preprocess.hostile import write_corpus
from tests.preprocess.sets import SIZE, by_path, image_files, records_of, write_file
from tumorbatch import shardset
from tumorbatch.errors import ExitCode
from tumorbatch.preprocess import verify
from tumorbatch.status import Status

if TYPE_CHECKING:
    from tests.conftest import Cli, Invoke
    from tests.preprocess.conftest import Build


@pytest.fixture(scope="module")
def folders(build: "type[Build]", tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source of good files alone, and the same with the corpus among them."""
    base = tmp_path_factory.mktemp("hostile")
    for folder in ("good", "mixed"):
        for name, data in image_files(build, 16).items():
            write_file(base / folder / name, data)
    return base / "good", base / "mixed"


def test_shard(folders: tuple[Path, Path], tmp_path: Path, build: "type[Build]", cli: "Cli") -> None:
    good, mixed = folders
    expected = {f"Healthy/{name}": of for name, of in write_corpus(mixed / "Healthy", build).items()}
    assert len(expected) >= 60
    done = cli("shard", mixed, tmp_path / "mixed", "--size", SIZE, "--workers", 2)
    assert done.returncode == ExitCode.SOME_ERRORS, done.stderr
    assert "Traceback" not in done.stderr
    clean = cli("shard", good, tmp_path / "good", "--size", SIZE, "--workers", 2)
    assert clean.returncode == ExitCode.OK, clean.stderr
    rows, alone = by_path(tmp_path / "mixed"), by_path(tmp_path / "good")
    assert rows.keys() == expected.keys() | alone.keys()
    told = {path: Status(rows[path]["status"]) for path in expected}
    assert {path: (of, rows[path]["error"]) for path, of in told.items() if of != expected[path]} == {}
    assert all(rows[path]["error"] for path in expected)
    assert all(rows[path]["split"] is None for path in expected)
    for path, row in alone.items():  # shards have names by their number: all else is the same
        assert rows[path] == row
    pixels = [
        {record.filename: record.pixels for _, _, record in records_of(out, shardset.load(out))}
        for out in (tmp_path / "mixed", tmp_path / "good")
    ]
    assert pixels[0] == pixels[1]
    assert verify.run(tmp_path / "mixed").problems == ()


def test_infer(
    folders: tuple[Path, Path], tmp_path: Path, model: Path, build: "type[Build]", invoke: "Invoke"
) -> None:
    """The same rows, the same reasons, and the same figures for the good ones."""
    good, mixed = folders
    if not (mixed / "Healthy" / "fifo.png").exists():
        write_corpus(mixed / "Healthy", build)
    tables = []
    for folder in (good, mixed):
        out = tmp_path / f"{folder.name}.parquet"
        code, _ = invoke("infer", folder, out, "--model", model, "--workers", 2, "--all-files")
        tables.append({row["path"]: row for row in pq.read_table(out).to_pylist()})
    assert code == ExitCode.SOME_ERRORS
    invoke("shard", mixed, tmp_path / "shards", "--size", SIZE)
    manifest = by_path(tmp_path / "shards")
    assert tables[1].keys() == manifest.keys()
    for path, row in tables[1].items():
        assert (row["status"], row["error"]) == (manifest[path]["status"], manifest[path]["error"])
    for path, row in tables[0].items():
        other = tables[1][path]
        assert other["label"] == row["label"]
        assert other["logit"] == pytest.approx(row["logit"], abs=1e-5)
    assert os.listdir(tmp_path).count("mixed.parquet") == 1
