"""Ray Data as its guide for batch inference shows: files, `map`, `map_batches` with a class, Parquet.

python ray_data.py DATA WEIGHTS.safetensors OUT

It runs on this machine alone, with the same pixel path and network; Ray's start and end are part of it.
"""

import logging
import os
import sys

import cv2
import numpy as np
from shared import SIZE, cores, image_paths, report

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
HERE = os.path.dirname(os.path.abspath(__file__))


def equalise(row: dict) -> dict:
    """Return the row of a file with its image, uint8 [1, 150, 150], in place of its bytes."""
    image = cv2.imdecode(np.frombuffer(row["bytes"], np.uint8), cv2.IMREAD_GRAYSCALE)
    image = cv2.createCLAHE(2.0, (16, 16)).apply(image)
    image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return {"path": row["path"], "image": image[None]}


class Network:
    """Classifies batches; loaded once an actor."""

    def __init__(self, weights: str) -> None:
        import cnn1_torch

        self.network = cnn1_torch.load(weights)

    def __call__(self, batch: dict) -> dict:
        """Return paths and probabilities of a batch."""
        import torch

        with torch.inference_mode():
            logits = self.network(torch.from_numpy(batch["image"]))
        return {"path": batch["path"], "prob_tumor": logits.sigmoid().numpy().ravel()}


if __name__ == "__main__":
    import ray

    data, weights, out = sys.argv[1:4]
    paths = image_paths(data)
    ray.init(
        num_cpus=cores(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": HERE}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    images = ray.data.read_binary_files(paths, include_paths=True).map(equalise)
    images = images.map_batches(
        Network, fn_constructor_args=(weights,), batch_size=32, concurrency=1, num_cpus=1
    )
    images.write_parquet(out)
    ray.shutdown()
    report(len(paths))
