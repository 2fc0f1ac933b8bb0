"""Out-of-fold logits: what networks answered on images that they were not trained on.

`out_of_fold.safetensors` in a bundle holds them for the training and validation images of its shard
set, by their number in the order of their paths: no name of an image is in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.bundle_arrays import read_arrays
from tumorbatch.folds import GROUP, SHAPE

_MAX_BYTES = 1 << 30  # sixty million images
_TYPES = {"index": np.int64, "fold": np.int32, "logit": np.float32}


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Logits of held-out images.

    Attributes:
        index: int64 [n], the image's number among training and validation images, sorted by path.
        fold: int32 [n], the fold that held it out.
        logit: float32 [n].
    """

    index: NDArray[np.int64]
    fold: NDArray[np.int32]
    logit: NDArray[np.float32]

    @classmethod
    def joined(cls, several: Sequence["OutOfFold"]) -> "OutOfFold":
        """Return the logits of several folds as one, in the order of the images."""
        one = cls(
            *(np.concatenate([getattr(part, name) for part in several]) for name in cls.__slots__)
        )
        order = np.argsort(one.index, kind="stable")
        logit: Any = one.logit[order]
        return cls(one.index[order], one.fold[order], logit)

    def is_complete(self, count: int) -> bool:
        """Return whether each of `count` images has one logit, in their order."""
        return np.array_equal(self.index, np.arange(count))


def mean(several: Sequence[OutOfFold]) -> OutOfFold:
    """Return the mean logits of several models on the same images."""
    logits = np.stack([one.logit for one in several]).mean(axis=0, dtype=np.float64)
    return OutOfFold(several[0].index, several[0].fold, np.asarray(logits, np.float32))


def to_bytes(by: Mapping[str, OutOfFold]) -> bytes:
    """Return the content of the file, {how the folds were made: their logits}."""
    import safetensors.numpy

    data: bytes = safetensors.numpy.save(
        {
            f"{name}.{part}": np.ascontiguousarray(getattr(one, part), _TYPES[part])
            for name, one in sorted(by.items())
            for part in _TYPES
        }
    )
    return data


def read(path: Path, sha256: str) -> dict[str, OutOfFold]:
    """Read the file of a bundle.

    Args:
        path: The file.
        sha256: Of its content, hex, from model.json.

    Raises:
        InputError: It is missing, damaged or another one.
    """
    return read_arrays(path, sha256, _MAX_BYTES, _all_parts)


def _all_parts(arrays: Mapping[str, NDArray[Any]]) -> dict[str, OutOfFold]:
    parts = dict(_parts(arrays))
    if not parts or len(arrays) != len(_TYPES) * len(parts):
        raise ValueError("its arrays are not those of out-of-fold logits")
    return parts


def _parts(arrays: Mapping[str, NDArray[np.generic]]) -> Iterable[tuple[str, OutOfFold]]:
    for by in (GROUP, SHAPE):
        if f"{by}.index" not in arrays:
            continue
        parts = {name: arrays[f"{by}.{name}"] for name in _TYPES}
        n = len(parts["index"])
        for name, array in parts.items():
            if array.dtype != _TYPES[name] or array.shape != (n,):
                raise ValueError(f"its array {by}.{name} has another type or length")
        if not np.isfinite(parts["logit"].astype(np.float64)).all():
            raise ValueError("some of its logits are not finite")
        yield by, OutOfFold(**parts)  # type: ignore[arg-type]
