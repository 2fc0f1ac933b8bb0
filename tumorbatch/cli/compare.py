"""The command `compare`: all bundles in one table, with baselines and the report's numbers."""

import sys
from pathlib import Path

import click

from tumorbatch import shardset
from tumorbatch.cli import options
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode
from tumorbatch.files import printable


@click.command()
@click.argument("models", type=options.PATH, nargs=-1)
@click.option(
    "--tfrecords",
    type=options.PATH,
    multiple=True,
    help="A shard set that models were trained on; can be repeated.  [default: every tfrecords* folder "
    "here]",
)
@click.option(
    "--results",
    type=options.PATH,
    default=Path("results"),
    show_default=True,
    help="Folder of the evaluations; missing ones are added.",
)
@click.option(
    "-o", "--out", type=options.PATH, help="Folder of the comparison.  [default: compare/ in --results]"
)
@options.device
@options.seed
@options.log_format
@options.quiet
def compare(
    models: tuple[Path, ...],
    tfrecords: tuple[Path, ...],
    results: Path,
    out: Path | None,
    device: str,
    seed: int,
    quiet: bool,
) -> None:
    """Compare models: metrics with intervals, baselines, the report's values, and every pair.

    MODELS are bundles, names of bundles under models/, or folders of bundles (default models/). Each
    model is evaluated on the test split of the shard set that it was trained on; an evaluation that is
    already in RESULTS is used, a missing one is made if the shard set is found. Models of one shard set
    share their test images: each pair gets McNemar's test, and paired bootstrap intervals for the
    differences of AUC and accuracy.

    OUT gets compare.html, models.csv, pairs.csv and compare.json. Damaged bundles, and bundles whose
    shard set is not found, are listed and left out. Models whose shard set cannot be read have no
    baselines. In both cases the exit code is 3.

    \b
    Examples:
      tumorbatch compare
      tumorbatch compare models/ results/protocols/cnn1 --tfrecords tfrecords --tfrecords tfrecords-file
    """
    with session(quiet, "Finished evaluations are kept; the same command continues."):
        for folder in tfrecords:
            shardset.load(folder)  # a named shard set must exist
        from tumorbatch.workflows import compare as workflow

        config = workflow.Config(
            tfrecords or tuple(sorted(Path().glob("tfrecords*"))), results, device, seed
        )
        out = out or results / "compare"
        comparison = workflow.run(models or (Path("models"),), out, config)
        if not quiet:
            from tumorbatch.cli.tables import comparison_table
            from tumorbatch.workflows.compare import MODELS_CSV, PAGE

            comparison_table(comparison)
            say(f"Open {printable(str(out / PAGE))}; the numbers are in {MODELS_CSV}.")
    incomplete = comparison.missing or comparison.alone
    sys.exit(ExitCode.SOME_ERRORS if incomplete else ExitCode.OK)
