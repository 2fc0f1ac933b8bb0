"""Training as Keras' users write it: Keras' defaults, an epoch of the network of an exported file.

python keras_train.py DATA MODEL.keras generator|directory BATCHES

`generator`: `ImageDataGenerator` with the report's augmentation. `directory`:
`image_dataset_from_directory` with its decoded images cached, not augmented. The second epoch's seconds
count: the first compiles, and fills the cache.
"""

import sys
import time

import keras
from shared import SIZE, report

if __name__ == "__main__":
    data, model, way, batches = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    network = keras.models.load_model(model)  # noqa: TID251
    network.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    if way == "generator":
        from keras.src.legacy.preprocessing.image import ImageDataGenerator

        generator = ImageDataGenerator(shear_range=0.2, zoom_range=0.2, horizontal_flip=True)
        feed = generator.flow_from_directory(
            data, (SIZE, SIZE), color_mode="grayscale", batch_size=32, class_mode="binary"
        )
    else:
        feed = keras.utils.image_dataset_from_directory(
            data,
            color_mode="grayscale",
            image_size=(SIZE, SIZE),
            batch_size=32,
            label_mode="binary",
            verbose=False,
        )
        feed = feed.take(batches).cache().prefetch(2)
    batches = min(batches, len(feed))
    network.fit(feed, steps_per_epoch=batches if way == "generator" else None, verbose=0)
    started = time.perf_counter()
    network.fit(feed, steps_per_epoch=batches if way == "generator" else None, verbose=0)
    report(32 * batches, time.perf_counter() - started)
