"""The command `verify`: check that a shard set, a table or a model is still what was written."""

import sys
from pathlib import Path

import click

from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.console import complain, say
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError, ExitCode
from tumorbatch.object_path import Location, ObjectPath


@click.command(cls=Command)
@click.argument("what", metavar="[TFRECORDS | TABLE | MODEL]", type=options.LOCATION, required=False)
@options.named_model
@options.cache_dir
@options.of_a_run
def verify(
    what: Location | None, named: Path | None, cache_dir: Path | None, as_json: bool, quiet: bool
) -> None:
    """Check that a shard set, a predictions table or a model is still what was written.

    Reads everything in TFRECORDS (default tfrecords) and changes nothing: size, sha256, checksums and
    number of the records of each shard, each record against its row of the manifest, the counts, and
    the proof that no image is in two splits. In a TABLE (Parquet, a folder, CSV, JSON lines) it checks
    sha256, page checksums, columns, order, values and counts. In a MODEL it checks the identity in
    model.json, the weights and known images against their sha256, history, metrics and card. Every
    problem is printed with its file and a remedy; the exit code is then 66. Of a set or
    table in an object store (s3://bucket/set) a copy is checked.

    \b
    Examples:
      tumorbatch verify
      tumorbatch verify /archive/tfrecords --quiet && tumorbatch train --arch cnn1 /archive/tfrecords
      tumorbatch verify out.parquet
      tumorbatch verify --model cnn1
    """
    with session(quiet, "Nothing was changed; run the same command again."):
        if what is not None and named is not None:
            raise ConfigError("verify checks one thing: leave out --model or the other name.")
        from tumorbatch import bundle, runtime

        runtime.load_arrow()
        place = bundle.find(named) if named is not None else what or Path("tfrecords")
        problems, text, result = _check(place, named is not None, cache_dir)
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


def _check(place: Location, model: bool, cache_dir: Path | None) -> tuple[list[str], str, str]:
    """Check what is at `place`; return the problems, and the receipt as text and as JSON."""
    from tumorbatch import bundle_verify
    from tumorbatch.cli.summaries import receipt_json, verify_summary
    from tumorbatch.cli.table_summaries import bundle_summary, table_summary
    from tumorbatch.staging import shard_folder, table_copy

    if model or (isinstance(place, Path) and bundle_verify.is_bundle(place)):
        of_bundle = bundle_verify.run(Path(str(place)))
        problems = list(of_bundle.problems)
        text = bundle_summary(of_bundle, Path(str(place)))
        receipt = receipt_json(of_bundle, place, problems=problems)
    elif _is_table(place):
        from tumorbatch.infer import verify as check

        with table_copy(place) as path:
            of_table = check.run(path)
        problems = list(of_table.problems)
        text = table_summary(of_table, place)
        receipt = receipt_json(of_table, place, problems=problems)
    else:
        from tumorbatch.preprocess import verify as stage

        of_shards = stage.run(shard_folder(place, cache_dir))
        problems = list(map(str, of_shards.problems))
        text = verify_summary(of_shards, place)
        receipt = receipt_json(of_shards, place, problems=problems)
    return problems, text, receipt
