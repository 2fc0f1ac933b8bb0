"""`shard` against the bare limit: as many processes as cores that only read, decode, CLAHE, resize.

The limit is that of OpenCV, in processes that start anew (spawned, as `shard` starts its own) and in
copies of this one (forked, which a library with threads must not do). `shard` runs with the library in
C and with OpenCV.

python benchmarks/bench_shard.py DATA [ROUNDS]
"""

import functools
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from common import compare

from tumorbatch.preprocess.classes import find_sources
from tumorbatch.runtime import available_cores


def bare(paths: Sequence[str]) -> int:
    cv2.setNumThreads(1)
    clahe = cv2.createCLAHE(2.0, (16, 16))
    for path in paths:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        cv2.resize(clahe.apply(image), (150, 150), interpolation=cv2.INTER_AREA)
    return len(paths)


def bare_limit(paths: Sequence[str], cores: int, start: str = "spawn") -> int:
    chunks = [paths[at : at + 64] for at in range(0, len(paths), 64)]
    with ProcessPoolExecutor(cores, mp_context=get_context(start)) as pool:
        return sum(pool.map(bare, chunks))


def shard(source: Path, pixels: str, count: int) -> int:
    # The whole command, in its own process: what one run has found must not help the next one.
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tumorbatch", "shard", source, Path(folder) / "tfrecords"]
        subprocess.run([*command, "--pixels", pixels, "--quiet"], check=True)
    return count


if __name__ == "__main__":
    source, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    paths = [entry.file.path for entry in find_sources(source, {})]
    cores = available_cores()
    print(f"{len(paths)} files, {cores} cores")
    contestants = {
        "bare limit, spawned processes": functools.partial(bare_limit, paths, cores),
        "bare limit, forked processes": functools.partial(bare_limit, paths, cores, "fork"),
        "tumorbatch shard, all of it": functools.partial(shard, source, "auto", len(paths)),
        "tumorbatch shard, by OpenCV": functools.partial(shard, source, "opencv", len(paths)),
    }
    compare(contestants, rounds)
