"""Arrays of a bundle's small files: those that model.json names, or a sentence."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tumorbatch import familiarity, out_of_fold
from tumorbatch.errors import InputError
from tumorbatch.known_images import KnownImages

READERS = {
    "known images": (KnownImages.read, ("sha256", "signature", "validation")),
    "out-of-fold": (out_of_fold.read, ("group.index", "group.fold", "group.logit")),
    "familiarity": (familiarity.read, ("0.mean", "0.whitening", "0.limit")),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("shape", [(), (2,), (2, 2, 2)])
def test_arrays_of_other_shapes_are_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    read, arrays = READERS[name]
    data = safetensors.numpy.save({array: np.ones(shape, np.uint8) for array in arrays})
    _refused(read, tmp_path, data, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("name", READERS)
def test_another_file_is_refused(name: str, tmp_path: Path) -> None:
    read, _ = READERS[name]
    for data in (b"", b"{}", bytes(100)):
        _refused(read, tmp_path, data, "0" * 64)
        _refused(read, tmp_path, data, hashlib.sha256(data).hexdigest())
    with pytest.raises(InputError, match="missing or damaged"):
        read(tmp_path / "absent", "0" * 64)


def _refused(read: Callable[[Path, str], object], folder: Path, data: bytes, sha256: str) -> None:
    path = folder / "file.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"file\.safetensors is missing or damaged"):
        read(path, sha256)
