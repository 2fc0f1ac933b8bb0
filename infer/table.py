"""From the parts of a run, and what is kept of the last table, to the new one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """Finds the files whose bytes an earlier one had; 16 bytes of each sha256 are kept.

    In sorted arrays, each more than twice as long as the next: 10^8 files take 1.6 GB, or twice that
    while two arrays are merged.
    """

    def __init__(self) -> None:
        self._seen: list[NDArray[np.bytes_]] = []

    def flag(self, files: Sequence[tuple[FileRows, bool]]) -> list[FileRows]:
        """Return the rows of some files with the flags that depend on the rest of the table.

        Args:
            files: The next ones in the order of the table, each with whether it is there now.
        """
        again = self._again([rows[0].get("sha256") for rows, _ in files])
        flagged = []
        for (rows, present), duplicate in zip(files, again, strict=True):
            extra = {*([] if present else [ABSENT]), *([DUPLICATE] if duplicate else [])}
            flagged.append([_flagged(row, extra) for row in rows])
        return flagged

    def _again(self, sha256: Sequence[str | None]) -> list[bool]:
        """Return which of the next files an earlier one equals, and remember them."""
        again = np.zeros(len(sha256), np.bool_)
        read = [number for number, text in enumerate(sha256) if text]
        if read:
            keys = np.array([bytes.fromhex(sha256[number] or "")[:16] for number in read], "S16")
            _, first = np.unique(keys, return_index=True)
            known = np.ones(len(keys), np.bool_)
            known[first] = False
            for seen in self._seen:
                at = np.minimum(np.searchsorted(seen, keys), len(seen) - 1)
                known |= seen[at] == keys
            again[read] = known
            self._remember(np.sort(keys[~known]))
        return [bool(one) for one in again]

    def _remember(self, keys: NDArray[np.bytes_]) -> None:
        if not len(keys):
            return
        self._seen.append(keys)
        while len(self._seen) > 1 and len(self._seen[-2]) <= 2 * len(self._seen[-1]):
            both = np.concatenate([self._seen.pop(), self._seen.pop()])
            both.sort(kind="stable")  # which merges what is sorted already
            self._seen.append(both)


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
    for files in _batches(chosen):
        waiting: list[dict[str, Any]] = []
        for (_, present), flagged in zip(files, duplicates.flag(files), strict=True):
            counts.add(flagged, present)
            counts.duplicates += DUPLICATE in (flagged[0].get("flags") or ())
            waiting += flagged
        writer.write(waiting)
    return counts


def _batches(chosen: Iterator[tuple[Entry, FileRows]]) -> Iterator[list[tuple[FileRows, bool]]]:
    """Yield files, each with whether it is there now, until they have so many rows."""
    files: list[tuple[FileRows, bool]] = []
    count = 0
    for entry, rows in chosen:
        files.append((rows, entry.file is not None))
        count += len(rows)
        if count >= _BATCH:
            yield files
            files, count = [], 0
    if files:
        yield files
