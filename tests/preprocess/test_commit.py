"""The moment at which a shard set takes the place of another, as its readers and bad luck see it."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preprocess.sets import content_of, image_files, records_of, small_config, write_file
from tumorbatch import shardset
from tumorbatch.errors import OutputError, TryAgainError
from tumorbatch.preprocess import commit, first_pass, shard, verify
from tumorbatch.preprocess.shard import run
from tumorbatch.shardset import DATASET, MANIFEST, SHARD_NAME, WORK

if TYPE_CHECKING:
    from .conftest import Build


class _Killed(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_pass, "ordered_map", lambda function, chunks, *_: map(function, chunks))


@pytest.fixture
def raw(build: "type[Build]", tmp_path: Path) -> Path:
    for name, data in image_files(build, 8).items():
        write_file(tmp_path / "raw" / name, data)
    return tmp_path / "raw"


@pytest.fixture
def out(raw: Path, tmp_path: Path) -> Path:
    run(raw, tmp_path / "tfrecords", small_config())
    return tmp_path / "tfrecords"


@pytest.fixture
def grown(raw: Path, out: Path, build: "type[Build]", tmp_path: Path) -> dict[str, bytes]:
    """The content of the set that takes the place of `out`; `raw` is as it needs it."""
    for k in range(3):
        write_file(raw / "Healthy" / f"late {k}.png", build.png(build.smooth(40, 48, 700 + k)))
    shutil.copytree(out, tmp_path / "other")
    run(raw, tmp_path / "other", small_config())
    return content_of(tmp_path / "other")


def _stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    """Raise `error` in place of one of the commit's calls."""
    calls: list[str] = []
    begun = []

    def patched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if begun and ".lock" not in str(arguments[0]):
                calls.append(name)
                if len(calls) == step:
                    raise error
            return real(*arguments, **options)

        return call

    def begin(*arguments: Any) -> None:
        begun.append(True)
        commit.commit(*arguments)

    monkeypatch.setattr(shard, "commit", begin)
    for name in ("replace", "unlink", "fsync"):
        monkeypatch.setattr(os, name, patched(name, getattr(os, name)))


def _is_at_one(out: Path) -> None:
    """A reader that takes its names from dataset.json finds one set, whole."""
    dataset = shardset.load(out)
    table = shardset.manifest(out, dataset, "path", "shard", "position").to_pylist()
    rows = {(row["shard"], row["position"]): row["path"] for row in table if row["shard"]}
    found = {(name, at): record.filename for name, at, record in records_of(out, dataset)}
    assert found == rows
    assert verify.run(out).problems == ()


def _set_of(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in content_of(out).items() if not name.startswith(WORK)}


def test_killed_at_each_step_of_the_commit(
    raw: Path, out: Path, grown: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content_of(out)
    seen = set()
    for step in itertools.count(1):
        shutil.rmtree(out)
        for name, data in before.items():
            write_file(out / name, data)
        with monkeypatch.context() as patch:
            _stop_at(patch, step, _Killed())
            try:
                run(raw, out, small_config())
                break
            except _Killed:
                pass
        dataset = (out / DATASET).read_bytes()
        assert dataset in (before[DATASET], grown[DATASET])
        seen.add(dataset)
        _is_at_one(out)
        run(raw, out, small_config())
        assert content_of(out) == grown, step
    assert len(seen) == 2
    assert step > 8


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_an_error_at_each_step_of_the_commit(
    raw: Path, out: Path, grown: dict[str, bytes], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old set, untouched and alone; or the new one, and the sentence says so."""
    before = content_of(out)
    for step in itertools.count(1):
        shutil.rmtree(out)
        for name, data in before.items():
            write_file(out / name, data)
        with monkeypatch.context() as patch:
            _stop_at(patch, step, OSError(number, os.strerror(number)))
            try:
                run(raw, out, small_config())
                break
            except OutputError as error:
                told = str(error)
        if "is in its place and whole" in told:
            assert (out / DATASET).read_bytes() == grown[DATASET]
        else:
            assert _set_of(out) == before
        _is_at_one(out)
        run(raw, out, small_config())
        assert content_of(out) == grown, step
    assert step > 8


def test_two_generations_share_no_name_unless_the_file_is_the_same(
    out: Path, grown: dict[str, bytes], tmp_path: Path
) -> None:
    before = content_of(out)
    shared = {name for name in before.keys() & grown.keys() if SHARD_NAME.fullmatch(name)}
    assert all(before[name] == grown[name] for name in shared)
    assert before[MANIFEST] != grown[MANIFEST]


def test_a_reader_of_the_old_set_never_reads_the_new_one(
    raw: Path, out: Path, grown: dict[str, bytes]
) -> None:
    old = shardset.load(out)
    run(raw, out, small_config())
    with pytest.raises(TryAgainError, match="was replaced by another run"):
        shardset.manifest(out, old, "path")
    assert shardset.was_replaced(out, old)
    assert not shardset.was_replaced(out, shardset.load(out))


def test_a_set_that_is_replaced_while_it_is_loaded_is_loaded_anew(
    raw: Path, out: Path, grown: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shardset.read
    replaced = []

    def read(path: Path) -> shardset.Dataset:
        dataset = real(path)
        if not replaced:
            replaced.append(dataset)
            run(raw, out, small_config())
        return dataset

    monkeypatch.setattr(shardset, "read", read)
    assert shardset.load(out).manifest_sha256 != replaced[0].manifest_sha256


def test_a_training_whose_set_is_replaced_ends_with_a_sentence(
    raw: Path, out: Path, grown: dict[str, bytes]
) -> None:
    from tumorbatch.runtime import load_tensorflow

    load_tensorflow()
    from tumorbatch import shard_reader

    old = shardset.load(out)
    run(raw, out, small_config())
    with pytest.raises(TryAgainError, match="starts again with --overwrite"):
        shard_reader.read_split(out, old, "train")


def _as_the_first_version_wrote_it(out: Path) -> None:
    """Shards without digits in their names, in the manifest and in dataset.json."""
    value = json.loads((out / DATASET).read_bytes())
    names = {entry["name"]: f"{entry['name'][:-18]}.tfrecord" for entry in value["shards"]}
    for entry in value["shards"]:
        (out / entry["name"]).rename(out / names[entry["name"]])
        entry["name"] = names[entry["name"]]
    table = pq.read_table(out / MANIFEST)
    column = [name and names[name] for name in table["shard"].to_pylist()]
    at = table.column_names.index("shard")
    table = table.set_column(at, "shard", pa.array(column, pa.string()))
    pq.write_table(table, out / MANIFEST, compression="zstd", write_page_checksum=True)
    value["manifest_sha256"] = shardset.file_sha256(out / MANIFEST)
    (out / DATASET).write_text(json.dumps(value))


def test_a_set_of_the_first_version_is_read_and_brought_up_to_date(
    raw: Path, out: Path, grown: dict[str, bytes]
) -> None:
    _as_the_first_version_wrote_it(out)
    assert (out / "train-00000-of-00001.tfrecord").is_file()
    _is_at_one(out)
    assert run(raw, out, small_config()).changes == {"kept": 17, "new": 3}
    assert content_of(out) == grown  # the old names are gone
