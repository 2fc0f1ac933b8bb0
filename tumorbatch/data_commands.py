"""Commands that make and check data: sample, shard, verify, equalize."""

import sys
from pathlib import Path

import click

from tumorbatch import options
from tumorbatch.console import say
from tumorbatch.errors import ExitCode
from tumorbatch.session import session


@click.command()
@click.argument("out", type=options.PATH)
@click.option("--images", type=int, default=320, show_default=True, help="Readable images in all.")
@options.seed
@options.overwrite
@options.quiet
def sample(out: Path, images: int, seed: int, overwrite: bool, quiet: bool) -> None:
    """Make a synthetic data set in OUT, to try the other commands on.

    Head phantoms with and without a lesion in OUT/Brain Tumor and OUT/Healthy: several sizes, JPEG,
    PNG and TIFF, 8 and 16 bit, some exact and near duplicates, a few broken files. The same seed
    gives the same files. Phantoms have no diagnostic value.

    \b
    Examples:
      tumorbatch sample data/raw
      tumorbatch sample /tmp/phantoms --images 1000 --seed 7
    """
    with session(quiet, "Nothing was published."):
        from tumorbatch import sample as stage

        report = stage.run(out, stage.SampleConfig(images=images, seed=seed, overwrite=overwrite))
        if not quiet:
            say(
                f"Wrote {report.healthy} Healthy and {report.tumor} Tumor phantoms "
                f"({report.exact_duplicates} exact and {report.near_duplicates} near duplicates) "
                f"and {report.broken} broken files to {out} in {report.seconds:.1f} s."
            )
            say(f"Next: tumorbatch shard {'' if out == Path('data/raw') else out}".rstrip())


def _refuse_nan(_: click.Context, __: click.Parameter, value: float) -> float:
    if value != value:
        raise click.BadParameter("nan is not a number.")
    return value


def _parse_split(_: click.Context, __: click.Parameter, value: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in value.split("/"))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not of the form 70/15/15.") from error
    return train / 100, validation / 100, test / 100


