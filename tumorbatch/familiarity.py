"""How unfamiliar an image is to a network: how far its features are from those of the training images.

`familiarity.safetensors` in a bundle holds for each network the mean of the features, a matrix that
makes them uncorrelated with variance 1, and the distance that one in a hundred of held-out images
exceeds. The distance is Mahalanobis', with a covariance that is shrunk towards the identity.

K. Lee, K. Lee, H. Lee, J. Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples
and Adversarial Attacks", NeurIPS 2018; O. Ledoit and M. Wolf, "A well-conditioned estimator for
large-dimensional covariance matrices", Journal of Multivariate Analysis 88 (2004).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.bundle_arrays import read_arrays

UNFAMILIAR = "unfamiliar"  # the column, and the flag
FLAGGED = 0.5  # from here on an image is flagged
FALSE_ALARMS = 0.01  # share of held-out brain images that are flagged
MOST = 20_000  # images that the covariance is estimated on
_MAX_BYTES = 1 << 30
_PARTS = ("mean", "whitening", "limit")


@dataclass(frozen=True, slots=True)
class Familiarity:
    """The features of a network's training images.

    Attributes:
        mean: float32 [f].
        whitening: float32 [f, f]; multiplied with it, their covariance is the identity.
        limit: float32 [1], the distance that `FALSE_ALARMS` of held-out images exceed.
    """

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    limit: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        trained: NDArray[np.float32],
        held_out: NDArray[np.float32],
        groups: NDArray[np.int64],
    ) -> "Familiarity":
        """Estimate from features of training images and of images that were not trained on.

        Args:
            trained: float32 [n, f].
            held_out: float32 [m, f].
            groups: int64 [m], duplicate groups of the latter: each counts once.
        """
        from sklearn.covariance import ledoit_wolf

        some = trained[:: max(1, len(trained) // MOST)].astype(np.float64)
        mean = some.mean(axis=0)
        covariance, _ = ledoit_wolf(some - mean, assume_centered=True)
        values, vectors = np.linalg.eigh(covariance)
        floor = max(float(values.max()) * 1e-6, 1e-12)  # features that never vary
        whitening = vectors / np.sqrt(np.maximum(values, floor))
        made = cls(mean.astype(np.float32), whitening.astype(np.float32), np.ones(1, np.float32))
        _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        limit = _weighted_quantile(
            made.distances(held_out), 1 / sizes[inverse.ravel()], 1 - FALSE_ALARMS
        )
        return cls(made.mean, made.whitening, np.array([max(limit, 1e-6)], np.float32))

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distance of features [n, f] from those of the training images, over `limit`."""
        white = (features - self.mean) @ self.whitening
        return np.asarray(np.sqrt((white**2).mean(axis=1)) / self.limit, np.float32)


def _weighted_quantile(
    values: NDArray[np.float32], weights: NDArray[np.float64], share: float
) -> float:
    order = np.argsort(values)
    passed = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(passed, share)), len(values) - 1)])


def unfamiliarity(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return distances as numbers from 0 to 1, `FLAGGED` at the limit.

    Args:
        distances: float32 [n], over the limit.
    """
    squared = distances.astype(np.float64) ** 2
    return (1 - 1 / (1 + squared)).astype(np.float32)


def to_bytes(several: Sequence[Familiarity]) -> bytes:
    """Return the content of the file: one for each network of a bundle, in their order."""
    import safetensors.numpy

    data: bytes = safetensors.numpy.save(
        {
            f"{number}.{part}": np.ascontiguousarray(getattr(one, part), np.float32)
            for number, one in enumerate(several)
            for part in _PARTS
        }
    )
    return data


def read(path: Path, sha256: str) -> list[Familiarity]:
    """Read the file of a bundle.

    Args:
        path: The file.
        sha256: Of its content, hex, from model.json.

    Raises:
        InputError: It is missing, damaged or another one.
    """
    return read_arrays(path, sha256, _MAX_BYTES, _all)


def _all(arrays: Mapping[str, NDArray[Any]]) -> list[Familiarity]:
    count, rest = divmod(len(arrays), len(_PARTS))
    if rest or not count:
        raise ValueError("its arrays are not those of features")
    return [_one(arrays, number) for number in range(count)]


def _one(arrays: Mapping[str, NDArray[Any]], number: int) -> Familiarity:
    parts = {part: arrays[f"{number}.{part}"] for part in _PARTS}
    size = len(parts["mean"])
    shapes = {"mean": (size,), "whitening": (size, size), "limit": (1,)}
    for part, array in parts.items():
        if array.dtype != np.float32 or array.shape != shapes[part] or not np.isfinite(array).all():
            raise ValueError(f"its array {number}.{part} has another type or shape, or is not finite")
    if not parts["limit"] > 0:
        raise ValueError("its limit is not above 0")
    return Familiarity(**parts)
