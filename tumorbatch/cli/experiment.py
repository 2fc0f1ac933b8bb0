"""Experiments: the same trainings in two arms that differ in one thing."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tumorbatch import shardset
from tumorbatch.architectures import ARCHITECTURES
from tumorbatch.atomic import make_folder, remove_temporaries, write_bytes, write_json
from tumorbatch.checks import given
from tumorbatch.cli import options
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.errors import ExitCode
from tumorbatch.files import printable
from tumorbatch.lock import output_lock
from tumorbatch.runtime import versions
from tumorbatch.shardset import DATASET, Dataset
from tumorbatch.workflows import checks
from tumorbatch.workflows import steps as chain
from tumorbatch.workflows.steps import Parts, ShardsPart, TrainingPart

if TYPE_CHECKING:
    from tumorbatch.evaluation.answers import Scored
    from tumorbatch.evaluation.experiment import Compared, Trained
    from tumorbatch.preprocess.shard import Config as ShardConfig
    from tumorbatch.train.config import Config as TrainConfig

log = logging.getLogger(__name__)

RESULT = "result.json"
FIGURE = "difference.png"
PAGE = "report.html"
MODELS = "models"
SCHEMA_VERSION = 1
_FIRST, _SECOND = "with CLAHE", "without CLAHE"
_ARMS = {_FIRST: "clahe", _SECOND: "plain"}  # name in words, name of files


@click.group()
def experiment() -> None:
    """Ask the data a question: two arms that differ in one thing, repeated over seeds.

    \b
    Examples:
      tumorbatch experiment clahe
      tumorbatch experiment clahe --help
    """


@experiment.command()
@click.argument("src", type=options.PATH, default=Path("data/raw"))
@click.option(
    "--arch", type=click.Choice(ARCHITECTURES), default="cnn1", show_default=True, help="The network."
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Trainings in each arm, with the seeds --seed, --seed + 1, ...; fewer than three say little.",
)
@click.option("--weights", metavar="imagenet|none|FILE", help="As in `train`.  [default: imagenet]")
@click.option("--epochs", type=int, default=40, show_default=True, help="At most this many.")
@click.option("--patience", type=int, default=8, show_default=True, help="As in `train`.")
@click.option("--batch-size", type=int, default=32, show_default=True, help="Images a step.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True, help="Of Adam.")
@click.option("--size", type=int, default=150, show_default=True, help="Side of the images, pixels.")
@click.option("--clahe-clip", type=float, default=2.0, show_default=True, help="CLAHE clip limit.")
@click.option(
    "--clahe-grid", type=int, default=16, show_default=True, help="CLAHE tiles along each side."
)
@options.classes
@click.option(
    "--split-by",
    type=click.Choice(shardset.SPLIT_BY),
    default="group",
    show_default=True,
    help="As in `shard`; the split is the same in both arms, and made with --seed.",
)
@options.patients
@options.workers
@options.device
@click.option(
    "--out",
    type=options.PATH,
    default=Path("results/experiment-clahe"),
    show_default=True,
    help="Folder of everything that this makes.",
)
@options.seed
@options.yes
@click.option("--overwrite", is_flag=True, help="Make all parts anew.")
@options.quiet
def clahe(
    src: Path,
    arch: str,
    seeds: int,
    weights: str | None,
    size: int,
    clahe_clip: float,
    clahe_grid: int,
    classes: dict[str, str],
    split_by: str,
    patients: Path | None,
    workers: int | None,
    device: str,
    out: Path,
    seed: int,
    yes: bool,
    overwrite: bool,
    quiet: bool,
    **schedule: Any,
) -> None:
    """Does equalisation help? Trainings with CLAHE and without, on the same split, with the same seeds.

    Makes two shard sets of SRC (default data/raw), trains the network on each with several seeds, and
    compares them on the test images. OUT gets report.html, difference.png and result.json: difference
    of AUC, accuracy, sensitivity and specificity, with an interval that counts both the chance of the
    seed and the chance of the images.

    It says what that costs and asks before it starts; without a terminal, --yes is needed. Killed or
    interrupted, the same command goes on: no shard set and no training is made twice.

    \b
    Examples:
      tumorbatch experiment clahe
      tumorbatch experiment clahe data/raw --arch mobilenetv2 --seeds 3 --yes
    """
    with session(quiet, "What is finished is kept: the same command does the rest."):
        from tumorbatch.preprocess.shard import Config as ShardConfig
        from tumorbatch.preprocessing_config import Preprocessing
        from tumorbatch.train.config import Config as TrainConfig
        from tumorbatch.train.config import schedule as of

        config = Config(
            shards=ShardConfig(
                preprocessing=Preprocessing(size=size, clahe_clip=clahe_clip, clahe_grid=clahe_grid),
                classes=classes,
                split_by=split_by,
                patients=patients,
                seed=seed,
                overwrite=overwrite,
                **given(workers=workers),
            ),
            training=TrainConfig(
                architecture=arch,
                schedule=of(arch, weights, seed=seed, **schedule),
                weights=weights,
                device=device,
                overwrite=overwrite,
            ),
            seeds=seeds,
            yes=yes,
        )
        found = run(src, out, config)
        if not quiet:
            for one in found:
                say(one.told(_FIRST, _SECOND))
            if split_by == "file":
                say("LEAKY: copies of test images were trained on; the figures are too good.")
            say(f"{printable(str(out / PAGE))} has the details.")
    sys.exit(ExitCode.OK)


@dataclass(frozen=True, slots=True)
class Config:
    """The experiment.

    Attributes:
        shards: Of the arm with CLAHE; the other has it off.
        training: Of the first seed; the others follow.
        seeds: Trainings in each arm.
        yes: Start without asking.
    """

    shards: "ShardConfig"
    training: "TrainConfig"
    seeds: int
    yes: bool = False

    def parts(self, source: Path, out: Path) -> Parts:
        """Both shard sets, and all trainings, seed by seed."""
        plain = replace(self.shards.preprocessing, clahe=False)
        configs = {_FIRST: self.shards, _SECOND: replace(self.shards, preprocessing=plain)}
        shards = {
            arm: ShardsPart(source, out / f"tfrecords-{_ARMS[arm]}", of) for arm, of in configs.items()
        }
        trainings = []
        for number in range(self.seeds):
            seed = self.training.schedule.seed + number
            config = replace(self.training, schedule=replace(self.training.schedule, seed=seed))
            trainings += [
                TrainingPart(shards[arm].out, out / MODELS / f"{_ARMS[arm]}-seed{seed}", config)
                for arm in _ARMS
            ]
        return Parts(list(shards.values()), trainings)


def run(source: Path, out: Path, config: Config) -> "list[Compared]":
    """Make what is missing, compare the arms, and write the result to `out`.

    Raises:
        TumorBatchError: As the stages; `ConfigError` without consent to the cost, where `out` holds
            another experiment, or where the arms would not have the same split.
    """
    from tumorbatch.evaluation import experiment as analysis
    from tumorbatch.preprocess.classes import find_sources
    from tumorbatch.statistics.intervals import REPLICATES

    files = find_sources(source, config.shards.classes)
    make_folder(out)
    with output_lock(out, out / ".lock"):
        names = {RESULT, FIGURE, PAGE}
        parts = config.parts(source, out)
        checks.refuse_foreign(out, {*names, MODELS, *(part.out.name for part in parts.shards)})
        remove_temporaries(out, *names)
        if parts.missing:
            chain.confirmed(parts.missing, _cost(parts, files, config), config.yes)
        first, second = (chain.make_shards(part) for part in parts.shards)
        # Groups and splits come from the pixels before equalisation; should that ever change, the arms
        # would be judged on other images.
        checks.refuse_other_images(parts.shards[0].out, parts.shards[1].out, same_split=True)
        make_folder(out / MODELS)
        models = [chain.make_training(part).model_id for part in parts.trainings]
        arms, test = _answered(parts)
        found = analysis.compare(arms[0], arms[1], test.labels, test.groups, REPLICATES, 0)
        value = _result(found, config, (first, second), parts, models, test.group_count)
        _publish(out, found, value, test.n, config)
    return found


def _cost(parts: Parts, files: Sequence[Any], config: Config) -> Any:
    from tumorbatch.workflows import cost as costs

    shards = config.shards
    total = costs.Cost()
    for part in parts.shards:
        if part.missing:
            total += chain.shards_cost(files, part.config.preprocessing, shards.workers)
    missing = [part for part in parts.trainings if part.missing]
    if missing:
        size = shards.preprocessing.size
        images = round(len(files) * (shards.fractions.train + shards.fractions.validation))
        finished = [part for part in parts.trainings if not part.missing]
        speed = chain.speed(finished, config.training, size)
        log.info("%s: %.0f images/s, %s", config.training.architecture,
                 speed.images_per_second, speed.source)  # fmt: skip
        for training in missing:
            total += chain.training_cost(training, images, size, speed)
    return total


def _answered(parts: Parts) -> "tuple[list[list[Trained]], Scored]":
    """For each arm the answers of its trainings, and the test split; images in one order for all."""
    from tumorbatch.evaluation.experiment import answered

    arms: list[list[Trained]] = [[] for _ in _ARMS]
    for number, part in enumerate(parts.trainings):
        trained, test = answered(part.out, part.tfrecords, part.config.device)
        arms[number % len(_ARMS)].append(trained)
        chain.forget()
    return arms, test


def _result(
    found: "Sequence[Compared]",
    config: Config,
    datasets: tuple[Dataset, Dataset],
    parts: Parts,
    models: Sequence[str],
    groups: int,
) -> dict[str, Any]:
    """The content of result.json."""
    from tumorbatch.statistics.intervals import REPLICATES

    training = config.training
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": "clahe",
        "arms": list(_ARMS),
        "preprocessing": [of.preprocessing.to_dict() for of in datasets],
        "dataset_sha256": [shardset.file_sha256(part.out / DATASET) for part in parts.shards],
        "split_by": datasets[0].split_by,
        "leaky": datasets[0].leaky,
        "split_seed": datasets[0].seed,
        "counts": datasets[0].counts,
        "groups_in_test": groups,
        "architecture": training.architecture,
        "weights": _started(training.start),
        "schedule": asdict(training.schedule),
        "augmentation": asdict(training.augmentation) if training.augmentation else None,
        "seeds": [part.config.schedule.seed for part in parts.trainings[:: len(_ARMS)]],
        "models": list(models),
        "replicates": REPLICATES,
        "figures": {one.name: one.to_dict() for one in found},
        "versions": versions("keras", "tensorflow", "numpy", "scipy", "scikit-learn"),
    }


def _started(start: str) -> str:
    """Where the weights began, in words; of a file its name alone."""
    known = {"none": "from random weights", "imagenet": "from ImageNet weights"}
    return known.get(start) or f"from the weights in {printable(Path(start).name)}"


def _publish(
    out: Path, found: "Sequence[Compared]", value: dict[str, Any], n: int, config: Config
) -> None:
    from tumorbatch.evaluation import experiment_page
    from tumorbatch.evaluation.compare import protocol
    from tumorbatch.report import style

    schedule = config.training.schedule
    seeds = value["seeds"]
    equalised = config.shards.preprocessing
    setup = [
        ("network", f"{config.training.architecture}, {_started(config.training.start)}"),
        ("training", f"at most {schedule.epochs} epochs, patience {schedule.patience}, batches of "
         f"{schedule.batch_size}, learning rate {schedule.learning_rate:g}"),
        ("seeds", ", ".join(map(str, seeds))),
        ("images", f"{equalised.size} x {equalised.size} pixels"),
        (_FIRST, f"clip limit {equalised.clahe_clip:g}, {equalised.clahe_grid} x "
         f"{equalised.clahe_grid} tiles, before resizing"),
        ("split", f"by {value['split_by']}, seed {value['split_seed']}"
         + (": leaky, copies of test images are trained on" if value["leaky"] else "")),
        *((f"images in {split}", ", ".join(f"{number:,} {name}" for name, number in of.items()))
          for split, of in value["counts"].items()),
    ]  # fmt: skip
    png = style.png(experiment_page.draw(found, _FIRST, _SECOND))
    split = protocol(value["split_by"], value["leaky"])
    title = f"Does CLAHE help {config.training.architecture}?"
    title += " (LEAKY split)" if value["leaky"] else ""
    html = experiment_page.page(
        title,
        found,
        _FIRST,
        _SECOND,
        split,
        setup,
        n,
        value["groups_in_test"],
        value["replicates"],
        png,
    )
    write_bytes(out / FIGURE, png)
    write_bytes(out / PAGE, html.encode())
    write_json(out / RESULT, value)
