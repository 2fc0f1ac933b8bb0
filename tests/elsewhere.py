"""Help `make test-elsewhere`: which features NumPy can be told to leave, and processes that keep busy.

elsewhere.py FEATURE...             print those that NumPy dispatches here; it warns of others
elsewhere.py --busy COUNT COMMAND   run COMMAND beside so many endless loops, with its exit code
"""

import multiprocessing
import subprocess
import sys


def dispatched(features: list[str]) -> list[str]:
    """Return those of the features that this NumPy has code for and this processor has."""
    try:
        from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
    except ImportError:  # NumPy 1
        from numpy.core._multiarray_umath import __cpu_dispatch__, __cpu_features__
    return [name for name in features if name in __cpu_dispatch__ and __cpu_features__.get(name)]


def spin() -> None:
    """Keep one core busy."""
    while True:
        pass


def run_beside(count: int, command: list[str]) -> int:
    """Run a command beside endless loops, and return its exit code."""
    loops = [multiprocessing.Process(target=spin, daemon=True) for _ in range(count)]
    for loop in loops:
        loop.start()
    try:
        return subprocess.run(command).returncode
    finally:
        for loop in loops:
            loop.kill()


if __name__ == "__main__":
    if sys.argv[1] == "--busy":
        sys.exit(run_beside(int(sys.argv[2]), sys.argv[3:]))
    print(" ".join(dispatched(sys.argv[1:])))
