"""Options that several commands share: one name, one order, one wording."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import click.shell_completion

from tumorbatch.checks import IMAGE_FORMATS, MAX_SEED, sorted_formats
from tumorbatch.cli.command import read_config
from tumorbatch.cli.command import save_config as remember_config
from tumorbatch.cli.session import LOG_FORMATS, be_verbose, choose_format
from tumorbatch.errors import ConfigError
from tumorbatch.object_path import Location, is_uri, location
from tumorbatch.parts import Part
from tumorbatch.preprocessing_config import VARIANTS
from tumorbatch.runtime import DEVICES, PRECISIONS, SWITCHES
from tumorbatch.scheduler import parse_part
from tumorbatch.tta import TTA

Callback = TypeVar("Callback", bound=Callable[..., Any])


class LocalPath(click.Path):
    """A path in a file system; what names an object in a store is refused."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """Return `value` as a Path."""
        if isinstance(value, str) and is_uri(value):
            self.fail(
                f"{value} is in an object store. Give a folder or file on a disk.", param, context
            )
        return super().convert(value, param, context)


class LocationType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.2
    """A path in a file system, or an object's URI."""

    name = "path"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Location:
        """Return a Path or an ObjectPath."""
        try:
            return location(value) if isinstance(value, str) else value
        except ConfigError as error:
            self.fail(str(error), param, context)


PATH = LocalPath()
LOCATION = LocationType()
PIXELS = "TUMORBATCH_PIXELS"  # `tumorbatch.native` reads it


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.2
    """A time span, `90`, `90s`, `5m`, `2h` or `1d`; converted to float seconds.

    Args:
        zero: Whether 0 is allowed.
        most: The longest that is allowed, seconds; None: no limit.
    """

    name = "duration"
    _UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}  # noqa: RUF012 - never changed

    def __init__(self, zero: bool = False, most: float | None = None) -> None:
        self.zero = zero
        self.most = most

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        """Return `value` in seconds, or fail with what can be typed."""
        if isinstance(value, float):
            return value
        parts = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smhd]?)", str(value).strip().lower(), re.ASCII)
        if parts is None:
            self.fail(f"{value!r} is not a duration such as 90s, 5m, 2h or 1d.", param, context)
        seconds = float(parts[1]) * self._UNITS[parts[2]]
        if seconds == 0 and not self.zero:
            self.fail(f"{value!r} must be longer than 0.", param, context)
        if seconds == float("inf") or (self.most is not None and seconds > self.most):
            limit = "too long" if self.most is None else f"longer than {self.most:g}s"
            self.fail(f"{value!r} is {limit}.", param, context)
        return seconds


