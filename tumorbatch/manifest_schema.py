"""The columns of manifest.parquet, and what must hold of its rows."""

import pyarrow as pa
import pyarrow.compute as pc

from tumorbatch.copies import KINDS, SIGNATURE_BYTES
from tumorbatch.dataset_shape import SPLITS

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
        ("turned_hash", pa.string()),
        ("signature", pa.binary(SIGNATURE_BYTES)),
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
        ("copy_kind", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("position", pa.int64()),
    ]
)

# Only in a set where folders are joined to one class: the folder's kind.
SUBCLASS = pa.field("subclass", pa.string())
READABLE_SCHEMA = MANIFEST_SCHEMA.append(SUBCLASS)

_HEXADECIMAL = {"sha256": 64, "pixel_hash": 64, "turned_hash": 64}  # digits
_FROM = {"width": 1, "height": 1, "file_size": 1, "position": 0, "duplicate_group": 0}  # least value


def check_rows(table: pa.Table) -> None:
    """Raise `ValueError` unless the rows of images in a split have values that such rows can have.

    Args:
        table: Some columns of `READABLE_SCHEMA`.
    """
    for name in table.column_names:
        if name in ("path", "class", "status") and table[name].null_count:
            raise ValueError(f"its column {name!r} lacks values")
    if "path" in table.column_names and pc.count_distinct(table["path"]).as_py() != len(table):
        raise ValueError("it names a file twice")
    if "split" not in table.column_names:
        return
    rows = table.filter(pc.is_valid(table["split"]))
    if not _all(pc.is_in(rows["split"], pa.array(SPLITS))):
        raise ValueError(f"its column 'split' must be one of {', '.join(SPLITS)}")
    if "copy_kind" in rows.column_names:
        kinds = rows["copy_kind"].drop_null()
        if not _all(pc.is_in(kinds, pa.array(KINDS))):
            raise ValueError(f"its column 'copy_kind' must be one of {', '.join(KINDS)}, or null")
    for name in set(rows.column_names) - {"error", "flags", "copy_kind"}:
        if rows[name].null_count:
            raise ValueError(f"its column {name!r} lacks values of images")
        digits, least = _HEXADECIMAL.get(name), _FROM.get(name)
        if digits and not _all(pc.match_substring_regex(rows[name], f"^[0-9a-f]{{{digits}}}$")):
            raise ValueError(f"its column {name!r} must hold {digits} hexadecimal digits")
        if least is not None and not _all(pc.greater_equal(rows[name], least)):
            raise ValueError(f"its column {name!r} must be at least {least}")


def _all(values: pa.ChunkedArray) -> bool:
    return bool(pc.all(values, min_count=0).as_py())
