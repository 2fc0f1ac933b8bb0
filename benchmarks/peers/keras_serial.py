"""A loop over single images with Keras' `predict`, as most scripts of papers do it.

python keras_serial.py DATA MODEL.keras IMAGES

Handles so many images, spread over the folder; its own seconds count, without TensorFlow's start.
"""

import sys
import time

import keras
from shared import equalised, image_paths, report

if __name__ == "__main__":
    data, model, images = sys.argv[1:4]
    network = keras.models.load_model(model)  # noqa: TID251
    paths = image_paths(data)
    paths = paths[:: max(1, len(paths) // int(images))]
    network.predict(equalised(paths[0])[None, ..., None], verbose=0)  # compiles
    started = time.perf_counter()
    for path in paths:
        network.predict(equalised(path)[None, ..., None], verbose=0)
    report(len(paths), time.perf_counter() - started)