def _parse_classes(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    for value in values:
        name, separator, folder = value.partition("=")
        if not (name and separator and folder):
            raise click.BadParameter(f"{value!r} is not of the form NAME=FOLDER.")
        same = (other_name for other_name in classes if other_name.casefold() == name.casefold())
        classes.setdefault(next(same, name), []).append(folder)
    return classes


def _parse_formats(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = [name.strip().lower() for name in value.split(",")]
    unknown = [name for name in names if name not in IMAGE_FORMATS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(IMAGE_FORMATS)}.")
    return tuple(sorted_formats(names))


def _parse_variants(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    names = tuple(name.strip().lower() for name in value.split(","))
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(VARIANTS)}.")
    if len(set(names)) < len(names):
        raise click.BadParameter(f"{value!r} names a variant twice.")
    return names


def _parse_part(_: click.Context, __: click.Parameter, value: str | None) -> Part | None:
    if value is None:
        return None
    try:
        return parse_part(value)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _choose_log_format(_: click.Context, __: click.Parameter, value: str) -> None:
    choose_format(value)


def complete_models(
    _: click.Context, __: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    """Return what a shell offers for a model: names under models/, and folders."""
    from tumorbatch import bundle

    names = [name for name in bundle.names() if name.startswith(incomplete)]
    items = [click.shell_completion.CompletionItem(name) for name in names]
    return [*items, click.shell_completion.CompletionItem(incomplete, type="dir")]


def _choose_verbosity(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        be_verbose()


def _force_pixels(_: click.Context, __: click.Parameter, value: str) -> None:
    os.environ[PIXELS] = value  # worker processes inherit it


# What several commands share, in the order in which each command lists it, after its own options.
# `tests/cli/test_options.py` checks the order, the names and the words.

classes = click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME=FOLDER",
    callback=_parse_classes,
    help="Folder of a class (Healthy or Tumor) whose name is not a known spelling. Several folders of "
    "one class are joined; each is its subclass in the manifest and in reports.",
)
size = click.option(
    "--size", type=int, default=150, show_default=True, help="Side of the resized images, pixels."
)
clahe_clip = click.option(
    "--clahe-clip", type=float, default=2.0, show_default=True, help="CLAHE clip limit."
)
clahe_grid = click.option(
    "--clahe-grid", type=int, default=16, show_default=True, help="CLAHE tiles along each side."
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
    help="With --groups: accept a table that names missing files, or that lacks some files. Each file "
    "without a patient is then its own patient.",
)
variants = click.option(
    "--variants",
    metavar="NAME,...",
    callback=_parse_variants,
    help="Variants of each image in the records, the first in image/raw: `clahe`, equalised; `plain`, "
    "resized only; `normalised`, the head cut out and its grey values stretched.  [default: clahe]",
)
variant = click.option(
    "--variant",
    "variants",
    metavar="NAME[,NAME,NAME]",
    callback=_parse_variants,
    help="Variant of the images to train on (see `shard --variants`), or three of them as the three "
    "channels of the input.  [default: the first in the records]",
)
weights = click.option(
    "--weights",
    metavar="imagenet|none|FILE|DIR",
    help="Where the convolutions of resnet50, mobilenetv2 and densenet121 start: Keras' ImageNet "
    "weights, downloaded once; random; an HDF5 file; or a folder from `weights fetch`.  [default: "
    "imagenet]",
)
epochs = click.option(
    "--epochs", type=int, default=40, show_default=True, help="Largest number of epochs."
)
patience = click.option(
    "--patience",
    type=int,
    default=8,
    show_default=True,
    help="Stop after this many epochs without a higher validation AUC.",
)
learning_rate = click.option(
    "--learning-rate", type=float, default=1e-3, show_default=True, help="Adam's learning rate."
)
tta = click.option(
    "--tta",
    type=click.Choice(TTA),
    help="`flip`: the mean logit of each image and its left-right mirror, for twice the time of the "
    "network.  [default: as in the bundle, where `evaluate --tta` puts it]",
)
batch_size = click.option(
    "--batch-size", type=int, default=32, show_default=True, help="Images per batch."
)
_AUTO = (
    "`auto`: as the scheduler of the array says (Slurm, LSF, Grid Engine, AWS Batch); `auto/N`: for "
    "PBS and Kubernetes, which do not say how many tasks there are."
)
part = click.option(
    "--part",
    metavar="I/N",
    callback=_parse_part,
    help="Compute part I of N only and publish nothing; the command without --part finishes. " + _AUTO,
)
part_of_series = click.option(
    "--part",
    metavar="I/N",
    callback=_parse_part,
    help="Do only every N-th training of --arch all, --seeds or --folds, from the I-th on. " + _AUTO,
)
cache_dir = click.option(
    "--cache-dir",
    type=PATH,
    metavar="DIR",
    help="Folder for copies of what is read from an object store as a whole.  [default: "
    "TUMORBATCH_CACHE, or ~/.cache/tumorbatch]",
)
workers = click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Decoding processes.  [default: the cores that this process may use]",
)
device = click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="`gpu` fails if no GPU can be used; `auto` then takes the CPU.",
)
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="`auto`: mixed_float16 on a GPU with tensor cores, float32 elsewhere. `bfloat16`: for CPUs "
    "with AVX512_BF16 or AMX, after a self-test.",
)
xla = click.option(
    "--xla",
    type=click.Choice(SWITCHES),
    default="auto",
    show_default=True,
    help="`auto`: on for a GPU with tensor cores, off for a CPU, where XLA is slower.",
)
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="TensorFlow's threads.  [default: the cores that this process may use]",
)
pixels = click.option(
    "--pixels",
    type=click.Choice(["auto", "opencv"]),
    default="auto",
    show_default=True,
    envvar=PIXELS,
    expose_value=False,
    callback=_force_pixels,
    help="Library that equalises and resizes: `auto` takes the one in C if it was built, `opencv` "
    "never does. The pixels are the same.",
)
timeout = click.option(
    "--timeout",
    type=Duration(most=86_400),
    default="60s",
    show_default=True,
    help="A file that is still being decoded after this time becomes an error row (90s, 5m, 2h).",
)
formats = click.option(
    "--formats",
    default=",".join(IMAGE_FORMATS),
    metavar="jpeg,png,...",
    callback=_parse_formats,
    help="Image formats whose decoders may run: jpeg, png, tiff, bmp, webp, dicom, nifti. A file in "
    "another one is an error row.  [default: all]",
)
max_error_rate = click.option(
    "--max-error-rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Publish nothing and exit 4 if a larger share of the files cannot be read.",
)
seed = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Seed of all random choices.",
)
named_model = click.option(
    "--model",
    "named",
    type=PATH,
    metavar="MODEL",
    shell_complete=complete_models,
    help="MODEL as an option: the folder of a bundle, or its name under models/.",
)
yes = click.option("--yes", is_flag=True, help="Start without asking, whatever the cost.")
overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace the output if it was made with other settings."
)
config_file = click.option(
    "--config",
    "config_file",
    type=PATH,
    metavar="FILE.toml",
    is_eager=True,
    expose_value=False,
    callback=read_config,
    help="Take options from this file: `batch-size = 64` below a head line with the command's name, "
    "`[infer]`.",
)
save_config = click.option(
    "--save-config",
    type=PATH,
    metavar="FILE.toml",
    expose_value=False,
    callback=remember_config,
    help="Write the options given to this new file, and do nothing else.",
)
dry_run = click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be done, and its cost; do and write nothing.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
log_format = click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default="text",
    show_default=True,
    expose_value=False,
    callback=_choose_log_format,
    help="`json`: one object per line on standard error; the last one has the exit code.",
)
verbose = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_choose_verbosity,
    help="Also log every setting with its origin, and where an error comes from.",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")


def of_a_run(command: Callback) -> Callback:
    """Add the options that end each command's list: settings, receipt, log and silence."""
    for option in (quiet, verbose, log_format, as_json, save_config, config_file):
        command = option(command)
    return command
