"""This project's training feed, without a network, for `bench.py`.

python own_feed.py TFRECORDS augmented|plain IMAGES

Batches of whole epochs until there are so many images; from the second batch on the seconds count.
"""

import json
import sys
import time
from pathlib import Path

from tumorbatch import shardset
from tumorbatch.runtime import load_tensorflow

load_tensorflow()
from tumorbatch.train.config import Augmentation  # noqa: E402
from tumorbatch.train.feed import TrainingFeed, load_split  # noqa: E402

if __name__ == "__main__":
    tfrecords, way, wanted = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    images = load_split(tfrecords, shardset.load(tfrecords), "train")
    feed = TrainingFeed(images, 32, Augmentation() if way == "augmented" else None, 0, False)
    count, epoch, started = 0, 0, 0.0
    while count < wanted:
        for batch, _ in feed.epoch(epoch):
            if started:
                count += len(batch)
            else:
                started = time.perf_counter()
        epoch += 1
    print(json.dumps({"images": count, "seconds": time.perf_counter() - started}))
