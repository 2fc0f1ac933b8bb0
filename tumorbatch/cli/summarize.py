"""The command `summarize`: a row for each series, study or patient of a table of predictions."""

from pathlib import Path

import click

from tumorbatch import runtime
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session

_BY = ("study_key", "series_key", "patient_key", "path")


@click.command(cls=Command)
@click.argument("table", type=options.PATH)
@click.option(
    "--by",
    type=click.Choice(_BY),
    default="study_key",
    show_default=True,
    help="What is put together. Keys are in tables made with `infer --identity-key`; `path`: the "
    "slices of each file.",
)
@click.option(
    "-o",
    "--out",
    type=options.PATH,
    help="Write the summary here, as .parquet or .csv, for its owner alone.  [default: print it]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="A slice of at least this probability counts as above.  [default: the model's threshold]",
)
@click.option(
    "--kth",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Which probability `kth_prob` is, counted from the largest.",
)
@click.option(
    "--all-rows",
    is_flag=True,
    help="Also rows with the flags absent, blank, duplicate, localizer, mosaic, not-head, not-mr or "
    "screenshot.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@options.of_a_run
def summarize(
    table: Path,
    by: str,
    out: Path | None,
    threshold: float | None,
    kth: int,
    all_rows: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Summarise the predictions in TABLE by study, series, patient or file.

    Each row has the number of slices, the mean, largest and k-th largest probability of Tumor, the
    share of slices above the threshold, and the longest run of neighbouring slices above it (by
    slice_position). NOT VALIDATED: the model judges single slices, and no summary of them was compared
    with diagnoses. Not for diagnosis.

    \b
    Examples:
      tumorbatch summarize out.parquet
      tumorbatch summarize out.parquet --by patient_key -o patients.csv
      tumorbatch summarize volumes.parquet --by path --threshold 0.5
    """
    with session(quiet, ""):
        runtime.load_arrow()
        from tumorbatch.cli.rows import print_rows
        from tumorbatch.cli.summaries import receipt_json, shown_path
        from tumorbatch.infer import summarize as stage

        report = stage.run(table, stage.Config(by, threshold, kth, all_rows))
        if out is not None:
            stage.write(report, out, overwrite)
        if as_json:
            left_out = () if out is None else ("rows",)
            say(receipt_json(report, out or table, left_out, metadata=dict(report.metadata)))
        elif not quiet:
            if out is None:
                print_rows(stage.SCHEMA.names, report.rows)
            else:
                say(f"{len(report.rows):,} rows by {by} in {shown_path(out)}.")
            if report.without_key:
                say(f"{report.without_key:,} rows of the table have no {by}: they are in no summary.")
            say(str(report.metadata["validated"]))
