"""What the benchmarks share: contestants in turn, ratios of pairs, results as JSON, one table.

A contestant is a command. All contestants of a stage run one after the other, round by round, on the
same files: the machine's ups and downs meet all of them, and a ratio is always that of two runs of one
round. A peer whose package is missing, or which fails, stands in the result with the reason.
"""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
OUT = "OUT"  # stands for a new path in each run of a contestant's command
_ACCEPTED = (0, 3)  # 3: some files have error rows
_MAX_SECONDS = 1800.0  # a contestant that takes longer has failed


@dataclass(frozen=True, slots=True)
class Contestant:
    """One command of a stage.

    Attributes:
        name: For table and chart.
        command: Words; `OUT` in it becomes a path that does not exist yet.
        own: A command of this project: every other contestant is compared with it.
        needs: Modules of the peers' environment without which it cannot run.
        inside: Its last line of output has the seconds that count, `{"images": 9, "seconds": 1.5}`;
            otherwise those of the whole process count.
        slow: Left out of the quick run.
    """

    name: str
    command: tuple[str, ...]
    own: bool = False
    needs: tuple[str, ...] = ()
    inside: bool = False
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """What is compared with each other.

    Attributes:
        name: Of the files that are written.
        title: Above the chart.
        images: That a contestant handles which does not count them itself.
        contestants: This project's first.
    """

    name: str
    title: str
    images: int
    contestants: tuple[Contestant, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contestant: images, seconds, and CPU seconds of the process and its children."""

    images: int
    seconds: float
    cpu_seconds: float


class FailedError(Exception):
    """A contestant's command failed; the text is its last line."""


@dataclass(slots=True)
class Record:
    """What the rounds have given for one contestant; `skipped` is the reason why there is nothing."""

    contestant: Contestant
    runs: list[Run] = field(default_factory=list)
    skipped: str | None = None

    @property
    def rates(self) -> list[float]:
        """Images per second, one a round."""
        return [run.images / run.seconds for run in self.runs]


def run_command(
    contestant: Contestant, images: int, clock: Callable[[], float] = time.perf_counter
) -> Run:
    """Run a contestant once, as its own process, and remove what it has written.

    Raises:
        FailedError: Its exit code is not 0 or 3, or it does not print what it must.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        command = [word.replace(OUT, f"{folder}/out") for word in contestant.command]
        with open(f"{folder}/stdout", "w+") as stdout, open(f"{folder}/stderr", "w+") as stderr:
            started = clock()
            process = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, env=_environment()
            )
            # wait4 and not wait: it says what the process and its children have computed.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = clock() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            for stream in (stdout, stderr):
                stream.seek(0)
            output, errors = stdout.read(), stderr.read()
    if process.returncode not in _ACCEPTED:
        lines = [line for line in (errors or output).splitlines() if line.strip()]
        raise FailedError(f"exit code {process.returncode}: {lines[-1] if lines else 'no message'}")
    report: dict[str, Any] = {}
    if not contestant.own or contestant.inside:
        try:
            report = json.loads(output.strip().splitlines()[-1])
        except (IndexError, ValueError) as error:
            raise FailedError("it printed no line with its number of images") from error
    if contestant.inside:
        seconds = float(report["seconds"])
    return Run(int(report.get("images", images)), seconds, usage.ru_utime + usage.ru_stime)


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}


def missing_modules(python: Path, modules: Sequence[str]) -> set[str]:
    """Return which modules the interpreter of the peers' environment does not find."""
    code = (
        "import importlib.util as util, sys\n"
        "print([name for name in sys.argv[1:] if util.find_spec(name) is None])"
    )
    if not python.exists():
        return set(modules)
    done = subprocess.run([python, "-c", code, *modules], capture_output=True, text=True, check=True)
    return {module for module in modules if repr(module) in done.stdout}


class Comparison:
    """The rounds of one stage.

    Args:
        stage: Its contestants.
        missing: Modules that the peers' environment lacks.
        run: Runs a contestant once; tests give another one.
    """

    def __init__(
        self,
        stage: Stage,
        missing: frozenset[str] | set[str] = frozenset(),
        run: Callable[[Contestant, int], Run] = run_command,
    ) -> None:
        self.stage = stage
        self.records = [Record(contestant) for contestant in stage.contestants]
        self.rounds = 0
        self._run = run
        for record in self.records:
            absent = [module for module in record.contestant.needs if module in missing]
            if absent:
                record.skipped = f"not installed in .venv-peers: {', '.join(absent)}"

    def round(self) -> None:
        """Run every contestant once; one that fails is skipped from then on.

        Raises:
            FailedError: A command of this project failed: there is nothing to compare with.
        """
        for record in self.records:
            if record.skipped is not None:
                continue
            try:
                record.runs.append(self._run(record.contestant, self.stage.images))
            except FailedError as error:
                if record.contestant.own:
                    raise FailedError(f"{record.contestant.name}: {error}") from error
                record.skipped = f"it failed: {error}"
                record.runs.clear()
        self.rounds += 1

    def result(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stage's result, ready for JSON; `about` says on what and with what it ran."""
        owns = [record for record in self.records if record.contestant.own and record.runs]
        return {
            "schema": SCHEMA,
            "stage": self.stage.name,
            "title": self.stage.title,
            **about,
            "rounds": self.rounds,
            "contestants": [
                {
                    "name": record.contestant.name,
                    "own": record.contestant.own,
                    "command": " ".join(record.contestant.command),
                    "measured": "inside the process" if record.contestant.inside else "whole process",
                    "skipped": record.skipped,
                    "images": [run.images for run in record.runs],
                    "seconds": [round(run.seconds, 4) for run in record.runs],
                    "cpu_seconds": [round(run.cpu_seconds, 3) for run in record.runs],
                }
                for record in self.records
            ],
            "ratios": [
                {
                    "own": own.contestant.name,
                    "peer": peer.contestant.name,
                    **spread(own.rates, peer.rates),
                }
                for own in owns
                for peer in self.records
                if peer is not own and peer.runs
            ],
        }


def spread(own: Sequence[float], peer: Sequence[float]) -> dict[str, float]:
    """Return how many times as fast `own` is as `peer`: median, least and most of the rounds.

    Args:
        own: Images per second, one a round.
        peer: Likewise, of the same rounds.
    """
    ratios = [a / b for a, b in zip(own, peer, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def rates(contestant: Mapping[str, Any]) -> list[float]:
    """Return images per second, one a round, of a contestant in a result."""
    return [
        images / seconds
        for images, seconds in zip(contestant["images"], contestant["seconds"], strict=True)
    ]


def rate_text(contestant: Mapping[str, Any]) -> str:
    """Return the median of a contestant's images per second, with two figures at least."""
    rate = statistics.median(rates(contestant))
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"


def table(result: Mapping[str, Any]) -> str:
    """Return a result as text: images per second, and a column of ratios for each own command."""
    owns = [one["name"] for one in result["contestants"] if one["own"] and not one["skipped"]]
    ratios = {(ratio["own"], ratio["peer"]): ratio for ratio in result["ratios"]}
    lines = [result["title"], f"{'':46}{'images/s':>10}" + "".join(f"  {own:>28}" for own in owns)]
    for one in result["contestants"]:
        if one["skipped"]:
            lines.append(f"{one['name'][:45]:46}{'skipped':>10}  {one['skipped']}")
            continue
        cells = []
        for own in owns:
            ratio = ratios.get((own, one["name"]))
            cells.append(
                "" if ratio is None else "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio)
            )
        lines.append(
            f"{one['name'][:45]:46}{rate_text(one):>10}" + "".join(f"  {cell:>28}" for cell in cells)
        )
    lines.append(
        f"Right columns: how many times as fast each own command is (median, least, most of "
        f"{result['rounds']} rounds)."
    )
    return "\n".join(line.rstrip() for line in lines)


def link_files(files: Sequence[tuple[Path, Path]]) -> None:
    """Make (source, target) hard links, or copies where the file system has none."""
    for source, target in files:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.resolve(), target)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)
