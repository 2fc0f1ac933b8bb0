"""Signals that end a run."""

import signal
from collections.abc import Iterator

import pytest

from tumorbatch import signals
from tumorbatch.workers import ordered_map


@pytest.fixture
def listening() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    signals.listen()
    yield
    signals.forget()
    for number, handler in before.items():
        signal.signal(number, handler)


class Ended:
    """An object that a signal meets while it is being finalised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGUSR2)


@pytest.mark.usefixtures("listening")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_ends_the_run_at_the_next_chunk() -> None:
    results = ordered_map(_doubled, [[1], [2], [3]], 1, lambda *_: 0)
    assert next(results) == [2]
    one = Ended()
    del one  # no exception: Python has printed and dropped it
    with pytest.raises(signals.Interrupted, match="SIGUSR2"):
        next(results)
    signals.forget()
    signals.end_if_asked()


def _doubled(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]
