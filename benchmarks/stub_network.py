"""`tumorbatch` with a network that costs nothing: what is measured is all the rest."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.cli.main import main
from tumorbatch.infer.network import Network

Score = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def load(_: Network) -> Score:
    """Return a function that gives each image its mean as a logit."""

    def score(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        means: Any = images.reshape(len(images), -1).astype(np.float32).mean(1)
        return np.asarray(means / 64 - 1, np.float32)

    return score


Network.load = load  # type: ignore[method-assign]
if __name__ == "__main__":
    main()
