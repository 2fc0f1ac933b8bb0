"""The command `train`: train a network on TFRecords."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tumorbatch.architectures import ARCHITECTURES, PRETRAINED
from tumorbatch.cli import options, training_runs
from tumorbatch.cli.command import Command
from tumorbatch.cli.session import session
from tumorbatch.errors import ConfigError
from tumorbatch.folds import FOLDS_BY, MOST
from tumorbatch.object_path import Location
from tumorbatch.parts import Part
from tumorbatch.runtime import SWITCHES
from tumorbatch.train.config import CLASS_WEIGHTS, FEEDS, GROUP_WEIGHTS, KNOWN_IMAGES, RATES
from tumorbatch.train.recipes import BEST, RECIPES, is_chosen, settings

log = logging.getLogger(__name__)

_EVERY = "all"
_FOR_PRETRAINED = ("finetune", "feature")  # beginnings of their options' names


def _name_unproven(recipe: str | None, names: Sequence[str]) -> None:
    """Log the networks for which `best` sets nothing."""
    for name in names:
        if recipe == BEST and not is_chosen(name):
            log.info(
                "--recipe best is the default for %s: nothing else was measured to be better", name
            )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were typed: a recipe's values come before the others' defaults."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {
        name: value
        for name, value in values.items()
        if context.get_parameter_source(name) is not default
    }


def _without_base(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a schedule that a network without a base has."""
    return {name: value for name, value in options.items() if not name.startswith(_FOR_PRETRAINED)}


