"""Pictures that are certainly not brain images, drawn by code: what `unfamiliar` must notice."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

COUNT = 32  # of each kind

Picture = NDArray[np.uint8]


def foreign_images(size: int, count: int = COUNT, seed: int = 0) -> dict[str, Picture]:
    """Draw pictures of several kinds.

    Args:
        size: Side, pixels.
        count: Of each kind.
        seed: Of the draw.

    Returns:
        {kind: uint8 [count, size, size]}.
    """
    rng = np.random.default_rng(seed)
    return {kind: np.stack([draw(rng, size) for _ in range(count)]) for kind, draw in _KINDS.items()}


def _noise(rng: np.random.Generator, size: int) -> Picture:
    return rng.integers(0, 256, (size, size), np.uint8)


def _clouds(rng: np.random.Generator, size: int) -> Picture:
    import cv2

    values = rng.normal(size=(size, size))
    blurred = cv2.GaussianBlur(values, (0, 0), float(rng.uniform(1, size / 8)))
    return _stretched(np.asarray(blurred, np.float64))


def _gradient(rng: np.random.Generator, size: int) -> Picture:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size]
    return _stretched(x * np.cos(angle) + y * np.sin(angle))


def _text(rng: np.random.Generator, size: int) -> Picture:
    """Draw a page of dark lines of letters on white."""
    import cv2

    page = np.full((4 * size, 4 * size), 255, np.uint8)
    letters = list("abcdefghijklmnopqrstuvwxyz      ABCDE0123456789")
    height = int(rng.integers(18, 40))
    for top in range(height, 4 * size, height):
        line = "".join(rng.choice(letters, 120))
        font, dark = int(rng.integers(0, 4)), int(rng.integers(0, 90))
        cv2.putText(page, line, (10, top), font, height / 40, dark, 1)
    return np.asarray(cv2.resize(page, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _stretched(values: NDArray[np.float64]) -> Picture:
    low, high = values.min(), values.max()
    return np.asarray(np.round(255 * (values - low) / max(high - low, 1e-9)), np.uint8)


_KINDS: dict[str, Callable[[np.random.Generator, int], Picture]] = {
    "noise": _noise,
    "clouds": _clouds,
    "gradients": _gradient,
    "pages of text": _text,
}
