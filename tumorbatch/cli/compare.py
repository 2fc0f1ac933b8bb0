"""The command `compare`: all bundles in one table, with baselines."""

import json
import sys
from pathlib import Path

import click

from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode
from tumorbatch.files import printable


@click.command(cls=Command)
@click.argument("models", type=options.PATH, nargs=-1)
@click.option(
    "--model",
    "named",
    type=options.PATH,
    multiple=True,
    metavar="MODEL",
    shell_complete=options.complete_models,
    help="One of MODELS as an option; can be repeated.",
)
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
@click.option(
    "--reference",
    is_flag=True,
    help="Put beside the five networks the measures that the report gives whose method they follow: of "
    "its own random split, without n or interval.",
)
@options.device
@options.seed
@options.of_a_run
def compare(
    models: tuple[Path, ...],
    named: tuple[Path, ...],
    tfrecords: tuple[Path, ...],
    results: Path,
    out: Path | None,
    reference: bool,
    device: str,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare models: metrics with intervals, baselines, and every pair.

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
      tumorbatch compare --model cnn1 --model mobilenetv2
      tumorbatch compare models/ results/protocols/cnn1 --tfrecords tfrecords --tfrecords tfrecords-file
    """
    with session(quiet, "Finished evaluations are kept; the same command continues."):
        from tumorbatch import shardset
        from tumorbatch.workflows import compare as workflow

        for folder in tfrecords:
            shardset.load(folder)  # a named shard set must exist

        config = workflow.Config(
            tfrecords or tuple(sorted(Path().glob("tfrecords*"))), results, device, seed, reference
        )
        out = out or results / "compare"
        comparison = workflow.run((*models, *named) or (Path("models"),), out, config)
        if as_json:
            say(json.dumps({"out": printable(str(out)), **comparison.to_dict()}))
        elif not quiet:
            from tumorbatch.cli.tables import comparison_table
            from tumorbatch.workflows.compare import MODELS_CSV, PAGE

            comparison_table(comparison)
            say(f"Open {printable(str(out / PAGE))}; the numbers are in {MODELS_CSV}.")
    incomplete = comparison.missing or comparison.alone
    sys.exit(ExitCode.SOME_ERRORS if incomplete else ExitCode.OK)
