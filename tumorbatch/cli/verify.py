"""The command `verify`: check that a shard set or a table is still what was written."""

import sys
from pathlib import Path

import click

from tumorbatch import runtime
from tumorbatch.cli import options
from tumorbatch.cli.console import complain, say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode
from tumorbatch.object_path import Location, ObjectPath


@click.command()
@click.argument(
    "table", metavar="[TFRECORDS | TABLE]", type=options.LOCATION, default=Path("tfrecords")
)
@options.cache_dir
@options.as_json
@options.log_format
@options.quiet
def verify(table: Location, cache_dir: Path | None, as_json: bool, quiet: bool) -> None:
    """Check that a shard set or a predictions table is still what was written.

    Reads everything in TFRECORDS (default tfrecords) and changes nothing: size, sha256, checksums and
    number of the records of each shard, each record against its row of the manifest, the counts, and
    the proof that no image is in two splits. In a table it checks page checksums, sha256, columns,
    order and counts. Every problem is printed with its file and a remedy; the exit code is then 66. Of
    a set or table in an object store (s3://bucket/set) a copy is checked.

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
        from tumorbatch.staging import shard_folder, table_copy

        if _is_table(table):
            from tumorbatch.infer import verify as check

            with table_copy(table) as path:
                checked = check.run(path)
            problems, text = list(checked.problems), table_summary(checked, table)
            result = receipt_json(checked, table, problems=problems)
        else:
            from tumorbatch.preprocess import verify as stage

            report = stage.run(shard_folder(table, cache_dir))
            problems, text = list(map(str, report.problems)), verify_summary(report, table)
            result = receipt_json(report, table, problems=problems)
        for problem in problems:
            complain(f"Error: {problem}")
        if as_json:
            say(result)
        elif not quiet:
            say(text)
    sys.exit(ExitCode.NO_INPUT if problems else ExitCode.OK)


def _is_table(place: Location) -> bool:
    """Return whether a place holds a table of predictions rather than a shard set."""
    if isinstance(place, ObjectPath):
        from tumorbatch import stores

        return stores.exists(place)
    return place.is_file() or (place / "_SUCCESS").exists()
