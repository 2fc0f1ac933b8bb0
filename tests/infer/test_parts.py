"""A table that several tasks compute equals that of one machine."""

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from tests.bundles import rewrite
from tests.infer.earlier import rewrite_as_version_2
from tests.infer.stub import use_stub, write_bundle, write_images
from tumorbatch import lock, parts, stores
from tumorbatch.errors import ConfigError, ExitCode, InputError, TryAgainError
from tumorbatch.file_list import Manifest, write_as_listed
from tumorbatch.files import FoundFile
from tumorbatch.infer import batching, inference, plan
from tumorbatch.infer.config import Config
from tumorbatch.infer.listing import Selection
from tumorbatch.infer.network import Network
from tumorbatch.infer.predictions import iterate_rows, read_metadata
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.object_path import ObjectPath
from tumorbatch.parts import Part, find_chunks, read_frozen
from tumorbatch.workflows import plans

ROOT = Path(__file__).resolve().parents[2]
FILES = 24


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some images, two of them alike, and a broken file."""
    folder = tmp_path_factory.mktemp("parts") / "images"
    write_images(folder, FILES - 2)
    shutil.copy(folder / "0003.png", folder / "0099.png")
    (folder / "0007a.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model")


@pytest.fixture(autouse=True)
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Chunks of five files, and the sizes of the batches."""
    monkeypatch.setenv(parts.ENVIRONMENT, "5")
    return use_stub(monkeypatch)


