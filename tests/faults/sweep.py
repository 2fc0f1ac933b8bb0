"""Try every point of every command with every kind of fault, and print the table of docs/faults.md.

`python -m tests.faults.sweep JOURNAL` appends a line of JSON to JOURNAL for each point that it has
tried. What the journal has of the same commit is not tried again, so an interrupted sweep continues.
With `--also COMMIT`, what it has of that commit counts as well.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.cases import Case, FinishCase, PartCase
from tests.faults.injection import FAULTS, ROOT, Fault, Point, Server
from tests.faults.stages import STAGES, TENSORFLOW_STAGES, Stage, make_inputs, make_trained_inputs

WITH_PARTS = ("shard, first", "infer, Parquet", "infer, incremental")
_MEMORY = Path("/dev/shm")  # no waiting for a disk
_Made = tuple[str, bool, Callable[[Server, Path], Case]]


def cases() -> Iterator[_Made]:
    """Yield name, whether it needs TensorFlow, and constructor of each row of the table."""
    kinds: tuple[type[Case], ...] = (Case, PartCase, FinishCase)
    for kind in kinds:
        for stage in STAGES:
            if kind is Case or stage.name in WITH_PARTS:
                yield stage.name + kind.kind, False, _constructor(kind, stage, make_inputs)
    for stage in TENSORFLOW_STAGES:
        yield stage.name, True, _constructor(Case, stage, None)


def _constructor(
    kind: type[Case], stage: Stage, inputs: Callable[[Path], None] | None
) -> Callable[[Server, Path], Case]:
    def construct(server: Server, folder: Path) -> Case:
        if inputs is None:
            trained = folder.with_name("trained")
            if not trained.exists():
                make_trained_inputs(trained, server)
            shutil.copytree(trained, folder)
        else:
            folder.mkdir()
            inputs(folder)
        return kind(stage, server, folder)

    return construct


def faults_of(point: Point) -> tuple[Fault, ...]:
    """Return the kinds of fault that make a difference at this call."""
    return tuple(fault for fault in FAULTS if point.changes or not fault.spares_reading)


class Journal:
    """What was tried, a line of JSON each.

    Args:
        path: The file; it need not exist.
        commits: Of which the lines count.

    Attributes:
        broken: Cases that could not be tried: their command fails without a fault.
    """

    def __init__(self, path: Path, commits: list[str]) -> None:
        self._path, self._commit, self._lock = path, commits[0], threading.Lock()
        self.broken: list[str] = []
        self.lines: dict[tuple[str, ...], dict[str, Any]] = {}
        if path.exists():
            for text in path.read_text().splitlines():
                line = json.loads(text)
                if line["commit"] in commits:
                    self._keep(line)

    def _keep(self, line: dict[str, Any]) -> None:
        self.lines[line["case"], line["fault"], line["site"], line["place"]] = line

    def has(self, case: str, fault: Fault, point: Point) -> bool:
        """Return whether this was tried and survived; a failure is tried again."""
        line = self.lines.get((case, fault.name, point.site, point.place))
        return line is not None and not line["failure"]

    def add(self, case: str, fault: Fault, point: Point, met: bool, failure: str) -> None:
        """Write a line."""
        line = {
            "commit": self._commit,
            "case": case,
            "fault": fault.name,
            "site": point.site,
            "place": point.place,
            "changes": point.changes,
            "met": met,
            "failure": failure,
        }
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            self._keep(line)

    def table(self) -> list[str]:
        """Return the rows of the table: of each case, the points tried with each kind of fault."""
        rows = [
            "| stage | points (those that change something) | " + " | ".join(f.name for f in FAULTS)
        ]
        rows = [f"{rows[0]} | not as promised |", f"|{'---|' * (len(FAULTS) + 3)}"]
        for name, _, _ in cases():
            lines = [line for line in self.lines.values() if line["case"] == name]
            points = {(line["site"], line["place"]): line["changes"] for line in lines}
            counts = [sum(line["fault"] == f.name for line in lines) for f in FAULTS]
            bad = sum(bool(line["failure"]) for line in lines)
            cells = [name, f"{len(points)} ({sum(points.values())})", *counts, bad]
            rows.append("| " + " | ".join(map(str, cells)) + " |")
        return rows


def sweep(journal: Journal, chosen: list[_Made], jobs: int) -> None:
    """Try what the journal has not, in so many processes at a time."""
    base = Path(tempfile.mkdtemp(prefix="faults-", dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        threads = [
            threading.Thread(target=_share, args=(journal, chosen, base, job, jobs))
            for job in range(jobs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _share(journal: Journal, chosen: list[_Made], base: Path, job: int, jobs: int) -> None:
    """Try one of `jobs` shares of the points, in a folder and with servers of its own."""
    folder = base / str(job)
    servers: dict[str, Server] = {}
    try:
        for number, (name, heavy, construct) in enumerate(chosen):
            modules = "tensorflow" if heavy else "light"
            if modules not in servers:
                shim = folder / modules
                shim.mkdir(parents=True)
                servers[modules] = Server(shim, modules)
            try:
                case = construct(servers[modules], folder / str(number))
            except Exception:
                journal.broken.append(name)
                traceback.print_exc()
                continue
            _try_points(journal, case, name, job, jobs)
            shutil.rmtree(folder / str(number))
    finally:
        for server in servers.values():
            server.close()


def _try_points(journal: Journal, case: Case, name: str, job: int, jobs: int) -> None:
    started, tried = time.monotonic(), 0
    # The first call of each site with each kind of fault comes before the last calls.
    tries = itertools.product(("first", "last"), FAULTS, case.points)
    for place, fault, point in tries:
        mine = zlib.crc32(f"{point.site}{point.place}".encode()) % jobs == job
        if point.place != place or not mine:
            continue
        if fault in faults_of(point) and not journal.has(name, fault, point):
            met, failure = False, ""
            try:
                met = case.try_point(point, fault)
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
                print(f"{name}, {fault.name}, {point}: {failure}", flush=True)
            journal.add(name, fault, point, met, failure)
            tried += 1
    print(f"{name}: {tried} points in {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Read the command line, sweep, print the table; exit code 1 if anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("journal", type=Path)
    parser.add_argument("--only", default="", help="beginnings of stages' names, with semicolons")
    parser.add_argument("--also", default="", help="other commits whose lines count, with commas")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short=9", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    options.journal.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.journal, [commit, *filter(None, options.also.split(","))])
    only = tuple(options.only.split(";"))
    sweep(journal, [made for made in cases() if made[0].startswith(only)], options.jobs)
    print("\n".join(journal.table()))
    raise SystemExit(bool(journal.broken) or any(line["failure"] for line in journal.lines.values()))


if __name__ == "__main__":
    main()
