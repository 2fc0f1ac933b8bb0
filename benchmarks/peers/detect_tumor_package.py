"""The package `detect-tumor`: its own network (VGG16, four classes), one image after another.

python detect_tumor_package.py DATA IMAGES

Handles so many images, spread over the folder; its own seconds count, without its start.
"""

import sys
import time

from detect_tumor import TumorDetector
from shared import image_paths, report

if __name__ == "__main__":
    data, images = sys.argv[1:3]
    detector = TumorDetector()
    paths = image_paths(data)
    paths = paths[:: max(1, len(paths) // int(images))]
    detector.predict(paths[0])
    started = time.perf_counter()
    for path in paths:
        detector.predict(path)
    report(len(paths), time.perf_counter() - started)
