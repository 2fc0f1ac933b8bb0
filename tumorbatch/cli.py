"""The command line: parses, builds the config, calls the stage's `run`, prints its report.

Stages are imported inside their commands, so that `--help` is instant and `shard` never loads
TensorFlow.
"""

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from tumorbatch import __version__
from tumorbatch.errors import ExitCode, TumorBatchError

_PATH = click.Path(path_type=Path)


class _Interrupted(KeyboardInterrupt):
    """A signal asked this process to end. Not an `Exception`, so that nothing swallows it."""


def _interrupt(number: int, _: object) -> NoReturn:
    for known in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(known, signal.SIG_IGN)  # a second signal must not cut the cleaning up
    raise _Interrupted(signal.Signals(number).name)


class _Formatter(logging.Formatter):
    """Plain sentences on a terminal, time and level elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.capitalize()}: {text}"
        if sys.stderr.isatty():
            return text
        return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"


def _set_up_logging(quiet: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("tumorbatch")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


@contextlib.contextmanager
def _session(quiet: bool, when_interrupted: str) -> Iterator[None]:
    """Turn signals and errors into a sentence on standard error and the right exit code."""
    _set_up_logging(quiet)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, _interrupt)
    try:
        yield
    except TumorBatchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as interruption:
        click.echo(f"Interrupted ({interruption}). {when_interrupted}", err=True)
        sys.exit(ExitCode.TRY_AGAIN)


_quiet = click.option("--quiet", is_flag=True, help="Print nothing but warnings and errors.")
_seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all choices."
)
_overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace what is there, if it was made differently."
)
_workers = click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Decoding processes. Default: the cores that this process may use.",
)
_max_error_rate = click.option(
    "--max-error-rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Publish nothing and exit 4 when a larger share of the files cannot be read.",
)
_device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="`gpu` fails where there is no usable one; `auto` then takes the CPU.",
)


def _given(**options: Any) -> dict[str, Any]:
    """Options that were given; the others keep the config's own default."""
    return {name: value for name, value in options.items() if value is not None}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tumorbatch")
def main() -> None:
    """Classify brain images as Healthy or Tumor, whole folders at a time.

    \b
    From a working folder with images in data/raw/Healthy and data/raw/Tumor:
      tumorbatch shard                      images -> CLAHE -> splits -> tfrecords/
      tumorbatch train --arch cnn1          tfrecords/ -> models/cnn1/
      tumorbatch infer folder/ out.parquet  any folder -> one row a file

    \b
    No images at hand? `tumorbatch sample data/raw` makes synthetic ones.

    \b
    Exit codes:
      0   done, every file read; or nothing new to do
      2   wrong usage, or it does not fit what is already there
      3   done and published, but some files have error rows
      4   more errors than --max-error-rate, nothing published
      66  input missing, empty, unfinished or damaged
      73  output cannot be written
      75  try again later: in use by another run, or interrupted
      1   a bug, with a traceback

    Not a medical device; not for diagnosis.
    """


@main.command()
@click.argument("out", type=_PATH)
@click.option("--images", type=int, default=320, show_default=True, help="Readable images in all.")
@_seed
@_overwrite
@_quiet
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
    with _session(quiet, "Nothing was published."):
        from tumorbatch import sample as stage

        report = stage.run(out, stage.SampleConfig(images=images, seed=seed, overwrite=overwrite))
        if not quiet:
            click.echo(
                f"Wrote {report.healthy} Healthy and {report.tumor} Tumor phantoms "
                f"({report.exact_duplicates} exact and {report.near_duplicates} near duplicates) "
                f"and {report.broken} broken files to {out} in {report.seconds:.1f} s."
            )
            click.echo(f"Next: tumorbatch shard {'' if out == Path('data/raw') else out}".rstrip())


