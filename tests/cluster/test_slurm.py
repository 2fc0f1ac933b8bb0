"""The array and the finishing job that `tumorbatch slurm` prints, on a real Slurm of two nodes.

Whatever is done to the tasks, the table is that of one machine.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.slurm import Slurm
from tests.infer.stub import write_bundle, write_images
from tumorbatch.infer.predictions import iterate_rows, read_metadata
from tumorbatch.parts import find_chunks

pytestmark = pytest.mark.cluster
FILES = 40  # eight chunks, two a part


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a broken one among them, and a model."""
    folder = tmp_path_factory.mktemp("shared")
    write_images(folder / "scans", FILES - 1)
    (folder / "scans" / "0007a.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    write_bundle(folder / "model")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """The table of one machine."""
    command = ["tumorbatch", "infer", "scans", "one.parquet", "--model", "model", "--quiet"]
    command += ["--batch-size", "4", "--workers", "1"]
    done = subprocess.run(command, cwd=folder, env=environment, timeout=100, check=False)
    assert done.returncode == 3
    return _values(folder / "one.parquet")


def _values(out: Path) -> list[dict[str, Any]]:
    return [{**row, "run_id": ""} for row in iterate_rows(out)]


class Run:
    """An array of four tasks and its finishing job, submitted as the operator does it."""

    def __init__(self, slurm: Slurm, folder: Path, name: str, pause: float) -> None:
        self.slurm, self.folder, self.name = slurm, folder, name
        self.out = folder / f"{name}.parquet"
        printed = slurm.run(
            "tumorbatch", "slurm", "--tasks", 4, "--cpus", 1, "--time", "10", "--name", name,
            "--", "infer", "scans", self.out.name, "--model", "model", "--batch-size", 4,
            "--workers", 1, "--quiet",
            cwd=folder,
        )  # fmt: skip
        (folder / f"{name}.sh").write_text(printed)
        slurm.run("env", f"PAUSE={pause}", "bash", f"{name}.sh", cwd=folder)

    @property
    def area(self) -> Path:
        return self.out.with_name(f".{self.out.name}.partial")

    def tasks(self) -> dict[str, dict[str, str]]:
        """{index: fields} of the array's tasks."""
        jobs = self.slurm.jobs(self.name).values()
        return {job["ArrayTaskId"]: job for job in jobs if job["ArrayTaskId"].isdecimal()}

    def wait_for_chunks(self, count: int) -> None:
        """Wait until the tasks have computed so many chunks."""
        self.slurm.wait_until(lambda: len(find_chunks(self.area)) >= count)

    def running(self, node: str = "n") -> tuple[str, int]:
        """Return the index of a running task on a node, and the number of its process."""
        for index, task in sorted(self.tasks().items()):
            note = self.area / f"part-{int(index):05d}-of-00004.json"
            if task["JobState"] == "RUNNING" and task["NodeList"].startswith(node) and note.exists():
                return index, int(json.loads(note.read_text())["pid"])
        raise LookupError(self.tasks())

    def finish(self, expected: list[dict[str, Any]]) -> dict[str, str]:
        """Wait for the finishing job; compare the table; return that job's fields."""

        def ended() -> bool:
            for task in self.tasks().values():  # Slurm waits two minutes before it starts one again
                if task["JobState"] == "PENDING" and task["Reason"] == "BeginTime":
                    self.slurm.run("scontrol", "update", f"jobid={task['JobId']}", "StartTime=now")
            jobs = self.slurm.jobs(f"{self.name}-finish").values()
            return all(job["JobState"] in ("COMPLETED", "FAILED") for job in jobs)

        self.slurm.wait_until(ended)
        (job,) = self.slurm.jobs(f"{self.name}-finish").values()
        assert job["ExitCode"] == "3:0", (
            self.folder / f"{self.name}-finish-{job['JobId']}.log"
        ).read_text()
        assert _values(self.out) == expected
        assert {row["run_id"] for row in iterate_rows(self.out)} == {read_metadata(self.out)["run_id"]}
        assert not self.area.exists()
        return job


@pytest.fixture
def submit(slurm: Slurm, folder: Path, expected: Any) -> Callable[..., Run]:
    def start(name: str, pause: float = 2) -> Run:
        return Run(slurm, folder, name, pause)

    return start


def test_the_array_computes_and_the_finisher_publishes(
    submit: Any, expected: Any, folder: Path
) -> None:
    run = submit("plain", pause=0.01)
    run.finish(expected)
    states = {index: (task["JobState"], task["ExitCode"]) for index, task in run.tasks().items()}
    assert states.pop("1") == ("FAILED", "3:0")  # done; one of its files has an error row
    assert set(states.values()) == {("COMPLETED", "0:0")}
    assert {path.read_text() for path in folder.glob("plain-*.log")} == {""}


def test_a_killed_task_and_status(submit: Any, expected: Any, slurm: Slurm, folder: Path) -> None:
    run = submit("killed")
    run.wait_for_chunks(1)
    text = slurm.run("tumorbatch", "status", run.out.name, cwd=folder)
    index, pid = run.running()
    assert f"part {index}/4 running" in text
    os.kill(pid, signal.SIGKILL)
    run.finish(expected)
    assert run.tasks()[index]["JobState"] == "FAILED"  # --requeue is for nodes, and for preemption
    assert run.tasks()[index]["Restarts"] == "0"


def test_a_node_that_goes_down(submit: Any, expected: Any, slurm: Slurm) -> None:
    run = submit("down")
    run.wait_for_chunks(1)
    index, _ = run.running("n1")
    slurm.run("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    slurm.wait_until(lambda: run.tasks()[index]["JobState"] != "RUNNING")
    slurm.run("scontrol", "update", "nodename=n1", "state=resume")
    run.finish(expected)
    assert run.tasks()[index]["Restarts"] == "1"


def test_a_task_that_is_requeued(submit: Any, expected: Any, slurm: Slurm, folder: Path) -> None:
    run = submit("again")
    run.wait_for_chunks(1)
    index, _ = run.running()
    slurm.run("scontrol", "requeue", run.tasks()[index]["JobId"])
    run.finish(expected)
    assert run.tasks()[index]["Restarts"] == "1"
    (log,) = folder.glob(f"again-*_{index}.log")
    assert "Interrupted (SIGTERM)" in log.read_text()  # appended to, not replaced


def test_tasks_that_are_preempted(submit: Any, expected: Any, slurm: Slurm, folder: Path) -> None:
    run = submit("preempted")
    run.wait_for_chunks(1)
    index, _ = run.running()
    urgent = ("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--time=1", "--wrap=sleep 1")
    slurm.run(*urgent, "--job-name=urgent", "--output=/dev/null", cwd=folder)
    slurm.wait_until(lambda: run.tasks()[index]["JobState"] != "RUNNING")
    slurm.wait_until(
        lambda: [job["JobState"] for job in slurm.jobs("urgent").values()] == ["COMPLETED"]
    )
    run.finish(expected)
    assert run.tasks()[index]["Restarts"] == "1"


def test_the_signal_before_the_end_of_the_time(submit: Any, expected: Any, slurm: Slurm) -> None:
    run = submit("late")
    run.wait_for_chunks(1)
    index, _ = run.running()
    slurm.run("scancel", "--signal=USR2", "--batch", run.tasks()[index]["JobId"])
    slurm.wait_until(lambda: run.tasks()[index]["JobState"] != "RUNNING")
    assert run.tasks()[index]["ExitCode"] == "75:0"
    run.finish(expected)


def test_an_array_that_is_too_large_is_refused_as_slurm_would(slurm: Slurm, folder: Path) -> None:
    large = ("--tasks", 5000, "--time", "1", "--", "infer", "elsewhere", "x.parquet")
    with pytest.raises(subprocess.SubprocessError, match="at most 1,000 tasks"):
        slurm.run("tumorbatch", "slurm", *large, cwd=folder)
    with pytest.raises(subprocess.SubprocessError, match="Invalid job array specification"):
        slurm.run("sbatch", "--array=1-5000", "--wrap=true", cwd=folder)
