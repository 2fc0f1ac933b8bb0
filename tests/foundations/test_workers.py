"""Worker processes that may be killed by what they work on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tumorbatch.errors import TryAgainError
from tumorbatch.lock import output_lock
from tumorbatch.status import FileError, Status
from tumorbatch.workers import limited, ordered_map

CRASHED = Status.DECODER_CRASH
_poisoned = False

# --- what the workers do: imported by name in their processes -----------------------------------


def square(items: Sequence[int]) -> list[Any]:
    """Negative items kill the process."""
    for item in items:
        if item < 0:
            os.abort()
    return [item * item for item in items]


def slow_first(items: Sequence[int]) -> list[Any]:
    time.sleep(0.3 if 0 in items else 0)
    return list(items)


def refuse_seven(items: Sequence[int]) -> list[Any]:
    if 7 in items:
        raise ValueError("seven")
    return list(items)


def poison(items: Sequence[str]) -> list[Any]:
    """After "poison" the next item kills the process, as after a decoder that wrote out of bounds."""
    global _poisoned
    results = []
    for item in items:
        if _poisoned:
            os.abort()
        _poisoned = item == "poison"
        results.append(item)
    return results


def sleep(items: Sequence[str]) -> list[Any]:
    """Writes its process id to the file that the item names."""
    Path(items[0]).write_text(str(os.getpid()))
    time.sleep(600)
    return []


def die_after_the_other(items: Sequence[tuple[str, str]]) -> list[Any]:
    """("die", MARK) dies when ("live", MARK) has been done; the file MARK counts how often."""
    ((what, mark),) = items
    if what == "live":
        with open(mark, "a") as file:
            file.write("x")
        return [what]
    deadline = time.monotonic() + 20
    while not os.path.exists(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # the other's result travels back
    os.abort()
    return []


def signal_handlers(items: Sequence[int]) -> list[Any]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    return [[signal.getsignal(number) for number in numbers] for _ in items]


def multiplication_threads(items: Sequence[str]) -> list[Any]:
    """Return for each item the threads of NumPy's linear algebra, and a variable's value."""
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    threads = max(library["num_threads"] for library in threadpool_info())
    return [(threads, os.environ.get(item)) for item in items]


LIMIT = 1.5  # seconds of an item; the others take none


def hang_on_seven(items: Sequence[int]) -> list[Any]:
    """Seven never ends, and lets no signal handler written in Python run."""
    results = []
    for item in limited(items, LIMIT):
        if item == 7:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
            time.sleep(600)
        results.append(item)
    return results


def kill_all_workers(items: Sequence[str]) -> list[Any]:
    """As long as the file that an item names asks for it, all workers of the parent are killed."""
    for item in items:
        if left := int(Path(item).read_text()):
            Path(item).write_text(str(left - 1))
            listed = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text().split()
            workers = [int(pid) for pid in listed if _is_worker(int(pid))]
            for pid in sorted(workers, key=lambda pid: pid == os.getpid()):  # this one last
                os.kill(pid, signal.SIGKILL)
    return list(items)


def _is_worker(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


def on_loss(_: Any, error: FileError) -> Any:
    return error.status


# ------------------------------------------------------------------------------------------------


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_for_any_number_of_workers(workers: int) -> None:
    chunks = _chunks(range(50), 7)  # the last one is shorter
    results = list(ordered_map(square, iter(chunks), workers, on_loss))
    assert results == [[item * item for item in chunk] for chunk in chunks]


def test_a_slow_chunk_keeps_its_place() -> None:
    chunks = [[0], [1], [2]]
    assert list(ordered_map(slow_first, chunks, 2, on_loss)) == chunks


def test_no_chunks_no_results() -> None:
    assert list(ordered_map(square, [], 2, on_loss)) == []


def test_an_item_that_kills_its_process_costs_itself_alone() -> None:
    # The very first, two neighbours, and the very last, which is submitted after the first crash.
    killers = {0, 14, 15, 35}
    items = [-1 if index in killers else index for index in range(36)]
    results = list(ordered_map(square, _chunks(items, 3), 2, on_loss))
    assert [len(result) for result in results] == [3] * 12
    flat = [value for result in results for value in result]
    assert flat == [CRASHED if item < 0 else item * item for item in items]


def test_a_worker_multiplies_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a worker for each core: more threads would only wait for each other."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    ((one,),) = ordered_map(multiplication_threads, [["OMP_NUM_THREADS"]], 1, on_loss)
    assert one == (1, "1")
    assert dict(os.environ) == before  # the command itself uses all cores
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the user's own choice
    ((one,),) = ordered_map(multiplication_threads, [["OMP_NUM_THREADS"]], 1, on_loss)
    assert one[1] == "3"


def test_what_was_finished_before_a_crash_is_not_done_again(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    chunks = [[("die", mark)], [("live", mark)]]
    assert list(ordered_map(die_after_the_other, chunks, 2, on_loss)) == [[CRASHED], ["live"]]
    assert Path(mark).read_text() == "x"


def test_an_item_is_not_blamed_for_its_predecessors_damage() -> None:
    chunk = ["good", "poison", "innocent", "good"]
    assert list(ordered_map(poison, [chunk], 1, on_loss)) == [chunk]


@pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="this kernel lists no children"
)
def test_kills_from_outside_are_no_items_fault(tmp_path: Path) -> None:
    """As an administrator or the kernel kills them, short of memory: every worker, again and again."""
    kills = tmp_path / "kills"
    kills.write_text("2")
    chunk = [str(kills)] * 3
    assert list(ordered_map(kill_all_workers, [chunk, chunk], 2, on_loss)) == [chunk, chunk]
    kills.write_text("1000")
    with pytest.raises(TryAgainError, match=r"killed from outside \d+ times in a row"):
        list(ordered_map(kill_all_workers, [chunk], 1, on_loss))


def kill_at_seven(items: Sequence[int]) -> list[Any]:
    """Seven takes so much memory that the kernel kills its process, each time."""
    if 7 in items:
        os.kill(os.getpid(), signal.SIGKILL)
    return list(items)


def test_kills_that_follow_an_item_cost_it_alone_and_are_not_its_fault() -> None:
    results = list(ordered_map(kill_at_seven, [[6, 7], [8]], 1, on_loss))
    assert results == [[6, Status.MACHINE_ERROR], [8]]


def killed_at_first(items: Sequence[str]) -> list[Any]:
    """The process of the item is killed as often as the file says that the item names."""
    for item in items:
        if left := int(Path(item).read_text()):
            Path(item).write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
    return list(items)


def test_an_item_whose_process_was_killed_a_few_times_is_kept(tmp_path: Path) -> None:
    """As by a killer that has met the item's process by chance: more often than that is no chance."""
    kills = tmp_path / "kills"
    for times, expected in ((4, str(kills)), (5, Status.MACHINE_ERROR)):
        # The first in the common pool, the second before an idle process stands beside it.
        kills.write_text(str(times))
        assert list(ordered_map(killed_at_first, [[str(kills)]], 1, on_loss)) == [[expected]]


