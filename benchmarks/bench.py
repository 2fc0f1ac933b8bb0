"""Everything side by side on the same files in one run: `make bench`, `make bench-quick`.

    python benchmarks/bench.py [DATA] [--quick] [--rounds N] [--minutes M] [--images N] [--stages ...]

DATA is a folder with class folders; without it, images of `tumorbatch sample` are used. Rounds go over
all stages, so that every stage has been measured once before the second round begins. A stage's next
round begins only while there is time for it. Each stage gives a JSON file, a chart (SVG and PNG) and a
table; a stage's files are written anew after each of its rounds, so that a stopped run has its results.
"""

import argparse
import datetime
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import bench_infer
import bench_shard
import bench_train
import chart
from common import Comparison, FailedError, Stage, missing_modules, table
from inputs import Inputs, prepare
from machine import environment
from peers_list import NEEDS

from tumorbatch.atomic import make_folder, write_json

ROOT = Path(__file__).resolve().parents[1]
STAGES: dict[str, Callable[[Inputs], Stage]] = {
    "shard": bench_shard.stage,
    "start": bench_infer.start,
    "infer": bench_infer.stage,
    "feed": bench_train.feed,
    "train": bench_train.train,
}
_QUICK_IMAGES = 480
_QUICK_MINUTES = 4.5  # with what is prepared before the first round less than five


def rounds(
    comparisons: Sequence[Comparison],
    most: int,
    seconds: float,
    finished: Callable[[Comparison], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run up to `most` rounds over all stages.

    Args:
        comparisons: The stages.
        most: Rounds of each stage.
        seconds: Of all together, from now; a first round is always run, a further one only if as much
            time is left as the stage's last round took.
        finished: Is called after each round of a stage.
        clock: Seconds; tests give another one.
    """
    deadline = clock() + seconds
    last = dict.fromkeys(range(len(comparisons)), 0.0)
    for number in range(most):
        for index, comparison in enumerate(comparisons):
            started = clock()
            if number and started + last[index] > deadline:
                continue
            comparison.round()
            last[index] = clock() - started
            finished(comparison)


def without_slow(stage: Stage) -> Stage:
    """Return the stage without what the quick run leaves out."""
    quick = tuple(contestant for contestant in stage.contestants if not contestant.slow)
    return Stage(stage.name, stage.title, stage.images, quick)


def readable(result: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """Return the result with short names in place of this machine's paths."""
    text = json.dumps(result)
    for path, name in places.items():
        text = text.replace(json.dumps(path)[1:-1], name)
    return dict(json.loads(text))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("data", type=Path, nargs="?", help="folder with class folders")
    arguments.add_argument("--quick", action="store_true", help="in less than five minutes")
    arguments.add_argument("--rounds", type=int, default=5, help="at most, of each stage [5]")
    arguments.add_argument("--minutes", type=float, help="no further round after them")
    arguments.add_argument("--images", type=int, help="so many of the folder, evenly spread")
    arguments.add_argument("--model", type=Path, help="bundle of cnn1 [trained here for an epoch]")
    arguments.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    arguments.add_argument("--out", type=Path, default=Path("results/bench"))
    arguments.add_argument("--peers", type=Path, default=ROOT / ".venv-peers/bin/python")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Measure the stages; gives the exit code."""
    given = parser().parse_args(words)
    if given.data is not None and not given.data.is_dir():
        print(f"{given.data} is not a folder.", file=sys.stderr)
        return 66
    started = time.monotonic()
    images = given.images or (_QUICK_IMAGES if given.quick else None)
    minutes = given.minutes or (_QUICK_MINUTES if given.quick else 24 * 60.0)
    missing = missing_modules(given.peers, sorted({name for needs in NEEDS.values() for name in needs}))
    about = environment(given.peers)
    make_folder(given.out)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        area = Path(folder)
        inputs = prepare(area, given, images, about["hardware"]["bfloat16"])
        print(f"{inputs.count:,} images, {about['hardware']['cores']} cores", flush=True)
        stages = [STAGES[name](inputs) for name in given.stages]
        if given.quick:
            stages = [without_slow(stage) for stage in stages]
        about |= {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "quick": given.quick,
            "data": inputs.about,
        }
        places = {
            folder: "WORK",
            str(given.peers): "PEERS",
            sys.executable: "python",
            str(ROOT / "benchmarks"): "benchmarks",
        }

        def finished(comparison: Comparison) -> None:
            result = readable(comparison.result(about), places)
            path = given.out / comparison.stage.name
            write_json(path.with_suffix(".json"), result)
            chart.write(chart.bars(result), path)
            print(f"\n{table(result)}", flush=True)

        left = 60 * minutes - (time.monotonic() - started)
        try:
            rounds([Comparison(stage, missing) for stage in stages], given.rounds, left, finished)
        except FailedError as error:
            print(f"{error}", file=sys.stderr)
            return 1
        finally:
            shutil.rmtree(area / "images", ignore_errors=True)
    print(f"\nResults: {given.out}/, {time.monotonic() - started:,.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
