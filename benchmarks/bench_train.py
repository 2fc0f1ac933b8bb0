"""A training step with this project's runtime settings against Keras' defaults, same network.

    python benchmarks/bench_train.py [ARCH] [ROUNDS]

Each run is its own process: oneDNN and threads are fixed when TensorFlow starts.
"""

import os
import subprocess
import sys

STEPS = 20
CODE = """
import sys, time
if sys.argv[1] == "ours":
    from tumorbatch.runtime import load_tensorflow
    load_tensorflow()
import keras, numpy as np, tensorflow as tf
from tumorbatch import architectures
network = architectures.build(sys.argv[2], 150)
network.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
x = np.random.default_rng(0).integers(0, 256, (32 * int(sys.argv[3]), 150, 150, 1), np.uint8)
y = np.arange(len(x)) % 2
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32).prefetch(2)
network.fit(data.take(2), verbose=0, shuffle=False)
started = time.perf_counter()
network.fit(data, verbose=0, shuffle=False)
print(time.perf_counter() - started)
"""


def seconds(which: str, architecture: str) -> float:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
    command = [sys.executable, "-c", CODE, which, architecture, str(STEPS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    architecture = sys.argv[1] if len(sys.argv) > 1 else "cnn1"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    rates: dict[str, list[float]] = {"defaults": [], "ours": []}
    for _ in range(rounds):
        for which, values in rates.items():
            values.append(32 * STEPS / seconds(which, architecture))
    ratios = sorted(b / a for a, b in zip(rates["defaults"], rates["ours"], strict=True))
    for which, values in rates.items():
        print(f"{which:10}", "  ".join(f"{value:7.1f}" for value in values), "images/s")
    print(f"ratio, median of the pairs: {ratios[len(ratios) // 2]:.2f}")
