"""Features of a trained network on its training images, and how well they separate others."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.dataset import Dataset
from tumorbatch.evaluation.answers import manifest_rows
from tumorbatch.familiarity import MOST, Familiarity, to_bytes
from tumorbatch.foreign_images import foreign_images
from tumorbatch.runtime import Runtime
from tumorbatch.scoring import featured
from tumorbatch.train.folded import FoldData


def familiarity(
    network: Any,
    data: dict[str, Any],
    tfrecords: Path,
    dataset: Dataset,
    runtime: Runtime,
    batch_size: int,
    fold: FoldData | None,
) -> tuple[bytes, dict[str, Any]]:
    """Return the content of a bundle's familiarity.safetensors, and what it notices.

    Args:
        network: The trained network.
        data: {"train": ..., "validation": ...}; validation, or the fold, was not trained on.
        tfrecords: The shard set.
        dataset: Its description.
        runtime: Decides about XLA.
        batch_size: Images a forward pass.
        fold: What is held out, or None.
    """
    both = featured(network, batch_size, runtime)

    def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return both(images)[1]

    def of(images: Any) -> NDArray[np.float32]:
        found: NDArray[np.float32] = images.scored(_Some(features, images.count))[0]
        return found

    if fold is None:
        rows = manifest_rows(tfrecords, dataset, "validation")
        groups = np.array(rows["duplicate_group"].to_pylist(), np.int64)
    else:
        groups = fold.images.groups[fold.index]
    held_out = of(data["validation"])
    made = Familiarity.fit(of(data["train"]), held_out, groups[:: _stride(len(groups))])
    return to_bytes([made]), _noticed(made, made.distances(held_out), features, dataset)


def _stride(count: int) -> int:
    return max(1, -(-count // MOST))


class _Some:
    """A scorer that computes the features of every so-many-th image, at most `MOST` of them."""

    def __init__(self, features: Any, count: int) -> None:
        self._features = features
        self._stride = _stride(count)
        self._passed = 0
        self._none = np.empty((0, 0), np.float32)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        first = -self._passed % self._stride
        self._passed += len(images)
        some = images[first :: self._stride]
        if len(some):  # the first batch always has one
            found: NDArray[np.float32] = self._features(some)
            self._none = found[:0]
            return found
        return self._none


def _noticed(
    made: Familiarity, familiar: NDArray[np.float32], features: Any, dataset: Dataset
) -> dict[str, Any]:
    """Return {kind: AUROC and share flagged} of drawn pictures against held-out images."""
    from sklearn.metrics import roc_auc_score

    preprocessing = dataset.preprocessing
    noticed = {}
    for kind, pictures in foreign_images(preprocessing.size).items():
        channels = np.repeat(pictures[..., np.newaxis], len(preprocessing.channels), axis=-1)
        distances = made.distances(features(channels))
        truth = np.r_[np.zeros(len(familiar)), np.ones(len(distances))]
        noticed[kind] = {
            "auroc": round(float(roc_auc_score(truth, np.r_[familiar, distances])), 4),
            "flagged": round(float((distances >= 1).mean()), 4),
        }
    return {"pictures": noticed, "false_alarms": round(float((familiar >= 1).mean()), 4)}
