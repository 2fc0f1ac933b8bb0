"""The command `verify`: check that a shard set or a table is still what was written."""

import sys
from pathlib import Path

import click

from tumorbatch import runtime
from tumorbatch.cli import options
from tumorbatch.cli.console import complain, say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode


@click.command()
@click.argument("table", metavar="[TFRECORDS | TABLE]", type=options.PATH, default=Path("tfrecords"))
@options.as_json
@options.log_format
@options.quiet
def verify(table: Path, as_json: bool, quiet: bool) -> None:
    """Check that a shard set or a predictions table is still what was written.

    Reads everything in TFRECORDS (default tfrecords) and changes nothing: size, sha256, checksums and
    number of the records of each shard, each record against its row of the manifest, the counts, and
    the proof that no image is in two splits. In a table it checks page checksums, sha256, columns,
    order and counts. Every problem is printed with its file and a remedy; the exit code is then 66.

    \b
    Examples:
      tumorbatch verify
      tumorbatch verify /archive/tfrecords --quiet && tumorbatch train --arch cnn1 /archive/tfrecords
      tumorbatch verify out.parquet
    """
    with session(quiet, "Nothing was changed; run the same command again."):
        runtime.load_arrow()
        from tumorbatch.cli.summaries import receipt_json, verify_summary
        from tumorbatch.cli.table_summaries import table_summary

        if table.is_file() or (table / "_SUCCESS").exists():
            from tumorbatch.infer import verify as check

            checked = check.run(table)
            problems, text = list(checked.problems), table_summary(checked, table)
            result = receipt_json(checked, table, problems=problems)
        else:
            from tumorbatch.preprocess import verify as stage

            report = stage.run(table)
            problems, text = list(map(str, report.problems)), verify_summary(report, table)
            result = receipt_json(report, table, problems=problems)
        for problem in problems:
            complain(f"Error: {problem}")
        if as_json:
            say(result)
        elif not quiet:
            say(text)
    sys.exit(ExitCode.NO_INPUT if problems else ExitCode.OK)
