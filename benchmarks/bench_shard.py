"""Stage `shard`: images in class folders to equalised, resized images that a training can read.

`tumorbatch shard` also groups the copies, splits, and proves what it has written; no peer does. The
bare limit does not even keep its result.
"""

import sys

from common import OUT, Contestant, Stage
from inputs import Inputs
from peers_list import peer


def stage(inputs: Inputs) -> Stage:
    """Return the contestants."""
    images = str(inputs.images)
    own = (sys.executable, "-m", "tumorbatch", "shard", images, OUT, "--quiet", "--pixels")
    return Stage(
        "shard",
        f"shard: {inputs.count:,} images equalised, resized and stored",
        inputs.count,
        (
            Contestant("tumorbatch shard", (*own, "auto"), own=True),
            Contestant("tumorbatch shard --pixels opencv", (*own, "opencv"), own=True),
            peer(inputs, "limit: OpenCV, spawned processes", "bare", images, "spawn", inside=True),
            peer(inputs, "limit: OpenCV, forked processes", "bare", images, "fork", inside=True),
            peer(inputs, "the report's serial script", "serial", images, OUT),
            peer(inputs, "process pool of an hour", "pool", images, OUT),
            peer(inputs, "TensorFlow Datasets, own builder", "tfds_builder", images, OUT),
        ),
    )
