"""A shard set whose images several tasks have read equals that of one machine, byte for byte."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.preprocess.conftest import Build
from tests.preprocess.dicom.test_stages import dicom_slice
from tests.preprocess.sets import content_of, image_files, rows_of, small_config, write_file
from tumorbatch import parts
from tumorbatch.errors import ConfigError, ExitCode, InputError, TryAgainError
from tumorbatch.lock import lock_inside, output_lock
from tumorbatch.parts import Part, find_chunks
from tumorbatch.preprocess import engine, first_pass, shard
from tumorbatch.preprocess.part import run_part
from tumorbatch.shardset import WORK


@pytest.fixture(autouse=True)
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Chunks of seven files, read in this process; return the names of the files that were read."""
    names: list[str] = []

    def in_this_process(work: Any, chunks: Any, *_: object) -> Iterator[Any]:
        for tasks in chunks:
            names.extend(task.source.file.name for task in tasks)
            yield work(tasks)

    monkeypatch.setenv(parts.ENVIRONMENT, "7")
    for module in (engine, first_pass):
        monkeypatch.setattr(module, "ordered_map", in_this_process)
    return names


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen images a class, some of them copies, and broken files."""
    folder = tmp_path_factory.mktemp("source") / "raw"
    for name, data in image_files(Build, 13).items():
        write_file(folder / name, data)
    write_file(folder / "Healthy" / "broken.png", b"\x89PNG\r\n\x1a\n and no more")
    write_file(folder / "Brain Tumor" / "empty.jpg", b"")
    return folder


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> dict[str, bytes]:
    """The set of one machine."""
    shard.run(source, tmp_path / "one", small_config())
    return content_of(tmp_path / "one")


def test_parts_and_the_finisher_make_the_set_of_one_machine(
    source: Path, tmp_path: Path, expected: Any, read: list[str]
) -> None:
    out = tmp_path / "out"
    read.clear()
    reports = [run_part(source, out, small_config(), Part(number, 3)) for number in (3, 1, 2)]
    assert sum(report.chunks for report in reports) == 5  # of 29 files
    assert sum(report.files for report in reports) == len(read) == 29
    assert sum(report.errors for report in reports) == 2
    key = out / WORK / "patients.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in out.iterdir()] == [WORK]  # nothing is published
    read.clear()
    report = shard.run(source, out, small_config())
    assert read == []
    assert report.taken_over == 29
    assert content_of(out) == expected


def test_what_is_missing_or_damaged_is_read_by_the_finisher(
    source: Path, tmp_path: Path, expected: Any, read: list[str]
) -> None:
    out = tmp_path / "out"
    run_part(source, out, small_config(), Part(2, 5))
    run_part(source, out, small_config(), Part(1, 2))  # the first two chunks, one of which is there
    assert sorted(find_chunks(out / WORK)) == [0, 1]
    read.clear()
    assert run_part(source, out, small_config(), Part(1, 2)).chunks_kept == 2
    assert read == []
    run_part(source, out, small_config(), Part(1, 1))
    (rows,) = find_chunks(out / WORK)[2]
    rows.write_bytes(rows.read_bytes()[:-1])
    (rows,) = find_chunks(out / WORK)[3]
    records = rows.with_suffix(".records")
    records.write_bytes(records.read_bytes()[:-1])
    read.clear()
    shard.run(source, out, small_config())
    assert len(read) == 7 + 7
    assert content_of(out) == expected


def test_a_source_that_grows_between_two_tasks_is_listed_once_and_updated_later(
    source: Path, tmp_path: Path, read: list[str]
) -> None:
    folder, out, one = tmp_path / "raw", tmp_path / "out", tmp_path / "one"
    shutil.copytree(source, folder)
    run_part(folder, out, small_config(), Part(2, 2))
    shard.run(folder, one, small_config())
    write_file(folder / "Healthy" / "000a.png", Build.png(Build.smooth(40, 48, 77)))
    run_part(folder, out, small_config(), Part(1, 2))
    shard.run(folder, out, small_config())
    assert content_of(out) == content_of(one)
    # The next run updates the set; its tasks take what the set has.
    for number in (1, 2):
        run_part(folder, out, small_config(), Part(number, 2))
    report = shard.run(folder, out, small_config())
    assert (report.changes["new"], report.dataset.updates) == (1, 1)
    shard.run(folder, one, small_config())
    assert content_of(out) == content_of(one)
    assert len(rows_of(out)) == 30


def test_patients_have_one_key(tmp_path: Path) -> None:
    source, out, one = tmp_path / "raw", tmp_path / "out", tmp_path / "one"
    for seed in range(24):
        folder = ("Healthy", "Brain Tumor")[seed % 2]
        data = dicom_slice(seed, patient=f"P{seed // 3}")
        write_file(source / folder / f"{seed:02}.dcm", data)
    for number in (1, 2, 3):
        run_part(source, out, small_config(), Part(number, 3))
    shard.run(source, out, small_config())
    shard.run(source, one, small_config())
    assert content_of(out) == content_of(one)
    # Three slices each, in several chunks.
    assert len({row["duplicate_group"] for row in rows_of(out)}) == 8


def test_another_job_a_running_part_and_a_running_finisher(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_part(source, out, small_config(), Part(1, 3))
    with pytest.raises(ConfigError, match="seed: 0 then, 1 now"):
        run_part(source, out, small_config(seed=1), Part(2, 3))
    with pytest.raises(ConfigError, match="seed: 0 then, 1 now"):
        shard.run(source, out, small_config(seed=1))
    with output_lock(out, out / WORK / Part(2, 3).name("lock")):
        with pytest.raises(TryAgainError, match="part 2/3 of"):
            run_part(source, out, small_config(), Part(2, 3))
        with pytest.raises(TryAgainError, match="part 2/3 is running"):
            shard.run(source, out, small_config())
    with (
        output_lock(out, lock_inside(out)),
        pytest.raises(TryAgainError, match="no part of it can be computed meanwhile"),
    ):
        run_part(source, out, small_config(), Part(2, 3))
    run_part(source, out, small_config(seed=1, overwrite=True), Part(1, 3))
    assert shard.run(source, out, small_config(seed=1, overwrite=True)).dataset.seed == 1


def test_a_missing_source_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        run_part(tmp_path / "absent", tmp_path / "out", small_config(), Part(1, 3))
    assert list(tmp_path.iterdir()) == []


def test_the_command(source: Path, tmp_path: Path, invoke: Any) -> None:
    out = tmp_path / "out"
    command = ("shard", source, out, "--size", 32, "--workers", 1)
    code, output = invoke(*command, "--part", "2/5")
    assert code == ExitCode.SOME_ERRORS
    assert "Part 2/5: 1 chunk, 7 files; errors: 1 empty." in output
    assert f"Next: tumorbatch status {out}" in output
    code, output = invoke("status", out)
    assert (code, "5 parts: 1 done, 4 never started; 1 of 5 chunks computed" in output) == (0, True)
    assert invoke(*command, "--quiet") == (ExitCode.SOME_ERRORS, "")
    assert "is there, and no part" in invoke("status", out)[1]
