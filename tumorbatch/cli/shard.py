"""The command `shard`: write a folder of images as TFRecords."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from tumorbatch import runtime
from tumorbatch.checks import only_given
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.consent import print_plan
from tumorbatch.cli.console import say
from tumorbatch.cli.executor import executor
from tumorbatch.cli.session import session
from tumorbatch.dataset_shape import GIVEN, SPLIT_BY
from tumorbatch.errors import ConfigError, ExitCode
from tumorbatch.object_path import Location

if TYPE_CHECKING:
    from tumorbatch.parts import Part
    from tumorbatch.preprocess.shard import Config, Report
    from tumorbatch.ray_cluster import Cluster


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


@click.command(cls=Command)
@click.argument("src", type=options.LOCATION, default=Path("data/raw"))
@click.argument("out", type=options.PATH, default=Path("tfrecords"))
@options.classes
@options.size
@options.variants
@click.option(
    "--clahe/--no-clahe",
    default=None,
    help="Equalise the images or not: the same as --variants clahe or plain.  [default: clahe]",
)
@options.clahe_clip
@options.clahe_grid
@click.option(
    "--split-by",
    type=click.Choice(SPLIT_BY),
    default="group",
    show_default=True,
    help="`group` keeps copies in one split; `shape` also keeps images of one height and width in one "
    "split, a stress test; `file` is a plain random split, which leaks.",
)
@click.option(
    "--splits",
    type=click.Choice(["pooled", GIVEN]),
    default="pooled",
    show_default=True,
    help="Where SRC holds folders `Training` and `Testing` (or train, test, valid): `pooled` splits "
    "all images anew; `given` keeps them, and reports copies that lie on both sides.",
)
@options.patients
@options.allow_unmatched
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
    help="Size of a shard, about, MiB.",
)
@click.option(
    "--new-splits",
    is_flag=True,
    help="With --overwrite: assign the splits again. Held-out images may then be trained on.",
)
@options.part
@executor
@options.workers
@options.pixels
@options.timeout
@options.formats
@options.max_error_rate
@options.seed
@options.dry_run
@click.option(
    "--overwrite",
    is_flag=True,
    help="Make all records again, also with other settings. Each image stays in its split.",
)
@options.of_a_run
def shard(
    src: Location,
    out: Path,
    size: int,
    variants: tuple[str, ...],
    clahe: bool | None,
    clahe_clip: float,
    clahe_grid: int,
    classes: dict[str, list[str]],
    split_by: str,
    splits: str,
    patients: Path | None,
    allow_unmatched: bool,
    patient_id: bool,
    fractions: tuple[float, float, float],
    shard_mb: float,
    part: "Part | None",
    cluster: "Cluster | None",
    workers: int | None,
    timeout: float,
    formats: tuple[str, ...],
    max_error_rate: float,
    seed: int,
    dry_run: bool,
    overwrite: bool,
    new_splits: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a folder of images as TFRecords.

    SRC (default data/raw) holds one folder for each class, such as `Brain Tumor` and `Healthy`, or for
    each kind of tumour (`glioma`, `meningioma`, `pituitary`, `notumor`), with JPEG, PNG, TIFF, BMP,
    WebP and DICOM files at any depth; or folders `Training` and `Testing` with such folders inside. It
    can be in an object store, as s3://bucket/raw. Each image is decoded to grey, equalised (CLAHE; see
    --variants), resized, and written to OUT (default tfrecords): shards for train, validation and test,
    a manifest with one row per file, good or bad, and dataset.json. Identical and nearly identical
    images stay in one split.

    After a crash, the same command continues where the run stopped, also if SRC has changed: the work
    on unchanged files is kept. Files that cannot be read are listed in the manifest with a reason; the
    exit code is then 3.

    After changes in SRC, the same command updates OUT: it decodes new and changed files, drops missing
    ones, and leaves every group in its split. A new image that links groups of two splits moves both
    to the first of train, validation, test. --overwrite also leaves each image in its split; only
    --new-splits assigns them anew.

    On a cluster the tasks of an array read the images: the same command with --part, which publishes
    nothing. The command without --part then reads what is missing, and writes OUT. With --executor ray
    the engines of a Ray cluster read the images, and this command writes. See docs/cluster.md.

    \b
    Examples:
      tumorbatch shard
      tumorbatch shard --dry-run
      tumorbatch shard --groups patients.csv
      tumorbatch shard --variants clahe,plain,normalised
      tumorbatch shard scans/ tfrecords/ --class Healthy=controls --class Tumor=patients
      tumorbatch shard mri/ --class Tumor=glioma --class Tumor=meningioma --class Healthy=controls
      tumorbatch shard kaggle/ tfrecords/ --splits given
      tumorbatch shard --split-by file data/raw tfrecords-leaky
      tumorbatch shard /data /scratch/tfrecords --part 3/64
      tumorbatch shard /data /scratch/tfrecords --executor ray --engines 8
    """
    if variants and clahe is not None:
        raise click.UsageError("Give --variants or --clahe/--no-clahe, not both.")
    if splits == GIVEN and split_by != "group":
        raise click.UsageError(
            f"--splits given keeps the folders' splits, and --split-by {split_by} makes others. Leave "
            "out one of the two."
        )
    with session(quiet, "The work so far is kept; the same command continues it."):
        runtime.load_arrow()
        from tumorbatch.preprocess import shard as stage
        from tumorbatch.preprocess.splits import Fractions
        from tumorbatch.preprocessing_config import Preprocessing

        config = stage.Config(
            preprocessing=Preprocessing(
                size=size,
                clahe=clahe is not False,
                clahe_clip=clahe_clip,
                clahe_grid=clahe_grid,
                variants=variants,
            ),
            classes=classes,
            split_by=GIVEN if splits == GIVEN else split_by,
            patients=patients,
            allow_unmatched=allow_unmatched,
            patient_id=patient_id,
            fractions=Fractions(*fractions),
            seed=seed,
            timeout=timeout,
            shard_bytes=max(1, int(shard_mb * (1 << 20))),
            max_error_rate=max_error_rate,
            overwrite=overwrite,
            new_splits=new_splits,
            formats=formats,
            cluster=cluster,
            **only_given(workers=workers),
        )
        if part and cluster:
            raise ConfigError("--executor ray computes all parts: leave out --part.")
        if dry_run:
            _plan(src, out, config, as_json)
            return
        if part:
            _compute_part(src, out, config, part, as_json, quiet)
        report = _run(src, out, config)
        from tumorbatch.cli.summaries import shard_json, shard_summary

        if as_json:
            say(shard_json(report, out))
        elif not quiet:
            say(shard_summary(report, out))
    sys.exit(ExitCode.SOME_ERRORS if report.errors and not report.unchanged else ExitCode.OK)


