"""What commands of several stages refuse before they start: other images, other folders."""

import contextlib
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch import bundle, shardset
from tumorbatch.errors import ConfigError
from tumorbatch.files import is_litter, printable, read_regular
from tumorbatch.json_reader import MAX_BYTES
from tumorbatch.shardset import DATASET, Dataset

if TYPE_CHECKING:
    from tumorbatch.preprocess.classes import SourceFile


def columns(folder: Path, *names: str) -> list[list[Any]]:
    """Return columns of a shard set's manifest, one list each."""
    table = shardset.manifest(folder, shardset.read(folder / DATASET), *names)
    return [column.to_pylist() for column in table.itercolumns()]


def refuse_foreign(out: Path, own: Collection[str]) -> None:
    """Raise `ConfigError` where a folder of results holds files that are none of `own`."""
    names = sorted(path.name for path in out.iterdir())
    strangers = [name for name in names if not (name[0] == "." or is_litter(name) or name in own)]
    if strangers:
        raise ConfigError(
            f"{out} holds what is not from this command ({printable(', '.join(strangers[:5]))}). Give "
            "another folder with --out."
        )


def refuse_changed_source(tfrecords: Path, source: Path, files: "Sequence[SourceFile]") -> None:
    """Raise `ConfigError` where a folder of images is not what a shard set was made of.

    By names and sizes alone, before anything costs time; `refuse_other_images` looks at the content.

    Args:
        tfrecords: The shard set.
        source: The folder.
        files: In it.
    """
    rows = zip(*columns(tfrecords, "path", "file_size", "split"), strict=True)
    places = {source_file.file.name: source_file.file.path for source_file in files}
    changed = sum(_size(places.get(path)) != size for path, size, split in rows if split)
    if changed:
        raise ConfigError(
            f"{source} is not what {tfrecords} was made of: {changed:,} of its images are gone or have "
            "another size. The protocols must be compared on the same images: bring them back, or make "
            "the shard set again with `tumorbatch shard` and train the model again."
        )


def _size(path: str | None) -> int | None:
    try:
        return None if path is None else os.stat(path).st_size
    except OSError:  # a link to nowhere
        return None


def refuse_other_images(first: Path, second: Path, same_split: bool) -> None:
    """Raise `ConfigError` unless two shard sets hold the same files.

    Args:
        first: A shard set.
        second: Another, which can be made anew.
        same_split: Whether each file must also be in the same split of both.
    """
    rows: list[Mapping[str, tuple[str, str]]] = []
    for folder in (first, second):
        names, *about = columns(folder, "path", "sha256", "split")
        pairs = zip(names, zip(*about, strict=True), strict=True)
        rows.append({name: row for name, row in pairs if row[1]})
    one, other = ({name: sha256 for name, (sha256, _) in row.items()} for row in rows)
    if one != other:
        raise ConfigError(
            f"{first} and {second} do not hold the same images: the source has changed since one of "
            f"them was made. Bring the images of {first} back and make {second} again, or both."
        )
    if same_split and rows[0] != rows[1]:
        raise ConfigError(
            f"{first} and {second} hold the same images in other splits. Delete {second}, and it is "
            "made again."
        )


def shard_sets(folders: Sequence[Path]) -> dict[str, Path]:
    """Return {sha256 of dataset.json: folder} of the finished shard sets."""
    folder_of: dict[str, Path] = {}
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):  # no shard set, or none that could be read
            data = read_regular(folder / DATASET, MAX_BYTES)
            folder_of[hashlib.sha256(data).hexdigest()] = folder
    return folder_of


def load_own(tfrecords: Path, description: bundle.Bundle, model: Path) -> Dataset:
    """Return the shard set on which a bundle was trained.

    Raises:
        ConfigError: It is another one.
        InputError: It is missing or damaged.
    """
    dataset = shardset.load(tfrecords)
    if shardset.file_sha256(tfrecords / DATASET) != description.training.get("dataset_sha256"):
        raise ConfigError(
            f"{model} was trained on another shard set than {tfrecords}. Give the one that it was "
            "trained on."
        )
    return dataset
