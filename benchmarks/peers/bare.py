"""The bare limit: as many processes as cores that only read, decode, equalise and resize.

python bare.py DATA spawn|fork

No result is kept. Its own seconds count, without the start of the first interpreter and its imports.
Spawned processes start anew, as those of `tumorbatch shard` do; forked ones are copies of this one,
which a program with threads must not make.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from shared import SIZE, cores, image_paths, report


def work(paths: list[str]) -> int:
    """Handle some images; gives their number."""
    cv2.setNumThreads(1)
    clahe = cv2.createCLAHE(2.0, (16, 16))
    for path in paths:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        cv2.resize(clahe.apply(image), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return len(paths)


if __name__ == "__main__":
    data, start = sys.argv[1:3]
    paths = image_paths(data)
    started = time.perf_counter()
    parts = [paths[at : at + 64] for at in range(0, len(paths), 64)]
    with ProcessPoolExecutor(cores(), mp_context=get_context(start)) as pool:
        images = sum(pool.map(work, parts))
    report(images, time.perf_counter() - started)
