"""Running a network over batches, one shape, every image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.architectures import fold, shares, with_features
from tumorbatch.familiarity import Familiarity
from tumorbatch.runtime import Runtime
from tumorbatch.tta import FLIP, NO_TTA

Scorer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def scorer(
    network: Any,
    batch_size: int,
    runtime: Runtime,
    tta: str = NO_TTA,
    familiarity: Sequence[Familiarity] = (),
) -> Scorer:
    """Return a function that computes the logits of any number of images.

    Every batch is padded to `batch_size` and the result cut: a new shape would be compiled anew
    under XLA, and dropping the remainder would lose patients. An image's logit does not depend on
    its neighbours; its row in the batch can change the last bit, by up to 2e-7.

    Args:
        network: uint8 [N, H, W, channels] -> logits [N, 1], from `architectures.build`; see `fold`.
        batch_size: Images a forward pass.
        runtime: Decides about XLA.
        tta: `FLIP`: the mean logit of an image and its left-right mirror; twice the time.
        familiarity: One for each network of an ensemble, or for the single one; (): none.

    Returns:
        Function from uint8 [n, H, W] or, of several channels, [n, H, W, channels] to float32 [n]; with
        `familiarity` to float32 [n, 2]: the logit, and the distance from the training images over its
        limit, the mean of all networks.
    """
    import tensorflow as tf

    network = fold(network)
    distance = _distance(network, familiarity) if familiarity else None

    @tf.function(jit_compile=runtime.xla, autograph=False)  # type: ignore[untyped-decorator]
    def forward(images: Any) -> Any:
        if distance is None:
            logits, columns = network(images, training=False), []
        else:
            logits, column = distance(images)
            columns = [column]
        if tta == FLIP:
            logits = (logits + network(images[:, :, ::-1], training=False)) / 2
        return tf.concat([logits, *columns], axis=1) if columns else logits

    def score(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores = np.empty((len(images), 2 if familiarity else 1), np.float32)
        done = 0
        for batch, count in _batches(with_channels(images), batch_size):
            scores[done : done + count] = forward(tf.constant(batch)).numpy()[:count]
            done += count
        return scores if familiarity else scores[:, 0]

    return score


def _distance(network: Any, familiarity: Sequence[Familiarity]) -> Callable[[Any], tuple[Any, Any]]:
    """Return a function from a batch to logits [n, 1] and distances [n, 1], both tensors."""
    import tensorflow as tf

    parts = [
        (with_features(part), weight, channels, *map(tf.constant, astuple(one)))
        for (part, weight, channels), one in zip(shares(network), familiarity, strict=True)
    ]

    def both(images: Any) -> tuple[Any, Any]:
        logits, distances = [], []
        for part, weight, channels, mean, whitening, limit in parts:
            seen = images if channels is None else tf.gather(images, channels, axis=-1)
            logit, features = part(seen, training=False)
            white = tf.matmul(features - mean, whitening)
            logits.append(logit if channels is None else weight * logit)
            distances.append(tf.sqrt(tf.reduce_mean(white**2, axis=1, keepdims=True)) / limit)
        return tf.add_n(logits), tf.add_n(distances) / len(distances)

    return both


def featured(
    network: Any, batch_size: int, runtime: Runtime
) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return a function from images to logits [n] and features [n, f], see `with_features`."""
    import tensorflow as tf

    network = with_features(fold(network))

    @tf.function(jit_compile=runtime.xla, autograph=False)  # type: ignore[untyped-decorator]
    def forward(images: Any) -> Any:
        return network(images, training=False)

    def score(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        parts = [
            [part.numpy()[:count] for part in forward(tf.constant(batch))]
            for batch, count in _batches(with_channels(images), batch_size)
        ]
        logits, features = (np.concatenate(several) for several in zip(*parts, strict=True))
        return logits[:, 0], features

    return score


def _batches(images: NDArray[np.uint8], batch_size: int) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yield batches of one size, the last one filled up, and how many of their images are real."""
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        count = len(batch)
        if count < batch_size:
            padding = np.zeros((batch_size - count, *batch.shape[1:]), np.uint8)
            batch = np.concatenate([batch, padding])
        yield batch, count


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
