"""PyTorch's way to feed a network: a `DataLoader` with CLAHE and the report's augmentation.

python torch_feed.py DATA BATCHES

Its own seconds count, from the second batch on.
"""

import random
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from shared import SIZE, cores, equalised, image_paths, report
from torch.utils.data import DataLoader, Dataset


def augmented(image: np.ndarray) -> np.ndarray:
    """Return the image sheared, zoomed and perhaps mirrored, about its centre."""
    shear = np.tan(np.deg2rad(random.uniform(-0.2, 0.2)))  # degrees, as `ImageDataGenerator` has them
    across, down = random.uniform(0.8, 1.2), random.uniform(0.8, 1.2)
    move = np.array([[random.choice((-1, 1)) * across, shear, 0], [0, down, 0]])
    move[:, 2] = (SIZE - 1) / 2 * (1 - move[:, :2].sum(axis=1))
    return cv2.warpAffine(image, move, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)


class Images(Dataset):
    """Augmented images: float32 [1, 150, 150], 0 to 1, and the class folder's number."""

    def __init__(self, data: str) -> None:
        self.paths = image_paths(data)
        folders = [Path(path).relative_to(data).parts[0] for path in self.paths]
        self.labels = [sorted(set(folders)).index(folder) for folder in folders]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.from_numpy(augmented(equalised(self.paths[index])))[None]
        return image.float() / 255, self.labels[index]


def loader(data: str) -> DataLoader:
    """Return shuffled batches of 32."""
    return DataLoader(
        Images(data),
        32,
        shuffle=True,
        num_workers=cores(),
        drop_last=True,
        worker_init_fn=lambda _: cv2.setNumThreads(1),
    )


if __name__ == "__main__":
    data, batches = sys.argv[1], int(sys.argv[2])
    images, started = 0, 0.0
    while images < 32 * batches:
        for batch, _ in loader(data):
            if not started:
                started = time.perf_counter()
                continue
            images += len(batch)
            if images >= 32 * batches:
                break
    report(images, time.perf_counter() - started)