def _run(src: Location, out: Path, config: "Config") -> "Report":
    """Make the set, here or with the engines of a cluster."""
    if config.cluster:
        from tumorbatch.preprocess.part import run_on_cluster

        return run_on_cluster(src, out, config)
    from tumorbatch.preprocess.shard import run

    return run(src, out, config)


def _compute_part(
    src: Location, out: Path, config: "Config", part: "Part", as_json: bool, quiet: bool
) -> NoReturn:
    """Compute one part, print its receipt, and exit."""
    from tumorbatch.cli.summaries import receipt_json
    from tumorbatch.cli.table_summaries import part_summary
    from tumorbatch.preprocess.part import run_part

    report = run_part(src, out, config, part)
    if as_json:
        say(receipt_json(report, out, files=report.files, errors=report.errors))
    elif not quiet:
        say(part_summary(report, out))
    sys.exit(ExitCode.SOME_ERRORS if report.errors else ExitCode.OK)


def _plan(src: Location, out: Path, config: "Config", as_json: bool) -> None:
    """Print what would be written, and the cost."""
    from tumorbatch.workflows import plans

    if not isinstance(src, Path):
        raise ConfigError("--dry-run looks at folders of this machine only, not at object stores.")
    if config.cluster:
        raise ConfigError("--dry-run tells what this machine would need: leave out --executor ray.")
    print_plan(plans.of_shard(src, out, config), as_json)
