"""What dataset.json must be like, so that nothing in it surprises a reader later."""

from tumorbatch.json_reader import COUNT, FILE_NAME, FLAG, NULL, NUMBER, OBJECT, SHA256, TEXT, Shape

DATASET_SHAPE: Shape = {
    "preprocessing": OBJECT,
    "classes": [TEXT],
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
    "updates": COUNT,
    "shards": [
        {"name": FILE_NAME, "split": TEXT, "records": COUNT, "bytes": COUNT, "sha256": SHA256},
    ],
    "manifest_sha256": SHA256,
    "versions": {TEXT: TEXT},
}
