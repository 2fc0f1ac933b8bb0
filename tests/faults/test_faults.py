"""Every file-system call of a command fails, or is the last before a kill, as SQLite tests it.

After each fault: an exit code of the contract and a sentence that is true; the old result or the new
one, whole, and `verify` agrees; the same command then ends as if nothing had happened, and nothing else
is left. The short form takes some of the calls; `make test-faults` takes them all and prints the table
of docs/faults.md.
"""

import errno
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.faults.injection import FAULTS, Fault, Point, Runs, Server
from tests.faults.stages import (
    STAGES,
    TENSORFLOW_STAGES,
    Content,
    Stage,
    add_late_images,
    make_inputs,
)

_CODES = {0, 3, 66, 73, 75}  # what `tumorbatch --help` names; 4 needs --max-error-rate
_COMMITTED = re.compile(r"The new work/(out(/dataset\.json)?|net(\.keras)?) is in its place and whole")
_REFUSING = ("export, Keras", "export, SavedModel")  # with exit code 2, where the result is there
_SHORT = 5  # points of a stage in the short form
_IN_SHORT = ("shard, grown", "infer, Parquet", "infer, incremental folder")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("shim"))
    yield server
    server.close()


class _Case:
    """A stage with its inputs, and the results before and after it."""

    def __init__(self, stage: Stage, server: Runs, folder: Path) -> None:
        self.stage, self.server, self.folder = stage, server, folder
        self.work = folder / "work"
        if stage.grown:
            assert server.run(stage.arguments, folder).status in (0, 3)
            add_late_images(folder)
        shutil.copytree(self.work, folder / "before", symlinks=True)
        self.before = stage.content(self.work) if stage.grown else None
        done = server.run(stage.arguments, folder, root=self.work, log=True)
        assert done.status in (0, 3), done.output
        self.status, self.after = done.status, stage.content(self.work)
        self.points = server.points()

    def sweep(self, points: Iterable[Point], fault: Fault) -> str:
        """Let each point meet the fault; return the row of the table.

        Raises:
            AssertionError: Something was not as promised; the text lists all of it.
        """
        chosen = [point for point in points if point.changes or not fault.spares_reading]
        met = 0
        failures = []
        for point in chosen:
            try:
                met += self.try_point(point, fault)
            except AssertionError as error:
                failures.append(f"{self.stage.name}, {fault.name}, {point}: {error}")
        row = f"| {self.stage.name} | {fault.name} | {len(chosen)} | {met} | {len(failures)} |"
        assert not failures, "\n\n".join([row, *failures])
        return row

    def try_point(self, point: Point, fault: Fault) -> bool:
        """Let a call meet the fault, and check everything; return whether the fault was met."""
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "before", self.work, symlinks=True)
        met = self.server.run(self.stage.arguments, self.folder, self.work, point.at, fault)
        assert "Traceback" not in met.output, met
        assert met.status in ({-9, 0, 3} if fault.error == 0 else _CODES), met
        if met.hit and fault.error == errno.EROFS and met.status not in (0, 3):
            assert met.status == 73, met
            assert "Read-only file system" in met.output, met
        now = self._now()
        if now is not None:
            assert self.stage.problems(self.work) == (), met
        assert _rows(now) in (_rows(self.before), _rows(self.after)), met
        if met.status in (0, 3) or _COMMITTED.search(met.output):
            assert _rows(now) == _rows(self.after), met
        elif met.status in (66, 73, 75):
            assert _rows(now) == _rows(self.before), met
        again = self.server.run(self.stage.arguments, self.folder)
        # "Nothing to do" where the fault came behind the commit; `export` calls for --overwrite then.
        finished = {2} if _rows(now) == _rows(self.after) and self.stage.name in _REFUSING else set()
        assert again.status in {self.status, 0, *finished}, (met, again)
        assert "Traceback" not in again.output, (met, again)
        assert self.stage.content(self.work) == self.after, (met, again)
        return met.hit

    def _now(self) -> Content | None:
        """Return the content of the result, or None if there is none yet."""
        there = (self.work / self.stage.result).exists()
        return self.stage.content(self.work) if there else None


def _rows(content: Content | None) -> object:
    """Return what a reader sees: the rows of a table, or the set that dataset.json names."""
    if content is None:
        return None
    return content["rows"] if "rows" in content else content["out/dataset.json"]


