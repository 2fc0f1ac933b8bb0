"""Commands that judge models: evaluate."""

import json
from pathlib import Path

import click

from tumorbatch import options
from tumorbatch.files import printable
from tumorbatch.session import session


@click.command()
@click.argument("model", type=options.PATH)
@click.argument("tfrecords", type=options.PATH, default="tfrecords")
@click.option("--out", type=options.PATH, help="Folder of the results.  [default: results/MODEL]")
@click.option(
    "--threshold",
    "rule",
    metavar="RULE",
    help="How to choose the threshold on validation: sensitivity=X (the largest specificity with at "
    "least this sensitivity), specificity=X, youden, f1, or a number between 0 and 1.  [default: what "
    "the bundle has; sensitivity=0.95 where it has none]",
)
@click.option(
    "--freeze/--no-freeze",
    default=True,
    show_default=True,
    help="Write a newly chosen threshold and temperature and the renewed card into the bundle.",
)
@click.option(
    "--external",
    is_flag=True,
    help="TFRECORDS is another set than the model was trained on, and you know that they share no "
    "image and no patient. Nothing is chosen on it; the bundle is left alone.",
)
@click.option("--replicates", type=int, default=2000, show_default=True, help="Of the bootstrap.")
@click.option(
    "--gallery", type=int, default=12, show_default=True, help="At most so many errors as pictures."
)
@click.option("--batch-size", type=int, default=32, show_default=True, help="Images a forward pass.")
@options.device
@options.seed
@options.overwrite
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@options.quiet
def evaluate(
    model: Path,
    tfrecords: Path,
    out: Path | None,
    rule: str | None,
    freeze: bool,
    external: bool,
    replicates: int,
    gallery: int,
    batch_size: int,
    device: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Judge a model on the test split of its shard set: figures with intervals, and a report.

    MODEL is a bundle's folder, or its name under models/. Writes report.html, which opens without
    network, metrics.json, predictions.parquet and the figures. Temperature and threshold are chosen
    on the validation split alone and frozen in the bundle, where `infer` finds them.

    \b
    Examples:
      tumorbatch evaluate cnn1
      tumorbatch evaluate models/cnn1 tfrecords --threshold youden
      tumorbatch evaluate cnn1 other-hospital/ --external --out results/cnn1-other
    """
    with session(quiet, "Nothing was published: the same command starts again."):
        from tumorbatch.reports import evaluation_report
        from tumorbatch.runtime import load_tensorflow
        from tumorbatch.train.evaluation_config import Config, find_model

        config = Config(
            rule=rule,
            freeze=freeze,
            external=external,
            replicates=replicates,
            seed=seed,
            gallery=gallery,
            batch_size=batch_size,
            device=device,
            overwrite=overwrite,
        )
        folder = find_model(model)
        out = out or Path("results") / folder.resolve().name
        load_tensorflow()  # before anything that brings it along
        from tumorbatch.train import evaluation

        report = evaluation.run(folder, tfrecords, out, config)
        if as_json:
            click.echo(json.dumps(report.summary() | {"out": printable(str(out))}))
        elif not quiet:
            click.echo(evaluation_report(report, out))
