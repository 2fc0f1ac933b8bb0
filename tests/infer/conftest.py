"""The command line in this process."""

import logging
import signal
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

Invoke = Callable[..., tuple[int, str]]


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    """Run `tumorbatch ARGUMENTS` in this process; gives the exit code and all output.

    For what does not hang on the process boundary: a process of its own spends seconds on loading
    TensorFlow. A traceback reaches the test.
    """
    from tumorbatch.cli import main

    logger = logging.getLogger("tumorbatch")
    before = (logger.handlers, logger.level, logger.propagate)
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    }

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
        return result.exit_code, result.output

    yield run
    logger.handlers, logger.level, logger.propagate = before
    for number, handler in handlers.items():
        signal.signal(number, handler)
