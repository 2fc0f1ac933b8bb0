"""Whether memory stays flat when the folder grows: a command on 1 and on 25 times the files.

python benchmarks/bench_memory.py shard DATA [TIMES]
python benchmarks/bench_memory.py explore DATA [TIMES]
python benchmarks/bench_memory.py infer DATA [TIMES] --model MODEL

DATA's class folders are linked as often as asked for, so that no image is copied. Prints the peak of
the resident memory of the parent and of the largest worker, MiB.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def peaks(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Highest VmHWM of the process, and of any of its children, in MiB, until it ends."""
    parent = child = 0
    while process.poll() is None:
        try:
            tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
            children = " ".join(task.read_text() for task in tasks).split()
            parent = max(parent, _peak(process.pid))
            child = max([child, *map(_peak, map(int, children))])
        except OSError:
            pass
        time.sleep(0.1)
    return parent >> 10, child >> 10


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM")), 0)


def measure(stage: str, data: Path, times: int, options: list[str]) -> None:
    """One run on `times` links to each class folder."""
    with tempfile.TemporaryDirectory() as area:
        raw = Path(area) / "raw"
        for folder in sorted(path for path in data.iterdir() if path.is_dir()):
            (raw / folder.name).mkdir(parents=True)
            for copy in range(times):
                (raw / folder.name / f"{copy:03}").symlink_to(folder.resolve())
        out = Path(area) / ("out.parquet" if stage == "infer" else "out")
        where = ["--out", out] if stage == "explore" else [out]
        command = [sys.executable, "-m", "tumorbatch", stage, raw, *where, "--quiet", *options]
        files = sum(1 for path in data.rglob("*") if path.is_file()) * times
        started = time.monotonic()
        process = subprocess.Popen(list(map(str, command)))
        parent, worker = peaks(process)
        seconds = time.monotonic() - started
        print(
            f"{files:>9,} files: parent {parent:>6,} MiB, largest worker {worker:>5,} MiB, "
            f"{files / seconds:,.0f} files/s, exit code {process.returncode}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["shard", "explore", "infer"])
    parser.add_argument("data", type=Path)
    parser.add_argument("times", type=int, nargs="?", default=25)
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    options = ["--model", str(given.model)] if given.model else []
    for times in (1, given.times):
        measure(given.stage, given.data, times, options)
