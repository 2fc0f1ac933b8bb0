"""The training feed against Keras' two ways, with the report's augmentation, without a network.

python benchmarks/bench_feed.py DATA TFRECORDS [ROUNDS]
"""

import functools
import sys
from pathlib import Path

from common import compare

from tumorbatch import shardset
from tumorbatch.runtime import available_cores, load_tensorflow

tf = load_tensorflow()
import keras  # noqa: E402

from tumorbatch.train.config import Augmentation  # noqa: E402
from tumorbatch.train.feed import TrainingFeed, load_split  # noqa: E402

EPOCHS = 5  # of our own feed, so that its run is long enough to measure


def ours(images: object, augmentation: Augmentation | None) -> int:
    feed = TrainingFeed(images, 32, augmentation, 0, False)
    return sum(len(batch) for epoch in range(EPOCHS) for batch, _ in feed.epoch(epoch))


def generator(source: Path, size: int) -> int:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    made = ImageDataGenerator(rescale=1 / 255, shear_range=0.2, zoom_range=0.2, horizontal_flip=True)
    flow = made.flow_from_directory(source, (size, size), batch_size=32, class_mode="binary")
    return sum(len(next(flow)[0]) for _ in range(20))


def directory(source: Path, size: int) -> int:
    data = keras.utils.image_dataset_from_directory(
        source, image_size=(size, size), batch_size=32, label_mode="binary", verbose=False
    )
    return sum(len(batch) for batch, _ in data)


if __name__ == "__main__":
    source, tfrecords = Path(sys.argv[1]), Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    dataset = shardset.load(tfrecords)
    size = dataset.preprocessing.size
    images = load_split(tfrecords, dataset, "train")
    print(f"{available_cores()} cores, {size} x {size} pixels")
    contestants = {
        "our feed, augmented": functools.partial(ours, images, Augmentation()),
        "our feed, not augmented": functools.partial(ours, images, None),
        "ImageDataGenerator, augmented": functools.partial(generator, source, size),
        "image_dataset_from_directory, not augmented": functools.partial(directory, source, size),
    }
    compare(contestants, rounds)
