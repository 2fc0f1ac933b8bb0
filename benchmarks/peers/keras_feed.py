"""Keras' two ways to feed a network, without one.

python keras_feed.py DATA generator|directory BATCHES

`ImageDataGenerator` with the report's augmentation; `image_dataset_from_directory` without any. Its own
seconds count, from the second batch on.
"""

import sys
import time

import keras
from shared import SIZE, report

if __name__ == "__main__":
    data, way, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if way == "generator":
        from keras.src.legacy.preprocessing.image import ImageDataGenerator

        generator = ImageDataGenerator(
            rescale=1 / 255, shear_range=0.2, zoom_range=0.2, horizontal_flip=True
        )
        flow = generator.flow_from_directory(data, (SIZE, SIZE), batch_size=32, class_mode="binary")
        feed = (next(flow) for _ in range(batches + 1))
    else:
        images = keras.utils.image_dataset_from_directory(
            data, image_size=(SIZE, SIZE), batch_size=32, label_mode="binary", verbose=False
        )
        feed = iter(images.repeat().take(batches + 1))
    next(feed)
    started = time.perf_counter()
    count = sum(len(batch) for batch, _ in feed)
    report(count, time.perf_counter() - started)
