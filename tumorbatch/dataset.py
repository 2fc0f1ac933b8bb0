"""The content of dataset.json: what a shard set is made of, and which of its variants is read."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.dataset_shape import DATASET_SHAPE
from tumorbatch.errors import ConfigError
from tumorbatch.json_reader import check
from tumorbatch.leaks import LEAKY, LEAKY_ORIENTATION, SCHEMA_VERSION, UPRIGHT_ONLY
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.tfrecord import IMAGE, variant_key


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
        preprocessing: What was done to the pixels that are read: as they are stored in `image/raw`,
            or as `select` chose.
        classes: Class names; index = label.
        split_by: "group" (duplicates stay together), "shape" (so do images of one height and width)
            or "file" (nothing does: leaky); "given": by folders of the source, leaky if copies cross.
        patient_id: Whether DICOM files of one PatientID were put into one group.
        fractions: Target share of each split.
        seed: Of the split and of the order inside the shards.
        shard_bytes: Size that shards were cut to, about.
        counts: {split: {class: images}}.
        files: {status: number of files}, and "found" for all of them.
        groups: Counts of the duplicate groups, and how many patients were known.
        shared: The proof, recomputed from the written records: how many file hashes, pixel hashes,
            duplicate groups, copies in any orientation and, split by shape, shapes occur in more
            than one split. All 0 unless split by file.
        patients: sha256 (hex) over which files a table of patients put together, or None.
        patient_table: If a table of patients was given: how many of its paths fit no file
            ("paths_without_file"), and how many files have no patient ("files_without_patient").
        updates: How often the source had grown or changed, and the set with it.
        shards: The files.
        manifest_sha256: Of manifest.parquet, hex.
        versions: Of the software that made it.
        formats: Of the images that were read; a set that does not say so was made of all.
        schema_version: Of the format; sets of the first one are read, see `leak`.
        subclasses: {split: {subclass: images}} where folders were joined to one class; else empty.
        variants: Names of the variants in each record, the first in `image/raw`; empty: it alone.
        location: URI of the folder of the shards, if they are not beside dataset.json; not stored.
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
    formats: tuple[str, ...] = IMAGE_FORMATS
    schema_version: int = SCHEMA_VERSION
    subclasses: dict[str, dict[str, int]] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    location: str = ""

    def paths(self, folder: Path, split: str) -> list[str]:
        """Return the shards of a split, as TensorFlow opens them, for a set described in `folder`."""
        place = self.location or os.fspath(folder)
        return [f"{place}/{shard.name}" for shard in self.split(split)]

    @property
    def stored(self) -> Preprocessing:
        """Return what was done to the pixels in `image/raw`."""
        return self.preprocessing.select(self.variants[:1]) if self.variants else self.preprocessing

    @property
    def available(self) -> tuple[str, ...]:
        """Return the variants that each record holds, the first in `image/raw`."""
        return self.variants or self.preprocessing.channels

    @property
    def features(self) -> tuple[str, ...]:
        """Return the features of a record that `preprocessing` names, one a channel."""
        first = self.available[0]
        return tuple(
            IMAGE if name == first else variant_key(name) for name in self.preprocessing.channels
        )

    def select(self, variants: Sequence[str]) -> "Dataset":
        """Return the same set, of which other variants are read.

        Args:
            variants: One or more of `available`.

        Raises:
            ConfigError: One of them is unknown or is not in the records.
        """
        chosen = self.preprocessing.select(variants)
        missing = [name for name in chosen.channels if name not in self.available]
        if missing:
            wanted = dict.fromkeys((*self.available, *missing))
            raise ConfigError(
                f"The shard set holds the variant {', '.join(self.available)}, and not "
                f"{', '.join(missing)}. Make one that holds both: `tumorbatch shard SRC OUT --variants "
                f"{','.join(wanted)}`."
            )
        return self if chosen == self.preprocessing else replace(self, preprocessing=chosen)

    @property
    def leak(self) -> str | None:
        """Return whether copies may lie in two splits: `LEAKY`, `LEAKY_ORIENTATION` or None."""
        if self.split_by == "file" or any(self.shared.values()):
            return LEAKY
        return None if self.has_signatures else LEAKY_ORIENTATION

    @property
    def has_signatures(self) -> bool:
        """Return whether the manifest says by what copies are found; the first version's does not."""
        return self.schema_version != UPRIGHT_ONLY

    @property
    def leaky(self) -> bool:
        """Return whether copies of an image may be in two splits, so that test metrics are too good."""
        return self.leak is not None

    @property
    def config(self) -> dict[str, Any]:
        """Return the settings that, together with the input, determine the bytes."""
        plain = ("split_by", "patient_id", "fractions", "seed", "shard_bytes")
        return {
            "preprocessing": self.stored.to_dict(),
            "variants": list(self.variants),
            "formats": list(self.formats),
            **{name: getattr(self, name) for name in plain},
        }

    @property
    def fingerprints(self) -> dict[str, str]:
        """Return {variant: fingerprint of its preprocessing} of what each record holds, in order."""
        return {name: self.preprocessing.select([name]).fingerprint for name in self.available}

    def split(self, name: str) -> tuple[Shard, ...]:
        """Return the shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == name)

    def records(self, split: str) -> int:
        """Return the number of images of one split."""
        return sum(shard.records for shard in self.split(split))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, in an order that is convenient to read."""
        return {
            "schema_version": self.schema_version,
            "preprocessing": self.stored.to_dict(),
            "preprocessing_fingerprint": self.stored.fingerprint,
            **({"variants": self.fingerprints} if self.variants else {}),
            "classes": list(self.classes),
            "formats": list(self.formats),
            "split_by": self.split_by,
            "patient_id": self.patient_id,
            "leaky": self.leak == LEAKY,
            "fractions": self.fractions,
            "seed": self.seed,
            "shard_bytes": self.shard_bytes,
            "counts": self.counts,
            "files": self.files,
            "groups": self.groups,
            "shared_between_splits": self.shared,
            "patients": self.patients,
            **({"patient_table": self.patient_table} if self.patient_table else {}),
            **({"subclasses": self.subclasses} if self.subclasses else {}),
            "updates": self.updates,
            "shards": [asdict(shard) for shard in self.shards],
            "manifest_sha256": self.manifest_sha256,
            "versions": self.versions,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Dataset":
        """Build from the values of `to_dict`; raise KeyError, TypeError or ValueError otherwise."""
        check(value, DATASET_SHAPE)
        return cls(
            preprocessing=Preprocessing.from_dict(value["preprocessing"]),
            classes=tuple(value["classes"]),
            split_by=value["split_by"],
            patient_id=value["patient_id"],
            fractions=value["fractions"],
            seed=value["seed"],
            shard_bytes=value["shard_bytes"],
            counts=value["counts"],
            files=value["files"],
            groups=value["groups"],
            shared=value["shared_between_splits"],
            patients=value["patients"],
            updates=value["updates"],
            shards=tuple(map(_shard, value["shards"])),
            manifest_sha256=value["manifest_sha256"],
            versions=value["versions"],
            patient_table=value.get("patient_table", {}),
            formats=tuple(value.get("formats", IMAGE_FORMATS)),
            schema_version=value["schema_version"],
            subclasses=value.get("subclasses", {}),
            variants=tuple(value.get("variants", ())),
        )


def _shard(value: Mapping[str, Any]) -> Shard:
    unknown = value.keys() - {field.name for field in fields(Shard)}
    if unknown:
        raise ValueError(f"a shard has the unknown member {min(unknown)!r}")
    return Shard(**value)
