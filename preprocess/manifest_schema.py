"""The columns of manifest.parquet."""

import pyarrow as pa

# What the first pass of `shard` knows of a file.
ROW_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("class", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("file_size", pa.int64()),
        ("sha256", pa.string()),
        ("pixel_hash", pa.string()),
        ("perceptual_hash", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bit_depth", pa.int16()),
        ("channels", pa.int16()),
        ("flags", pa.string()),
    ]
)

MANIFEST_SCHEMA = pa.schema(
    [
        *ROW_SCHEMA,
        ("duplicate_group", pa.int64()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("position", pa.int64()),
    ]
)
