"""Signals that end a run: an exception, which may wait for a moment at which work can be saved."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import NoReturn

# The terminal's, the administrator's and the schedulers': Slurm sends any of the user's two.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end. Not an `Exception`, so that nothing swallows it."""


_asked: list[int] = []  # the signal that this session has received


def interrupt(number: int, _: object) -> NoReturn:
    """Raise `Interrupted`, the handler of `SIGNALS` in a session."""
    _asked[:] = [number]
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second signal must not cut the cleaning up
    raise Interrupted(signal.Signals(number).name)


def listen() -> None:
    """Let the signals end the run by `interrupt`; SIGHUP not where `nohup` has it ignored."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def end_if_asked() -> None:
    """Raise `Interrupted` again where a signal has come and the run has continued.

    Python drops what a handler raises while an object is being finalised.
    """
    if _asked:
        raise Interrupted(signal.Signals(_asked[0]).name)


def forget() -> None:
    """End a session: what it has received concerns nothing that comes after it."""
    _asked.clear()


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Delay a first signal until the yielded function is called.

    For work that has moments at which it can be saved. A second signal does not wait. Outside of a
    `session`, in a notebook say, nothing changes.
    """
    if signal.getsignal(signal.SIGTERM) is not interrupt:
        yield lambda: None
        return
    waiting: list[int] = []

    def remember(number: int, frame: object) -> None:
        if waiting:
            interrupt(number, frame)
        waiting.append(number)

    def deliver() -> None:
        if waiting:
            interrupt(waiting[0], None)

    numbers = [number for number in SIGNALS if signal.getsignal(number) is interrupt]
    for number in numbers:
        signal.signal(number, remember)
    try:
        yield deliver
    finally:
        if signal.getsignal(signal.SIGTERM) is remember:  # not while it ends already
            for number in numbers:
                signal.signal(number, interrupt)
    deliver()
