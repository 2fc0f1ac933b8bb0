"""Keras' own way: `image_dataset_from_directory` and `predict`. No CLAHE, no TIFF files, no table.

python keras_directory.py DATA MODEL.keras
"""

import sys

import keras
from shared import SIZE, report

if __name__ == "__main__":
    data, model = sys.argv[1:3]
    network = keras.models.load_model(model)  # noqa: TID251
    images = keras.utils.image_dataset_from_directory(
        data,
        labels=None,
        color_mode="grayscale",
        image_size=(SIZE, SIZE),
        batch_size=32,
        shuffle=False,
        verbose=False,
    )
    report(len(network.predict(images, verbose=0)))
