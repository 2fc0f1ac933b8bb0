"""The command `sample`: write a synthetic data set."""

from pathlib import Path

import click

from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.files import printable


@click.command(cls=Command)
@click.argument("out", type=options.PATH)
@click.option("--images", type=int, default=320, show_default=True, help="Number of readable images.")
@options.seed
@options.overwrite
@options.of_a_run
def sample(out: Path, images: int, seed: int, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Write a synthetic data set to OUT, to try the other commands.

    OUT/Brain Tumor and OUT/Healthy get head phantoms with and without a lesion: several sizes, JPEG,
    PNG and TIFF, 8 and 16 bit, some identical and nearly identical copies, a few broken files. The
    same seed gives the same files. Phantoms have no diagnostic value.

    \b
    Examples:
      tumorbatch sample data/raw
      tumorbatch sample /tmp/phantoms --images 1000 --seed 7
    """
    with session(quiet, "Nothing was published."):
        from tumorbatch import synthetic as stage

        report = stage.run(out, stage.SampleConfig(images=images, seed=seed, overwrite=overwrite))
        if as_json:
            from tumorbatch.cli.summaries import receipt_json

            say(receipt_json(report, out))
        elif not quiet:
            say(
                f"Wrote {report.healthy} Healthy and {report.tumor} Tumor phantoms "
                f"({report.exact_duplicates} exact and {report.near_duplicates} near duplicates) "
                f"and {report.broken} broken files to {printable(str(out))} in {report.seconds:.1f} s."
            )
            argument = "" if out == Path("data/raw") else f" {printable(str(out))}"
            say(f"Next: tumorbatch shard{argument}")
