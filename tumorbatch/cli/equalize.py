"""The command `equalize`: write a folder of images as equalised PNG files."""

import sys
from pathlib import Path

import click

from tumorbatch.checks import only_given
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode


@click.command(cls=Command)
@click.argument("src", type=options.PATH)
@click.argument("dst", type=options.PATH)
@options.clahe_clip
@options.clahe_grid
@options.workers
@options.pixels
@options.timeout
@options.formats
@click.option(
    "--overwrite",
    is_flag=True,
    help="Delete all PNG files that an earlier run left in DST, and start again.",
)
@options.of_a_run
def equalize(
    src: Path,
    dst: Path,
    clahe_clip: float,
    clahe_grid: int,
    workers: int | None,
    timeout: float,
    formats: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a folder of images as equalised (CLAHE) grey PNG files.

    Every image in SRC, at any depth, is decoded to grey and equalised at its own size: the pixels
    that `shard` has before it resizes them. DST gets the same tree; .png is added to every name
    (a.jpg becomes a.jpg.png), so that all names differ. DST/equalize.json, written last, describes
    the result. A warning names each file that cannot be read; the exit code is then 3.

    The same command again writes missing files and those that changed in SRC, and keeps the rest. It
    also finishes a run that was killed.

    \b
    Examples:
      tumorbatch equalize data/raw data/processed
      tumorbatch equalize scans/ equalised/ --clahe-clip 4 --workers 2
    """
    with session(quiet, "Finished files are kept; the same command continues."):
        from tumorbatch.preprocess import equalize_folder as stage
        from tumorbatch.preprocessing_config import Preprocessing

        config = stage.Config(
            preprocessing=Preprocessing(clahe_clip=clahe_clip, clahe_grid=clahe_grid),
            timeout=timeout,
            overwrite=overwrite,
            formats=formats,
            **only_given(workers=workers),
        )
        report = stage.run(src, dst, config)
        from tumorbatch.cli.summaries import equalize_summary, receipt_json

        if as_json:
            say(receipt_json(report, dst, errors=report.errors))
        elif not quiet:
            say(equalize_summary(report, dst))
    sys.exit(ExitCode.SOME_ERRORS if report.errors and not report.unchanged else ExitCode.OK)
