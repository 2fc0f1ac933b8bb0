"""The shard set on disk: what `shard` writes and `train` reads.

train-00000-of-00008-1a2b3c4d.tfrecord, validation-..., test-...   one image a record
manifest.parquet                                                   one row a file found, good or bad
dataset.json                                                       written last: it names the others

A set is replaced by one rename, that of dataset.json. The shards of two generations never share a name:
it holds the first digits of the file's sha256. The new manifest waits as `.manifest-<digits>.parquet`
and takes the name `manifest.parquet` after that rename; until then `manifest_path` finds it.
"""

import contextlib
import hashlib
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tumorbatch.dataset import Dataset as Dataset  # this module is where readers look for it
from tumorbatch.dataset import Shard as Shard
from tumorbatch.dataset_shape import SPLITS, refuse_unusable
from tumorbatch.errors import ConfigError, InputError, TryAgainError, TumorBatchError, reason
from tumorbatch.files import NotRegularError, open_regular
from tumorbatch.json_reader import ANYTHING, read_object
from tumorbatch.leaks import READABLE

if TYPE_CHECKING:
    import pyarrow as pa

DATASET = "dataset.json"
MANIFEST = "manifest.parquet"
WORK = ".partial"  # the folder of an unfinished run
DIGITS = 8  # of a sha256, in the names of one generation
MAKE_AGAIN = "Make the shards again with `tumorbatch shard --overwrite`."

# Sets of the first version have no digits in the names of their shards.
SHARD_NAME = re.compile(
    rf"({'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}(?:-([0-9a-f]{{{DIGITS}}}))?\.tfrecord"
)
_WAITING_NAME = re.compile(rf"\.manifest-[0-9a-f]{{{DIGITS}}}\.parquet")


def load(folder: Path) -> Dataset:
    """Read dataset.json and check that every shard is there with its recorded size.

    Raises:
        InputError: The folder, dataset.json or a shard is missing, or something is damaged.
        ConfigError: It was written by another version of the format.
    """
    path = folder / DATASET
    if not folder.is_dir():
        raise InputError(f"{folder} is not there. Make the shards first: `tumorbatch shard`.")
    while True:
        dataset = _load(folder, path)
        try:
            _check_shards(folder, dataset)
            return dataset
        except InputError:
            if not was_replaced(folder, dataset):  # else another run finished in between
                raise


def _load(folder: Path, path: Path) -> Dataset:
    if not path.is_file():
        raise InputError(
            f"{folder} has no {DATASET}: the shard set is not finished, or this is another folder. "
            "Run `tumorbatch shard` (again): it continues where it stopped."
        )
    return read(path)


def _check_shards(folder: Path, dataset: Dataset) -> None:
    for shard in dataset.shards:
        _check_shard_file(folder / shard.name, shard, dataset)


def _check_shard_file(path: Path, shard: Shard, dataset: Dataset) -> None:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):  # TensorFlow would wait for a FIFO for ever
            raise NotRegularError(str(path))
    except OSError as error:
        raise InputError(
            f"{path} is missing or unreadable: {reason(error)}. Bring it back, or make the shards "
            "again with `tumorbatch shard --overwrite`."
        ) from error
    if info.st_size != shard.bytes:
        raise InputError(
            f"{path} has {info.st_size:,} bytes and should have {shard.bytes:,}: it was cut off or "
            f"replaced. {MAKE_AGAIN}"
        )
    size = len(dataset.available) * dataset.preprocessing.size**2
    if shard.records * size > shard.bytes:  # memory is reserved for as many images
        raise InputError(
            f"{path} cannot hold {shard.records:,} images in {shard.bytes:,} bytes: {DATASET} is "
            f"damaged. {MAKE_AGAIN}"
        )


