"""Stages `feed`, batches without a network, and `train`, epochs of cnn1.

Of all contestants only the seconds inside the process count, after loading and compiling.
`tumorbatch` reads shards, in which the images are decoded and equalised already: that is what the stage
`shard` is for. `ImageDataGenerator` and PyTorch decode anew in every epoch.
"""

import sys
from pathlib import Path

from common import OUT, Contestant, Stage
from inputs import Inputs
from peers_list import peer

HERE = Path(__file__).resolve().parent


def feed(inputs: Inputs) -> Stage:
    """Return the contestants that give batches of 32 images."""
    images, tfrecords = str(inputs.images), str(inputs.tfrecords)
    # Fast contestants give more batches: those made before the clock starts then weigh little.
    batches, many, own_images = ("5", "20", "5000") if inputs.quick else ("20", "80", "30000")
    own = (sys.executable, str(HERE / "own_feed.py"), tfrecords)
    return Stage(
        "feed",
        "feed: batches of 32 images, without a network",
        inputs.count,
        (
            Contestant("tumorbatch, augmented", (*own, "augmented", own_images), own=True, inside=True),
            Contestant("tumorbatch, not augmented", (*own, "plain", own_images), inside=True),
            peer(inputs, "Keras ImageDataGenerator, augmented", "keras_feed", images, "generator",
                 batches, inside=True),
            peer(inputs, "Keras directory, not augmented", "keras_feed", images, "directory", many,
                 inside=True),
            peer(inputs, "PyTorch DataLoader, CLAHE, augmented", "torch_feed", images, many,
                 inside=True),
        ),
    )  # fmt: skip


def train(inputs: Inputs) -> Stage:
    """Return the contestants that train cnn1 with batches of 32 images."""
    images, network, tfrecords = str(inputs.images), str(inputs.network), str(inputs.tfrecords)
    batches, epochs = ("8", "2") if inputs.quick else ("40", "3")
    own = (sys.executable, str(HERE / "own_train.py"), tfrecords, OUT)
    bfloat16 = Contestant("tumorbatch train, bfloat16", (*own, "bfloat16", epochs), True, inside=True)
    return Stage(
        "train",
        "train: cnn1, batches of 32 images",
        inputs.count,
        (
            Contestant("tumorbatch train", (*own, "float32", epochs), own=True, inside=True),
            *((bfloat16,) if inputs.bfloat16 else ()),
            peer(inputs, "Keras fit, ImageDataGenerator", "keras_train", images, network, "generator",
                 batches, inside=True),
            peer(inputs, "Keras fit, cached, not augmented", "keras_train", images, network,
                 "directory", batches, inside=True),
            peer(inputs, "PyTorch DataLoader, CLAHE, augmented", "torch_train", images, batches,
                 inside=True, slow=True),
        ),
    )  # fmt: skip
