"""The network of a run, loaded when the first images are there."""

import logging
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tumorbatch.bundle import FAMILIARITY, KNOWN_IMAGES, Bundle
from tumorbatch.bundle_weights import load_network
from tumorbatch.familiarity import Familiarity, read
from tumorbatch.infer.config import Config
from tumorbatch.infer.worker import KnownFile
from tumorbatch.runtime import Runtime, resolve
from tumorbatch.scoring import Scorer, scorer

log = logging.getLogger(__name__)


class Network:
    """Images to logits, as a function; TensorFlow starts at the first call.

    A run that finds nothing new does not pay for it, and in others the workers decode at the same time.

    Args:
        folder: The model bundle.
        used: Its model.json.
        config: Gives batch size, device, precision, XLA and threads.
    """

    def __init__(self, folder: Path, loaded: Bundle, config: Config) -> None:
        self._folder = folder
        self._loaded = loaded
        self._config = config
        self.known: KnownFile | None = None
        if loaded.known_images_sha256:
            self.known = KnownFile(folder / KNOWN_IMAGES, loaded.known_images_sha256)
        self._score: Scorer | None = None
        self.runtime: Runtime | None = None
        self.loading = 0.0
        # Whether an image's place in its batch can change the last bit of its logit on this machine.
        self.place_matters: bool | None = None

    def load(self) -> Scorer:
        """Load TensorFlow, build the network, and run it once.

        Raises:
            InputError: The weights are missing or damaged.
            ConfigError: There is no GPU where one was asked for.
        """
        if self._score is not None:
            return self._score
        started = time.monotonic()
        config = self._config
        runtime = resolve(config.device, config.precision, config.xla, threads=config.threads)
        import keras

        if runtime.device == "gpu" or runtime.precision != "float32":
            from tumorbatch.selftest import checked

            runtime = checked(runtime)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(runtime.precision)
        try:
            network = load_network(self._folder, self._loaded)
        finally:
            keras.config.set_dtype_policy(before)
        self.runtime = runtime
        self._score = scorer(network, config.batch_size, runtime, self._loaded.tta, self._familiarity())
        self.place_matters = self._probe(self._score)
        self.loading = time.monotonic() - started
        log.info("%s", runtime.reason)
        return self._score

    def _familiarity(self) -> list[Familiarity]:
        """Read what the bundle knows of its training images' features; [] if it carries nothing."""
        sha256 = self._loaded.familiarity_sha256
        return read(self._folder / FAMILIARITY, sha256) if sha256 else []

    def _probe(self, score: Scorer) -> bool:
        """Score one image at all places of a batch; compiles the network by the way."""
        shape = self._loaded.preprocessing.shape
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        scores = score(np.broadcast_to(image, (self._config.batch_size, *shape)))
        logits = scores.reshape(len(scores), -1)[:, 0]
        return bool((logits != logits[0]).any())

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute logits: uint8 [n, *preprocessing.shape] -> float32 [n], or [n, 2] as `scorer`."""
        return self.load()(images)

    @property
    def reason(self) -> str:
        """Return device and settings, and why they were chosen."""
        return self.runtime.reason if self.runtime else "no image was new"
