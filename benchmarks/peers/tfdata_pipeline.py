"""The same work by a tf.data user: `numpy_function` with OpenCV, batches, `predict`, Parquet.

python tfdata_pipeline.py DATA MODEL.keras OUT
"""

import sys

import cv2
import keras
import numpy as np
import tensorflow as tf
from shared import SIZE, image_paths, report, write_table


def equalised(data: bytes) -> np.ndarray:
    """Return a file's image, grey, equalised and resized: uint8 [150, 150, 1]."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    image = cv2.createCLAHE(2.0, (16, 16)).apply(image)
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[..., None]


def load(path: tf.Tensor) -> tf.Tensor:
    """Return the image of a path."""
    image = tf.numpy_function(equalised, [tf.io.read_file(path)], tf.uint8)
    image.set_shape((SIZE, SIZE, 1))
    return image


if __name__ == "__main__":
    data, model, out = sys.argv[1:4]
    cv2.setNumThreads(1)
    paths = image_paths(data)
    network = keras.models.load_model(model)  # noqa: TID251
    images = tf.data.Dataset.from_tensor_slices(paths)
    images = images.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    images = images.batch(32).prefetch(tf.data.AUTOTUNE)
    logits = network.predict(images, verbose=0)
    write_table(out, paths, 1 / (1 + np.exp(-logits)))
    report(len(paths))