def _area(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def _config(part: tuple[int, int] | None = None, **more: Any) -> Config:
    return Config(workers=1, batch_size=4, part=Part(*part) if part else None, **more)


def _values(out: Path) -> list[dict[str, Any]]:
    return [{**row, "run_id": ""} for row in iterate_rows(out)]


@pytest.fixture
def expected(images: Path, model: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """The table of one machine."""
    (tmp_path / "one").mkdir()
    inference.run(images, tmp_path / "one" / "out.parquet", model, _config())
    return _values(tmp_path / "one" / "out.parquet")


def test_parts_and_the_finisher_give_the_table_of_one_machine(
    images: Path, model: Path, tmp_path: Path, expected: Any, batches: list[int]
) -> None:
    out = tmp_path / "out.parquet"
    alone, batches[:] = list(batches), []
    reports = [inference.run(images, out, model, _config((number, 3))) for number in (2, 1, 3)]
    assert [report.chunks for report in reports] == [2, 1, 2]  # of 24 files, five a chunk
    assert sum(report.files for report in reports) == FILES
    assert sorted(report.errors for report in reports) == [0, 0, 1]
    assert not out.exists()
    assert sorted(find_chunks(_area(out))) == [0, 1, 2, 3, 4]
    assert _area(out).stat().st_mode & 0o777 == 0o700

    report = inference.run(images, out, model, _config())
    assert (report.files, report.files_kept) == (FILES, FILES)
    assert _values(out) == expected
    assert sorted(batches) == sorted(alone)  # batches end where chunks do, in both cases
    assert {row["run_id"] for row in iterate_rows(out)} == {read_metadata(out)["run_id"]}
    one, ours = (read_metadata(path) for path in (tmp_path / "one" / out.name, out))
    for name in ("files", "rows", "statuses", "labels", "duplicate_files", "processor"):
        assert one[name] == ours[name], name
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model", "one", "out.parquet", "out.parquet.json",
    ]  # fmt: skip


def test_a_dry_run_counts_the_rows_of_tasks_and_not_their_list(
    images: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    inference.run(images, out, model, _config((1, 2)))  # chunks 0 and 1
    chunk = find_chunks(_area(out))[0][0]
    shutil.copy(chunk, parts.new_chunk(_area(out), 0))  # of a task that was taken for dead
    assert plans.of_infer([images], out, model, _config()).facts["waiting_rows"] == 10


def test_the_finisher_computes_what_is_missing_with_another_number_of_parts(
    images: Path, model: Path, tmp_path: Path, expected: Any
) -> None:
    out = tmp_path / "out.parquet"
    inference.run(images, out, model, _config((1, 2)))  # chunks 0 and 1
    report = inference.run(images, out, model, _config((1, 1)))
    assert (report.chunks, report.chunks_kept, report.files) == (5, 2, FILES)
    for path in find_chunks(_area(out))[3]:
        path.write_bytes(path.read_bytes()[:-9])  # a disk that was full
    for path in find_chunks(_area(out))[4]:
        path.unlink()
    report = inference.run(images, out, model, _config())
    assert report.files_kept == 15
    assert _values(out) == expected


def test_chunks_of_the_version_before_are_kept_and_damaged_ones_are_named(
    images: Path, model: Path, tmp_path: Path, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out.parquet"
    inference.run(images, out, model, _config((1, 1)))
    for paths in find_chunks(_area(out)).values():
        rewrite_as_version_2(paths[0])
    [damaged] = find_chunks(_area(out))[3]
    table = pq.read_table(damaged)
    kept = pq.read_metadata(damaged).metadata
    pq.write_table(table.drop_columns(["path"]).replace_schema_metadata(kept), damaged)
    assert inference.run(images, out, model, _config()).files_kept == FILES - 5
    assert _values(out) == expected
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{damaged} cannot be used: it has no column 'path'. It is computed"), (
        warning
    )


def test_a_folder_that_grows_between_two_tasks_is_listed_once(
    images: Path, model: Path, tmp_path: Path, expected: Any
) -> None:
    folder, out = tmp_path / "images", tmp_path / "out.parquet"
    shutil.copytree(images, folder)
    inference.run(folder, out, model, _config((2, 2)))
    write_images(folder, 3, first=500)
    shutil.copy(folder / "0000.png", folder / "0000a.png")  # would move every border
    inference.run(folder, out, model, _config((1, 2)))
    inference.run(folder, out, model, _config())
    assert [row | {"mtime": 0} for row in _values(out)] == [row | {"mtime": 0} for row in expected]
    # The next run with --incremental takes what has come.
    report = inference.run(folder, out, model, _config(incremental=True))
    assert (report.files, report.files_kept) == (FILES + 4, FILES - 1)


def test_parts_of_an_incremental_run_compute_only_what_is_new(
    images: Path, model: Path, tmp_path: Path, batches: list[int]
) -> None:
    folder, out = tmp_path / "images", tmp_path / "table"
    shutil.copytree(images, folder)
    inference.run(folder, out, model, _config(format="dataset"))
    write_images(folder, 3, first=500)
    one = tmp_path / "one"
    shutil.copytree(out, one)
    inference.run(folder, one, model, _config(incremental=True))
    batches.clear()
    for number in (1, 2, 3):
        inference.run(folder, out, model, _config((number, 3), incremental=True))
    assert sum(batches) == 3
    with pytest.raises(ConfigError, match="incremental: True then, False now"):
        inference.run(folder, out, model, _config())
    inference.run(folder, out, model, _config(incremental=True))
    assert _values(out) == _values(one)
    assert not _area(out).exists()


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_other_formats_and_hidden_paths(images: Path, model: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    for number in (1, 2):
        inference.run(images, out, model, _config((number, 2), path_mode="hash"))
    key = (tmp_path / f".{name}.key").read_bytes()
    inference.run(images, out, model, _config(path_mode="hash"))
    assert (tmp_path / f".{name}.key").read_bytes() == key
    assert len(out.read_text().splitlines()) == FILES + (name == "out.csv")
    assert ".png" not in out.read_text()


def test_several_sources_and_names_that_are_not_utf8(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, "first/scans")
    write_images(Path("second"), 4, first=900)
    Path("second/0900.png").rename(os.fsdecode(b"second/caf\xe9.png"))
    shutil.copy(images / "0000.png", "third.png")
    sources = [Path("first"), Path("second"), Path("third.png")]
    inference.run(sources, Path("one.parquet"), model, _config())
    for number in (1, 2):
        inference.run(sources, Path("out.parquet"), model, _config((number, 2)))
    with pytest.raises(ConfigError, match="folder: "):
        inference.run(sources[:2], Path("out.parquet"), model, _config((1, 2)))
    report = inference.run(sources, Path("out.parquet"), model, _config())
    assert (report.files, report.files_kept) == (FILES + 5, FILES + 5)
    assert _values(Path("out.parquet")) == _values(Path("one.parquet"))


def test_a_task_continues_an_interrupted_run_of_one_machine(
    images: Path, model: Path, tmp_path: Path, expected: Any, batches: list[int]
) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(TryAgainError):
        inference.run(images, out, model, _config(max_runtime=1e-9))
    batches.clear()
    for number in (1, 2):
        inference.run(images, out, model, _config((number, 2)))
    inference.run(images, out, model, _config())
    assert sum(batches) < FILES - 1  # not what that run had computed
    assert _values(out) == expected


def test_another_job_is_refused_and_overwrite_starts_anew(
    images: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    inference.run(images, out, model, _config((1, 2)))
    first = read_frozen(_area(out))
    other = {"selection": Selection(exclude=("0000*",))}
    for part in ((2, 2), None):
        with pytest.raises(ConfigError, match="exclude"):
            inference.run(images, out, model, _config(part, **other))
    inference.run(images, out, model, _config((2, 2), overwrite=True, **other))
    inference.run(images, out, model, _config((1, 2), overwrite=True, **other))  # joins, keeps
    again = read_frozen(_area(out))
    assert first is not None
    assert again is not None
    assert first.run_id != again.run_id
    assert sorted(find_chunks(_area(out))) == [0, 1, 2, 3, 4]
    assert inference.run(images, out, model, _config(**other)).files == FILES - 1


def test_a_task_waits_for_the_list_that_another_one_writes(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    out, listed = tmp_path / "out.parquet", []
    monkeypatch.setattr(parts, "_POLL", 0.05)
    real = plan.stream_files

    def list_slowly(*arguments: Any) -> Any:
        time.sleep(0.5)
        listed.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(plan, "stream_files", list_slowly)
    with ThreadPoolExecutor(2) as threads, caplog.at_level("INFO"):
        tasks = [
            threads.submit(inference.run, images, out, model, _config((number, 2))) for number in (1, 2)
        ]
        assert sum(task.result().files for task in tasks) == FILES
    assert len(listed) == 1
    assert "waiting for the list of files" in caplog.text


def test_a_node_with_other_versions_is_refused(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    inference.run(images, out, model, _config((1, 2)))
    monkeypatch.setattr(plan, "versions", lambda *names: dict.fromkeys(names, "0.1"))
    with pytest.raises(ConfigError, match=r"tensorflow: \S+ then, 0.1 now"):
        inference.run(images, out, model, _config((2, 2)))


def test_who_is_at_work_is_not_disturbed(images: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    inference.run(images, out, model, _config((1, 3)))
    with output_lock(out, _area(out) / Part(2, 3).name("lock")):
        with pytest.raises(TryAgainError, match=f"part 2/3 of .* process {os.getpid()} "):
            inference.run(images, out, model, _config((2, 3)))
        with pytest.raises(TryAgainError, match=rf"part 2/3 is running [(]process {os.getpid()} on"):
            inference.run(images, out, model, _config())
        inference.run(images, out, model, _config((3, 3)))  # another part may run
    with (
        output_lock(out, lock_beside(out)),
        pytest.raises(TryAgainError, match="no part of it can be computed meanwhile"),
    ):
        inference.run(images, out, model, _config((2, 3)))
    (_area(out) / Part(2, 3).name("lock")).write_text("{}")  # of a task that was killed
    assert inference.run(images, out, model, _config()).files_kept > 0


def test_without_the_kernels_locks_a_dead_task_is_waited_for(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    inference.run(images, out, model, _config((1, 2)))
    file = _area(out) / Part(2, 2).name("lock")
    file.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "yesterday"}))
    monkeypatch.setattr(lock, "_network", lambda path: path == file)
    monkeypatch.setattr(parts, "_POLL", 0.01)
    beats = iter(range(100))
    real = lock.find_holder

    def beating(path: Path) -> Any:
        holder = real(path)
        return holder and holder._replace(beat=float(next(beats)))

    monkeypatch.setattr(parts, "find_holder", beating)
    with pytest.raises(TryAgainError, match=r"part 2/2 is running [(]process 1 on elsewhere"):
        inference.run(images, out, model, _config())
    monkeypatch.setattr(parts, "find_holder", real)
    monkeypatch.setattr(lock, "_STALE", 0.3)  # no further beat
    started = time.monotonic()
    os.utime(file)
    inference.run(images, out, model, _config())
    assert time.monotonic() - started > 0.2


def test_a_machine_that_does_not_see_the_files_is_named(
    images: Path, model: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "images", tmp_path / "out.parquet"
    shutil.copytree(images, folder)
    inference.run(folder, out, model, _config((1, 2)))
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=f"0009.png.* can be seen on {os.uname().nodename}"):
        inference.run(folder, out, model, _config((2, 2)))


def test_a_damaged_list_or_plan(images: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    inference.run(images, out, model, _config((1, 2)))
    (manifest,) = _area(out).glob("manifest-*")
    manifest.write_bytes(manifest.read_bytes()[:-1])
    for part in ((2, 2), None):
        with pytest.raises(InputError, match=r"list of files .* is damaged"):
            inference.run(images, out, model, _config(part))
    manifest.unlink()  # the rest of an area whose deletion was killed
    inference.run(images, out, model, _config())
    assert not _area(out).exists()
    inference.run(images, out, model, _config((1, 2)))
    (_area(out) / parts.PLAN).write_text("{")
    inference.run(images, out, model, _config((2, 2)))  # nothing of it can be used
    assert sorted(find_chunks(_area(out))) == [2, 3, 4]


def test_what_a_task_prints_and_its_exit_code(
    images: Path, model: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    command = ("infer", images, out, "--model", model, "--workers", 1)
    code, output = invoke(*command, "--part", "1/2")
    assert code == ExitCode.SOME_ERRORS
    assert "Part 1/2: 2 chunks, 10 files; errors: 1 not_an_image" not in output
    assert "Part 1/2: 2 chunks, 10 files; errors: 1" in output
    assert "the command without --part writes" in output
    assert invoke(*command, "--part", "1/2", "--quiet") == (ExitCode.SOME_ERRORS, "")  # at once
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MAX", "2")
    assert invoke(*command, "--part", "auto", "--quiet") == (ExitCode.OK, "")
    monkeypatch.delenv("SLURM_ARRAY_TASK_MAX")
    code, output = invoke(*command, "--part", "auto")
    assert (code, "but not of how many" in output) == (ExitCode.USAGE, True)
    code, output = invoke(*command, "--part", "1/2", "--metrics-file", tmp_path / "a.prom")
    assert (code, "a part publishes none" in output) == (ExitCode.USAGE, True)
    result = json.loads(invoke(*command, "--part", "4/9", "--json", "--quiet")[1])
    assert (result["part"], result["chunks"], result["chunks_kept"]) == ("4/9", 1, 1)
    assert invoke(*command, "--quiet")[0] == ExitCode.SOME_ERRORS


def test_tasks_as_processes_killed_at_any_moment(
    quick: Any, images: Path, model: Path, tmp_path: Path, expected: Any
) -> None:
    """Four tasks at once, two of them for one part; one is killed; the finisher does its part."""
    out = tmp_path / "out.parquet"
    command = ("infer", images, out, "--model", model, "--workers", 1, "--batch-size", 4, "--quiet")
    tasks = {
        name: quick(*command, "--part", part, pause=0.6) for name, part in (("a", "1/3"), ("b", "2/3"))
    }
    for name in ("c", "again"):  # the third batch is of their second chunk
        tasks[name] = quick(*command, "--part", "3/3", stand_still=3)
    deadline = time.monotonic() + 100
    while not any(number >= 3 for number in find_chunks(_area(out))):  # part 3 has chunks 3 and 4
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for name in ("c", "again"):
        tasks[name].kill()
    if tasks["a"].poll() is None or tasks["b"].poll() is None:
        early = quick(*command)
        stderr = early.communicate(timeout=100)[1]
        if early.returncode == ExitCode.TRY_AGAIN:  # not where both have ended meanwhile
            assert "is running (process" in stderr
            assert not out.exists()
    codes = {name: task.wait(100) for name, task in tasks.items()}
    assert codes["a"] == 0
    assert codes["b"] in (0, ExitCode.SOME_ERRORS)
    assert {codes["c"], codes["again"]} in ({-signal.SIGKILL}, {-signal.SIGKILL, ExitCode.TRY_AGAIN})
    finisher = quick(*command)
    assert (finisher.wait(100), finisher.communicate()) == (ExitCode.SOME_ERRORS, ("", ""))
    assert _values(out) == expected
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_signal_ends_a_task_and_costs_one_chunk(
    quick: Any, images: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    command = ("infer", images, out, "--model", model, "--workers", 1, "--batch-size", 4, "--quiet")
    task = quick(*command, "--part", "1/1", stand_still=5)  # in the third chunk
    deadline = time.monotonic() + 100
    while len(find_chunks(_area(out))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    task.send_signal(signal.SIGUSR2)  # Slurm's, two minutes before the time is over
    _, stderr = task.communicate(timeout=100)
    assert task.returncode == ExitCode.TRY_AGAIN
    assert stderr.startswith("Interrupted (SIGUSR2).")
    left = {path.name for path in _area(out).iterdir()}
    assert len(find_chunks(_area(out))) == 2
    assert not [name for name in left if name.startswith(".") or name.endswith(".lock")]


def test_a_long_list_is_written_while_it_comes_and_has_large_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(parts.ENVIRONMENT)
    monkeypatch.setattr(parts, "CHUNK_FILES", 3)
    monkeypatch.setattr(parts, "LARGE_CHUNK_FILES", 7)
    monkeypatch.setattr(parts, "MANY_FILES", 10)
    for count, size in ((10, 3), (20, 7), (21, 7)):
        names = [f"{number:02}.png" for number in range(count)]
        files = [FoundFile(str(tmp_path / name), name, size=len(name)) for name in names]
        area = tmp_path / str(count)
        area.mkdir()
        written = write_as_listed(area, [tmp_path], iter(files))
        assert (written["files"], written["chunk_files"]) == (count, size)
        with Manifest(area, [tmp_path], parts.Frozen(written)) as manifest:
            assert len(list(manifest.chunk(0))) == size
            assert list(manifest) == files
        assert len(list(area.iterdir())) == 1


# ------------------------------------------------------------------------------------ status


def test_status_tells_how_far_the_parts_are(
    images: Path, model: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "out.parquet"
    code, output = invoke("status", out)
    assert (code, "no part of it was computed" in output) == (ExitCode.NO_INPUT, True)
    inference.run(images, out, model, _config((1, 2)))
    inference.run(images, out, model, _config((2, 4)))  # the newest division: chunks 1; 3 and 4 missing
    (_area(out) / Part(3, 4).name("json")).write_text(
        json.dumps({"since": "2026-11-27T10:00:00+00:00", "host": "n7", "pid": 12})
    )
    with output_lock(out, _area(out) / Part(2, 4).name("lock")):
        code, output = invoke("status", out)
        value = json.loads(invoke("status", out, "--json")[1])
    assert code == 0
    assert "4 parts: 1 done, 1 running, 1 stopped, 1 never started; 2 of 5 chunks computed" in output
    assert "part 2/4 running: 1 of 1 chunk, on " in output
    assert "part 3/4 stopped: 0 of 1 chunk, on n7 since 2026-11-27T10:00:00" in output
    assert "never started: 4" in output
    assert "without --part when they have ended" in output
    assert (value["state"], value["files"], value["chunks"], value["finished"]) == (
        "unfinished", FILES, 5, 2,
    )  # fmt: skip
    assert value["counts"] == {"done": 1, "running": 1, "stopped": 1, "never started": 1}
    assert [part["state"] for part in value["parts"]] == list(value["counts"])
    before = sorted(path.name for path in _area(out).iterdir())
    inference.run(images, out, model, _config((1, 1)))
    assert {path.name for path in _area(out).iterdir()} > set(before)  # nothing was disturbed
    with output_lock(out, lock_beside(out)):
        assert "is being written (process" in invoke("status", out)[1]
    inference.run(images, out, model, _config())
    assert "is there, and no part" in invoke("status", out)[1]
    assert json.loads(invoke("status", out, "--json")[1])["state"] == "published"


def test_the_parts_of_a_table_in_a_store(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    (tmp_path / "b").mkdir()
    system = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(stores, "connection", lambda path: system)
    out, work = ObjectPath.parse("s3://b/out.parquet"), tmp_path / "work"
    work.mkdir()
    status = ("status", out, "--work", work)
    assert "Give --work DIR" in invoke("status", out)[1]
    assert (invoke("status", out)[0], invoke(*status)[0]) == (ExitCode.USAGE, ExitCode.NO_INPUT)
    assert invoke("status", tmp_path / "out.parquet", "--work", work)[0] == ExitCode.USAGE
    inference.run(images, out, model, _config((1, 2), work=work))
    text = invoke(*status)[1]
    assert "s3://b/out.parquet: 2 parts: 1 done, 1 never started; 2 of 5 chunks computed" in text
    inference.run(images, out, model, _config(work=work))
    assert "is there, and no part" in invoke(*status)[1]
    # Its rows are kept by tasks too, and another model's table is refused before they compute.
    again = inference.run(images, out, model, _config((1, 1), work=work, incremental=True))
    assert again.files_kept == FILES - 1  # the broken one is read again
    shutil.rmtree(work)
    work.mkdir()
    other = write_bundle(tmp_path / "other")
    rewrite(other, threshold=0.25)
    with pytest.raises(ConfigError, match="holds predictions of model"):
        inference.run(images, out, other, _config((1, 2), work=work))


@pytest.mark.parametrize("part", [(1, 3), None])
def test_loading_the_network_is_taken_out_of_its_time_once(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Any
) -> None:
    load = Network.load

    def slow(network: Network) -> Any:
        if not network.loading:
            time.sleep(0.05)
            network.loading = 0.05
        return load(network)

    def loaded_while_decoding(work: Any, chunks: Any, *more: Any) -> Any:
        more[-1]()
        yield from map(work, chunks)

    monkeypatch.setattr(Network, "load", slow)
    monkeypatch.setattr(batching, "ordered_map", loaded_while_decoding)
    timings = inference.run(images, tmp_path / "out.parquet", model, _config(part)).timings
    assert timings.loading >= 0.05
    assert 0 <= timings.model < timings.processing - timings.loading
