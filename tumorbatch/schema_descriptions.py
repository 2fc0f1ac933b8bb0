"""What columns mean, in the schema that a table carries."""

from collections.abc import Mapping

import pyarrow as pa


def described(schema: pa.Schema, descriptions: Mapping[str, str]) -> pa.Schema:
    """Return the schema with the metadata `description` in each field that has one."""
    return pa.schema(
        [
            field.with_metadata({"description": descriptions[field.name]})
            if field.name in descriptions
            else field
            for field in schema
        ]
    )
