"""PyTorch: a `DataLoader` with the same pixel path, the same network, Parquet.

python torch_loader.py DATA WEIGHTS.safetensors OUT
"""

import sys

import cnn1_torch
import cv2
import torch
from shared import cores, equalised, image_paths, report, write_table
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    """Images of a list of paths: uint8 [1, 150, 150] each."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(equalised(self.paths[index]))[None]


if __name__ == "__main__":
    data, weights, out = sys.argv[1:4]
    paths = image_paths(data)
    network = cnn1_torch.load(weights)
    loader = DataLoader(
        Images(paths), 32, num_workers=cores(), worker_init_fn=lambda _: cv2.setNumThreads(1)
    )
    with torch.inference_mode():
        logits = torch.cat([network(batch) for batch in loader])
    write_table(out, paths, logits.sigmoid().numpy())
    report(len(paths))
