"""`infer` against the CPU-work limit, Keras' own way, and a loop over single images.

    python benchmarks/bench_infer.py DATA MODEL [ROUNDS]

The limit adds up what must be computed, per image and spread over all cores: the bare pixel path and
the network's forward pass, measured alone. Nothing that does both can be faster on these cores.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_shard import bare_limit
from common import compare

from tumorbatch import bundle
from tumorbatch.files import find_files
from tumorbatch.infer.config import Config
from tumorbatch.infer.inference import run
from tumorbatch.preprocess.pixels import process
from tumorbatch.runtime import available_cores, resolve
from tumorbatch.scoring import scorer

if __name__ == "__main__":
    source, model = Path(sys.argv[1]), Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    runtime = resolve()
    import keras

    used = bundle.load(model)
    network = bundle.load_network(model, used)
    score = scorer(network, 32, runtime)
    files = find_files(source)
    images = np.zeros((len(files), used.preprocessing.size, used.preprocessing.size), np.uint8)
    score(images[:64])

    def limit() -> int:
        bare_limit([file.path for file in files], available_cores())
        score(images)
        return len(files)

    def infer() -> int:
        with tempfile.TemporaryDirectory() as folder:
            # Workers and network start anew each time; TensorFlow is loaded already.
            return run(source, Path(folder) / "out.parquet", model, Config()).files

    def keras_way() -> int:
        data = keras.utils.image_dataset_from_directory(
            source,
            labels=None,
            color_mode="grayscale",
            image_size=images.shape[1:],
            batch_size=32,
            shuffle=False,
            verbose=False,
        )
        return len(network.predict(data, verbose=0))  # without CLAHE, and without the TIFF files

    def loop() -> int:
        few = files[:: max(1, len(files) // 200)]
        for file in few:
            pixels = process(Path(file.path).read_bytes(), used.preprocessing).pixels
            network.predict(pixels[np.newaxis, ..., np.newaxis], verbose=0)
        return len(few)

    print(f"{len(files)} files, {available_cores()} cores, {used.architecture}")
    contestants = {
        "CPU-work limit": limit,
        "tumorbatch infer": infer,
        "image_dataset_from_directory + predict": keras_way,
        "a loop over images (200 of them)": loop,
    }
    compare(contestants, rounds)