@click.command(cls=Command)
@click.argument("tfrecords", type=options.LOCATION, default=Path("tfrecords"))
@click.option(
    "--arch",
    type=click.Choice([*ARCHITECTURES, _EVERY]),
    required=True,
    help="The network to train; `all`: one after another, also if one of them fails.",
)
@click.option(
    "-o",
    "--out",
    type=options.PATH,
    help="Folder of the bundle; with --arch all or --seeds, folder of the bundles.  [default: "
    "models/ARCH; models]",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Repeat with this many seeds, from --seed on, as ARCH-seed0, ARCH-seed1, ...",
)
@click.option(
    "--recipe",
    type=click.Choice(RECIPES),
    help="Settings by name; an option that is given too wins. `report`: the report's own, CLAHE and "
    "Adam without weight decay; `best`: what validation preferred for this network (docs/recipes.md). "
    " [default: the defaults of the options below]",
)
@click.option(
    "--folds",
    type=click.IntRange(2, MOST),
    help="Divide training and validation images into K folds, train K networks, each without one fold, "
    "and join them into one bundle. K times the time of training, and of the network for an image.",
    metavar="K",
)
@click.option(
    "--folds-by",
    type=click.Choice(FOLDS_BY),
    help="What stays together: `group`: copies; `shape`: images of one height and width too, so that "
    "the threshold is chosen on images from elsewhere; `both`: 2 K trainings, networks of the first "
    "and the threshold of the second, and measures for images at home and elsewhere.  "
    "[default: group]",
)
@options.variant
@options.weights
@options.epochs
@options.patience
@options.learning_rate
@click.option(
    "--lr-schedule",
    "rate",
    type=click.Choice(RATES),
    help="Course of the learning rate: `cosine` falls to 0 over all epochs, `plateau` falls to a third "
    "when half the patience has passed.  [default: constant]",
)
@click.option(
    "--finetune-epochs",
    type=int,
    help="With pretrained weights: largest number of further epochs that train the convolutions too.  "
    "[default: 20 for resnet50 and densenet121, 0 for mobilenetv2]",
)
@click.option(
    "--finetune-learning-rate", type=float, help="Learning rate of these epochs.  [default: 1e-5]"
)
@click.option(
    "--finetune-batch-norm",
    is_flag=True,
    default=None,
    help="Train the base's batch normalisation too; otherwise it works as in inference.",
)
@click.option(
    "--feature-copies",
    type=click.IntRange(min=0),
    help="While the base is frozen: compute its features of so many randomly changed copies of each "
    "image once, and train on these in every epoch, which takes less time if they are fewer than "
    "the epochs; 0: new changes in every epoch.  [default: 0]",
)
@click.option(
    "--weight-decay", type=float, help="AdamW's weight decay, for kernels only.  [default: 0.05]"
)
@click.option(
    "--dropout",
    type=float,
    help="Dropout of the last features, in addition to the network's own.  [default: 0]",
)
@click.option("--label-smoothing", type=float, help="Label smoothing, 0 to 1.  [default: 0]")
@click.option(
    "--class-weights",
    type=click.Choice(CLASS_WEIGHTS),
    help="`balanced`: both classes have the same weight in the loss.  [default: none]",
)
@click.option(
    "--group-weights",
    type=click.Choice(GROUP_WEIGHTS),
    help="What an image weighs in the loss: `sqrt`: 1 / square root of the images in its duplicate "
    "group; `equal`: 1 / their number, so that an original counts once, however many copies it has; "
    "scaled to a mean of 1.  [default: none]",
)
@click.option("--shear", type=float, default=0.2, show_default=True, help="Largest shear (tangent).")
@click.option("--zoom", type=float, default=0.2, show_default=True, help="Largest relative zoom.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the images.")
@click.option(
    "--rotation", type=float, default=0.0, show_default=True, help="Largest rotation, degrees."
)
@click.option(
    "--shift", type=float, default=0.0, show_default=True, help="Largest shift, as a share of the side."
)
@click.option(
    "--contrast",
    type=float,
    default=0.0,
    show_default=True,
    help="Largest relative change of contrast.",
)
@click.option(
    "--brightness",
    type=float,
    default=0.0,
    show_default=True,
    help="Largest change of brightness, as a share of white.",
)
@click.option(
    "--augment/--no-augment", default=True, show_default=True, help="Apply these random changes."
)
@click.option(
    "--feed",
    type=click.Choice(FEEDS),
    default="auto",
    show_default=True,
    help="`ram`: images in memory, shuffled as a whole; `stream`: shards read in each epoch, for sets "
    "larger than the memory; `auto`: `ram` if they fit.",
)
@click.option(
    "--stream",
    is_flag=True,
    help="Read shards in S3 (s3://bucket/set) from there in each epoch, by tensorflow-io, instead of "
    "copying them first. Needs the extra `io`.",
)
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of GPUs of this machine that share each batch; XLA is off with more than one.",
)
@click.option(
    "--onednn",
    type=click.Choice(SWITCHES),
    default="auto",
    show_default=True,
    help="Intel's kernels on the CPU; `auto`: on, unless TF_ENABLE_ONEDNN_OPTS is set.",
)
@click.option(
    "--steps-per-execution",
    type=click.IntRange(min=1),
    help="Steps between two returns to Python; checkpoints and signals wait for them.  [default: 8 on "
    "a GPU, 1 on a CPU]",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Give the same bits each time, on one machine with the same versions; slower.",
)
@click.option(
    "--known-images",
    type=click.Choice(KNOWN_IMAGES),
    default="auto",
    show_default=True,
    help="Whether the bundle carries hashes and signatures of its training and validation images, by "
    "which `infer` flags them and their copies; `auto`: not where one of them is DICOM, since they "
    "show whether a person was in the training set.",
)
@click.option(
    "--checkpoint-every",
    type=options.Duration(),
    default="5m",
    show_default=True,
    help="Time between checkpoints inside an epoch; the end of each epoch and a signal write one too.",
)
@click.option(
    "--tensorboard", type=options.PATH, help="Write TensorBoard's event files to this folder."
)
@options.part_of_series
@options.batch_size
@options.cache_dir
@options.device
@options.precision
@options.xla
@options.threads
@options.seed
@options.dry_run
@options.overwrite
@options.of_a_run
def train(
    tfrecords: Location,
    arch: str,
    out: Path | None,
    seeds: int,
    folds: int | None,
    folds_by: str | None,
    seed: int,
    augment: bool,
    shear: float,
    zoom: float,
    flip: bool,
    rotation: float,
    shift: float,
    contrast: float,
    brightness: float,
    recipe: str | None,
    variants: tuple[str, ...],
    weights: str | None,
    cache_dir: Path | None,
    feed: str,
    stream: bool,
    device: str,
    gpus: int,
    precision: str,
    xla: str,
    threads: int | None,
    onednn: str,
    steps_per_execution: int | None,
    deterministic: bool,
    known_images: str,
    checkpoint_every: float,
    tensorboard: Path | None,
    part: Part | None,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **schedule: Any,
) -> None:
    """Train a network on TFRecords.

    Reads the shards in TFRECORDS (default tfrecords), trains until the validation AUC stops rising,
    keeps the best weights, and writes a model bundle: weights, model.json, history and curves, metrics
    on validation and test, and a model card. TFRECORDS can be in an object store, as s3://bucket/set:
    it is first copied to --cache-dir, and each shard is checked.

    After a crash or an interruption, the same command continues from the last checkpoint; with
    --deterministic the result is identical, bit for bit, to that of an undisturbed training.

    With --part, the tasks of a cluster share the trainings of --arch all and --seeds, or those of
    --folds; the command without --part then does what is missing. See docs/cluster.md.

    With --folds, each training and validation image is held out by one network, and temperature and
    threshold are chosen on these predictions. The test split stays untouched. Finished networks wait in
    .OUT.folds/ until all are there.

    \b
    Examples:
      tumorbatch train --arch cnn1
      tumorbatch train --arch all --dry-run
      tumorbatch train --arch mobilenetv2 --weights mobilenet_v2.weights.h5
      tumorbatch train --arch mobilenetv2 --variant plain
      tumorbatch train --arch mobilenetv2 --recipe best --epochs 6
      tumorbatch train --arch densenet121 --variant clahe,plain,normalised
      tumorbatch train --arch all --weights none --seeds 3
      tumorbatch train --arch all --seeds 3 --part auto
      tumorbatch train --arch mobilenetv2 --folds 5 --folds-by both
      tumorbatch train --arch cnn1 tfrecords-leaky --out models/cnn1-leaky
    """
    with session(quiet, "Nothing was published; the same command continues from the checkpoint."):
        from tumorbatch.staging import shard_folder
        from tumorbatch.train.config import Augmentation, Config
        from tumorbatch.train.config import schedule as complete_schedule
        from tumorbatch.workflows import train_folds, train_many

        _name_unproven(recipe, names := ARCHITECTURES if arch == _EVERY else (arch,))
        one = arch != _EVERY and seeds == 1
        run = train_folds.trainer(folds, folds_by, part if one else None)
        augmentation = Augmentation(shear, zoom, flip, rotation, shift, contrast, brightness)

        def config(name: str, number: int) -> Config:
            # With `all`, options for pretrained networks are not passed to the others.
            to_all = arch != _EVERY or name in PRETRAINED
            given = _given(schedule)
            changes = given if to_all else _without_base(given)
            return Config(
                architecture=name,
                schedule=complete_schedule(name, weights, recipe, seed=number, **changes),
                augmentation=augmentation if augment else None,
                weights=weights if to_all else None,
                variants=variants or settings(recipe, name).variants,
                feed=feed,
                device=device,
                precision=precision,
                xla=xla,
                threads=threads,
                onednn=onednn,
                gpus=gpus,
                steps_per_execution=steps_per_execution or 0,
                deterministic=deterministic,
                known_images=known_images,
                checkpoint_minutes=checkpoint_every / 60,
                overwrite=overwrite,
                tensorboard=tensorboard,
                shards=str(tfrecords) if stream else "",
            )

        folder = shard_folder(tfrecords, cache_dir, stream)
        ending = f"-folds{folds}" if folds else ""
        if one and not dry_run:
            _refuse(part if folds is None else None)
            out = out or Path("models") / f"{arch}{ending}"
            receipt = run(folder, out, config(arch, seed))
            training_runs.print_receipt(receipt, out, folder, as_json, quiet)
            return
        trainings = {
            f"{name}{ending}" if seeds == 1 else f"{name}{ending}-seed{number}": config(name, number)
            for name in names
            for number in range(seed, seed + seeds)
        }
        chosen = dict(part.share(list(trainings.items()))) if part and not one else trainings
        if dry_run:
            training_runs.plan(folder, out, one, chosen, folds, as_json)
            return
        outcomes = train_many.run(folder, out or Path("models"), chosen, run)
        code = training_runs.print_series(outcomes, folder, as_json, quiet)
    sys.exit(code)


def _refuse(part: Part | None) -> None:
    """Raise `ConfigError` for --part where there is one training."""
    if part is not None:
        raise ConfigError(
            "--part deals out the trainings of --arch all, --seeds or --folds, and this command has "
            "one. Leave it out."
        )
