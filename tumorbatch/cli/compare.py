"""The command `compare`: all bundles in one table, beside the report's figures and baselines."""

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
    "--out", type=options.PATH, help="Folder of the comparison.  [default: compare/ in --results]"
)
@options.device
@options.seed
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
    """Put models side by side: figures with intervals, baselines, the report's own, and every pair.

    MODELS are bundles or folders of bundles (default models/). Each is judged on the test split of the
    shard set that it was trained on, by its evaluation in RESULTS; a model that has none yet is
    evaluated first, where its shard set is found. Models of one shard set were judged on the same
    images: each pair gets McNemar's test, and the differences of AUC and accuracy by the paired
    bootstrap.

    OUT gets compare.html, models.csv, pairs.csv and compare.json. Damaged bundles, and those whose
    shard set is not found, are named and left out, and models whose shard set cannot be read stand
    without baselines; the exit code is then 3.

    \b
    Examples:
      tumorbatch compare
      tumorbatch compare models/ results/protocols/cnn1 --tfrecords tfrecords --tfrecords tfrecords-file
    """
    with session(quiet, "Evaluations that are finished are kept: the same command does the rest."):
        for folder in tfrecords:
            shardset.load(folder)  # what was named must be there
        from tumorbatch.workflows import compare as workflow

        config = workflow.Config(
            tfrecords or tuple(sorted(Path().glob("tfrecords*"))), results, device, seed
        )
        out = out or results / "compare"
        found = workflow.run(models or (Path("models"),), out, config)
        if not quiet:
            from tumorbatch.cli.tables import comparison_table
            from tumorbatch.workflows.compare import MODELS_CSV, PAGE

            comparison_table(found)
            say(f"{printable(str(out / PAGE))} has the details, {MODELS_CSV} the numbers.")
    incomplete = found.missing or found.alone
    sys.exit(ExitCode.SOME_ERRORS if incomplete else ExitCode.OK)
