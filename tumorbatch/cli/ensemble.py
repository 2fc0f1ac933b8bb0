"""The command `ensemble`: join trained models into one bundle."""

from pathlib import Path

import click

from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session


@click.command(cls=Command)
@click.argument("models", type=options.PATH, nargs=-1, required=True)
@click.option("-o", "--out", type=options.PATH, required=True, help="Folder of the new bundle.")
@click.option(
    "--tfrecords",
    type=options.PATH,
    default=Path("tfrecords"),
    show_default=True,
    help="The shard set that all MODELS were trained on.",
)
@options.batch_size
@options.device
@options.overwrite
@options.of_a_run
def ensemble(
    models: tuple[Path, ...],
    out: Path,
    tfrecords: Path,
    batch_size: int,
    device: str,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Join trained models into one bundle that answers with the mean of their logits.

    MODELS are folders of bundles, or their names under models/: two or more, of any architecture,
    trained on the same shard set. Each has the same weight. The new bundle holds all their weights;
    `evaluate`, `compare`, `infer` and `export` take it as they take any other. Temperature and
    threshold are chosen anew: on the validation split or, where all MODELS were trained with the same
    --folds, on the mean of their out-of-fold predictions.

    An image is decoded once, and each network then sees it: the time of the networks adds up, and is
    printed.

    \b
    Examples:
      tumorbatch ensemble cnn1 mobilenetv2 --out models/both
      tumorbatch ensemble models/cnn1-seed0 models/cnn1-seed1 models/cnn1-seed2 --out models/cnn1-mean
    """
    with session(quiet, "Nothing was published; run the same command again."):
        from tumorbatch import bundle
        from tumorbatch.runtime import load_tensorflow

        folders = [bundle.find(model) for model in models]
        load_tensorflow()  # before anything that brings it along
        from tumorbatch.cli.model_summaries import ensemble_summary, train_json
        from tumorbatch.workflows import ensemble as workflow
        from tumorbatch.workflows.ensemble_bundle import Config

        config = Config(device, batch_size, overwrite)
        report = workflow.run(folders, tfrecords, out, config)
        if as_json:
            say(train_json(report, out))
        elif not quiet:
            say(ensemble_summary(report, out, tfrecords))
