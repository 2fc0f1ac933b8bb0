"""From the parts of a run, and what is kept of the last table, to the new one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tumorbatch.infer.work_area import Entry, FileRows
from tumorbatch.infer.worker import Row
from tumorbatch.infer.writers import Writer
from tumorbatch.status import Status

DUPLICATE = "duplicate"  # an earlier row is of a file with the same bytes
ABSENT = "absent"  # the row of an earlier run; the file was not among this run's
_BATCH = 1024  # rows handed to the writer at once


@dataclass(slots=True)
class Counts:
    """What a table holds.

    Attributes:
        rows: All of them.
        statuses: {status: files}, of a file with several frames the first that is not `ok`.
        row_statuses: {status: rows}.
        labels: {class: rows}.
        absent: Files that were not among this run's.
        duplicates: Files with the bytes of an earlier one.
    """

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    row_statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    absent: int = 0
    duplicates: int = 0

    def add(self, rows: FileRows, present: bool) -> None:
        """Count one file's rows."""
        self.rows += len(rows)
        self.row_statuses.update(row["status"] for row in rows)
        self.labels.update(row["label"] for row in rows if row.get("label"))
        if present:
            bad = [row["status"] for row in rows if row["status"] != Status.OK]
            self.statuses[str(bad[0]) if bad else Status.OK.value] += 1
        else:
            self.absent += 1


class Duplicates:
    """Finds the files whose bytes an earlier one had; 16 bytes of each sha256 are kept."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def flag(self, rows: FileRows, *more: str) -> FileRows:
        """Return a file's rows with the flags that depend on the rest of the table.

        Args:
            rows: Of one file.
            more: Other such flags.
        """
        sha256 = rows[0].get("sha256")
        key = bytes.fromhex(sha256)[:16] if sha256 else None
        again = key is not None and key in self._seen
        if key is not None:
            self._seen.add(key)
        extra = {*more, *([DUPLICATE] if again else [])}
        return [_flagged(row, extra) for row in rows]


def _flagged(row: Row, extra: set[str]) -> Row:
    if row.get("flags") is None:  # a row without a prediction
        return row
    return {**row, "flags": sorted({*row["flags"], *extra} - ({DUPLICATE, ABSENT} - extra))}


def write_table(
    writer: Writer, chosen: Iterator[tuple[Entry, FileRows]], classes: Sequence[str]
) -> Counts:
    """Write all rows in their order, and count them.

    Args:
        writer: Entered.
        chosen: Each path with the rows that hold for it.
        classes: Each is counted, also where there is none of it.
    """
    counts = Counts(labels=Counter(dict.fromkeys(classes, 0)))
    duplicates = Duplicates()
    waiting: list[dict[str, Any]] = []
    for entry, rows in chosen:
        present = entry.file is not None
        flagged = duplicates.flag(rows, *([] if present else [ABSENT]))
        counts.add(flagged, present)
        counts.duplicates += DUPLICATE in (flagged[0].get("flags") or ())
        waiting += flagged
        if len(waiting) >= _BATCH:
            writer.write(waiting)
            waiting = []
    if waiting:
        writer.write(waiting)
    return counts