def read(path: Path) -> Dataset:
    """Read a dataset.json alone, without a look at the shards.

    Raises:
        InputError: It is damaged.
        ConfigError: It was written by another version of the format.
    """
    try:
        value = read_object(path, {"schema_version": ANYTHING})
        version = value["schema_version"]
        if version not in READABLE:
            raise ConfigError(
                f"{path} has format version {version}; this tumorbatch reads "
                f"{' and '.join(map(str, READABLE))}. {MAKE_AGAIN}"
            )
        dataset = Dataset.from_dict(value)
        refuse_unusable(dataset)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {reason(error)}. {MAKE_AGAIN}") from error
    return dataset


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file's content."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def was_replaced(folder: Path, dataset: Dataset) -> bool:
    """Return whether `folder` holds another generation of the set by now."""
    try:
        return read(folder / DATASET).to_dict() != dataset.to_dict()
    except TumorBatchError:
        return False


def refuse_replaced(folder: Path, dataset: Dataset) -> None:
    """Raise `TryAgainError` where another run has replaced the set since `dataset` was read."""
    if was_replaced(folder, dataset):
        raise TryAgainError(
            f"{folder} was replaced by another run of `tumorbatch shard` while it was being read. "
            "Nothing of the two sets was mixed. Run the command again on the new set; a training that "
            "began on the old one starts again with --overwrite."
        )


def shapes(folder: Path, dataset: Dataset, split: str) -> list[str]:
    """Return every "WIDTHxHEIGHT" that an image of the split had before resizing, sorted.

    Raises:
        InputError: The manifest is missing or damaged.
        TryAgainError: See `open_manifest`.
    """
    import pyarrow.compute as pc

    table = manifest(folder, dataset, "width", "height", "split")
    rows = table.filter(pc.equal(table["split"], split))
    pairs = zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)
    return [f"{width}x{height}" for width, height in sorted(set(pairs))]


def waiting_manifest(folder: Path, sha256: str) -> Path:
    """Return the path under which a manifest waits for dataset.json to be replaced."""
    return folder / f".manifest-{sha256[:DIGITS]}.parquet"


def is_of_a_set(name: str) -> bool:
    """Return whether a file's name is that of a shard, or of a manifest that waits."""
    return bool(SHARD_NAME.fullmatch(name) or _WAITING_NAME.fullmatch(name))


def manifest_path(folder: Path, dataset: Dataset) -> Path:
    """Return where the manifest of this generation lies."""
    waiting = waiting_manifest(folder, dataset.manifest_sha256)
    return waiting if waiting.exists() else folder / MANIFEST


@contextlib.contextmanager
def open_manifest(folder: Path, dataset: Dataset) -> Iterator[BinaryIO]:
    """Open the manifest that dataset.json describes, to the bit.

    Raises:
        InputError: It is missing, damaged or another one.
        TryAgainError: Another run has replaced the set since `dataset` was read.
    """
    path = manifest_path(folder, dataset)
    try:
        try:
            file = open_regular(path)
        except FileNotFoundError:  # it takes its name at this moment
            path = folder / MANIFEST
            file = open_regular(path)
    except OSError as error:
        raise InputError(f"{path} is missing or damaged: {reason(error)}. {MAKE_AGAIN}") from error
    with file:
        if hashlib.file_digest(file, "sha256").hexdigest() != dataset.manifest_sha256:
            refuse_replaced(folder, dataset)
            raise InputError(f"{path} is damaged, or not the one that {DATASET} names. {MAKE_AGAIN}")
        file.seek(0)
        yield file


def manifest(folder: Path, dataset: Dataset, *columns: str) -> "pa.Table":
    """Read columns of a shard set's manifest, one row per file; a flipped bit is an error.

    Raises:
        InputError: It is missing or damaged.
        TryAgainError: See `open_manifest`.
    """
    import pyarrow as pa

    from tumorbatch.manifest_schema import READABLE_SCHEMA, check_rows
    from tumorbatch.parquet_reader import read_table

    path = folder / MANIFEST
    try:
        with open_manifest(folder, dataset) as file:
            schema = pa.schema([READABLE_SCHEMA.field(name) for name in columns])
            table = read_table(file, schema)
            check_rows(table)
            return table
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged: {reason(error)}. {MAKE_AGAIN}") from error
