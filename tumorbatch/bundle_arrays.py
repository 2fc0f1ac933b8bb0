"""Arrays of a bundle's small safetensors files, read only if they are those that model.json names."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from tumorbatch.errors import InputError
from tumorbatch.files import read_regular

Content = TypeVar("Content")


def read_arrays(
    path: Path, sha256: str, max_bytes: int, build: Callable[[Mapping[str, NDArray[Any]]], Content]
) -> Content:
    """Return what `build` makes of the arrays in a file.

    Args:
        path: The file.
        sha256: Of its content, hex, from model.json.
        max_bytes: A larger file is not read.
        build: {name: array} -> content; raises ValueError, KeyError or TypeError if the arrays are
            not the expected ones.

    Raises:
        InputError: The file is missing, damaged or another one.
    """
    import safetensors
    import safetensors.numpy

    try:
        data = read_regular(path, max_bytes)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("its sha256 is another one than model.json says")
        return build(safetensors.numpy.load(data))
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}). Bring the original back, or train the model "
            "again."
        ) from error
