"""The command `show`: print rows of a table."""

import click

from tumorbatch import runtime
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError
from tumorbatch.object_path import Location

_FORMATS = ("table", "json", "csv", "tsv")


def _split(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",")) if value else ()


@click.command(cls=Command)
@click.argument("file", type=options.LOCATION)
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    help="Largest number of rows.  [default: 20 in a table, all in other formats]",
)
@click.option("--errors", is_flag=True, help="Only files without a prediction.")
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Only rows that fulfil it: label=Tumor, prob_tumor>=0.9, flags~low-res (contains), label= (no "
    "value); also != < <= >. If repeated, all must hold.",
)
@click.option("--sort", metavar="COLUMN", help="Sort by a column; -COLUMN: descending.")
@click.option("--columns", metavar="A,B,...", callback=_split, help="Only these columns.")
@click.option(
    "--format",
    type=click.Choice(_FORMATS),
    default="table",
    show_default=True,
    help="`json`: one array; `csv`, `tsv`: with a head line.",
)
@options.config_file
@options.save_config
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@options.log_format
@options.verbose
def show(
    file: Location,
    rows: int | None,
    errors: bool,
    where: tuple[str, ...],
    sort: str | None,
    columns: tuple[str, ...],
    format: str,
    as_json: bool,
) -> None:
    """Print rows of a table.

    FILE is any table that tumorbatch writes: predictions as Parquet, as a folder, as CSV or JSON lines,
    those of `evaluate`, a manifest, a list of label suspects; it can be in an object store. Paths
    are never shortened: where the terminal (or COLUMNS) is too narrow for a line a row, each row takes
    several.

    \b
    Examples:
      tumorbatch show out.parquet
      tumorbatch show out.parquet --errors --rows 100
      tumorbatch show out.parquet --where label=Tumor --sort -prob_tumor --columns path,prob_tumor
      tumorbatch show tfrecords/manifest.parquet --where split=test --format csv > test.csv
    """
    with session(False, ""):
        runtime.load_arrow()
        from tumorbatch.cli import rows as table
        from tumorbatch.staging import table_copy

        if as_json and format not in ("table", "json"):
            raise ConfigError(f"--json and --format {format} contradict each other: give one of them.")
        chosen = "json" if as_json else format
        with table_copy(file) as path:
            table.show(path, table.Selection(where, sort, columns, rows, errors), chosen)
