"""The command `show`: print a table of predictions."""

from pathlib import Path

import click

from tumorbatch import runtime
from tumorbatch.cli import options
from tumorbatch.cli.session import session


@click.command()
@click.argument("file", type=options.PATH)
@click.option(
    "--rows", type=click.IntRange(min=0), default=20, show_default=True, help="Largest number of rows."
)
@click.option("--errors", is_flag=True, help="Only files without a prediction.")
def show(file: Path, rows: int, errors: bool) -> None:
    """Print the metadata and the first rows of a predictions table.

    \b
    Examples:
      tumorbatch show out.parquet
      tumorbatch show out.parquet --errors --rows 100
    """
    with session(False, ""):
        runtime.load_arrow()
        from tumorbatch.cli.table_summaries import predictions_table

        predictions_table(file, rows, errors)
