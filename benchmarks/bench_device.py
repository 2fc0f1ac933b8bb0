"""What precision, XLA and augmentation do to the speed of training on this machine's device.

    python benchmarks/bench_device.py TFRECORDS [--only NAME ...]

Each line is `tumorbatch train` in its own process, through the command, with random weights. The
first step, which compiles, is told apart. Meant for a GPU; on a CPU it says what the CPU does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = ("--precision", "float32", "--xla", "off")
# Name: (architecture, options, epochs)
RUNS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "cnn1, auto": ("cnn1", (), 12),
    "cnn1, float32 without XLA": ("cnn1", PLAIN, 12),
    "cnn1, auto, not augmented": ("cnn1", ("--no-augment",), 12),
    "cnn1, auto, batches of 256": ("cnn1", ("--batch-size", "256"), 12),
    "cnn2, auto": ("cnn2", (), 12),
    "mobilenetv2, auto": ("mobilenetv2", (), 4),
    "mobilenetv2, float32 without XLA": ("mobilenetv2", PLAIN, 4),
    "resnet50, auto": ("resnet50", (), 4),
    "resnet50, mixed_float16 without XLA": ("resnet50", ("--xla", "off"), 4),
    "resnet50, float32 without XLA": ("resnet50", PLAIN, 4),
    "densenet121, auto": ("densenet121", (), 4),
    "densenet121, float32 without XLA": ("densenet121", PLAIN, 4),
}


def train(tfrecords: Path, out: Path, run: str) -> str:
    """One run; a line of the table."""
    architecture, options, epochs = RUNS[run]
    times = ["--epochs", str(epochs), "--patience", str(epochs)]
    pretrained = [] if architecture.startswith("cnn") else ["--weights", "none"]
    command = [sys.executable, "-m", "tumorbatch", "train", str(tfrecords), "--arch", architecture]
    command += ["--out", str(out), *times, *pretrained, *options]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if done.returncode:
        return f"{run} | failed ({done.returncode}): {done.stderr.strip().splitlines()[-1:]}"
    about = json.loads((out / "model.json").read_bytes())["training"]
    waited, compiling = about["waiting_share"], about["compile_seconds"]
    return (
        f"{run} | {about['images_per_second']:,.0f} | {waited:.1%} | {compiling:.1f} | {seconds:.0f} | "
        f"{about['runtime']['reason']}"
    )


def main() -> None:
    """Print one line a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tfrecords", type=Path)
    parser.add_argument("--only", nargs="*", default=list(RUNS), help="names of runs")
    options = parser.parse_args()
    print("run | images/s | waiting | compiling, s | whole command, s | runtime", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, run in enumerate(options.only):
            print(train(options.tfrecords, Path(folder) / str(number), run), flush=True)


if __name__ == "__main__":
    main()
