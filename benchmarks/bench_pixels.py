"""The library in C against OpenCV: CPU time of one thread an image, by every variant.

python benchmarks/bench_pixels.py DATA [IMAGES]

Of several repetitions the least counts: other programs on the machine can only add to it.
"""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tumorbatch import native
from tumorbatch.files import find_files, read_file
from tumorbatch.native import Library
from tumorbatch.preprocess.decode import decode
from tumorbatch.train.augment import warp_by_opencv

SIZE, CLIP, GRID, ROWS = 150, 2.0, 16, 32
REPEATS = 30


def least(work: Callable[[], object]) -> float:
    """Microseconds of CPU time."""
    times = []
    for _ in range(REPEATS):
        started = time.thread_time_ns()
        work()
        times.append(time.thread_time_ns() - started)
    return min(times) / 1e3


if __name__ == "__main__":
    cv2.setNumThreads(1)
    files = find_files(Path(sys.argv[1]))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    greys = [decode(read_file(file)[0]).grey for file in files[:: max(1, len(files) // count)]]
    greys = [grey for grey in greys if min(grey.shape) >= SIZE]
    clahe = cv2.createCLAHE(CLIP, (GRID, GRID))
    images = np.stack([cv2.resize(grey, (SIZE, SIZE)) for grey in greys])
    maps = np.tile(np.array([[1.1, 0.1, -3], [0, 0.95, 2]], np.float32), (len(images), 1, 1))

    def opencv_path(grey: np.ndarray) -> np.ndarray:
        return cv2.resize(clahe.apply(grey), (SIZE, SIZE), interpolation=cv2.INTER_AREA)

    def opencv_rows(grey: np.ndarray) -> np.ndarray:
        return cv2.resize(grey, (grey.shape[1], ROWS), interpolation=cv2.INTER_AREA)

    path = native.find()
    libraries = [] if path is None else [Library(path, name) for name in Library(path).variants]
    ways: dict[str, tuple[Callable, Callable, Callable]] = {
        "OpenCV": (opencv_path, opencv_rows, warp_by_opencv),
        **{
            library.variant: (
                functools.partial(
                    library.equalize_and_shrink, clip=CLIP, grid=GRID, height=SIZE, width=SIZE
                ),
                functools.partial(library.shrink_rows, height=ROWS),
                library.warp,
            )
            for library in libraries
        },
    }
    print(f"{len(greys)} images, {np.mean([grey.size for grey in greys]):,.0f} pixels on average")
    print(f"{'us an image':12}{'CLAHE + resize':>16}{f'{ROWS} rows':>10}{'warp':>8}")
    for name, (pixels, rows, warp) in ways.items():
        cost = [np.mean([least(functools.partial(f, grey)) for grey in greys]) for f in (pixels, rows)]
        cost.append(least(functools.partial(warp, images, maps)) / len(images))
        print(f"{name:12}{cost[0]:>16,.0f}{cost[1]:>10,.0f}{cost[2]:>8,.0f}")
