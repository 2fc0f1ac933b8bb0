"""The shard set on disk: what `shard` writes and `train` reads.

train-00000-of-00008.tfrecord, validation-..., test-...   one image a record
manifest.parquet                                          one row a file found, good or bad
dataset.json                                              written last: without it, unfinished
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch.atomic import read_json
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.preprocessing_config import Preprocessing

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
DATASET = "dataset.json"
MANIFEST = "manifest.parquet"
SPLITS = ("train", "validation", "test")
SPLIT_BY = ("group", "file", "shape")


@dataclass(frozen=True, slots=True)
class Shard:
    """One TFRecord file.

    Attributes:
        name: File name inside the shard set's folder.
        split: One of `SPLITS`.
        records: Number of images.
        bytes: File size.
        sha256: Of the file, hex.
    """

    name: str
    split: str
    records: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """The content of dataset.json.

    Attributes:
        preprocessing: What was done to the pixels.
        classes: Class names; index = label.
        split_by: "group" (duplicates stay together), "shape" (so do images of one height and width)
            or "file" (nothing does: leaky).
        patient_id: Whether DICOM files of one PatientID were put into one group.
        fractions: Target share of each split.
        seed: Of the split and of the order inside the shards.
        shard_bytes: Size that shards were cut to, about.
        counts: {split: {class: images}}.
        files: {status: number of files}, and "found" for all of them.
        groups: Counts of the duplicate groups, and how many patients were known.
        shared: The proof, recomputed from the written records: how many file hashes, pixel hashes,
            duplicate groups and, split by shape, shapes occur in more than one split. All 0 unless
            split by file.
        patients: sha256 (hex) over which files a table of patients put together, or None.
        patient_table: Where such a table was given: how many of its paths fit no file
            ("paths_without_file"), and how many files have no patient ("files_without_patient").
        updates: How often the source had grown or changed, and the set with it.
        shards: The files.
        manifest_sha256: Of manifest.parquet, hex.
        versions: Of the software that made it.
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    split_by: str
    patient_id: bool
    fractions: dict[str, float]
    seed: int
    shard_bytes: int
    counts: dict[str, dict[str, int]]
    files: dict[str, int]
    groups: dict[str, int]
    shared: dict[str, int]
    patients: str | None
    updates: int
    shards: tuple[Shard, ...]
    manifest_sha256: str
    versions: dict[str, str]
    patient_table: dict[str, int] = field(default_factory=dict)

    @property
    def leaky(self) -> bool:
        """Whether copies of one image may lie in two splits, so that test figures are too good."""
        return self.split_by == "file" or any(self.shared.values())

    @property
    def config(self) -> dict[str, Any]:
        """What decides the bytes, beside the input."""
        return {
            "preprocessing": self.preprocessing.to_dict(),
            "split_by": self.split_by,
            "patient_id": self.patient_id,
            "fractions": self.fractions,
            "seed": self.seed,
            "shard_bytes": self.shard_bytes,
        }

    def split(self, name: str) -> tuple[Shard, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == name)

    def records(self, split: str) -> int:
        """Number of images of one split."""
        return sum(shard.records for shard in self.split(split))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, in the order in which a person wants to read them."""
        return {
            "schema_version": SCHEMA_VERSION,
            "preprocessing": self.preprocessing.to_dict(),
            "preprocessing_fingerprint": self.preprocessing.fingerprint,
            "classes": list(self.classes),
            "split_by": self.split_by,
            "patient_id": self.patient_id,
            "leaky": self.leaky,
            "fractions": self.fractions,
            "seed": self.seed,
            "shard_bytes": self.shard_bytes,
            "counts": self.counts,
            "files": self.files,
            "groups": self.groups,
            "shared_between_splits": self.shared,
            "patients": self.patients,
            **({"patient_table": self.patient_table} if self.patient_table else {}),
            "updates": self.updates,
            "shards": [asdict(shard) for shard in self.shards],
            "manifest_sha256": self.manifest_sha256,
            "versions": self.versions,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Dataset":
        """Inverse of `to_dict`; raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            preprocessing=Preprocessing.from_dict(value["preprocessing"]),
            classes=tuple(value["classes"]),
            split_by=str(value["split_by"]),
            patient_id=bool(value["patient_id"]),
            fractions=dict(value["fractions"]),
            seed=int(value["seed"]),
            shard_bytes=int(value["shard_bytes"]),
            counts={split: dict(of) for split, of in value["counts"].items()},
            files=dict(value["files"]),
            groups=dict(value["groups"]),
            shared=dict(value["shared_between_splits"]),
            patients=value["patients"],
            updates=int(value["updates"]),
            shards=tuple(Shard(**shard) for shard in value["shards"]),
            manifest_sha256=str(value["manifest_sha256"]),
            versions=dict(value["versions"]),
            patient_table=dict(value.get("patient_table", {})),
        )


def load(folder: Path) -> Dataset:
    """Read dataset.json and check that every shard is there with its recorded size.

    Raises:
        InputError: The folder, dataset.json or a shard is missing, or something is damaged.
        ConfigError: It was written by another version of the format.
    """
    path = folder / DATASET
    if not folder.is_dir():
        raise InputError(f"{folder} is not there. Make the shards first: `tumorbatch shard`.")
    if not path.is_file():
        raise InputError(
            f"{folder} has no {DATASET}: the shard set is not finished, or this is another folder. "
            "Run `tumorbatch shard` (again): it goes on where it stopped."
        )
    dataset = read(path)
    for shard in dataset.shards:
        try:
            size = (folder / shard.name).stat().st_size
        except OSError as error:
            raise InputError(
                f"{folder / shard.name} is missing or unreadable: {error.strerror}. Bring it back, "
                "or make the shards again with `tumorbatch shard --overwrite`."
            ) from error
        if size != shard.bytes:
            raise InputError(
                f"{folder / shard.name} has {size:,} bytes and should have {shard.bytes:,}: it was "
                "cut off or replaced. Make the shards again with `tumorbatch shard --overwrite`."
            )
    return dataset


def read(path: Path) -> Dataset:
    """Read a dataset.json alone, without a look at the shards.

    Raises:
        InputError: It is damaged.
        ConfigError: It was written by another version of the format.
    """
    try:
        value = read_json(path)
        version = value["schema_version"]
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{path} has format version {version}; this tumorbatch reads {SCHEMA_VERSION}. "
                "Make the shards again with `tumorbatch shard --overwrite`."
            )
        return Dataset.from_dict(value)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {error}). "
            "Make the shards again with `tumorbatch shard --overwrite`."
        ) from error


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shapes(folder: Path, split: str) -> list[str]:
    """Every "WIDTHxHEIGHT" that an image of the split had before it was resized, sorted.

    Raises:
        InputError: The manifest is missing or damaged.
    """
    import pyarrow.compute as pc

    table = manifest(folder, "width", "height", "split")
    rows = table.filter(pc.equal(table["split"], split))
    pairs = zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)
    return [f"{width}x{height}" for width, height in sorted(set(pairs))]


def manifest(folder: Path, *columns: str) -> "pa.Table":
    """Columns of a shard set's manifest, a row a file; a flipped bit in them is an error.

    Raises:
        InputError: It is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / MANIFEST
    try:
        with path.open("rb") as file:  # Arrow takes no file name that is not UTF-8
            return pq.read_table(file, columns=list(columns), page_checksum_verification=True)
    except (OSError, KeyError, pa.ArrowException) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(
            f"{path} is missing or damaged: {told}. Make the shards again with `tumorbatch shard "
            "--overwrite`."
        ) from error
