"""What a finished shard set gives to the larger one that takes its place.

A source folder grows. `shard` on it again decodes what is new or changed, takes the records of the
rest from the shards that are there, and leaves every group in its split. So does `--overwrite`, which
takes no records over: an image that was held out must not come to be trained on.
"""

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tumorbatch import shardset, tfrecord
from tumorbatch.dataset_shape import SPLITS
from tumorbatch.errors import InputError, TumorBatchError
from tumorbatch.files import open_regular
from tumorbatch.manifest_schema import MANIFEST_SCHEMA
from tumorbatch.shard_records import check_images
from tumorbatch.shardset import DATASET, SHARD_NAME
from tumorbatch.status import DECIDED_BY_CONTENT, Status
from tumorbatch.tfrecord import ImageRecord

log = logging.getLogger(__name__)

_SPLIT_COLUMNS = ("path", "sha256", "split")


class PreviousSet:
    """A finished shard set, read.

    Args:
        folder: The set's. Hold the lock.

    Raises:
        InputError: It is damaged, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.dataset = shardset.load(folder)
        self._rows = shardset.manifest(folder, self.dataset, *MANIFEST_SCHEMA.names)
        columns = [self._rows[name].to_pylist() for name in ("path", "class", "status", "sha256")]
        self._at = {path: at for at, path in enumerate(columns[0])}
        self._known = list(zip(*columns[1:], strict=True))
        columns = [self._rows[name].to_pylist() for name in ("shard", "position")]
        self._where = list(zip(*columns, strict=True))
        self._places: dict[str, list[tuple[int, int]]] = {}
        self._files = contextlib.ExitStack()
        self._open: dict[str, int] = {}

    def __enter__(self) -> "PreviousSet":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def paths(self) -> set[str]:
        """Return the paths of all files, good and bad."""
        return set(self._at)

    def sha256(self, path: str, class_name: str) -> str | None:
        """Return the sha256 that allows a file's row and record to be reused, or None."""
        if path not in self._at:
            return None
        class_before, status, sha256 = self._known[self._at[path]]
        usable = class_before == class_name and status in DECIDED_BY_CONTENT
        return sha256 if usable else None

    def same_end(self, row: Mapping[str, Any]) -> bool:
        """Return whether a file that was processed again has the same bytes and status as before.

        An image under both classes ends as `ok` in the first pass, and is left out later.
        """
        if row["path"] not in self._at:
            return False
        class_before, status, sha256 = self._known[self._at[row["path"]]]
        if status == Status.LABEL_CONFLICT:
            status = Status.OK.value
        return bool((class_before, status, sha256) == (row["class"], row["status"], row["sha256"]))

    def rows(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """Return the manifest's rows of some files."""
        rows: list[dict[str, Any]] = self._rows.take(
            pa.array([self._at[path] for path in paths], pa.int64())
        ).to_pylist()
        return rows

    def length(self, path: str) -> int:
        """Return the number of bytes of the framed record of a file."""
        return self._place(path)[2]

    def record(self, path: str) -> bytes:
        """Return the framed record of a file.

        Raises:
            InputError: It is damaged, or that of another file.
        """
        file, offset, length = self._place(path)
        framed = os.pread(file, length, offset)
        try:
            record = ImageRecord.decode(tfrecord.unframe(framed))
            if (record.filename, record.sha256) != (path, self._known[self._at[path]][2]):
                raise ValueError("it holds another file's record")
            check_images(record, self.dataset)
            if record.label != self._label(path):
                raise ValueError("it holds an image of another class")
        except ValueError as error:
            raise self._damaged(path, str(error)) from error
        return framed

    def _label(self, path: str) -> int:
        return self.dataset.classes.index(self._known[self._at[path]][0])

    def _place(self, path: str) -> tuple[int, int, int]:
        """Return file descriptor, offset and length of a record."""
        shard, position = self._where[self._at[path]]
        if shard not in self._open:
            self._places[shard] = tfrecord.places(self._folder / shard)
            file = self._files.enter_context(open_regular(self._folder / shard))
            self._open[shard] = file.fileno()
        try:
            return self._open[shard], *self._places[shard][position]
        except IndexError as error:
            raise self._damaged(path, "there is no such record") from error

    def _damaged(self, path: str, reason: str) -> InputError:
        shard, position = self._where[self._at[path]]
        return InputError(
            f"{shard} is damaged at position {position} ({reason}). `tumorbatch verify` reports more; "
            "`tumorbatch shard --overwrite` makes all shards again."
        )

    def splits(self) -> "PreviousSplits":
        """Return which split each image is in."""
        return PreviousSplits(self._rows, self.dataset.updates)


class PreviousSplits:
    """Which split each image of a finished set is in.

    Args:
        rows: Columns path, sha256 and split; null: the file is in no split.
        updates: As in dataset.json.
    """

    def __init__(self, rows: pa.Table, updates: int) -> None:
        self.updates = updates
        self._by_content: dict[str, list[int]] = defaultdict(list)
        self._by_both: dict[tuple[str, str], int] = {}
        table = rows.select(["path", "sha256", "split"]).drop_null()
        for path, content, split in zip(*(column.to_pylist() for column in table), strict=True):
            self._by_both[path, content] = SPLITS.index(split)
            self._by_content[content].append(SPLITS.index(split))

    @classmethod
    def read(cls, out: Path) -> "PreviousSplits":
        """Read them from the manifest or, where that is damaged, from the shards that can be read."""
        try:
            dataset = shardset.read(out / DATASET)
            return cls(shardset.manifest(out, dataset, *_SPLIT_COLUMNS), dataset.updates)
        except TumorBatchError:
            return cls(pa.table(dict(zip(_SPLIT_COLUMNS, _in_the_shards(out), strict=True))), 0)

    def splits_of(self, paths: Sequence[str], sha256: Sequence[str]) -> NDArray[np.int64]:
        """Return int64 [n]: index into `SPLITS` of what each image was in before, or -1.

        By path and content, or by content alone for files that were renamed.
        """
        return np.array(
            [
                self._by_both.get((path, content), min(self._by_content.get(content, [-1])))
                for path, content in zip(paths, sha256, strict=True)
            ],
            np.int64,
        )

    def match(self, paths: Sequence[str], sha256: Sequence[str], splits: NDArray[np.int64]) -> bool:
        """Return whether these are all its images, each in its split; true for any if it has none."""
        pairs = zip(paths, sha256, strict=True)
        return not self._by_both or self._by_both == dict(zip(pairs, splits.tolist(), strict=True))


def _in_the_shards(out: Path) -> tuple[list[str], list[str], list[str]]:
    """Return paths, sha256 and splits of the records in the shards, without dataset.json."""
    paths: list[str] = []
    sha256: list[str] = []
    splits: list[str] = []
    for path in sorted(out.iterdir()):
        name = SHARD_NAME.fullmatch(path.name)
        if name is None:
            continue
        try:
            for data in tfrecord.read(path):
                record = ImageRecord.decode(data)
                paths.append(record.filename)
                sha256.append(record.sha256)
                splits.append(name[1])
        except (InputError, OSError, ValueError) as error:
            log.warning("the splits of some images are lost: %s", error)
    return paths, sha256, splits
