"""The frame of each command: logging, signals, error messages, exit codes."""

import contextlib
import datetime
import itertools
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence

import click
from click.core import ParameterSource

from tumorbatch import machine
from tumorbatch.cli import console, settings, streams
from tumorbatch.errors import (
    ConfigError,
    ExitCode,
    InputError,
    OutputError,
    TryAgainError,
    TumorBatchError,
    failed_call,
)
from tumorbatch.files import visible
from tumorbatch.signals import forget, listen

log = logging.getLogger(__name__)

LOG_FORMATS = ("text", "json")


class _Log:
    """How the running command logs; one per process.

    Attributes:
        format: One of `LOG_FORMATS`.
        verbose: Whether settings and tracebacks are logged too.
        started: When the command started, `time.monotonic()`.
        ended: Whether the event that ends the log was written.
    """

    format = "text"
    verbose = False
    started = 0.0
    ended = False


def begin(arguments: Sequence[str]) -> None:
    """Forget what an earlier command of this process chose, and log as `arguments` say.

    The option is looked for before click reads it: other arguments may be wrong.
    """
    _Log.format, _Log.verbose, _Log.started, _Log.ended = "text", False, time.monotonic(), False
    if "--log-format=json" in arguments or ("--log-format", "json") in itertools.pairwise(arguments):
        choose_format("json")


def choose_format(log_format: str) -> None:
    """Log in this format, one of `LOG_FORMATS`, from now on."""
    _Log.format = log_format
    if log_format == "json":
        _set_up_logging(quiet=False)


def be_verbose() -> None:
    """Log settings and tracebacks too, from now on."""
    _Log.verbose = True


def is_json() -> bool:
    """Return whether the log is JSON."""
    return _Log.format == "json"


def _utc(created: float, precision: str) -> str:
    """Format a time in seconds since 1970 as ISO 8601 in UTC, to "seconds" or "milliseconds"."""
    when = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


class _Formatter(logging.Formatter):
    """Formats plain sentences for a terminal; adds the time (UTC) elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        text = visible(record.getMessage())  # line ends too: a name must not look like a log line
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.capitalize()}: {text}"
        if sys.stderr.isatty():
            return text
        return f"{_utc(record.created, 'seconds')} {text}"


class _JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: ts (UTC), level, logger, message.

    The line that ends a run has more: event ("end"), exit_code, seconds; and traceback after a bug.
    """

    def format(self, record: logging.LogRecord) -> str:
        value: dict[str, object] = {
            "ts": _utc(record.created, "milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": visible(record.getMessage()),
        }
        return json.dumps({**value, **getattr(record, "end", {})})


def _set_up_logging(quiet: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if is_json() else _Formatter())
    logger = logging.getLogger("tumorbatch")
    logger.handlers = [handler]
    logger.propagate = False
    usual = logging.WARNING if quiet else logging.INFO
    logger.setLevel(logging.DEBUG if _Log.verbose else usual)


def _end(level: int, sentence: str, code: int, **more: object) -> None:
    """Write the event that ends a JSON log, unless it is written."""
    if _Log.ended:
        return
    _Log.ended = True
    seconds = round(time.monotonic() - _Log.started, 3)
    end = {"event": "end", "exit_code": int(code), "seconds": seconds, **more}
    logging.getLogger("tumorbatch").log(level, "%s", sentence, extra={"end": end})


def end(code: int) -> None:
    """Write the event that ends the log of a run with the exit code `code`, if the log is JSON."""
    if is_json():
        _end(logging.INFO, f"finished with exit code {code}", code)


def end_with_bug(error: Exception) -> None:
    """Write the event that ends a JSON log after an exception that nothing expected."""
    text = "".join(traceback.format_exception(error))
    _end(logging.ERROR, f"This is a bug: {error!r}", ExitCode.BUG, traceback=text)


def print_error(sentence: str, code: int) -> None:
    """Print the sentence that ends a run, as the log's format wants it."""
    if is_json():
        _end(logging.ERROR, sentence, code)
    else:
        console.complain(sentence)


@contextlib.contextmanager
def session(quiet: bool, when_interrupted: str) -> Iterator[None]:
    """Turn signals and errors into a sentence on standard error and the right exit code.

    Args:
        quiet: Log warnings and errors only.
        when_interrupted: What happens to the work so far; printed after a signal.
    """
    _set_up_logging(quiet)
    listen()
    try:
        _warn_of_variables()
        if _Log.verbose:
            if quiet:
                raise ConfigError("--quiet and --verbose contradict each other: give one of them.")
            _log_settings()
        yield
        if streams.failure() is not None:
            raise OutputError(streams.lost())
    except TumorBatchError as error:
        _log_traceback(error)
        print_error(f"Error: {error}", error.exit_code)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as interruption:
        print_error(f"Interrupted ({interruption}). {when_interrupted}", ExitCode.TRY_AGAIN)
        sys.exit(ExitCode.TRY_AGAIN)
    except Exception as error:
        cause = _explain(error)
        if cause is None:
            raise
        _log_traceback(error)
        print_error(f"Error: {cause} {when_interrupted}", cause.exit_code)
        sys.exit(cause.exit_code)
    finally:
        forget()


def _warn_of_variables() -> None:
    """Warn of environment variables that look like options of the command and are none."""
    context = click.get_current_context(silent=True)
    if context is not None:
        for sentence in settings.unknown_variables(context):
            log.warning("%s", sentence)


def _log_settings() -> None:
    """Log each argument and option with its value and where that comes from."""
    context = click.get_current_context(silent=True)
    if context is None:
        return
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in context.params and source is not None:
            where = source.name.lower().replace("commandline", "command line")
            where = "configuration file" if source is ParameterSource.DEFAULT_MAP else where
            flag = max(parameter.opts, key=len) if isinstance(parameter, click.Option) else name.upper()
            log.debug("%s = %s (%s)", flag, context.params[name], where)


def _log_traceback(error: Exception) -> None:
    """Log where an error comes from, a line each, where the log is verbose."""
    if _Log.verbose:
        for line in "".join(traceback.format_exception(error)).splitlines():
            log.debug("%s", line)


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