def _parse_classes(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    classes: dict[str, str] = {}
    for value in values:
        name, separator, folder = value.partition("=")
        if not (name and separator and folder):
            raise click.BadParameter(f"{value!r} is not of the form NAME=FOLDER.")
        if name.casefold() in (known.casefold() for known in classes):
            raise click.BadParameter(f"{name} is given twice.")
        classes[name] = folder
    return classes


def _parse_split(_: click.Context, __: click.Parameter, value: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in value.split("/"))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not of the form 70/15/15.") from error
    return train / 100, validation / 100, test / 100


@main.command()
@click.argument("src", type=_PATH, default=Path("data/raw"))
@click.argument("out", type=_PATH, default=Path("tfrecords"))
@click.option("--size", type=int, default=150, show_default=True, help="Side of the result, pixels.")
@click.option("--clahe/--no-clahe", default=True, show_default=True, help="Equalise or not.")
@click.option("--clahe-clip", type=float, default=2.0, show_default=True, help="CLAHE clip limit.")
@click.option(
    "--clahe-grid", type=int, default=16, show_default=True, help="CLAHE tiles along each side."
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME=FOLDER",
    callback=_parse_classes,
    help="Folder of a class (Healthy or Tumor), where its name is not a known spelling.",
)
@click.option(
    "--split-by",
    type=click.Choice(["group", "file"]),
    default="group",
    show_default=True,
    help="`group` keeps duplicates in one split; `file` is a plain random split, and leaky.",
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
    type=click.FloatRange(min=0, min_open=True),
    default=100,
    show_default=True,
    help="Wanted size of a shard, MiB.",
)
@_seed
@_workers
@_max_error_rate
@_overwrite
@_quiet
def shard(
    src: Path,
    out: Path,
    size: int,
    clahe: bool,
    clahe_clip: float,
    clahe_grid: int,
    classes: dict[str, str],
    split_by: str,
    fractions: tuple[float, float, float],
    shard_mb: float,
    seed: int,
    workers: int | None,
    max_error_rate: float,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Make TFRecords from a folder of images.

    SRC (default data/raw) holds one folder for each class, such as `Brain Tumor` and `Healthy`, with
    JPEG, PNG and TIFF files at any depth. Each image is decoded to grey, equalised (CLAHE), resized,
    and written to OUT (default tfrecords): shards for train, validation and test, a manifest with
    one row a file, good or bad, and dataset.json. Duplicates and near duplicates stay in one split.

    A run that was killed goes on where it stopped when the same command is given again. Files that
    cannot be read are listed in the manifest with a reason; the exit code is then 3.

    \b
    Examples:
      tumorbatch shard
      tumorbatch shard scans/ tfrecords/ --class Healthy=controls --class Tumor=patients
      tumorbatch shard --split-by file data/raw tfrecords-leaky
    """
    with _session(quiet, "The work so far is kept: the same command goes on from there."):
        from tumorbatch.preprocess import stage
        from tumorbatch.preprocess.splits import Fractions
        from tumorbatch.preprocessing import Preprocessing

        config = stage.Config(
            preprocessing=Preprocessing(
                size=size, clahe=clahe, clahe_clip=clahe_clip, clahe_grid=clahe_grid
            ),
            classes=classes,
            split_by=split_by,
            fractions=Fractions(*fractions),
            seed=seed,
            shard_bytes=max(1, int(shard_mb * (1 << 20))),
            max_error_rate=max_error_rate,
            overwrite=overwrite,
            **_given(workers=workers),
        )
        report = stage.run(src, out, config)
        if not quiet:
            from tumorbatch.reports import shard_report

            click.echo(shard_report(report, out))
    sys.exit(ExitCode.SOME_ERRORS if report.errors and not report.unchanged else ExitCode.OK)


@main.command()
@click.argument("tfrecords", type=_PATH, default=Path("tfrecords"))
@click.option(
    "--arch", type=click.Choice(["cnn1", "cnn2"]), required=True, help="The network to train."
)
@click.option("--out", type=_PATH, help="Folder of the bundle.  [default: models/ARCH]")
@click.option("--epochs", type=int, default=40, show_default=True, help="At most this many.")
@click.option(
    "--patience",
    type=int,
    default=8,
    show_default=True,
    help="Stop after so many epochs without a lower validation loss.",
)
@click.option("--batch-size", type=int, default=32, show_default=True, help="Images a step.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True, help="Of Adam.")
@click.option("--shear", type=float, default=0.2, show_default=True, help="Largest shear (tangent).")
@click.option("--zoom", type=float, default=0.2, show_default=True, help="Largest zoom, relative.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the images.")
@click.option("--augment/--no-augment", default=True, show_default=True, help="All three, or none.")
@_device
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "mixed_float16"]),
    default="auto",
    show_default=True,
    help="`auto`: mixed_float16 on a GPU with tensor cores, float32 elsewhere.",
)
@click.option(
    "--xla",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="`auto`: on a GPU, not on a CPU, where it slows training down.",
)
@_seed
@_overwrite
@_quiet
def train(
    tfrecords: Path,
    arch: str,
    out: Path | None,
    epochs: int,
    patience: int,
    batch_size: int,
    learning_rate: float,
    shear: float,
    zoom: float,
    flip: bool,
    augment: bool,
    device: str,
    precision: str,
    xla: str,
    seed: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Train a network on TFRecords.

    Reads the shards in TFRECORDS (default tfrecords), trains until the validation loss stops
    falling, keeps the best weights, and writes a model bundle: weights, model.json, history,
    metrics on validation and test, and a model card.

    \b
    Examples:
      tumorbatch train --arch cnn1
      tumorbatch train --arch cnn2 --epochs 60 --out models/cnn2-long
      tumorbatch train --arch cnn1 tfrecords-leaky --out models/cnn1-leaky
    """
    with _session(quiet, "Nothing was published: the same command starts again."):
        from tumorbatch.runtime import load_tensorflow

        load_tensorflow()
        from tumorbatch.train import stage
        from tumorbatch.train.feed import Augmentation
        from tumorbatch.train.fit import Schedule

        config = stage.Config(
            architecture=arch,
            schedule=Schedule(epochs, patience, batch_size, learning_rate, seed),
            augmentation=Augmentation(shear, zoom, flip) if augment else None,
            device=device,
            precision=precision,
            xla=xla,
            overwrite=overwrite,
        )
        out = out or Path("models") / arch
        report = stage.run(tfrecords, out, config)
        if not quiet:
            from tumorbatch.reports import train_report

            click.echo(train_report(report, out))


@main.command()
@click.argument("folder", type=_PATH)
@click.argument("out", type=_PATH)
@click.option(
    "--model",
    type=_PATH,
    help="Model bundle.  [default: the one under models/ with the best validation AUC]",
)
@_workers
@click.option("--batch-size", type=int, default=32, show_default=True, help="Images a forward pass.")
@_device
@_max_error_rate
@_overwrite
@_quiet
def infer(
    folder: Path,
    out: Path,
    model: Path | None,
    workers: int | None,
    batch_size: int,
    device: str,
    max_error_rate: float,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Predict every file in FOLDER, recursively, into the Parquet file OUT.

    One row for every file, sorted by path: status, label, probability of Tumor, logit, size, sha256,
    and more. Files that cannot be read get a row with the reason; the exit code is then 3. OUT
    appears when it is complete, and never half-written; OUT.json beside it says what made it.

    \b
    Examples:
      tumorbatch infer scans/ out.parquet
      tumorbatch infer scans/ out.parquet --model models/cnn1 --quiet
    """
    with _session(quiet, "Nothing was published: the same command starts again."):
        from tumorbatch import bundle
        from tumorbatch.infer import stage

        config = stage.Config(
            batch_size=batch_size,
            device=device,
            max_error_rate=max_error_rate,
            overwrite=overwrite,
            **_given(workers=workers),
        )
        report = stage.run(folder, out, model or bundle.best(Path("models")), config)
        if not quiet:
            from tumorbatch.reports import infer_report

            click.echo(infer_report(report, out))
    sys.exit(ExitCode.SOME_ERRORS if report.errors else ExitCode.OK)


@main.command()
@click.argument("file", type=_PATH)
@click.option("--rows", type=click.IntRange(min=0), default=20, show_default=True, help="At most.")
@click.option("--errors", is_flag=True, help="Only files without a prediction.")
def show(file: Path, rows: int, errors: bool) -> None:
    """Print a predictions file: what made it, and its first rows.

    \b
    Examples:
      tumorbatch show out.parquet
      tumorbatch show out.parquet --errors --rows 100
    """
    with _session(False, ""):
        from tumorbatch.reports import predictions_table

        predictions_table(file, rows, errors)
