"""Killed, interrupted, run again over a grown folder: the table is that of an undisturbed run."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.bundles import rewrite
from tumorbatch.errors import ExitCode, TryAgainError
from tumorbatch.infer import inference, work_area
from tumorbatch.infer.config import Config
from tumorbatch.infer.listing import Selection
from tumorbatch.infer.predictions import iterate_rows, read_metadata
from tumorbatch.infer.work_area import aligned, by_file

pytestmark = pytest.mark.usefixtures("in_process")

Rows = dict[str, dict[str, Any]]
Process = subprocess.Popen[str]


def _rows(path: Path) -> Rows:
    rows = list(iterate_rows(path))
    names = [row["path"] for row in rows]
    assert names == sorted(set(names))
    return {row["path"]: row for row in rows}


def _without_run(rows: Rows) -> Rows:
    return {name: {**row, "run_id": ""} for name, row in rows.items()}


def _end(process: Process) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=200)
    return process.returncode, stdout, stderr


def _wait_until(happened: Callable[[], bool], process: Process) -> None:
    """Wait for an event, or for the end of the process."""
    deadline = time.monotonic() + 200
    while not happened() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _wait_for(path: Path, pattern: str, process: Process, count: int = 1) -> None:
    deadline = time.monotonic() + 200
    while len(list(path.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def build_images() -> Any:
    """Write so many small PNG files."""

    def write(folder: Path, count: int) -> None:
        import cv2
        import numpy as np

        folder.mkdir()
        for k in range(count):
            pixels = np.random.default_rng(k).integers(0, 256, (40, 40), np.uint8)
            (folder / f"{k}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    return write


@pytest.fixture(scope="module")
def images(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About a hundred images, some broken, some twice."""
    folder = tmp_path_factory.mktemp("resume") / "images"
    shutil.copytree(sample, folder)
    return folder