@pytest.mark.parametrize(
    "stage",
    [stage for stage in STAGES if stage.name in _IN_SHORT],
    ids=lambda stage: stage.name,
)
def test_some_calls_fail(stage: Stage, server: Server, tmp_path: Path) -> None:
    make_inputs(tmp_path)
    case = _Case(stage, server, tmp_path)
    points = [point for point in case.points if point.changes]
    for number, point in enumerate(points[:: len(points) // _SHORT + 1]):
        case.try_point(point, FAULTS[number % len(FAULTS)])


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_call_fails(stage: Stage, fault: Fault, server: Server, tmp_path: Path) -> None:
    make_inputs(tmp_path)
    case = _Case(stage, server, tmp_path)
    print("\n" + case.sweep(case.points, fault))


@pytest.fixture(scope="module")
def tensorflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("shim"), "tensorflow")
    yield server
    server.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("stage", TENSORFLOW_STAGES, ids=lambda stage: stage.name)
def test_every_call_of_tensorflows_stages_fails(
    stage: Stage, fault: Fault, tensorflow_server: Server, shard_set: Path, model: Path, tmp_path: Path
) -> None:
    shutil.copytree(shard_set, tmp_path / "tfrecords")
    shutil.copytree(model, tmp_path / "cnn1")
    (tmp_path / "work").mkdir()
    case = _Case(stage, tensorflow_server, tmp_path)
    # A run takes two seconds here: one call of each site is enough.
    first = {point.site: point for point in reversed(case.points)}
    print("\n" + case.sweep(sorted(first.values()), fault))


# ------------------------------------------------------------------------------ tasks of a job


class _PartCase(_Case):
    """A task that computes the whole as one part, and the command that finishes."""

    def __init__(self, stage: Stage, server: Runs, folder: Path) -> None:
        super().__init__(stage, server, folder)
        self.part = (*stage.arguments, "--part", "1/1")
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "before", self.work, symlinks=True)
        done = server.run(self.part, folder, root=self.work, log=True)
        assert done.status in (0, 3), done.output
        self.part_status = done.status
        self.points = server.points()

    def try_point(self, point: Point, fault: Fault) -> bool:
        """Let a call of the task meet the fault; then do the part again, and finish."""
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "before", self.work, symlinks=True)
        met = self.server.run(self.part, self.folder, self.work, point.at, fault)
        assert "Traceback" not in met.output, met
        assert met.status in ({-9, 0, 3} if fault.error == 0 else _CODES), met
        now = self._now()
        assert _rows(now) == _rows(self.before), met  # a part publishes nothing
        again = self.server.run(self.part, self.folder)
        while fault.error == 0 and "in use by process" in again.output:  # it is still dying
            again = self.server.run(self.part, self.folder)
        assert "Traceback" not in again.output, (met, again)
        assert again.status == self.part_status, (met, again)
        finished = self.server.run(self.stage.arguments, self.folder)
        assert finished.status in (self.status, 0), (met, again, finished)
        assert self.stage.content(self.work) == self.after, (met, again, finished)
        return met.hit


class _FinishCase(_Case):
    """The command that finishes what a task has computed."""

    def __init__(self, stage: Stage, server: Runs, folder: Path) -> None:
        super().__init__(stage, server, folder)
        before = self.folder / "before"
        shutil.rmtree(self.work)
        shutil.copytree(before, self.work, symlinks=True)
        done = server.run((*stage.arguments, "--part", "1/1"), folder)
        assert done.status in (0, 3), done.output
        shutil.rmtree(before)
        shutil.copytree(self.work, before, symlinks=True)
        done = server.run(stage.arguments, folder, root=self.work, log=True)
        assert done.status in (0, 3), done.output
        assert stage.content(self.work) == self.after
        self.status, self.points = done.status, server.points()


_WITH_PARTS = ("shard, first", "infer, Parquet", "infer, incremental")


@pytest.mark.parametrize(
    "stage",
    [stage for stage in STAGES if stage.name in _WITH_PARTS[:2]],
    ids=lambda stage: stage.name,
)
def test_some_calls_of_a_task_fail(stage: Stage, server: Server, tmp_path: Path) -> None:
    for kind in (_PartCase, _FinishCase):
        (tmp_path / kind.__name__).mkdir()
        make_inputs(tmp_path / kind.__name__)
        case = kind(stage, server, tmp_path / kind.__name__)
        points = [point for point in case.points if point.changes]
        for number, point in enumerate(points[:: len(points) // _SHORT + 1]):
            case.try_point(point, FAULTS[number % len(FAULTS)])


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize(
    "stage", [stage for stage in STAGES if stage.name in _WITH_PARTS], ids=lambda stage: stage.name
)
def test_every_call_of_a_task_fails(stage: Stage, fault: Fault, server: Server, tmp_path: Path) -> None:
    for kind in (_PartCase, _FinishCase):
        (tmp_path / kind.__name__).mkdir()
        make_inputs(tmp_path / kind.__name__)
        case = kind(stage, server, tmp_path / kind.__name__)
        print("\n" + case.sweep(case.points, fault))
