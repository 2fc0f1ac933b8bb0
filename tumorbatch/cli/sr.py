"""The command `sr`: predictions as DICOM structured reports, for a PACS test instance."""

from pathlib import Path

import click

from tumorbatch import runtime
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session


@click.command(cls=Command)
@click.argument("table", type=options.PATH)
@click.argument("folder", type=options.PATH)
@click.argument("out", type=options.PATH)
@options.of_a_run
def sr(table: Path, folder: Path, out: Path, as_json: bool, quiet: bool) -> None:
    """Write the predictions in TABLE as DICOM structured reports, one a study.

    FOLDER is the folder that was scanned, and OUT a new or empty folder. A report has the probability
    of Tumor of each slice, refers to its image, and names the patient as the images do. It is marked as
    unverified and preliminary: for a PACS test instance, not for diagnosis. Slices whose file has
    changed since, or with a flag such as localizer or not-mr, are left out. Needs highdicom.

    \b
    Examples:
      tumorbatch sr out.parquet scans/ reports/
    """
    with session(quiet, ""):
        runtime.load_arrow()
        from tumorbatch.cli.summaries import receipt_json, shown_path
        from tumorbatch.files import counted
        from tumorbatch.infer import structured_report as stage

        report = stage.run(table, folder, out)
        if as_json:
            say(receipt_json(report, out, skipped=dict(report.skipped)))
        elif not quiet:
            reports = counted(report.studies, "structured report")
            slices = counted(report.slices, "slice")
            say(f"{reports} of {slices} in {shown_path(out)}: for a PACS test instance only.")
            for why, count in sorted(report.skipped.items()):
                say(f"Skipped {count:,}: {why}.")