@pytest.fixture(scope="module")
def whole(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The undisturbed run, with the real network."""
    out = tmp_path_factory.mktemp("whole") / "out.parquet"
    inference.run(images, out, model, Config(workers=1))
    return _rows(out)


# ----------------------------------------------------------------------------------- kills, signals


def _kill_again_and_again(
    quick: Any, images: Path, model: Path, folder: Path, kills: int, seed: int
) -> None:
    command = ("infer", images, folder / "out.parquet", "--model", model, "--workers", 1, "--quiet")
    command += ("--batch-size", 4)
    options = {"pause": 0.1, "part_rows": 5}  # 25 batches
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    plain = quick("infer", images, undisturbed / "out.parquet", *command[3:])
    assert _end(plain) == (ExitCode.SOME_ERRORS, "", "")
    expected = _without_run(_rows(undisturbed / "out.parquet"))
    area = folder / ".out.parquet.partial"
    moments = random.Random(seed)
    # Moments are counted in parts, of which a run writes about twenty: a busy machine is later.
    for number in range(kills):
        parts = len(list(area.glob("*.parquet"))) + (moments.randint(0, 2) if number else 2)
        process = quick(*command, **options, stand_still=12 if number == 0 else 0)
        _wait_until(lambda parts=parts: len(list(area.glob("*.parquet"))) >= parts, process)  # type: ignore[misc]
        time.sleep(moments.uniform(0, 0.05))  # anywhere between two of them
        process.kill()
        process.wait()
        if number == 0:
            assert process.returncode == -signal.SIGKILL
        if (folder / "out.parquet").exists():  # finished before, or between: it is whole, or absent
            assert _without_run(_rows(folder / "out.parquet")) == expected
    code, stdout, stderr = _end(quick(*command))
    assert (code, stdout, stderr) == (ExitCode.SOME_ERRORS, "", "")
    assert _without_run(_rows(folder / "out.parquet")) == expected
    assert {path.name for path in folder.iterdir()} == {
        "out.parquet", "out.parquet.json", "undisturbed",
    }  # fmt: skip


def test_killed_at_random_moments(quick: Any, images: Path, model: Path, tmp_path: Path) -> None:
    _kill_again_and_again(quick, images, model, tmp_path, kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_twenty_random_moments(
    quick: Any, images: Path, model: Path, tmp_path: Path, seed: int
) -> None:
    _kill_again_and_again(quick, images, model, tmp_path, kills=20, seed=seed)


def test_a_signal_saves_what_is_done_and_the_same_command_goes_on(
    quick: Any, images: Path, model: Path, tmp_path: Path
) -> None:
    out, area = tmp_path / "out.parquet", tmp_path / ".out.parquet.partial"
    command = ("infer", images, out, "--model", model, "--workers", 1, "--batch-size", 4)
    done = 0
    for attempt, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGUSR2), 1):
        process = quick(*command, "--quiet", part_rows=10, stand_still=7)
        _wait_for(area, f"{attempt:05}-*.parquet", process, 2)
        process.send_signal(number)
        sentence = (
            f"Interrupted ({number.name}). The work so far is kept; the same command continues it.\n"
        )
        assert _end(process) == (ExitCode.TRY_AGAIN, "", sentence)
        assert [path.name for path in tmp_path.iterdir()] == [area.name]
        before, done = done, sum(pq.read_metadata(path).num_rows for path in area.glob("*.parquet"))
        assert done >= before + 20

    code, stdout, _ = _end(quick(*command, "--json"))
    assert code == ExitCode.SOME_ERRORS
    report = json.loads(stdout)
    assert report["kept"] == done  # the empty file too
    assert report["files"] == report["rows"] == len(_rows(out))
    runs = {row["run_id"] for row in _rows(out).values()}
    assert len(runs) == 4
    assert read_metadata(out)["run_id"] in runs


def test_a_second_run_ends_at_once_and_names_the_first(
    quick: Any, images: Path, model: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "out.parquet"
    process = quick("infer", images, out, "--model", model, "--workers", 1, stand_still=1)
    _wait_for(tmp_path, ".out.parquet.lock", process)
    _wait_for(tmp_path, ".out.parquet.partial", process)
    code, output = invoke("infer", images, out, "--model", model)
    assert (code, f"process {process.pid}" in output) == (ExitCode.TRY_AGAIN, True)
    assert process.poll() is None  # it was not waited for


def test_two_names_of_one_folder_are_one_table(
    quick: Any, images: Path, model: Path, tmp_path: Path, invoke: Any
) -> None:
    real, link = tmp_path / "disk" / "table", tmp_path / "link"
    real.mkdir(parents=True)
    link.symlink_to(real)
    process = quick("infer", images, real, "--model", model, "--workers", 1, stand_still=1)
    _wait_for(real.parent, ".table.partial", process)
    code, output = invoke("infer", images, link, "--model", model)
    assert (code, f"process {process.pid}" in output) == (ExitCode.TRY_AGAIN, True)
    process.terminate()
    assert _end(process)[0] == ExitCode.TRY_AGAIN
    assert invoke("infer", images, link, "--model", model, "--quiet")[0] == ExitCode.SOME_ERRORS
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]
    assert [path.name for path in real.parent.iterdir()] == ["table"]
    assert (real / "_SUCCESS").is_file()


def test_a_time_limit_ends_in_time_and_the_same_command_goes_on(
    images: Path, model: Path, tmp_path: Path, whole: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    monkeypatch.setattr(work_area, "PART_ROWS", 1)
    attempts = 0
    while not out.exists():
        try:
            inference.run(images, out, model, Config(workers=1, max_runtime=1e-9))
        except TryAgainError as error:
            assert f"of {len(whole)} files are done" in str(error)  # noqa: PT017
            attempts += 1
            kept = sum(1 for _ in (tmp_path / ".out.parquet.partial").glob("*.parquet"))
            assert kept == attempts  # each got on by a file
        if attempts == 2:
            report = inference.run(images, out, model, Config(workers=1))
            assert report.files_kept == 2
    # On some processors an image's place in its batch changes the last bits; the footer says so.
    ours, expected = _without_run(_rows(out)), _without_run(whole)
    assert ours.keys() == expected.keys()
    for path, row in ours.items():
        for column, value in row.items():
            same = expected[path][column]
            assert value == (pytest.approx(same, abs=2e-5) if isinstance(value, float) else same), (
                column
            )


def test_another_plan_is_refused_and_overwrite_starts_anew(
    images: Path, model: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(TryAgainError):
        inference.run(images, out, model, Config(workers=1, max_runtime=1e-9))
    other = Path(shutil.copytree(model, tmp_path / "other"))
    rewrite(other, threshold=0.25, calibration={})
    command = ("infer", images, out, "--model", other, "--workers", 1, "--quiet")
    code, output = invoke(*command)
    assert (code, "interrupted run that was about something else" in output) == (ExitCode.USAGE, True)
    assert "model_id: cnn1-" in output
    assert invoke(*command, "--overwrite")[0] == ExitCode.SOME_ERRORS


def test_a_damaged_part_is_computed_again(
    images: Path, model: Path, tmp_path: Path, whole: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(TryAgainError):
        inference.run(images, out, model, Config(workers=1, max_runtime=1e-9))
    (part,) = (tmp_path / ".out.parquet.partial").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-3])
    report = inference.run(images, out, model, Config(workers=1))
    assert report.files_kept == 0
    assert "computed again" in caplog.text
    assert _without_run(_rows(out)) == _without_run(whole)


# ----------------------------------------------------------------------------------- grown folders


@pytest.fixture
def few(images: Path, tmp_path: Path) -> Path:
    """Six readable images and an empty file."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted((images / "Healthy").glob("*[0-9]).*"))[:6]:
        shutil.copy(path, folder)
    (folder / "late.png").touch()
    return folder


