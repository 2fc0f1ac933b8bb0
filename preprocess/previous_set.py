"""What a finished shard set gives to the larger one that takes its place.

A source folder grows. `shard` on it again decodes what is new or changed, takes the records of the
rest from the shards that are there, and leaves every group in its split. For that it keeps the old set
in its work area, as hard links: a run that is killed while it replaces the old files finds them there.
"""

import contextlib
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tumorbatch import shardset, tfrecord
from tumorbatch.errors import InputError, cannot_write
from tumorbatch.files import open_regular
from tumorbatch.manifest_schema import MANIFEST_SCHEMA
from tumorbatch.shardset import DATASET, MANIFEST, SPLITS, Dataset
from tumorbatch.status import Status
from tumorbatch.tfrecord import ImageRecord

# What a file's bytes alone decide. The others may end another way the next time.
_DECIDED = {
    status.value
    for status in (
        Status.OK, Status.TRUNCATED, Status.DECODE_ERROR, Status.UNSUPPORTED, Status.TOO_LARGE,
        Status.TOO_SMALL,
    )
}  # fmt: skip


def keep(dataset: Dataset, out: Path, folder: Path) -> None:
    """Make `folder` a second home of the finished set in `out`, without copying where that works.

    Raises:
        InputError: The manifest is damaged; what else may be shows when it is used.
        OutputError: `folder` cannot be written.
    """
    with shardset.open_manifest(out, dataset):
        pass
    try:
        folder.mkdir()
        for name in (DATASET, MANIFEST, *(shard.name for shard in dataset.shards)):
            try:
                os.link(out / name, folder / name)
            except OSError:  # a file system without hard links
                shutil.copy2(out / name, folder / name)
    except OSError as error:
        raise cannot_write(folder, error) from error


class Base:
    """A finished shard set, read.

    Args:
        folder: Where `keep` has put it.

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

    def __enter__(self) -> "Base":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    @property
    def paths(self) -> set[str]:
        """Of all files, good and bad."""
        return set(self._at)

    def sha256(self, path: str, class_name: str) -> str | None:
        """What a file's bytes must hash to for its row and record to be taken over, or None."""
        if path not in self._at:
            return None
        its_class, status, sha256 = self._known[self._at[path]]
        usable = its_class == class_name and status in _DECIDED
        return sha256 if usable else None

    def same_end(self, row: Mapping[str, Any]) -> bool:
        """Whether a file that was processed again ended as before: same bytes, same status.

        An image under both classes ends as `ok` in the first pass, and is left out later.
        """
        if row["path"] not in self._at:
            return False
        its_class, status, sha256 = self._known[self._at[row["path"]]]
        if status == Status.LABEL_CONFLICT:
            status = Status.OK.value
        return bool((its_class, status, sha256) == (row["class"], row["status"], row["sha256"]))

    def rows(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """The manifest's rows of some files."""
        found: list[dict[str, Any]] = self._rows.take(
            pa.array([self._at[path] for path in paths], pa.int64())
        ).to_pylist()
        return found

    def length(self, path: str) -> int:
        """Bytes of the framed record of a file."""
        return self._place(path)[2]

    def record(self, path: str) -> bytes:
        """The framed record of a file.

        Raises:
            InputError: It is damaged, or that of another file.
        """
        file, offset, length = self._place(path)
        framed = os.pread(file, length, offset)
        try:
            record = ImageRecord.decode(tfrecord.unframe(framed))
            if (record.filename, record.sha256) != (path, self._known[self._at[path]][2]):
                raise ValueError("it holds another file's record")
            size = self.dataset.preprocessing.size
            if record.image().shape != (size, size) or record.label != self._label(path):
                raise ValueError("it holds an image of another size or class")
        except ValueError as error:
            raise self._damaged(path, str(error)) from error
        return framed

    def _label(self, path: str) -> int:
        return self.dataset.classes.index(self._known[self._at[path]][0])

    def _place(self, path: str) -> tuple[int, int, int]:
        """File descriptor, offset and length of a record."""
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
            f"{shard} is damaged at position {position} ({reason}). `tumorbatch verify` tells more; "
            "`tumorbatch shard --overwrite` makes all shards again."
        )

    def splits(self, paths: Sequence[str], sha256: Sequence[str]) -> NDArray[np.int64]:
        """int64 [n]: index into `SPLITS` of what each image was in before, or -1.

        By path and content, or by content alone for files that were renamed.
        """
        by_content: dict[str, list[int]] = defaultdict(list)
        by_both: dict[tuple[str, str], int] = {}
        table = self._rows.select(["path", "sha256", "split"]).drop_null()
        for path, content, split in zip(*(column.to_pylist() for column in table), strict=True):
            by_both[path, content] = SPLITS.index(split)
            by_content[content].append(SPLITS.index(split))
        return np.array(
            [
                by_both.get((path, content), min(by_content.get(content, [-1])))
                for path, content in zip(paths, sha256, strict=True)
            ],
            np.int64,
        )
