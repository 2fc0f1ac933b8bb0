"""Worker processes for work that native decoders may crash.

`multiprocessing.Pool` hangs for ever when a worker is killed; `ProcessPoolExecutor` notices, but
loses every task in flight. `ordered_map` runs those again one item at a time. Only an item that
kills a fresh process is lost, and it costs one result: in a used process, an earlier item may have
done the damage. An item that hangs is killed by its own process's alarm clock, see `limited`.

A crash (SIGSEGV, SIGABRT, SIGBUS, ...) is the decoder's. SIGKILL and SIGTERM come from outside, from
an administrator or the kernel for memory, and are never an item's fault. The item is tried again, with
nothing else at work. If its process is killed again and again while an idle one lives, the
kills follow the item: it takes more memory than the machine has. It is lost as `machine_error`, which
the next run tries again. If the idle one is killed too, the run ends, and the next one continues.
"""

import collections
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from tumorbatch import machine, memory_limit, semaphores, standard_error
from tumorbatch.errors import TryAgainError
from tumorbatch.signals import SIGNALS, end_if_asked
from tumorbatch.status import FileError, Status

Item = TypeVar("Item")
Result = TypeVar("Result")

# Spawned, not forked: the parent may have TensorFlow's threads and locks.
_CONTEXT = multiprocessing.get_context("spawn")

CHUNKS_PER_WORKER = 3  # under way: one in work, one that waits, one that is finished
SECONDS = 60.0  # for one file; the largest image that is read here takes about five

_SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # Python's variable: -P for all that is started
# Workers share the cores already: the threads of their linear algebra would only wait for each other.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGXCPU)  # exit codes
_PROOFS = 3  # times that only the item's process is killed
_KILLS = 8  # times that an item's process is killed, before the run gives up
_STARTS = 3  # attempts to start a worker


