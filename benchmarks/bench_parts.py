"""Time and memory of a task that lists files and of the command that finishes, with stub results.

    python benchmarks/bench_parts.py --files 1000 100000 1000000

There are no files and there is no network: names, sizes and rows are made up, so that what is left is
the work on lists and tables, which one process does for all files. Each step is its own process; its
memory is the highest resident set, less that of the same step with --files' first number.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS = ("part", "finish")


def step(name: str, count: int, folder: Path) -> dict[str, float]:
    """Do one step in this process; return CPU seconds and MiB."""
    from tumorbatch import bundle
    from tumorbatch.file_list import Manifest
    from tumorbatch.files import FoundFile
    from tumorbatch.infer import inference, part, plan
    from tumorbatch.infer.config import Config
    from tumorbatch.infer.worker import to_time
    from tumorbatch.parts import Part

    root = folder / "scans"

    def listing(*_: object) -> Iterator[FoundFile]:
        for number in range(count):
            name = f"ward-{number // 1000:06}/{number:09}.png"
            yield FoundFile(f"{root}/{name}", name, "", size=40_000, mtime_ns=10**18)

    def rows(files: Iterator[Any], *_: object) -> Iterator[list[dict[str, Any]]]:
        for entry in files:
            if entry is None:
                yield []
                continue
            file = entry[0]
            sha256 = hashlib.sha256(file.name.encode()).hexdigest()
            yield [
                {
                    "path": file.name, "frame": 0, "status": "ok", "error": None, "label": "Healthy",
                    "prob_tumor": 0.25, "logit": -1.1, "file_size": file.size,
                    "mtime": to_time(file.mtime_ns), "sha256": sha256, "width": 512, "height": 512,
                    "format": "png", "flags": [],
                }
            ]  # fmt: skip

    plan.stream_files = listing  # type: ignore[assignment]
    part.predict_files = rows  # type: ignore[assignment]
    Manifest.probe = lambda *_: None  # type: ignore[method-assign]
    root.mkdir(exist_ok=True)
    started = time.process_time()  # of this process alone: others may use the machine
    config = Config(workers=1, part=Part(1, 1) if name == "part" else None)
    inference.run(root, folder / "out.parquet", bundle.find(folder / "model"), config)
    seconds = time.process_time() - started
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(seconds, 1), "mib": round(mebibytes)}


def write_model(folder: Path) -> None:
    """Write a bundle without weights: no network is loaded."""
    from tumorbatch import bundle
    from tumorbatch.labels import CLASS_NAMES
    from tumorbatch.preprocessing_config import Preprocessing

    folder.mkdir()
    made = bundle.Bundle("cnn1", Preprocessing(), CLASS_NAMES, 0.5, 1.0, "0" * 64, {}, {})
    (folder / bundle.MODEL).write_text(json.dumps(made.to_dict()))


def main() -> None:
    """Measure, print a row a step, and JSON in the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", nargs="+", type=int, default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step(given.step[0], int(given.step[1]), Path(given.step[2]))))
        return
    points: list[dict[str, Any]] = []
    base: dict[str, float] = {}
    for count in sorted(given.files):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            write_model(Path(folder) / "model")
            for name in STEPS:
                command = [sys.executable, __file__, "--step", name, str(count), folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                point = {"step": name, "files": count, **json.loads(done.stdout.splitlines()[-1])}
                more = point["mib"] - base.setdefault(name, point["mib"])
                point["bytes_a_file"] = round(more * 1048576 / count)
                points.append(point)
                print(
                    f"{name:8}{count:>12,} files{point['seconds']:>9.1f} CPU s"
                    f"{1e6 * point['seconds'] / count:>8.1f} us a file{point['mib']:>8,} MiB"
                    f"{point['bytes_a_file']:>6,} bytes a file more",
                    flush=True,
                )
    print(json.dumps(points))


if __name__ == "__main__":
    main()