def raise_signal(items: Sequence[int]) -> list[Any]:
    for number in items:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return list(items)


def reason(_: Any, error: FileError) -> Any:
    return error.status, error.message


def test_a_crash_is_the_decoders_and_names_its_signal() -> None:
    (results,) = ordered_map(raise_signal, [[signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT]], 1, reason)
    text = "the process that decoded it crashed"
    assert results == [(CRASHED, f"{text} ({name})") for name in ("SIGSEGV", "SIGBUS", "SIGABRT")]


def test_an_item_that_hangs_costs_itself_alone() -> None:
    chunks = _chunks(range(12), 3)
    results = list(ordered_map(hang_on_seven, chunks, 2, on_loss, LIMIT))
    assert [value for result in results for value in result] == [
        Status.TIMEOUT if item == 7 else item for item in range(12)
    ]


def test_the_limit_is_each_items_own_and_ends_with_the_items() -> None:
    left = []
    for _ in limited(range(4), 300):  # in this process: SIGALRM would kill the test run
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        time.sleep(0.02)
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
    starts, ends = left[::2], left[1::2]
    assert len(starts) == 4
    assert all(start > end for start, end in zip(starts[1:], ends, strict=False))
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_workers_that_cannot_start_are_not_the_items_fault(tmp_path: Path) -> None:
    """As where memory is short, or a script calls without `if __name__ == "__main__"`."""
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.foundations.test_workers import on_loss, square\n"
        "from tumorbatch.workers import ordered_map\n"
        "print(list(ordered_map(square, [[1, 2]], 1, on_loss)))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "TryAgainError: Worker processes die as soon as they start." in done.stderr
    assert "timeout" not in done.stdout


def test_an_exception_in_the_function_propagates() -> None:
    results = ordered_map(refuse_seven, _chunks(range(12), 2), 2, on_loss)
    assert [next(results) for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="seven"):
        next(results)


def test_chunks_are_taken_as_they_are_needed() -> None:
    taken = 0

    def chunks() -> Iterator[list[int]]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield [number]

    results = ordered_map(square, chunks(), 1, on_loss)
    assert taken == 0
    for done in range(1, 20):
        next(results)
        assert done <= taken <= done + 3
    results.close()  # type: ignore[attr-defined]
    assert taken < 30


def test_workers_leave_to_the_parent_what_terminals_and_schedulers_send() -> None:
    # It goes to all processes of the group; the parent alone decides what it means.
    ((handlers,),) = ordered_map(signal_handlers, [[0]], 1, on_loss)
    assert handlers == [signal.SIG_DFL, *[signal.SIG_IGN] * 4]


PARENT = """
import sys
from pathlib import Path
from tests.foundations.test_workers import on_loss, sleep
from tumorbatch.lock import output_lock
from tumorbatch.lock import output_lock
from tumorbatch.workers import ordered_map
folder = Path(sys.argv[1])
with output_lock(folder / "out", folder / "lock"):
    list(ordered_map(sleep, [[str(folder / f"{n}.pid")] for n in range(2)], 2, on_loss))
"""


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, and nobody has asked for its exit status


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_end_when_the_parent_is_killed(tmp_path: Path, python: Any) -> None:
    parent = python(PARENT, tmp_path)
    marks = [tmp_path / f"{number}.pid" for number in range(2)]
    _wait_until(lambda: all(mark.exists() and mark.read_text() for mark in marks), 30)
    workers = [int(mark.read_text()) for mark in marks]
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert set(workers) <= {int(child) for child in children}  # and a helper of multiprocessing
    assert all(map(_alive, workers))
    parent.kill()
    parent.wait()
    # Though the workers may live on for a moment, they do not hold the lock.
    try:
        with output_lock(tmp_path / "out", tmp_path / "lock"):
            _wait_until(lambda: not any(_alive(int(child)) for child in children), 10)
    finally:
        for worker in filter(_alive, workers):
            os.kill(worker, signal.SIGKILL)