def _start_worker(memory: int) -> None:
    """Set up a worker process, in which one item may take so many bytes of memory."""
    memory_limit.start(memory)
    # Terminals and schedulers signal the whole group: the parent alone decides what that means.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*SIGNALS, signal.SIGALRM))
    # libjpeg, libpng and libtiff print their opinions there, even of good files: the reason of a bad
    # one is in its row, and cron would mail every word.
    standard_error.send_to_null()
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow_parent() -> None:
            wait([parent.sentinel])
            os._exit(1)  # a killed parent cannot stop us, and its queue would keep us waiting

        threading.Thread(target=follow_parent, daemon=True).start()


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Block signals while a worker may be started.

    An interruption in between would leave a worker that prints a traceback: the pipe through which it
    receives its work would be closed too early. Workers inherit the mask, and lift it. The mask alone
    does not hold back a signal that another thread receives, for example one of TensorFlow's: Python
    then runs the handler in this thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread, and no handler can be set here
        return
    waiting: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    handlers = {
        number: signal.signal(number, lambda number, _: waiting.append(number)) for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for held_back in waiting:
            signal.raise_signal(held_back)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Give variables to the processes that are started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def safe_import_path() -> contextlib.AbstractContextManager[None]:
    """Let Python processes that are started inside not import from the current folder.

    A `signal.py` or `queue.py` that lies there would take the place of the standard library's.
    """
    return _environment(_SAFE_PATH)


def _one_thread() -> contextlib.AbstractContextManager[None]:
    """Let processes that are started inside multiply matrices in one thread.

    The libraries read this when NumPy is loaded. A number that the user has set stays.
    """
    return _environment({name: one for name, one in _ONE_THREAD.items() if name not in os.environ})


@contextlib.contextmanager
def _existing_folder() -> Iterator[None]:
    """Leave a current folder that was deleted while processes start: each would look for its name."""
    try:
        os.getcwd()
    except OSError:
        descriptor = os.open(".", os.O_RDONLY)
        os.chdir("/")
        try:
            yield
        finally:
            os.fchdir(descriptor)
            os.close(descriptor)
    else:
        yield


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Around what may start a process.

    Raises:
        TryAgainError: The machine lacks what it takes; the text names it.
    """
    try:
        # A process that cannot even start prints a traceback before `_start_worker` could hold it back.
        with (
            _signals_wait(),
            safe_import_path(),
            _one_thread(),
            _existing_folder(),
            standard_error.silenced(),
        ):
            yield
    except (OSError, MemoryError, RuntimeError) as error:
        reason = machine.start_problem(error)
        if isinstance(error, BrokenProcessPool) or not reason:
            raise
        raise TryAgainError(
            f"Worker processes cannot be started: {reason}. The same command continues then."
        ) from error


def _executor(workers: int) -> ProcessPoolExecutor:
    semaphores.claim()
    with _starting():
        return ProcessPoolExecutor(
            workers,
            mp_context=_CONTEXT,
            initializer=_start_worker,
            initargs=(memory_limit.budget(),),
        )


def _stop(pool: ProcessPoolExecutor) -> None:
    pool.shutdown(wait=True, cancel_futures=True)


def limited(items: Iterable[Item], seconds: float) -> Iterator[Item]:
    """Yield the items; a worker process that keeps one longer than `seconds` is killed.

    By SIGALRM with its default action: no native decoder, however stuck, can hold that back. (A
    process that waits for a dead network file system can.) The memory that an item may take is
    limited as well, see `memory_limit`.
    """
    try:
        for item in items:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            with memory_limit.for_one_file():
                yield item
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def ordered_map(
    function: Callable[[Sequence[Item]], list[Result]],
    chunks: Iterable[Sequence[Item]],
    workers: int,
    on_loss: Callable[[Item, FileError], Result],
    seconds: float = SECONDS,
    chunks_per_worker: int = CHUNKS_PER_WORKER,
    meanwhile: Callable[[], object] | None = None,
) -> Generator[list[Result]]:
    """Yield `function(chunk)` for each chunk, in order, computed by worker processes.

    So many chunks a worker are under way at most, so memory does not grow with their number.

    Args:
        function: Importable by name; gives one result for each item of its chunk.
        chunks: Taken one by one as workers become free.
        workers: Number of processes.
        on_loss: The result, made here, for an item that cost its process, and why: `decoder_crash`,
            `timeout` or `machine_error`.
        seconds: The limit that `function` sets with `limited`, for the message.
        chunks_per_worker: How many may be under way.
        meanwhile: Is called once, when the workers have got their first chunks; not if there is none.

    Raises:
        TryAgainError: Worker processes die before they get an item.
    """
    chunks = iter(chunks)
    rescue = functools.partial(_one_by_one, function, on_loss, seconds)
    under_way: collections.deque[tuple[Sequence[Item], Future[list[Result]]]] = collections.deque()
    pool = _executor(workers)
    try:
        while True:
            while len(under_way) < chunks_per_worker * workers:
                chunk = next(chunks, None)
                if chunk is None:
                    break
                under_way.append((chunk, _submit(pool, function, chunk)))
            if not under_way:
                return
            if meanwhile is not None:
                meanwhile()
                meanwhile = None
            chunk, future = under_way.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:
                _stop(pool)
                pool = _executor(workers)
                # Everything unfinished may hold the killer; what finished before it is kept.
                lost = [(chunk, future), *under_way]
                under_way = collections.deque(
                    (items, results if _succeeded(results) else rescue(items))
                    for items, results in lost
                )
                continue
            end_if_asked()
            yield result
    finally:
        _stop(pool)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Sequence[Item]], list[Result]], chunk: Sequence[Item]
) -> "Future[list[Result]]":
    try:
        with _starting():
            return pool.submit(function, chunk)
    except BrokenProcessPool as error:
        broken: Future[list[Result]] = Future()
        broken.set_exception(error)
        return broken


def _succeeded(future: "Future[list[Result]]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _one_by_one(
    function: Callable[[Sequence[Item]], list[Result]],
    on_loss: Callable[[Item, FileError], Result],
    seconds: float,
    chunk: Sequence[Item],
) -> "Future[list[Result]]":
    results: list[Result] = []
    waiting = collections.deque(chunk)
    alone, companion, fresh = _Worker(function), None, True
    kills = proofs = 0
    try:
        while waiting:
            try:
                results += _submit(alone.pool, function, [waiting[0]]).result()
                waiting.popleft()
                fresh, kills, proofs = False, 0, 0
                continue
            except BrokenProcessPool:
                code = alone.exit_code()
            # In a used process, an earlier item may have done the damage; but not the waiting.
            lost = fresh or code == -signal.SIGALRM
            if code in _FROM_OUTSIDE:
                kills += 1
                proofs += fresh and companion is not None and companion.lives()
                lost = proofs >= _PROOFS
                _refuse_kills(kills)
            if lost:
                results.append(on_loss(waiting.popleft(), _loss(code, seconds)))
                kills = proofs = 0
            elif kills and (companion is None or not companion.lives()):
                companion = _replaced(companion, function)
            alone, fresh = _replaced(alone, function), True
    finally:
        for worker in (alone, companion):
            if worker is not None:
                _stop(worker.pool)
    finished: Future[list[Result]] = Future()
    finished.set_result(results)
    return finished


def _process_id(_: object) -> int:
    """Return this process' number; to hand over a function imports what it needs."""
    return os.getpid()


class _Worker:
    """A pool of one process that has started, and has imported what `function` needs.

    So it is at work on an item for as long as the item takes, and a kill at another moment is not
    taken for one that follows the item.

    Raises:
        TryAgainError: It dies before it gets an item, which is then not to blame.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        for _ in range(_STARTS):
            self.pool = _executor(1)
            try:
                with _starting():
                    ready = self.pool.submit(_process_id, function)
                pid = ready.result()
            except BrokenProcessPool:
                _stop(self.pool)
                continue
            self._process = next(
                (child for child in multiprocessing.active_children() if child.pid == pid), None
            )
            return
        raise TryAgainError(
            "Worker processes die as soon as they start. Is there memory for them (--workers 1 needs "
            'the least)? A script of your own needs `if __name__ == "__main__":` around its calls.'
        )

    def lives(self) -> bool:
        """Return whether it still does in a moment: who kills all of them needs one."""
        time.sleep(0.2)
        return self._process is not None and self._process.is_alive()

    def exit_code(self) -> int | None:
        """Stop the process; return its exit code, minus the signal that killed it."""
        _stop(self.pool)
        return None if self._process is None else self._process.exitcode


def _replaced(worker: _Worker | None, function: Callable[..., object]) -> _Worker:
    if worker is not None:
        _stop(worker.pool)
    return _Worker(function)


def _refuse_kills(kills: int) -> None:
    """Raise `TryAgainError` where one item's processes are killed too often to continue."""
    if kills >= _KILLS:
        raise TryAgainError(
            f"Worker processes were killed from outside {kills} times in a row. Is there memory for "
            "them (--workers 1 needs the least)? No file is to blame; what is done is kept, and the "
            "same command continues."
        )


def _loss(code: int | None, seconds: float) -> FileError:
    """Return why an item is lost.

    Args:
        code: Exit code of its process, or minus the signal; None: not known.
        seconds: The limit on its time.
    """
    if code == -signal.SIGALRM:
        return FileError(Status.TIMEOUT, f"not decoded within {seconds:g} s (--timeout)")
    if code in _FROM_OUTSIDE:
        return FileError(
            Status.MACHINE_ERROR,
            f"the machine could not decode it: its process was killed {_PROOFS} times while nothing "
            "else was at work; is there memory for it?",
        )
    how = "" if code is None or code >= 0 else f" ({signal.Signals(-code).name})"
    return FileError(Status.DECODER_CRASH, f"the process that decoded it crashed{how}")
