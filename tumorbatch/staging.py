"""What is read from an object store as a whole: bundles, shard sets and tables, copied to a cache.

A copy is complete before it has its name, is checked against the sha256 that its description gives, and
is found again by the content of that description: another generation has another folder.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tumorbatch import bundle, shardset, stores
from tumorbatch.atomic import make_folder, write_bytes
from tumorbatch.errors import ConfigError, InputError, OutputError, TryAgainError
from tumorbatch.files import printable
from tumorbatch.object_path import Location, ObjectPath
from tumorbatch.progress import Progress
from tumorbatch.shardset import DATASET, MANIFEST, file_sha256

_CACHE = "TUMORBATCH_CACHE"  # names the folder of copies
_MAX_DESCRIPTION = 64 << 20  # bytes of a dataset.json or model.json
_ATTEMPTS = 3  # for a copy that arrives damaged


def cache_folder(given: Path | None) -> Path:
    """Return the folder of copies: what was given, or the user's own."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tumorbatch"
    return given or Path(os.environ.get(_CACHE) or default)


def bundle_folder(model: ObjectPath, cache: Path | None) -> Path:
    """Return a copy of all that `infer` reads of a model bundle, each file the one of its model.json.

    Raises:
        InputError: There is no such bundle, or it is damaged.
        TumorBatchError: As `stores.find_objects`.
    """
    folder = _described(model, bundle.MODEL, cache)
    for name, sha256 in bundle.load(folder).files.items():
        _copy(model / name, folder / name, sha256)
    return folder


def shard_folder(tfrecords: Location, cache: Path | None, streamed: bool = False) -> Path:
    """Return a shard set's folder; of one in an object store, a copy.

    Args:
        tfrecords: The set.
        cache: Folder of copies; None: `cache_folder`.
        streamed: Copy dataset.json and the manifest alone: TensorFlow reads the shards in S3.

    Raises:
        ConfigError: `streamed`, and the set is not in S3.
        InputError: There is no such set, or it is damaged.
        OutputError: The cache cannot hold it.
        TumorBatchError: As `stores.find_objects`.
    """
    if streamed and not (isinstance(tfrecords, ObjectPath) and tfrecords.scheme == "s3"):
        raise ConfigError(
            f"--stream reads s3:// only, and {printable(str(tfrecords))} is not there. Leave it out; "
            "--feed stream reads the shards of a folder in each epoch."
        )
    if isinstance(tfrecords, Path):
        return tfrecords
    folder = _described(tfrecords, DATASET, cache)
    dataset = shardset.read(folder / DATASET)
    _copy(tfrecords / MANIFEST, folder / MANIFEST, dataset.manifest_sha256)
    if streamed:
        return folder
    missing = [shard for shard in dataset.shards if not (folder / shard.name).exists()]
    _refuse_full(folder, sum(shard.bytes for shard in missing))
    with Progress("stage", "shards", len(dataset.shards)) as progress:

        def copy(shard: shardset.Shard) -> None:
            _copy(tfrecords / shard.name, folder / shard.name, shard.sha256)

        for _ in stores.in_threads(copy, dataset.shards):
            progress.advance()
    return folder


@contextlib.contextmanager
def table_copy(table: Location) -> Iterator[Path]:
    """Give a file; of one in an object store, a copy with its sidecar that is deleted afterwards."""
    if isinstance(table, Path):
        yield table
        return
    with tempfile.TemporaryDirectory(prefix="tumorbatch-") as folder:
        path = Path(folder) / table.name
        try:
            stores.fetch(table, path)
        except FileNotFoundError as error:
            raise InputError(f"{printable(str(table))} does not exist. Correct the name.") from error
        with contextlib.suppress(FileNotFoundError):
            stores.fetch(table.beside(f"{table.name}.json"), path.with_name(f"{table.name}.json"))
        yield path


def _described(place: ObjectPath, name: str, cache: Path | None) -> Path:
    """Return the folder for the generation that a description in the store names, with a copy of it."""
    try:
        description = stores.read_small(place / name, _MAX_DESCRIPTION)
    except FileNotFoundError as error:
        stores.check_container(place)
        raise InputError(
            f"{printable(str(place))} has no {name}: it is another folder, or not finished. Correct "
            "the name."
        ) from error
    digest = hashlib.sha256(f"{place}\0".encode() + description).hexdigest()[:12]
    folder = cache_folder(cache) / digest / printable(place.name)
    make_folder(folder)
    folder.chmod(0o700)  # a manifest names files, and those of DICOM may name patients
    write_bytes(folder / name, description)
    return folder


def _copy(place: ObjectPath, path: Path, sha256: str) -> None:
    """Make `path` a copy of an object with this sha256, unless it is one already."""
    if path.exists() and file_sha256(path) == sha256:
        return
    for _ in range(_ATTEMPTS):
        try:
            if stores.fetch(place, path) == sha256:
                return
        except FileNotFoundError as error:
            raise TryAgainError(
                f"{printable(str(place))} is named by its set and is not there: was it replaced just "
                "now? Run the same command again; if it stays so, upload the set again."
            ) from error
        path.unlink()
    raise InputError(
        f"{printable(str(place))} is damaged: its sha256 is not the one that its set names. Upload it "
        "again."
    )


def _refuse_full(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder} has room for {free / 1e9:.1f} GB, and the copy of the shards takes "
            f"{needed / 1e9:.1f} GB. Free some space, or give another --cache-dir."
        )
