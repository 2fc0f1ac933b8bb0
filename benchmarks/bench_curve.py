"""Cost curves: time an image and peak memory of a command while the folder grows. `make bench-curve`.

    python benchmarks/bench_curve.py DATA [--stages shard infer] [--files 1000 4000 ...] [--stub]

DATA has class folders. Their files are hard-linked as often as needed (copied where the file system has
no hard links), in folders of a thousand. One run for each number; JSON, a chart and a table. Memory is
the highest resident set (VmHWM) of the parent, and of the largest worker. With --stub the network of
`infer` costs nothing, and CPU seconds are what a shared machine can be asked for.
"""

import argparse
import datetime
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chart
from bench_parts import write_model
from common import FailedError, link_files
from inputs import tumorbatch
from machine import environment

from tumorbatch.atomic import make_folder, write_json
from tumorbatch.preprocess.classes import find_sources

STAGES = ("shard", "infer", "explore")
STUB = str(Path(__file__).with_name("stub_network.py"))
FILES = (1_000, 4_000, 16_000, 64_000, 100_000)


def peaks(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Return the highest VmHWM of the process, and of any of its children, in MiB, until it ends."""
    parent = child = 0
    while process.poll() is None:
        try:
            tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
            children = " ".join(task.read_text() for task in tasks).split()
            parent = max(parent, _peak(process.pid))
            own = _command(process.pid)
            # A child that has not yet begun its program shares the parent's memory.
            workers = [pid for pid in map(int, children) if _command(pid) != own]
            child = max([child, *map(_peak, workers)])
        except OSError:
            pass
        time.sleep(0.1)
    return parent >> 10, child >> 10


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM")), 0)


def grow(data: Path, images: Path, names: Sequence[str], have: int, wanted: int) -> None:
    """Link more files into a folder, each original as often as needed, in its class folder.

    Args:
        data: Folder of the originals.
        images: Folder to grow; its files 0 to `have` - 1 are there.
        names: Paths of the originals below `data`.
        have: Files so far.
        wanted: Files in the end.
    """
    pairs = []
    for number in range(have, wanted):
        original = Path(names[number % len(names)])
        name = f"{number // 1000:04}/{number:07}{original.suffix}"
        pairs.append((data / original, images / original.parts[0] / name))
    link_files(pairs)


def measure(
    stage: str, images: Path, files: int, out: Path, options: Sequence[str], program: Sequence[str]
) -> dict[str, Any]:
    """Run a command once; gives a point of the curve.

    Raises:
        FailedError: The command failed.
    """
    where = ["--out", str(out)] if stage == "explore" else [str(out)]
    command = [sys.executable, *program, stage, str(images), *where, "--quiet", *options]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    parent, worker = peaks(process)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in (0, 3):
        raise FailedError(f"tumorbatch {stage} ended with exit code {process.returncode}")
    return {
        "stage": stage,
        "files": files,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
        "parent_mib": parent,
        "worker_mib": worker,
    }


def line(point: dict[str, Any]) -> str:
    """Return a row of the table."""
    milliseconds = 1e3 * point["seconds"] / point["files"]
    cpu = 1e3 * point["cpu_seconds"] / point["files"]
    return (
        f"{point['stage']:8}{point['files']:>10,} files{milliseconds:>9.2f} ms an image,"
        f" {cpu:.2f} of CPU"
        f"{point['parent_mib']:>8,} MiB parent{point['worker_mib']:>7,} MiB largest worker"
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("data", type=Path, help="folder with class folders")
    arguments.add_argument("--stages", nargs="+", choices=STAGES, default=["shard", "infer"])
    arguments.add_argument("--files", nargs="+", type=int, default=list(FILES))
    arguments.add_argument(
        "--stub", action="store_true", help="infer with a network that costs nothing"
    )
    arguments.add_argument("--model", type=Path, help="bundle for infer [cnn1, trained for an epoch]")
    arguments.add_argument("--out", type=Path, default=Path("results/bench"))
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Measure the curves; gives the exit code."""
    given = parser().parse_args(words)
    names = sorted(source.file.name for source in find_sources(given.data, {}))
    result = {"schema": 1, "stage": "curve", "title": "cost of a growing folder", "rounds": 1}
    result |= environment(Path("none")) | {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "data": {"source": given.data.name, "files": len(names)},
        "contestants": [],
        "points": [],
    }
    make_folder(given.out)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        area, model = Path(folder), given.model
        if given.stub:
            model = area / "cnn1"
            write_model(model)
        if model is None and "infer" in given.stages:
            model = area / "cnn1"
            tumorbatch("shard", given.data, area / "tfrecords", accepted=(0, 3))
            tumorbatch("train", area / "tfrecords", "--arch", "cnn1", "--out", model, "--epochs", 1)
        program = [STUB] if given.stub else ["-m", "tumorbatch"]
        have = 0
        for wanted in sorted(given.files):
            grow(given.data, area / "images", names, have, wanted)
            have = wanted
            for stage in given.stages:
                out = area / f"{stage}-{wanted}{'.parquet' if stage == 'infer' else ''}"
                options = ["--model", str(model)] if stage == "infer" else []
                try:
                    point = measure(stage, area / "images", wanted, out, options, program)
                except FailedError as error:
                    print(error, file=sys.stderr)
                    return 1
                result["points"].append(point)
                print(line(point), flush=True)
                write_json(given.out / "curve.json", result)
                chart.write(chart.curves(result), given.out / "curve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
