"""The command `infer`: predict every image in a folder into one table."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tumorbatch import runtime
from tumorbatch.checks import only_given
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.consent import print_plan
from tumorbatch.cli.console import say
from tumorbatch.cli.executor import executor
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError, ExitCode
from tumorbatch.files import check_source
from tumorbatch.infer.config import FORMATS, PATH_MODES
from tumorbatch.object_path import Location, ObjectPath, location

if TYPE_CHECKING:
    from tumorbatch.infer.config import Config, Report
    from tumorbatch.parts import Part
    from tumorbatch.ray_cluster import Cluster


@click.command(cls=Command)
@click.argument("folders", type=options.LOCATION, nargs=-1, required=True, metavar="FOLDER...")
@click.argument("out")
@click.option(
    "--model",
    type=options.LOCATION,
    shell_complete=options.complete_models,
    help="Folder of a model bundle, or its name under models/.  [default: the bundle there with the "
    "best validation AUC]",
)
@click.option(
    "--work",
    type=options.PATH,
    metavar="DIR",
    help="Folder of the unfinished work and the lock; needed if OUT is in an object store.",
)
@click.option(
    "--files", "listed", help="Read only the files in this list, one per line; `-`: standard input."
)
@click.option(
    "--include", multiple=True, help="Read only files that match, as '*.dcm'; can be repeated."
)
@click.option("--exclude", multiple=True, help="Skip files like this; can be repeated.")
@click.option("--all-files", is_flag=True, help="Write a row also for files that are not images.")
@click.option(
    "--min-age",
    type=options.Duration(zero=True),
    default="0s",
    show_default=True,
    help="Leave files that changed in the last 90s, 5m, 2h ... to the next run.",
)
@click.option(
    "--incremental",
    is_flag=True,
    help="Keep the rows of files whose size and time have not changed since OUT was written, and "
    "compute only the others.",
)
@click.option("--hash", "content", is_flag=True, help="With --incremental: compare the content.")
@click.option("--prune", is_flag=True, help="With --incremental: drop rows of files that are gone.")
@click.option(
    "--max-runtime",
    type=options.Duration(),
    help="Save the work so far and exit 75 after this time (90s, 5m, 2h).",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="`auto`: by OUT's suffix; `dataset`, or an OUT that ends in /, is a folder of Parquet files.",
)
@click.option(
    "--path-mode",
    type=click.Choice(PATH_MODES),
    default="relative",
    show_default=True,
    help="`hash` hides paths: HMAC-SHA256 with a key that is kept next to OUT.",
)
@options.part
@executor
@click.option(
    "--identity-key",
    type=options.PATH,
    metavar="FILE",
    help="Fill patient_key, study_key, series_key and instance_key with keyed hashes (HMAC-SHA256) of "
    "DICOM's identifiers. FILE holds the key; a new one is made where it is missing.",
)
@click.option(
    "--metrics-file", type=options.PATH, help="Write metrics for Prometheus to this file (.prom)."
)
@click.option(
    "--max-frames",
    type=click.IntRange(1),
    default=2_000,
    show_default=True,
    help="A file of more DICOM frames, TIFF pages or NIfTI slices becomes one error row.",
)
@options.tta
@options.batch_size
@options.cache_dir
@options.workers
@options.device
@options.precision
@options.xla
@options.threads
@options.pixels
@options.timeout
@options.formats
@options.max_error_rate
@options.dry_run
@options.overwrite
@options.of_a_run
def infer(
    folders: tuple[Location, ...],
    out: str,
    model: Location | None,
    work: Path | None,
    listed: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    all_files: bool,
    min_age: float,
    incremental: bool,
    content: bool,
    prune: bool,
    max_runtime: float | None,
    format: str,
    path_mode: str,
    part: "Part | None",
    cluster: "Cluster | None",
    identity_key: Path | None,
    cache_dir: Path | None,
    tta: str | None,
    workers: int | None,
    batch_size: int,
    device: str,
    precision: str,
    xla: str,
    threads: int | None,
    timeout: float,
    formats: tuple[str, ...],
    max_frames: int,
    max_error_rate: float,
    as_json: bool,
    metrics_file: Path | None,
    dry_run: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Predict every image in FOLDER, recursively, and write the table OUT.

    FOLDER may also be an image file, and there may be several: the paths in the table are then relative
    to the deepest folder that holds all of them, so that none collide.

    The table has one row for every file (for every frame of DICOM and TIFF), sorted by path: status,
    label, probability of Tumor, logit, size, sha256, and more. Files that cannot be read get a row with
    the reason; the exit code is then 3. OUT appears when it is complete, never half-written; OUT.json
    next to it describes the run.

    After a crash or an interruption the same command continues and gives the same table.

    On a cluster each task of an array computes one part: the same command with --part, which publishes
    nothing. The command without --part then takes what the tasks have computed, computes what is
    missing, and writes OUT. With --executor ray the engines of a Ray cluster compute, and this command
    writes. See docs/cluster.md, `tumorbatch slurm` and `tumorbatch status`.

    FOLDER, OUT and the model can be in an object store, as s3://bucket/folder (also gs:// and az://).
    OUT is then uploaded when it is complete.

    \b
    Examples:
      tumorbatch infer scans/ out.parquet
      tumorbatch infer scans/ out.parquet --dry-run
      tumorbatch infer scans/ out.parquet --model cnn1 --quiet
      tumorbatch infer /pacs/export nightly.parquet --incremental --min-age 2m --max-runtime 6h
      find scans -name '*.dcm' -newer last -print0 | tumorbatch infer . new.parquet --files -
      tumorbatch infer ward-a/ ward-b/ late/scan.dcm out.parquet
      tumorbatch infer s3://b/scans s3://b/out.parquet --model s3://b/models/cnn1 --work /scratch/me
      tumorbatch infer scans/ out.csv --include '*T1*' --exclude '*_mask.png'
      tumorbatch infer /scratch/scans out.parquet --part 3/64
      tumorbatch infer /scratch/scans out.parquet --executor ray --engines 8 --gpus-per-engine 1
    """
    with session(quiet, "The work so far is kept; the same command continues it."):
        runtime.load_arrow()
        from tumorbatch.cli.prometheus import recorded

        if part and metrics_file:
            raise ConfigError(
                "--metrics-file is about a table, and a part publishes none. Give it to the command "
                "without --part."
            )
        with recorded(None if dry_run else metrics_file) as metrics:
            from tumorbatch import bundle, staging
            from tumorbatch.infer import inference
            from tumorbatch.infer.config import Config
            from tumorbatch.infer.listing import Selection

            if format == "auto" and out.endswith("/"):
                format = "dataset"
            config = Config(
                batch_size=batch_size,
                device=device,
                precision=precision,
                xla=xla,
                threads=threads,
                seconds=timeout,
                max_frames=max_frames,
                formats=formats,
                max_error_rate=max_error_rate,
                overwrite=overwrite,
                selection=Selection(include, exclude, all_files, min_age, listed),
                incremental=incremental,
                content=content,
                prune=prune,
                max_runtime=max_runtime,
                format=format,
                path_mode=path_mode,
                part=part,
                cluster=cluster,
                identity_key=identity_key,
                work=work,
                tta=tta,
                **only_given(workers=workers),
            )
            for folder in folders:  # before the model: these are the names that are typed each time
                check_source(folder)
            if isinstance(model, ObjectPath):
                chosen = staging.bundle_folder(model, cache_dir)
            else:
                chosen = bundle.find(model) if model else bundle.best()
            target = location(out)
            if dry_run:
                _plan(folders, target, chosen, config, as_json)
                return
            report = inference.run(folders, target, chosen, config)
            metrics.model_id, metrics.kept = report.model_id, report.files_kept
            metrics.files, metrics.labels = report.statuses, report.labels
            metrics.images_per_second = report.images_per_second
            metrics.code = ExitCode.SOME_ERRORS if report.errors else ExitCode.OK
        _print(report, target, part is not None, as_json, quiet)
    sys.exit(metrics.code)


def _plan(
    folders: tuple[Location, ...], out: Location, model: Path, config: "Config", as_json: bool
) -> None:
    """Print what would be predicted, and the cost."""
    from tumorbatch.workflows import plans

    local = [place for place in folders if isinstance(place, Path)]
    if len(local) < len(folders) or not isinstance(out, Path):
        raise ConfigError("--dry-run looks at folders of this machine only, not at object stores.")
    if config.cluster:
        raise ConfigError("--dry-run tells what this machine would need: leave out --executor ray.")
    print_plan(plans.of_infer(local, out, model, config), as_json)


def _print(report: "Report", out: Location, part: bool, as_json: bool, quiet: bool) -> None:
    """Print the receipt of a run, or of a part."""
    from tumorbatch.cli.table_summaries import infer_json, infer_summary, part_summary

    if as_json:
        say(infer_json(report, out))
    elif not quiet:
        say((part_summary if part else infer_summary)(report, out))
