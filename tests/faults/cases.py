"""A command that meets faults, one after another, and the promises that are checked after each."""

import errno
import hashlib
import re
import shutil
import stat
from pathlib import Path

from tests.faults.injection import VARYING, Fault, Outcome, Point, Runs
from tests.faults.stages import Content, Stage, add_late_images

_CODES = {0, 3, 66, 73, 75}  # what `tumorbatch --help` names; 4 needs --max-error-rate
_COMMITTED = re.compile(r"The new work/(out(/dataset\.json)?|net(\.keras)?) is in its place and whole")
_REFUSING = ("export, Keras", "export, SavedModel")  # with exit code 2, where the result is there


class Case:
    """A stage with its inputs, and the results before and after it.

    Args:
        stage: The command.
        server: Runs it.
        folder: The inputs, and an empty `work/`.

    Attributes:
        points: The calls that may meet a fault.
    """

    kind = ""  # for the table, behind the name of the stage

    def __init__(self, stage: Stage, server: Runs, folder: Path) -> None:
        self.stage, self.server, self.folder = stage, server, folder
        self.work = folder / "work"
        self._proven: set[str] = set()
        if stage.earlier:
            if stage.earlier[0] == "copy":
                shutil.copytree(folder / stage.earlier[1], folder / stage.earlier[2])
            else:
                done = server.run(stage.earlier, folder)
                assert done.status in (0, 3), done.output
            if stage.grown:
                add_late_images(folder)
        shutil.copytree(self.work, folder / "before", symlinks=True)
        self.before = self._now()
        done = server.run(stage.arguments, folder, root=self.work, log=True)
        assert done.status in (0, 3), done.output
        self.status, self.after = done.status, stage.content(self.work)
        self.points = server.points()

    @property
    def name(self) -> str:
        """The row of the table."""
        return f"{self.stage.name}{self.kind}"

    def try_point(self, point: Point, fault: Fault) -> bool:
        """Let a call meet the fault, and check everything; return whether the fault was met."""
        self._reset()
        met = self.server.run(self.stage.arguments, self.folder, self.work, point.at, fault)
        _check_end(met, fault)
        now = self._now()
        if now is not None:
            assert self.stage.problems(self.work) == (), met
        assert _rows(now) in (_rows(self.before), _rows(self.after)), met
        if met.status in (0, 3) or _COMMITTED.search(met.output):
            assert _rows(now) == _rows(self.after), met
        elif met.status in (66, 73, 75) and not self.stage.several:
            assert _rows(now) == _rows(self.before), met
        state = _state(self.work)
        if state not in self._proven:
            # "Nothing to do" where the fault came behind the commit; `export` wants --overwrite then.
            refused = self.stage.name in _REFUSING and _rows(now) == _rows(self.after)
            self._check_again(met, {self.status, 0, *([2] if refused else [])})
            self._proven.add(state)
        self._check_temporary(met)
        return met.hit

    def _reset(self) -> None:
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / "before", self.work, symlinks=True)

    def _now(self) -> Content | None:
        """Return the content of the result, or None if there is none yet."""
        there = (self.work / self.stage.result).exists()
        return self.stage.content(self.work) if there else None

    def _check_again(self, met: Outcome, codes: set[int]) -> None:
        """Run the same command without faults: the result is that of an undisturbed run."""
        again = self.server.run(self.stage.arguments, self.folder)
        assert again.status in codes, (met, again)
        assert "Traceback" not in again.output, (met, again)
        assert self.stage.content(self.work) == self.after, (met, again)

    def _check_temporary(self, met: Outcome) -> None:
        """Nothing is left in the folder for temporary files, whatever ended the run."""
        left = sorted(self.server.temporary.iterdir())
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert not left, (met, left)


class PartCase(Case):
    """A task that computes the whole as one part, and the command that finishes."""

    kind = ": task"

    def __init__(self, stage: Stage, server: Runs, folder: Path) -> None:
        super().__init__(stage, server, folder)
        self.part = (*stage.arguments, "--part", "1/1")
        self._reset()
        done = server.run(self.part, folder, root=self.work, log=True)
        assert done.status in (0, 3), done.output
        self.part_status = done.status
        self.points = server.points()

    def try_point(self, point: Point, fault: Fault) -> bool:
        """Let a call of the task meet the fault; then do the part again, and finish."""
        self._reset()
        met = self.server.run(self.part, self.folder, self.work, point.at, fault)
        _check_end(met, fault)
        assert _rows(self._now()) == _rows(self.before), met  # a part publishes nothing
        state = _state(self.work)
        if state not in self._proven:
            again = self.server.run(self.part, self.folder)
            assert "Traceback" not in again.output, (met, again)
            assert again.status == self.part_status, (met, again)
            self._check_again(again, {self.status, 0})
            self._proven.add(state)
        self._check_temporary(met)
        return met.hit


class FinishCase(Case):
    """The command that finishes what a task has computed."""

    kind = ": finisher"

    def __init__(self, stage: Stage, server: Runs, folder: Path) -> None:
        super().__init__(stage, server, folder)
        before = self.folder / "before"
        self._reset()
        done = server.run((*stage.arguments, "--part", "1/1"), folder)
        assert done.status in (0, 3), done.output
        shutil.rmtree(before)
        shutil.copytree(self.work, before, symlinks=True)
        done = server.run(stage.arguments, folder, root=self.work, log=True)
        assert done.status in (0, 3), done.output
        assert stage.content(self.work) == self.after
        self.status, self.points = done.status, server.points()


def _check_end(met: Outcome, fault: Fault) -> None:
    """The command ended as the contract says, with a sentence that names the cause."""
    assert "Traceback" not in met.output, met
    assert met.status in ({-9, 0, 3} if fault.error == 0 else _CODES), met
    if met.hit and fault.error == errno.EROFS and met.status not in (0, 3):
        assert met.status == 73, met
        assert "Read-only file system" in met.output, met


def _rows(content: Content | None) -> object:
    """Return what a reader sees: the rows of a table, or the set that dataset.json names."""
    if content is None:
        return None
    return content["rows"] if "rows" in content else content["out/dataset.json"]


def _state(work: Path) -> str:
    """Return a digest of names, kinds, modes and bytes: what the next run finds is the same."""
    entries = []
    for path in sorted(work.rglob("*")):
        info = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        name = VARYING.sub("#", str(path.relative_to(work)))
        entries.append((name, info.st_mode, hashlib.sha256(data).hexdigest()))
    return hashlib.sha256(repr(sorted(entries)).encode()).hexdigest()
