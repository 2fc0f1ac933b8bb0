"""What dataset.json must be like, so that nothing in it surprises a reader later."""

from typing import TYPE_CHECKING

from tumorbatch.checks import IMAGE_FORMATS
from tumorbatch.json_reader import COUNT, FILE_NAME, FLAG, NULL, NUMBER, OBJECT, SHA256, TEXT, Shape
from tumorbatch.labels import CLASS_NAMES

if TYPE_CHECKING:
    from tumorbatch.dataset import Dataset

SPLITS = ("train", "validation", "test")
SPLIT_BY = ("group", "file", "shape")
GIVEN = "given"  # by the folders of the source

DATASET_SHAPE: Shape = {
    "preprocessing": OBJECT,
    "variants?": {TEXT: SHA256},
    "classes": [TEXT],
    "formats?": [TEXT],
    "split_by": TEXT,
    "patient_id": FLAG,
    "fractions": {TEXT: NUMBER},
    "seed": COUNT,
    "shard_bytes": COUNT,
    "counts": {TEXT: {TEXT: COUNT}},
    "files": {TEXT: COUNT},
    "groups": {TEXT: COUNT},
    "shared_between_splits": {TEXT: COUNT},
    "patients": (TEXT, NULL),
    "patient_table?": {TEXT: COUNT},
    "subclasses?": {TEXT: {TEXT: COUNT}},
    "updates": COUNT,
    "shards": [
        {"name": FILE_NAME, "split": TEXT, "records": COUNT, "bytes": COUNT, "sha256": SHA256},
    ],
    "manifest_sha256": SHA256,
    "versions": {TEXT: TEXT},
}


def refuse_unusable(dataset: "Dataset") -> None:
    """Raise `ValueError` for values that no shard set can have."""
    refuse_repeated_shards(dataset)
    if dataset.classes != CLASS_NAMES:
        raise ValueError(f"its classes must be {', '.join(CLASS_NAMES)}, in this order")
    if dataset.variants and dataset.stored.channels != dataset.variants[:1]:
        raise ValueError("its preprocessing must be that of its first variant")
    if not dataset.formats or not set(dataset.formats) <= set(IMAGE_FORMATS):
        raise ValueError(f"its formats must be some of {', '.join(IMAGE_FORMATS)}")
    if dataset.split_by not in (*SPLIT_BY, GIVEN):
        raise ValueError(f"split_by must be one of {', '.join((*SPLIT_BY, GIVEN))}")
    if not {shard.split for shard in dataset.shards} <= set(SPLITS):
        raise ValueError(f"the split of a shard must be one of {', '.join(SPLITS)}")
    for split in SPLITS:
        if dataset.counts.get(split, {}).keys() != set(CLASS_NAMES):
            raise ValueError(f"counts.{split} must have the classes {', '.join(CLASS_NAMES)}")


def refuse_repeated_shards(dataset: "Dataset") -> None:
    """Raise `ValueError` where dataset.json lists no shards, or one of them twice."""
    names = [shard.name for shard in dataset.shards]
    if not names or len(set(names)) < len(names):
        raise ValueError("it lists no shards, or one of them twice")
