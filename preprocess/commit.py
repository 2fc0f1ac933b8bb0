"""A finished shard set takes the place of another by one rename, that of dataset.json.

    before     the new shards, and the new manifest under a hidden name, are put next to the old set
    the rename dataset.json names the new files
    after      the manifest takes its name; what the new set does not name is deleted

Killed before the rename, the old set is whole; killed after it, the new one is. What is left over goes
with the next run, see `tidy`. Readers take all names from one dataset.json, so they never mix two sets.
"""

import contextlib
import os
from pathlib import Path

from tumorbatch.atomic import PRIVATE, sync_folder, write_json
from tumorbatch.errors import OutputError, cannot_write, not_finished
from tumorbatch.shardset import DATASET, MANIFEST, Dataset, is_of_a_set, waiting_manifest


def commit(work: Path, out: Path, dataset: Dataset, private: bool) -> None:
    """Move a finished set from the work area into `out`. Hold the lock.

    Args:
        work: Holds the shards and the manifest, on the file system of `out`.
        out: May hold an older set.
        dataset: Content of the new dataset.json.
        private: Whether `out` and the files are for their owner alone.

    Raises:
        OutputError: `out` cannot be changed; the text says which set it holds.
    """
    mode = PRIVATE if private else None
    # Now: a full disk must show before anything is moved.
    try:
        write_json(work / DATASET, dataset.to_dict(), mode)
    except OutputError as error:  # its sentence is about the work area: the set is as it was
        if isinstance(error.__cause__, OSError):
            raise cannot_write(out, error.__cause__) from error
        raise
    names = [shard.name for shard in dataset.shards]
    waiting = waiting_manifest(out, dataset.manifest_sha256)
    before = {path.name for path in out.iterdir()}
    try:
        if private:
            out.chmod(0o700)
            for name in (*names, MANIFEST):
                (work / name).chmod(PRIVATE)
        for name in names:
            os.replace(work / name, out / name)
        os.replace(work / MANIFEST, waiting)
        sync_folder(out)
        os.replace(work / DATASET, out / DATASET)
    except OSError as error:
        for name in {*names, waiting.name} - before:
            with contextlib.suppress(OSError):
                (out / name).unlink(missing_ok=True)
        raise cannot_write(out, error) from error
    try:
        sync_folder(out)
        tidy(out, dataset)
    except OSError as error:
        raise not_finished(out / DATASET, error) from error


def tidy(out: Path, dataset: Dataset) -> None:
    """Give the manifest its name, and delete the shards and manifests of other generations.

    Args:
        out: Holds the set. Hold the lock.
        dataset: Content of its dataset.json.

    Raises:
        OSError: `out` cannot be changed.
    """
    waiting = waiting_manifest(out, dataset.manifest_sha256)
    if waiting.exists():
        os.replace(waiting, out / MANIFEST)
    names = {shard.name for shard in dataset.shards}
    for path in list(out.iterdir()):
        if is_of_a_set(path.name) and path.name not in names:
            path.unlink()
    sync_folder(out)
