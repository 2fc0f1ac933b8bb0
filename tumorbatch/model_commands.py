"""Commands that make and use models: train, infer, show."""

import sys
from pathlib import Path

import click

from tumorbatch import options
from tumorbatch.errors import ExitCode
from tumorbatch.session import session


@click.command()
@click.argument("tfrecords", type=options.PATH, default=Path("tfrecords"))
@click.option(
    "--arch", type=click.Choice(["cnn1", "cnn2"]), required=True, help="The network to train."
)
@click.option("--out", type=options.PATH, help="Folder of the bundle.  [default: models/ARCH]")
@click.option("--epochs", type=int, default=40, show_default=True, help="At most this many.")
@click.option(
    "--patience",
    type=int,
    default=8,
    show_default=True,
    help="Stop after so many epochs without a higher validation AUC.",
)
@click.option("--batch-size", type=int, default=32, show_default=True, help="Images a step.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True, help="Of Adam.")
@click.option("--shear", type=float, default=0.2, show_default=True, help="Largest shear (tangent).")
@click.option("--zoom", type=float, default=0.2, show_default=True, help="Largest zoom, relative.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the images.")
@click.option("--augment/--no-augment", default=True, show_default=True, help="All three, or none.")
@options.device
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "mixed_float16"]),
    default="auto",
    show_default=True,
    help="`auto`: mixed_float16 on a GPU with tensor cores, float32 elsewhere.",
)
@click.option(
    "--xla",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="`auto`: on a GPU, not on a CPU, where it slows training down.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="The same bits each time, on one machine and set of versions; slower.",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Time between checkpoints inside an epoch. Each epoch's end and each signal make one too.",
)
@options.seed
@options.overwrite
@options.quiet
def train(
    tfrecords: Path,
    arch: str,
    out: Path | None,
    epochs: int,
    patience: int,
    batch_size: int,
    learning_rate: float,
    shear: float,
    zoom: float,
    flip: bool,
    augment: bool,
    device: str,
    precision: str,
    xla: str,
    deterministic: bool,
    checkpoint_minutes: float,
    seed: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Train a network on TFRecords.

    Reads the shards in TFRECORDS (default tfrecords), trains until the validation AUC stops
    rising, keeps the best weights, and writes a model bundle: weights, model.json, history,
    metrics on validation and test, and a model card.

    A training that was killed or interrupted goes on where its last checkpoint stands when the same
    command is given again; with --deterministic it ends with the very bits of one that was not.

    \b
    Examples:
      tumorbatch train --arch cnn1
      tumorbatch train --arch cnn2 --epochs 60 --out models/cnn2-long
      tumorbatch train --arch cnn1 tfrecords-leaky --out models/cnn1-leaky
    """
    with session(quiet, "Nothing was published: the same command goes on from the checkpoint."):
        from tumorbatch.train import stage
        from tumorbatch.train.config import Augmentation, Config, Schedule

        config = Config(
            architecture=arch,
            schedule=Schedule(epochs, patience, batch_size, learning_rate, seed),
            augmentation=Augmentation(shear, zoom, flip) if augment else None,
            device=device,
            precision=precision,
            xla=xla,
            deterministic=deterministic,
            checkpoint_minutes=checkpoint_minutes,
            overwrite=overwrite,
        )
        out = out or Path("models") / arch
        report = stage.run(tfrecords, out, config)
        if not quiet:
            from tumorbatch.reports import train_report

            click.echo(train_report(report, out))


@click.command()
@click.argument("folder", type=options.PATH)
@click.argument("out", type=options.PATH)
@click.option(
    "--model",
    type=options.PATH,
    help="Model bundle.  [default: the one under models/ with the best validation AUC]",
)
@options.workers
@click.option("--batch-size", type=int, default=32, show_default=True, help="Images a forward pass.")
@options.device
@options.max_error_rate
@options.overwrite
@options.quiet
def infer(
    folder: Path,
    out: Path,
    model: Path | None,
    workers: int | None,
    batch_size: int,
    device: str,
    max_error_rate: float,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Predict every file in FOLDER, recursively, into the Parquet file OUT.

    One row for every file, sorted by path: status, label, probability of Tumor, logit, size, sha256,
    and more. Files that cannot be read get a row with the reason; the exit code is then 3. OUT
    appears when it is complete, and never half-written; OUT.json beside it says what made it.

    \b
    Examples:
      tumorbatch infer scans/ out.parquet
      tumorbatch infer scans/ out.parquet --model models/cnn1 --quiet
    """
    with session(quiet, "Nothing was published: the same command starts again."):
        from tumorbatch import bundle
        from tumorbatch.infer import stage

        config = stage.Config(
            batch_size=batch_size,
            device=device,
            max_error_rate=max_error_rate,
            overwrite=overwrite,
            **options.given(workers=workers),
        )
        report = stage.run(folder, out, model or bundle.best(Path("models")), config)
        if not quiet:
            from tumorbatch.reports import infer_report

            click.echo(infer_report(report, out))
    sys.exit(ExitCode.SOME_ERRORS if report.errors else ExitCode.OK)


@click.command()
@click.argument("file", type=options.PATH)
@click.option("--rows", type=click.IntRange(min=0), default=20, show_default=True, help="At most.")
@click.option("--errors", is_flag=True, help="Only files without a prediction.")
def show(file: Path, rows: int, errors: bool) -> None:
    """Print a predictions file: what made it, and its first rows.

    \b
    Examples:
      tumorbatch show out.parquet
      tumorbatch show out.parquet --errors --rows 100
    """
    with session(False, ""):
        from tumorbatch.reports import predictions_table

        predictions_table(file, rows, errors)
