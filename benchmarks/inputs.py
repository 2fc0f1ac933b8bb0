"""What the stages are measured on, made once before the first round and never timed.

The readable images of a folder, or some of them, as hard links; shards of them; cnn1, trained for an
epoch (its speed does not depend on what it has learned); eight of the images.
"""

import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from common import link_files

from tumorbatch.preprocess.classes import find_sources

FEW = 8
_SYNTHETIC = 480  # images of `tumorbatch sample` where no folder is given


@dataclass(frozen=True, slots=True)
class Inputs:
    """Paths and numbers that the stages' commands are made of.

    Attributes:
        images: Folder with class folders, every file in it readable.
        count: Of these files.
        few: Folder with `FEW` of them.
        tfrecords: Shards made of `images`.
        model: Bundle of cnn1.
        network: The same as one file for Keras.
        python: Interpreter of the peers' environment.
        quick: Whether as little as possible is to be done.
        bfloat16: Whether this processor computes in bfloat16.
        about: What stands in the results: files, bytes, where they come from.
    """

    images: Path
    count: int
    few: Path
    tfrecords: Path
    model: Path
    network: Path
    python: Path
    quick: bool
    bfloat16: bool
    about: dict[str, object]


def tumorbatch(*arguments: object, accepted: tuple[int, ...] = (0,)) -> None:
    """Run a command of this project.

    Raises:
        SystemExit: It failed.
    """
    command = [sys.executable, "-m", "tumorbatch", *map(str, arguments), "--quiet"]
    code = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    if code not in accepted:
        sys.exit(f"`tumorbatch {arguments[0]}` ended with exit code {code}: nothing can be measured.")


def chosen(files: list[str], wanted: int | None) -> list[str]:
    """Return at most `wanted` of the files, evenly spread over their sorted list; None: all."""
    files = sorted(files)
    if wanted is None or wanted >= len(files):
        return files
    return [files[at * len(files) // wanted] for at in range(wanted)]


def prepare(area: Path, given: Namespace, wanted: int | None, bfloat16: bool) -> Inputs:
    """Make the inputs in the folder `area`.

    Args:
        area: Empty.
        given: Command line of `bench.py`.
        wanted: Images, or None: all.
        bfloat16: For `Inputs`.
    """
    source = given.data
    if source is None:
        source = area / "sample"
        tumorbatch("sample", source, "--images", wanted or _SYNTHETIC)
    names = chosen([entry.file.name for entry in find_sources(source, {})], wanted)
    images, tfrecords, model = area / "images", area / "tfrecords", given.model or area / "cnn1"
    link_files([(source / name, images / name) for name in names])
    tumorbatch("shard", images, tfrecords, accepted=(0, 3))
    rows = pq.read_table(tfrecords / "manifest.parquet", columns=["path", "status"]).to_pylist()
    bad = [row["path"] for row in rows if row["status"] != "ok"]
    for name in bad:  # peers would end at the first of them
        (images / name).unlink()
    good = [row["path"] for row in rows if row["status"] == "ok"]
    # All peers read JPEG; so the eight are the same for each.
    few = chosen([name for name in good if name.lower().endswith((".jpg", ".jpeg"))], FEW)
    link_files([(images / name, area / "few" / name) for name in few])
    if given.model is None:
        tumorbatch("train", tfrecords, "--arch", "cnn1", "--out", model, "--epochs", 1)
    tumorbatch("export", model, "--format", "keras", "--out", area / "cnn1.keras")
    size = sum((images / name).stat().st_size for name in good)
    about = {
        "source": "tumorbatch sample" if given.data is None else given.data.name,
        "files": len(good),
        "bytes": size,
        "unreadable_left_out": len(bad),
    }
    return Inputs(
        images, len(good), area / "few", tfrecords, model, area / "cnn1.keras", given.peers,
        given.quick, bfloat16, about,
    )  # fmt: skip
