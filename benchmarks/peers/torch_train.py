"""Training as PyTorch's users write it: `DataLoader` with CLAHE and augmentation, cnn1, Adam.

python torch_train.py DATA BATCHES

Its own seconds count, from the second batch on.
"""

import sys
import time

import torch
from cnn1_torch import Cnn1
from shared import report
from torch_feed import loader

if __name__ == "__main__":
    data, batches = sys.argv[1], int(sys.argv[2])
    network = Cnn1().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss = torch.nn.BCEWithLogitsLoss()
    images, started = 0, 0.0
    while images < 32 * batches:
        for batch, labels in loader(data):
            optimizer.zero_grad()
            loss(network(255 * batch)[:, 0], labels.float()).backward()
            optimizer.step()
            if not started:
                started = time.perf_counter()
                continue
            images += len(batch)
            if images >= 32 * batches:
                break
    report(images, time.perf_counter() - started)
