"""Files of predictions as earlier versions wrote them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def rewrite_as_version_2(path: Path) -> None:
    """Give a Parquet file the columns of schema version 2: `flags` a text, and no `unfamiliar`."""
    table = pq.read_table(path).drop_columns(["unfamiliar"])
    place = table.column_names.index("flags")
    texts = [None if names is None else ",".join(names) for names in table["flags"].to_pylist()]
    table = table.set_column(place, "flags", pa.array(texts, pa.string()))
    footer = pq.read_metadata(path).metadata
    kept = {key: text for key, text in footer.items() if key.startswith(b"tumorbatch.")}
    if b"tumorbatch.schema_version" in kept:
        kept[b"tumorbatch.schema_version"] = b"2"
    with path.open("wb") as file:
        pq.write_table(
            table.replace_schema_metadata(kept), file, compression="zstd", write_page_checksum=True
        )
