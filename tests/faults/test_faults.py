"""Every file-system call of a command fails, or is the last before a kill, as SQLite tests it.

After each fault: an exit code of the contract and a sentence that is true; the old result or the new
one, whole, and `verify` agrees; the same command then ends as if nothing had happened, and nothing else
is left. The short form takes some of the calls; `make test-faults` takes them all and prints the table
of docs/faults.md.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.injection import FAULTS, Fault, Runs, Server
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
_SHORT = 5  # calls of a stage in the short form
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

    def try_point(self, at: int, fault: Fault) -> bool:
        """Let a call meet the fault, and check everything; return whether the fault was met."""
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "before", self.work, symlinks=True)
        met = self.server.run(self.stage.arguments, self.folder, self.work, at, fault)
        where = (self.stage.name, fault.name, at, met)
        assert "Traceback" not in met.output, where
        assert met.status in ({-9, 0, 3} if fault.error == 0 else _CODES), where
        now = self._now()
        if now is not None:
            assert self.stage.problems(self.work) == (), where
        assert _rows(now) in (_rows(self.before), _rows(self.after)), where
        if _COMMITTED.search(met.output):
            assert _rows(now) == _rows(self.after), where
        elif met.status == 73:
            assert _rows(now) == _rows(self.before), where
        again = self.server.run(self.stage.arguments, self.folder)
        # "Nothing to do" where the fault came behind the commit.
        assert again.status in (self.status, 0), (where, again)
        assert self.stage.content(self.work) == self.after, where
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
    for number, at in enumerate(case.points[:: len(case.points) // _SHORT + 1]):
        case.try_point(at, FAULTS[number % len(FAULTS)])


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_call_fails(stage: Stage, fault: Fault, server: Server, tmp_path: Path) -> None:
    make_inputs(tmp_path)
    case = _Case(stage, server, tmp_path)
    met = sum(case.try_point(at, fault) for at in case.points)
    print(f"\n| {stage.name} | {fault.name} | {len(case.points)} | {met} |")
    assert met > len(case.points) // 3


@pytest.mark.slow
@pytest.mark.parametrize("stage", TENSORFLOW_STAGES, ids=lambda stage: stage.name)
def test_some_calls_of_tensorflows_stages_fail(
    stage: Stage, shard_set: Path, model: Path, tmp_path: Path
) -> None:
    """A run takes ten seconds: a few calls, in a new process each."""
    shutil.copytree(shard_set, tmp_path / "tfrecords")
    shutil.copytree(model, tmp_path / "cnn1")
    (tmp_path / "work").mkdir()
    (tmp_path / "shim").mkdir()
    case = _Case(stage, Runs(tmp_path / "shim"), tmp_path)
    chosen = case.points[:: len(case.points) // 10 + 1]
    met = sum(case.try_point(at, FAULTS[number % len(FAULTS)]) for number, at in enumerate(chosen))
    print(f"\n| {stage.name} | each in turn | {len(case.points)} | {len(chosen)} | {met} |")
