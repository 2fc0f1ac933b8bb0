"""What several peers share: the pixel path as OpenCV's users write it, and the last line they print."""

import json
import os
from pathlib import Path

import cv2
import numpy as np

SIZE = 150
_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


def image_paths(folder: str) -> list[str]:
    """Return the images below a folder, sorted."""
    return sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def equalised(path: str) -> np.ndarray:
    """Return the image, grey, equalised and resized: uint8 [150, 150]."""
    image = cv2.imread(path, cv2.IMREAD_GRAYSCALE)  # noqa: TID251
    if image is None:
        raise ValueError(f"{path} is not an image")
    image = cv2.createCLAHE(2.0, (16, 16)).apply(image)
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def write_table(path: str, names: list[str], probabilities: np.ndarray) -> None:
    """Write a Parquet file of names and probabilities."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"path": names, "prob_tumor": np.asarray(probabilities, np.float32).ravel()}
    pq.write_table(pa.table(columns), path)


def report(images: int, seconds: float | None = None) -> None:
    """Print the last line, which the harness reads."""
    line = {"images": images} if seconds is None else {"images": images, "seconds": seconds}
    print(json.dumps(line), flush=True)
