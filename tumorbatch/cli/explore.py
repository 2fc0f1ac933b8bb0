"""The command `explore`: describe a folder of images."""

import sys
from pathlib import Path

import click

from tumorbatch.checks import only_given
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode

_TFRECORDS = Path("tfrecords")


@click.command(cls=Command)
@click.argument("src", type=options.PATH, default=Path("data/raw"))
@click.option(
    "-o",
    "--out", type=options.PATH, default=Path("results/explore"), show_default=True,
    help="Folder of the result; an earlier result with the same settings is replaced.",
)  # fmt: skip
@click.option(
    "--tfrecords",
    type=options.PATH,
    help="Shard set whose splits are counted.  [default: tfrecords, if it is a shard set]",
)
@options.classes
@options.clahe_clip
@options.clahe_grid
@options.workers
@options.pixels
@options.timeout
@options.formats
@options.seed
@options.overwrite
@options.of_a_run
def explore(
    src: Path,
    out: Path,
    tfrecords: Path | None,
    classes: dict[str, list[str]],
    clahe_clip: float,
    clahe_grid: int,
    workers: int | None,
    timeout: float,
    formats: tuple[str, ...],
    seed: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Describe a folder of images: sizes, grey values, copies, and what files reveal.

    SRC (default data/raw) holds one folder for each class, as for `shard`. Writes explore.html, which
    opens offline, its figures as PNG files, and explore.json with every number: classes and splits,
    sizes and formats, grey values before and after CLAHE, whether the classes differ in brightness,
    samples, copies, and how well size and format alone predict the class.

    Files that cannot be read are listed; the exit code is then 3. The run takes about as long as
    `shard`; the memory hardly grows with the number of images.

    \b
    Examples:
      tumorbatch explore
      tumorbatch explore scans/ --out results/scans --class Healthy=controls --class Tumor=patients
      tumorbatch explore --tfrecords tfrecords-leaky --out results/leaky
    """
    with session(quiet, "Nothing was published; run the same command again."):
        from tumorbatch.preprocess.explore import explore as stage
        from tumorbatch.preprocessing_config import Preprocessing
        from tumorbatch.shardset import DATASET

        if tfrecords is None and (_TFRECORDS / DATASET).is_file():
            tfrecords = _TFRECORDS
        config = stage.Config(
            preprocessing=Preprocessing(clahe_clip=clahe_clip, clahe_grid=clahe_grid),
            classes=classes,
            tfrecords=tfrecords,
            seed=seed,
            timeout=timeout,
            overwrite=overwrite,
            formats=formats,
            **only_given(workers=workers),
        )
        report = stage.run(src, out, config)
        from tumorbatch.cli.summaries import explore_json, explore_summary

        if as_json:
            say(explore_json(report, out))
        elif not quiet:
            say(explore_summary(report, out))
    sys.exit(ExitCode.SOME_ERRORS if report.errors else ExitCode.OK)
