"""Options that several commands share."""

import os
from pathlib import Path

import click

from tumorbatch.checks import MAX_SEED

PATH = click.Path(path_type=Path)
PIXELS = "TUMORBATCH_PIXELS"  # `tumorbatch.native` reads it


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


def _force_pixels(_: click.Context, __: click.Parameter, value: str) -> None:
    os.environ[PIXELS] = value  # worker processes inherit it


quiet = click.option("--quiet", is_flag=True, help="Print nothing but warnings and errors.")
seed = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Seed of all choices.",
)
overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace what is there, if it was made differently."
)
workers = click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Decoding processes. Default: the cores that this process may use.",
)
max_error_rate = click.option(
    "--max-error-rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Publish nothing and exit 4 when a larger share of the files cannot be read.",
)
timeout = click.option(
    "--timeout",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds after which a file that is still being decoded becomes an error row.",
)
pixels = click.option(
    "--pixels",
    type=click.Choice(["auto", "opencv"]),
    default="auto",
    show_default=True,
    envvar=PIXELS,
    expose_value=False,
    callback=_force_pixels,
    help="Who equalises and resizes: `auto` takes the library in C where it was built, `opencv` never. "
    "The pixels are the same.",
)
log_format = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="`json`: one object a line on standard error.",
)
precision = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "mixed_float16"]),
    default="auto",
    show_default=True,
    help="`auto`: mixed_float16 on a GPU with tensor cores, float32 elsewhere.",
)
xla = click.option(
    "--xla",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="`auto`: on a GPU with tensor cores, not on a CPU, where it slows things down.",
)
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="TensorFlow's threads.  [default: the cores that this process may use]",
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="`gpu` fails where there is no usable one; `auto` then takes the CPU.",
)

classes = click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME=FOLDER",
    callback=_parse_classes,
    help="Folder of a class (Healthy or Tumor), where its name is not a known spelling.",
)
patients = click.option(
    "--groups",
    "patients",
    type=PATH,
    metavar="FILE",
    help="CSV or Parquet table with the columns path and patient: files of one patient stay in one "
    "split.",
)
allow_unmatched = click.option(
    "--allow-unmatched",
    is_flag=True,
    help="With --groups: take a table that names files which are not there, or misses some. Each file "
    "without a patient then stands for itself.",
)
yes = click.option("--yes", is_flag=True, help="Start without asking, whatever it costs.")
