"""How long work shows itself: a bar on a terminal, a log line every 30 s elsewhere, or nothing."""

import logging
import math
import sys
import time
from types import TracebackType

log = logging.getLogger("tumorbatch")

LOG_INTERVAL_S = 30.0


class Progress:
    """A counter of things done, as a context manager.

    With a terminal on standard error it is a rich progress bar; without one it logs a line at most
    every 30 seconds; when the log level hides those lines (`--quiet`) it is silent either way.

    Args:
        what: What is going on, a few words.
        unit: What is counted, plural.
        total: How many there are, or None when that is not known.
    """

    def __init__(self, task: str, unit: str, total: int | None = None) -> None:
        self._what = task
        self._unit = unit
        self._total = total
        self._done = 0
        self._bar: object | None = None

    def __enter__(self) -> "Progress":
        self._started = self._logged = time.monotonic()
        if log.isEnabledFor(logging.INFO) and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, note=self._unit)
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished items; `note` is shown after the rate (a loss, say)."""
        self._done += count
        if self._bar is not None:
            self._bar.update(  # type: ignore[attr-defined]
                self._task, advance=count, note=note or f"{self._rate():,.0f} {self._unit}/s"
            )
        elif time.monotonic() - self._logged >= LOG_INTERVAL_S:
            self._logged = time.monotonic()
            total = f" of {self._total:,}" if self._total else ""
            note = f", {note}" if note else ""
            log.info(
                "%s: %s%s %s, %.0f/s%s%s",
                self._what, f"{self._done:,}", total, self._unit, self._rate(), self._remaining(), note,
            )  # fmt: skip

    def _remaining(self) -> str:
        """Return the time that the rest will take at the rate so far, as the end of a log line."""
        if not self._total or not 0 < self._done < self._total:
            return ""
        minutes = math.ceil((self._total - self._done) / self._rate() / 60)
        hours = f"{minutes // 60} h " if minutes >= 60 else ""
        return f", {hours}{minutes % 60} min left"

    def _rate(self) -> float:
        return self._done / max(1e-9, time.monotonic() - self._started)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()  # type: ignore[attr-defined]