@click.command()
@click.argument("src", type=options.PATH, default=Path("data/raw"))
@click.argument("out", type=options.PATH, default=Path("tfrecords"))
@click.option("--size", type=int, default=150, show_default=True, help="Side of the result, pixels.")
@click.option("--clahe/--no-clahe", default=True, show_default=True, help="Equalise or not.")
@click.option("--clahe-clip", type=float, default=2.0, show_default=True, help="CLAHE clip limit.")
@click.option(
    "--clahe-grid", type=int, default=16, show_default=True, help="CLAHE tiles along each side."
)
@options.classes
@click.option(
    "--split-by",
    type=click.Choice(["group", "file", "shape"]),
    default="group",
    show_default=True,
    help="`group` keeps duplicates in one split; `shape` also images of one height and width, a "
    "stress test; `file` is a plain random split, and leaky.",
)
@options.patients
@click.option(
    "--patient-id/--no-patient-id",
    default=True,
    show_default=True,
    help="DICOM files of one PatientID stay in one split.",
)
@click.option(
    "--split",
    "fractions",
    default="70/15/15",
    show_default=True,
    callback=_parse_split,
    help="Percent of train/validation/test.",
)
@click.option(
    "--shard-mb",
    type=click.FloatRange(0, 1 << 20, min_open=True),
    default=100,
    callback=_refuse_nan,
    show_default=True,
    help="Wanted size of a shard, MiB.",
)
@options.seed
@options.workers
@options.timeout
@options.max_error_rate
@options.overwrite
@options.quiet
def shard(
    src: Path,
    out: Path,
    size: int,
    clahe: bool,
    clahe_clip: float,
    clahe_grid: int,
    classes: dict[str, str],
    split_by: str,
    patients: Path | None,
    patient_id: bool,
    fractions: tuple[float, float, float],
    shard_mb: float,
    seed: int,
    workers: int | None,
    timeout: float,
    max_error_rate: float,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Make TFRecords from a folder of images.

    SRC (default data/raw) holds one folder for each class, such as `Brain Tumor` and `Healthy`, with
    JPEG, PNG, TIFF, BMP, WebP and DICOM files at any depth. Each image is decoded to grey, equalised
    (CLAHE), resized, and written to OUT (default tfrecords): shards for train, validation and test, a
    manifest with one row a file, good or bad, and dataset.json. Duplicates and near ones stay in one
    split.

    A run that was killed goes on where it stopped when the same command is given again. Files that
    cannot be read are listed in the manifest with a reason; the exit code is then 3.

    When SRC has changed since, the same command brings OUT up to date: it decodes what is new or
    changed, drops what is gone, and leaves every group in its split. A new image that links groups of
    two splits takes both to the first of train, validation, test.

    \b
    Examples:
      tumorbatch shard
      tumorbatch shard --groups patients.csv
      tumorbatch shard scans/ tfrecords/ --class Healthy=controls --class Tumor=patients
      tumorbatch shard --split-by file data/raw tfrecords-leaky
    """
    with session(quiet, "The work so far is kept: the same command goes on from there."):
        from tumorbatch.preprocess import stage
        from tumorbatch.preprocess.splits import Fractions
        from tumorbatch.preprocessing import Preprocessing

        config = stage.Config(
            preprocessing=Preprocessing(
                size=size, clahe=clahe, clahe_clip=clahe_clip, clahe_grid=clahe_grid
            ),
            classes=classes,
            split_by=split_by,
            patients=patients,
            patient_id=patient_id,
            fractions=Fractions(*fractions),
            seed=seed,
            timeout=timeout,
            shard_bytes=max(1, int(shard_mb * (1 << 20))),
            max_error_rate=max_error_rate,
            overwrite=overwrite,
            **options.given(workers=workers),
        )
        report = stage.run(src, out, config)
        if not quiet:
            from tumorbatch.reports import shard_report

            say(shard_report(report, out))
    sys.exit(ExitCode.SOME_ERRORS if report.errors and not report.unchanged else ExitCode.OK)


@click.command()
@click.argument("table", metavar="[TFRECORDS | TABLE]", type=options.PATH, default=Path("tfrecords"))
@options.quiet
def verify(table: Path, quiet: bool) -> None:
    """Check that a shard set, or a table of predictions, is still what was written.

    Reads everything in TFRECORDS (default tfrecords) and changes nothing: size, sha256, checksums and
    number of the records of each shard, each record against its row of the manifest, the counts, and
    the proof that no image lies in two splits. Of a table: page checksums, sha256, columns, order,
    and counts. Every problem is told with the file that has it and what to do about it; the exit code
    is then 66.

    \b
    Examples:
      tumorbatch verify
      tumorbatch verify /archive/tfrecords --quiet && tumorbatch train --arch cnn1 /archive/tfrecords
      tumorbatch verify out.parquet
    """
    with session(quiet, "Nothing was changed: the same command starts again."):
        from tumorbatch.reports import table_report, verify_report

        if table.is_file() or (table / "_SUCCESS").exists():
            from tumorbatch.infer import check

            checked = check.run(table)
            problems, text = list(checked.problems), table_report(checked, table)
        else:
            from tumorbatch.preprocess import verify as stage

            report = stage.run(table)
            problems, text = list(map(str, report.problems)), verify_report(report, table)
        for problem in problems:
            click.echo(f"Error: {problem}", err=True)
        if not quiet:
            say(text)
    sys.exit(ExitCode.NO_INPUT if problems else ExitCode.OK)


@click.command()
@click.argument("src", type=options.PATH)
@click.argument("dst", type=options.PATH)
@click.option("--clahe-clip", type=float, default=2.0, show_default=True, help="CLAHE clip limit.")
@click.option(
    "--clahe-grid", type=int, default=16, show_default=True, help="CLAHE tiles along each side."
)
@options.workers
@options.timeout
@click.option(
    "--overwrite",
    is_flag=True,
    help="Delete all PNG files that an earlier run left in DST, and start anew.",
)
@options.quiet
def equalize(
    src: Path,
    dst: Path,
    clahe_clip: float,
    clahe_grid: int,
    workers: int | None,
    timeout: float,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Equalise a folder of images (CLAHE) into DST, as grey PNG files.

    Every image in SRC, at any depth, is decoded to grey and equalised at its own size: the pixels
    that `shard` has before it resizes them. DST gets the same tree; .png is added to every name
    (a.jpg becomes a.jpg.png), so that no two files get one name. DST/equalize.json, written last, says
    what was done. Files that cannot be read are warned of by name; the exit code is then 3.

    The same command again makes what is missing, and what changed in SRC, and keeps the rest. It
    also finishes a run that was killed.

    \b
    Examples:
      tumorbatch equalize data/raw data/processed
      tumorbatch equalize scans/ equalised/ --clahe-clip 4 --workers 2
    """
    with session(quiet, "What is finished is kept: the same command does the rest."):
        from tumorbatch.preprocess import equalize as stage
        from tumorbatch.preprocessing import Preprocessing

        config = stage.Config(
            preprocessing=Preprocessing(clahe_clip=clahe_clip, clahe_grid=clahe_grid),
            timeout=timeout,
            overwrite=overwrite,
            **options.given(workers=workers),
        )
        report = stage.run(src, dst, config)
        if not quiet:
            from tumorbatch.reports import equalize_report

            say(equalize_report(report, dst))
    sys.exit(ExitCode.SOME_ERRORS if report.errors and not report.unchanged else ExitCode.OK)