def _incremental(few: Path, model: Path, out: Path, **more: Any) -> "inference.Report":
    return inference.run(few, out, model, Config(workers=1, incremental=True, **more))


def test_incremental_computes_only_what_is_new(few: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    first = _incremental(few, model, out)
    assert (first.files, first.files_kept, first.errors, first.unchanged) == (7, 0, 1, False)
    before = _rows(out)
    names = sorted(before)

    again = _incremental(few, model, out)  # the error row is tried again, the others stay
    assert (again.files_kept, again.errors) == (6, 1)
    now = _rows(out)
    assert {name for name in names if now[name]["run_id"] != before[name]["run_id"]} == {"late.png"}
    assert _without_run(now) == _without_run(before)

    shutil.copy(few / names[0], few / "late.png")  # now it is whole
    os.utime(few / names[1])  # touched
    (few / names[2]).unlink()  # gone
    changed = (few / names[3]).read_bytes()
    (few / names[3]).write_bytes((few / names[4]).read_bytes())
    third = _incremental(few, model, out)
    assert (third.files, third.files_kept, third.absent, third.errors) == (6, 3, 1, 0)
    rows = _rows(out)
    assert set(rows) == set(names)
    assert "absent" in rows[names[2]]["flags"]
    assert rows[names[2]]["logit"] == before[names[2]]["logit"]
    assert rows["late.png"]["logit"] == rows[names[0]]["logit"]
    assert "duplicate" in rows["late.png"]["flags"]
    assert rows[names[3]]["logit"] == before[names[4]]["logit"]
    assert "duplicate" in rows[names[4]]["flags"]
    assert "duplicate" not in rows[names[3]]["flags"]

    data = out.read_bytes()
    nothing = _incremental(few, model, out)
    assert nothing.unchanged
    assert (nothing.files, nothing.files_kept, nothing.rows, nothing.absent) == (6, 6, 7, 1)
    assert out.read_bytes() == data

    (few / names[2]).write_bytes(changed)  # there again, another image
    assert "absent" not in _rows_after(few, model, out)[names[2]]["flags"]
    (few / names[2]).unlink()
    pruned = _incremental(few, model, out, prune=True)
    assert (pruned.files_kept, pruned.absent, pruned.unchanged) == (6, 0, False)
    assert names[2] not in _rows(out)
    assert not list(tmp_path.glob(".*"))


def _rows_after(few: Path, model: Path, out: Path) -> Rows:
    _incremental(few, model, out)
    return _rows(out)


def test_by_content(few: Path, model: Path, tmp_path: Path) -> None:
    """--hash: a touched file is kept, one with other bytes but the old size and time is computed."""
    out = tmp_path / "out.parquet"
    _incremental(few, model, out)
    before = _rows(out)
    first, second = sorted(before)[:2]
    os.utime(few / first, (1, 1))
    data = bytearray((few / second).read_bytes())
    info = (few / second).stat()
    data[len(data) // 2] ^= 0xFF
    (few / second).write_bytes(data)
    os.utime(few / second, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert _incremental(few, model, out).files_kept == 5  # by size and time, it is the other way round
    assert _rows(out)[second]["sha256"] == before[second]["sha256"]

    os.utime(few / first, (2, 2))
    _incremental(few, model, out, content=True)
    rows = _rows(out)
    assert rows[second]["sha256"] != before[second]["sha256"]
    assert rows[first]["mtime"].timestamp() == 2
    assert rows[first]["logit"] == before[first]["logit"]
    assert rows[first]["run_id"] != rows[second]["run_id"]  # kept, not computed


def test_incremental_with_another_model_is_refused_unless_overwrite(
    few: Path, model: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "out.parquet"
    _incremental(few, model, out)
    other = Path(shutil.copytree(model, tmp_path / "other"))
    rewrite(other, temperature=2.0, calibration={})
    command = ("infer", few, out, "--incremental", "--workers", 1)
    code, output = invoke(*command, "--model", other)
    assert (code, "--overwrite" in output) == (ExitCode.USAGE, True)
    code, output = invoke(*command, "--model", model, "--path-mode", "hash")
    assert (code, "another path_mode" in output) == (ExitCode.USAGE, True)
    code, output = invoke("infer", few, tmp_path / "a.csv", "--model", model, "--hash")
    assert (code, "--incremental" in output) == (ExitCode.USAGE, True)
    assert invoke(*command, "--model", other, "--overwrite")[0] == ExitCode.SOME_ERRORS


def test_young_files_are_left_for_the_next_run(few: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    names = sorted(path.name for path in few.iterdir())
    for name in names[1:]:
        os.utime(few / name, (1, 1))
    old = Selection(min_age=3600)
    report = _incremental(few, model, out, selection=old)
    assert (report.files, report.young) == (6, 1)
    assert sorted(_rows(out)) == names[1:]
    os.utime(few / names[0], (1, 1))
    report = _incremental(few, model, out, selection=old)
    assert (report.files, report.young, report.files_kept) == (7, 0, 5)  # and the error row again
    assert sorted(_rows(out)) == names


# ------------------------------------------------------------------------------------- the merging


def test_files_and_rows_are_aligned_by_path() -> None:
    from tumorbatch.files import FoundFile

    files = [FoundFile(name, name) for name in ("a", "c", "d")]
    newer = by_file([{"path": "c", "frame": 1}, {"path": "c", "frame": 2}])
    older = by_file([{"path": "b", "frame": 1}, {"path": "c", "frame": 1}, {"path": "e", "frame": 1}])
    found = [
        (entry.name, entry.file is not None, [len(rows) for rows in entry.rows])
        for entry in aligned(files, [newer, older])
    ]
    assert found == [
        ("a", True, [0, 0]),
        ("b", False, [0, 1]),
        ("c", True, [2, 1]),
        ("d", True, [0, 0]),
        ("e", False, [0, 1]),
    ]


def test_a_folder_with_nothing_new_and_one_killed_in_its_commit(
    model: Path, tmp_path: Path, quick: Any, build_images: Any
) -> None:
    """The rows of a file that is absent by now are in that table alone."""
    folder, out = tmp_path / "images", tmp_path / "table"
    build_images(folder, 3)

    def infer(*more: str) -> tuple[int, str, str]:
        return _end(quick("infer", folder, out, "--model", model, "--incremental", *more))

    assert infer("--format", "dataset")[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code, _, told = infer()
    assert (code, "Traceback" in told) == (0, False), told
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    gone = min(folder.iterdir())
    gone.unlink()
    out.rename(tmp_path / ".table.old")  # as a run leaves it that was killed between two renames
    (tmp_path / ".table.new").mkdir()
    assert infer()[0] == 0
    rows = _rows(out)
    assert "absent" in rows[gone.name]["flags"]
    assert len(rows) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "table"]
