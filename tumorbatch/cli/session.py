"""The frame of each command: logging, signals, error messages, exit codes."""

import contextlib
import datetime
import json
import logging
import os
import sys
import time
from collections.abc import Iterator

from tumorbatch import machine
from tumorbatch.cli import console, streams
from tumorbatch.errors import (
    ExitCode,
    InputError,
    OutputError,
    TryAgainError,
    TumorBatchError,
    failed_call,
)
from tumorbatch.files import visible
from tumorbatch.signals import listen

LOG_FORMATS = ("text", "json")


class _Formatter(logging.Formatter):
    """Formats plain sentences for a terminal; adds the time elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        text = visible(record.getMessage())  # line ends too: a name must not look like a log line
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.capitalize()}: {text}"
        if sys.stderr.isatty():
            return text
        return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"


class _JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: ts (UTC), level, logger, message; exit_code in the last."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        value: dict[str, object] = {
            "ts": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": visible(record.getMessage()),
        }
        code = getattr(record, "exit_code", None)
        return json.dumps(value if code is None else {**value, "exit_code": int(code)})


def _set_up_logging(quiet: bool, log_format: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _Formatter())
    logger = logging.getLogger("tumorbatch")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def _print_error(sentence: str, code: ExitCode, log_format: str) -> None:
    if log_format == "json":
        logging.getLogger("tumorbatch").error("%s", sentence, extra={"exit_code": code})
    else:
        console.complain(sentence)


@contextlib.contextmanager
def session(quiet: bool, when_interrupted: str, log_format: str = "text") -> Iterator[None]:
    """Turn signals and errors into a sentence on standard error and the right exit code.

    Args:
        quiet: Log warnings and errors only.
        when_interrupted: What happens to the work so far; printed after a signal.
        log_format: "text", or "json" for one object a line.
    """
    _set_up_logging(quiet, log_format)
    listen()
    try:
        yield
        if streams.failure() is not None:
            raise OutputError(streams.lost())
    except TumorBatchError as error:
        _print_error(f"Error: {error}", error.exit_code, log_format)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as interruption:
        _print_error(
            f"Interrupted ({interruption}). {when_interrupted}", ExitCode.TRY_AGAIN, log_format
        )
        sys.exit(ExitCode.TRY_AGAIN)
    except Exception as error:
        cause = _explain(error)
        if cause is None:
            raise
        _print_error(f"Error: {cause} {when_interrupted}", cause.exit_code, log_format)
        sys.exit(cause.exit_code)


def _explain(error: Exception) -> TumorBatchError | None:
    """Return what is wrong with the machine if that caused `error`; None for a bug."""
    reason = machine.shortage(error)
    if reason:
        return TryAgainError(f"The machine could not continue: {reason}.")
    if not isinstance(error, OSError):
        return None
    try:
        os.getcwd()
    except OSError:
        return InputError("The current folder was deleted. Change to another one.")
    return failed_call(error)
