"""File-system calls of a command fail, or are the last before a kill, as SQLite tests it.

After each fault: an exit code of the contract and a sentence that is true; the old result or the new
one, whole, and `verify` agrees; the same command then ends as if nothing had happened, and nothing else
is left. These tests take some of the calls; `make test-faults` takes them all (sweep.py) and prints the
table of docs/faults.md.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cases import Case, FinishCase, PartCase
from tests.faults.injection import FAULTS, Server
from tests.faults.stages import STAGES, make_inputs

_POINTS = 5  # of each case
_STAGES = {stage.name: stage for stage in STAGES}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("shim"))
    yield server
    server.close()


def _try_some(case: Case) -> None:
    points = [point for point in case.points if point.changes]
    for number, point in enumerate(points[:: len(points) // _POINTS + 1]):
        case.try_point(point, FAULTS[number % len(FAULTS)])


@pytest.mark.parametrize("name", ["shard, grown", "infer, Parquet", "infer, incremental folder"])
def test_some_calls_fail(name: str, server: Server, tmp_path: Path) -> None:
    make_inputs(tmp_path)
    _try_some(Case(_STAGES[name], server, tmp_path))


@pytest.mark.parametrize("kind", [PartCase, FinishCase])
@pytest.mark.parametrize("name", ["shard, first", "infer, Parquet"])
def test_some_calls_of_a_task_fail(name: str, kind: type[Case], server: Server, tmp_path: Path) -> None:
    make_inputs(tmp_path)
    _try_some(kind(_STAGES[name], server, tmp_path))
