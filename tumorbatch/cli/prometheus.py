"""A run's figures for Prometheus, as a file for node_exporter's textfile collector.

Written atomically, in the folder that the collector reads, and without timestamps: it rejects files
that have them. A failed run carries the time of the last success over, so that an alert on its age
works.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tumorbatch import __version__
from tumorbatch.atomic import write_bytes
from tumorbatch.errors import ConfigError, ExitCode, OutputError, TumorBatchError
from tumorbatch.files import read_regular

_PREFIX = "tumorbatch_infer_"
_SUCCESS = f"{_PREFIX}last_success_timestamp_seconds"
_MAX_BYTES = 1 << 20
_GOOD = (ExitCode.OK, ExitCode.SOME_ERRORS)  # a table was published, or there was nothing new
_HELP = {
    "last_run_timestamp_seconds": "When the last run ended.",
    "last_success_timestamp_seconds": "When the last run ended that left a whole table (exit 0 or 3).",
    "last_exit_code": "Exit code of the last run.",
    "last_duration_seconds": "How long the last run took.",
    "files": "Input files of the last run by status.",
    "files_kept": "Files of the last run whose rows were kept from an earlier one.",
    "images_per_second": "Files that the last run read, a second.",
    "positive_ratio": "Share of the last run's predictions that are Tumor.",
    "build_info": "Version and model of the last run.",
}


class Metrics:
    """Results of a run, as far as it came."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.kept: int | None = None
        self.images_per_second: float | None = None
        self.model_id = ""
        self.code = ExitCode.OK


@contextlib.contextmanager
def recorded(path: Path | None) -> Iterator[Metrics]:
    """Write the metrics of the enclosed work to `path` when it ends, however it ends.

    Args:
        path: Ends in `.prom`; None: nothing is written.

    Raises:
        ConfigError: `path` ends otherwise; the collector would not read it.
        OutputError: It cannot be written, and the command itself ended well.
    """
    if path is not None and path.suffix != ".prom":
        raise ConfigError(f"--metrics-file {path} must end in .prom: others are not collected.")
    metrics = Metrics()
    started = time.time()
    code = ExitCode.BUG
    try:
        yield metrics
        code = metrics.code
    except BaseException as error:
        if isinstance(error, TumorBatchError):
            code = error.exit_code
        elif isinstance(error, KeyboardInterrupt):
            code = ExitCode.TRY_AGAIN
        with contextlib.suppress(OutputError):  # what ended the run is the news
            _write(path, metrics, code, started)
        raise
    _write(path, metrics, code, started)


def _write(path: Path | None, metrics: Metrics, code: ExitCode, started: float) -> None:
    if path is not None:
        ended = time.time()
        success = ended if code in _GOOD else _last_success(path)
        write_bytes(path, render(metrics, code, started, ended, success).encode(), 0o644)


def _last_success(path: Path) -> float | None:
    """Return the time of the last success that an earlier run wrote, or None."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        text = read_regular(path, _MAX_BYTES).decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        return families[_SUCCESS].samples[0].value
    except (OSError, ValueError, KeyError, IndexError):
        return None


def render(metrics: Metrics, code: int, started: float, ended: float, success: float | None) -> str:
    """Return the text exposition format, version 0.0.4; unknown metrics are left out."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    predicted = sum(metrics.labels.values())
    positive = metrics.labels.get("Tumor", 0) / predicted if predicted else None
    values: dict[str, list[tuple[dict[str, str], float | None]]] = {
        "last_run_timestamp_seconds": [({}, ended)],
        "last_success_timestamp_seconds": [({}, success)],
        "last_exit_code": [({}, code)],
        "last_duration_seconds": [({}, ended - started)],
        "files": [({"status": name}, count) for name, count in sorted(metrics.files.items())],
        "files_kept": [({}, metrics.kept)],
        "images_per_second": [({}, metrics.images_per_second)],
        "positive_ratio": [({}, positive)],
        "build_info": [({"version": __version__, "model": metrics.model_id}, 1)],
    }
    registry = CollectorRegistry()
    for name, samples in values.items():
        measured = [(labels, value) for labels, value in samples if value is not None]
        if measured:
            gauge = Gauge(_PREFIX + name, _HELP[name], list(measured[0][0]), registry=registry)
            for labels, value in measured:
                (gauge.labels(**labels) if labels else gauge).set(value)
    return generate_latest(registry).decode()
