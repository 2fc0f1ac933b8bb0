"""Commands that use models: infer, show."""

import sys
from pathlib import Path

import click

from tumorbatch import options
from tumorbatch.errors import ExitCode
from tumorbatch.session import session


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
