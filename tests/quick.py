"""`tumorbatch` in its own process, without TensorFlow's start: what is tested is the rest of it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A network that needs no TensorFlow; tasks and parts of a few rows. Logits differ from image to image.
QUICK = """
import itertools, sys, time
import numpy as np
from tumorbatch.cli.main import main
from tumorbatch.infer import batching, network, work_area

BATCHES = itertools.count(1)

def load(self):
    def score(images):
        time.sleep(1e6 if next(BATCHES) == STAND_STILL else PAUSE)
        return images.reshape(len(images), -1).astype(np.float32).mean(1) / 64 - 1
    return score

PAUSE = float(sys.argv[1])
batching._CHUNK = 4
work_area.PART_ROWS = int(sys.argv[2])
STAND_STILL = int(sys.argv[3])
network.Network.load = load
if __name__ == "__main__":
    main(sys.argv[4:])
"""

Start = Callable[..., "subprocess.Popen[str]"]


def starting(folder: Path) -> Iterator[Start]:
    """Yield a function that starts `tumorbatch ARGUMENTS`; in the end, kill what still runs.

    Its network waits `pause` seconds a batch, and stands still at batch number `stand_still` (0: at
    none) until the process is ended. A part is written every `part_rows` rows.
    """
    script = folder / "quick.py"  # a file: the workers import it too
    script.write_text(QUICK)
    processes = []

    def start(
        *arguments: object, pause: float = 0, part_rows: int = 8, stand_still: int = 0
    ) -> "subprocess.Popen[str]":
        settings = (script, pause, part_rows, stand_still)
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, settings), *map(str, arguments)],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()
