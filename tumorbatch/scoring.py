"""Running a network over batches, one shape, every image."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.architectures import fold
from tumorbatch.runtime import Runtime
from tumorbatch.tta import FLIP, NO_TTA

Scorer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def scorer(network: Any, batch_size: int, runtime: Runtime, tta: str = NO_TTA) -> Scorer:
    """Return a function that computes the logits of any number of images.

    Every batch is padded to `batch_size` and the result cut: a new shape would be compiled anew
    under XLA, and dropping the remainder would lose patients. An image's logit does not depend on
    its neighbours; its row in the batch can change the last bit, by up to 2e-7.

    Args:
        network: uint8 [N, H, W, channels] -> logits [N, 1], from `architectures.build`; see `fold`.
        batch_size: Images a forward pass.
        runtime: Decides about XLA.
        tta: `FLIP`: the mean logit of an image and its left-right mirror; twice the time.

    Returns:
        Function from uint8 [n, H, W] or, of several channels, [n, H, W, channels] to float32 [n].
    """
    import tensorflow as tf

    network = fold(network)

    @tf.function(jit_compile=runtime.xla, autograph=False)  # type: ignore[untyped-decorator]
    def forward(images: Any) -> Any:
        logits = network(images, training=False)
        if tta == FLIP:
            logits = (logits + network(images[:, :, ::-1], training=False)) / 2
        return logits

    def score(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = with_channels(images)
        logits = np.empty(len(images), np.float32)
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            count = len(batch)
            if count < batch_size:
                padding = np.zeros((batch_size - count, *batch.shape[1:]), np.uint8)
                batch = np.concatenate([batch, padding])
            logits[start : start + count] = forward(tf.constant(batch)).numpy()[:count, 0]
        return logits

    return score


def with_channels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 [n, H, W, channels] of images without an axis of channels, or with it."""
    return images if images.ndim == 4 else images[..., np.newaxis]


def probability(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return sigmoid(logit / temperature), float32 in [0, 1], without overflow.

    Args:
        logits: float32 [n].
        temperature: Above 0; 1 leaves the network's own probability.
    """
    scaled = logits.astype(np.float64) / temperature
    exponential = np.exp(-np.abs(scaled))
    positive = 1 / (1 + exponential)
    return np.where(scaled >= 0, positive, exponential * positive).astype(np.float32)
