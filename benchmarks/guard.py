"""Operations against stored bounds, which need no quiet machine: `make bench-guard`.

Instructions of the library in C, counted by valgrind, and calls of Python functions by the work of one
file in `shard`. A bound is a fifth above what was counted when it was set; anyone who makes something
faster lowers it. Exit code 1 where one is exceeded.
"""

import cProfile
import os
import pstats
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tumorbatch.native import Library, find
from tumorbatch.preprocess.classes import find_sources
from tumorbatch.preprocess.worker import Task, process_files
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.synthetic import SampleConfig
from tumorbatch.synthetic import run as make_sample

ROOT = Path(__file__).resolve().parents[1]
# Thousands of instructions for one image of 400 x 400; gcc 12, -O3.
INSTRUCTIONS = {
    "equalize": {"portable": 7_440, "sse4": 6_850, "avx2": 4_870},
    "shrink": {"portable": 2_290, "sse4": 2_250, "avx2": 1_960},
    "rows": {"portable": 540, "sse4": 490, "avx2": 250},
    "warp": {"portable": 6_250, "sse4": 4_330, "avx2": 1_750},
}
CALLS = 880  # of Python and built-in functions, a file; a test checks this one


def instructions(program: Path, variant: str, function: str) -> int:
    """Thousands of instructions, less those of starting a program and filling the image."""
    counts = []
    for name in (function, "nothing"):
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}"]
        done = subprocess.run(
            [*command, program, variant, name],
            capture_output=True,
            text=True,
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        if found is None:
            sys.exit(f"valgrind does not work here: {done.stderr}")
        counts.append(int(found[1]))
    return (counts[0] - counts[1]) // 1000


def calls() -> int:
    """Calls of functions by the first pass of `shard`, a file."""
    with tempfile.TemporaryDirectory() as folder:
        make_sample(Path(folder) / "raw", SampleConfig(images=64))
        tasks = [Task(source) for source in find_sources(Path(folder) / "raw", {})]
        work = tasks, Preprocessing(), bytes(32), 60.0
        process_files(*work)  # what is done once
        profile = cProfile.Profile()
        profile.runcall(process_files, *work)
    return pstats.Stats(profile).total_calls // len(tasks)


def main() -> int:
    exceeded = 0
    rows = [("calls a file", CALLS, calls())]
    path = find()
    if path is None:
        sys.exit("The library in C was not built.")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "count"
        compiler = sysconfig.get_config_var("CC").split()[0]
        flags = ["-std=gnu11", "-O3", "-ffp-contract=off", "-lm"]
        source = ROOT / "tests/native/count.c"
        subprocess.run([compiler, source, *flags, "-o", program], check=True)
        for function, bounds in INSTRUCTIONS.items():
            for variant in Library(path).variants:
                count = instructions(program, variant, function)
                rows.append((f"{function}, {variant}", bounds[variant], count))
    for name, bound, count in rows:
        exceeded += count > bound
        print(f"{'!!' if count > bound else '  '} {name:24}{count:>8,} of at most {bound:,}")
    return int(exceeded > 0)


if __name__ == "__main__":
    sys.exit(main())
