"""Stages `infer`, a folder of images to one table of probabilities, and `start`, eight images.

All run the same cnn1, in TensorFlow or PyTorch, with the same weights. `tumorbatch infer` writes a row
with sha256, sizes and status for every file as well.
"""

import sys

from common import OUT, Contestant, Stage
from inputs import FEW, Inputs
from peers_list import peer


def stage(inputs: Inputs) -> Stage:
    """Return the contestants on the whole folder."""
    images, network = str(inputs.images), str(inputs.network)
    single = "20" if inputs.quick else "200"
    return Stage(
        "infer",
        f"infer: {inputs.count:,} images, cnn1, one table",
        inputs.count,
        (
            *_whole_processes(inputs, images),
            peer(inputs, f"Keras, a loop over {single} single images", "keras_serial", images, network,
                 single, inside=True, slow=True),
            peer(inputs, f"detect-tumor, {single} images (VGG16)", "detect_tumor_package", images,
                 single, inside=True, slow=True),
        ),
    )  # fmt: skip


def start(inputs: Inputs) -> Stage:
    """Return the contestants on a folder of eight images: start-up is nearly all of it."""
    return Stage(
        "start",
        f"start-up: infer on {FEW} images, cnn1",
        FEW,
        _whole_processes(inputs, str(inputs.few)),
    )


def _whole_processes(inputs: Inputs, images: str) -> tuple[Contestant, ...]:
    model, network = str(inputs.model), str(inputs.network)
    weights = str(inputs.model / "weights.safetensors")
    own = (sys.executable, "-m", "tumorbatch", "infer", images, f"{OUT}.parquet", "--model", model)
    own = (*own, "--quiet", "--precision")
    bfloat16 = (Contestant("tumorbatch infer, bfloat16", (*own, "bfloat16"), own=True),)
    table = f"{OUT}.parquet"
    return (
        Contestant("tumorbatch infer", (*own, "float32"), own=True),
        *(bfloat16 if inputs.bfloat16 else ()),
        peer(
            inputs, "Keras directory + predict (no CLAHE, no TIFF)", "keras_directory", images, network
        ),
        peer(inputs, "tf.data user's own pipeline", "tfdata_pipeline", images, network, table),
        peer(inputs, "PyTorch DataLoader", "torch_loader", images, weights, table),
        peer(inputs, "timm's loader (no CLAHE)", "timm_inference", images, weights, table),
        peer(inputs, "Ray Data, map_batches", "ray_data", images, weights, OUT, slow=True),
    )
