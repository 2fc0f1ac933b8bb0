"""A bundle and a network that need no training and no TensorFlow; logits differ from image to image."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tumorbatch import bundle
from tumorbatch.infer import batching
from tumorbatch.infer.network import Network
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocessing_config import Preprocessing


def write_bundle(folder: Path) -> Path:
    """Write a bundle without weights."""
    made = bundle.Bundle(
        architecture="cnn1",
        preprocessing=Preprocessing(size=32),
        classes=CLASS_NAMES,
        threshold=0.5,
        temperature=1.0,
        weights_sha256="0" * 64,
        training={},
        versions={},
    )
    folder.mkdir(parents=True)
    (folder / bundle.MODEL).write_text(json.dumps(made.to_dict()))
    return folder


def write_images(folder: Path, count: int, first: int = 0) -> None:
    """Write so many small PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40), np.uint8)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        (folder / f"{number:04}.png").write_bytes(data)


def score(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a logit for each image."""
    return images.reshape(len(images), -1).astype(np.float32).mean(1) / 64 - 1


def use_stub(patch: pytest.MonkeyPatch) -> list[int]:
    """Let every network be `score`, and decode in this process; return the sizes of the batches."""
    sizes: list[int] = []

    def scored(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(images))
        return score(images)

    def in_this_process(work: Any, chunks: Any, *_: object) -> Iterator[Any]:
        yield from map(work, chunks)

    patch.setattr(Network, "load", lambda _: scored)
    patch.setattr(batching, "ordered_map", in_this_process)
    return sizes
