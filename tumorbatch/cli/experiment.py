"""The command `experiment`: the same trainings in two arms that differ in one thing."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from tumorbatch.architectures import ARCHITECTURES
from tumorbatch.checks import only_given
from tumorbatch.cli import options
from tumorbatch.cli.command import Command
from tumorbatch.cli.consent import consent_from_terminal
from tumorbatch.cli.console import say
from tumorbatch.cli.session import session
from tumorbatch.dataset_shape import SPLIT_BY
from tumorbatch.errors import ExitCode
from tumorbatch.files import printable


@click.group()
def experiment() -> None:
    """Run an experiment: trainings in two arms that differ in one setting, over several seeds.

    \b
    Examples:
      tumorbatch experiment clahe
      tumorbatch experiment clahe --help
    """


@experiment.command(cls=Command)
@click.argument("src", type=options.PATH, default=Path("data/raw"))
@click.option(
    "--arch", type=click.Choice(ARCHITECTURES), default="cnn1", show_default=True, help="The network."
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Trainings in each arm, with the seeds --seed, --seed + 1, ...; three or more are useful.",
)
@click.option(
    "--split-by",
    type=click.Choice(SPLIT_BY),
    default="group",
    show_default=True,
    help="As in `shard`; both arms have the same split, made with --seed.",
)
@click.option(
    "-o",
    "--out",
    type=options.PATH,
    default=Path("results/experiment-clahe"),
    show_default=True,
    help="Folder of the shard sets, the models and the result.",
)
@options.classes
@options.size
@options.clahe_clip
@options.clahe_grid
@options.patients
@options.allow_unmatched
@options.weights
@options.epochs
@options.patience
@options.learning_rate
@options.batch_size
@options.workers
@options.device
@options.seed
@options.yes
@options.overwrite
@options.of_a_run
def clahe(
    src: Path,
    arch: str,
    seeds: int,
    weights: str | None,
    size: int,
    clahe_clip: float,
    clahe_grid: int,
    classes: dict[str, list[str]],
    split_by: str,
    patients: Path | None,
    allow_unmatched: bool,
    workers: int | None,
    device: str,
    out: Path,
    seed: int,
    yes: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **schedule: Any,
) -> None:
    """Test whether equalisation helps: trainings with and without CLAHE, same split, same seeds.

    Writes two shard sets of SRC (default data/raw), trains the network on each with several seeds, and
    compares them on the test images. OUT gets report.html, difference.png and result.json: the
    differences of AUC, accuracy, sensitivity and specificity, with intervals that include the variation
    between seeds and between images.

    Prints the cost and asks before it starts; without a terminal, --yes is needed. After a crash or an
    interruption the same command continues: no shard set and no training is made twice.

    \b
    Examples:
      tumorbatch experiment clahe
      tumorbatch experiment clahe data/raw --arch mobilenetv2 --seeds 3 --yes
    """
    with session(quiet, "Finished parts are kept; the same command continues."):
        from tumorbatch.preprocess.shard import Config as ShardConfig
        from tumorbatch.preprocessing_config import Preprocessing
        from tumorbatch.train.config import Config as TrainConfig
        from tumorbatch.train.config import schedule as complete_schedule
        from tumorbatch.workflows import clahe_experiment as workflow

        config = workflow.Config(
            shards=ShardConfig(
                preprocessing=Preprocessing(size=size, clahe_clip=clahe_clip, clahe_grid=clahe_grid),
                classes=classes,
                split_by=split_by,
                patients=patients,
                allow_unmatched=allow_unmatched,
                seed=seed,
                overwrite=overwrite,
                **only_given(workers=workers),
            ),
            training=TrainConfig(
                architecture=arch,
                schedule=complete_schedule(arch, weights, seed=seed, **schedule),
                weights=weights,
                device=device,
                overwrite=overwrite,
            ),
            seeds=seeds,
        )
        differences = workflow.run(src, out, config, consent_from_terminal(yes))
        if as_json:
            measures = {each.name: each.to_dict() for each in differences.per_group}
            say(json.dumps({"out": printable(str(out)), "per_group": measures}))
        elif not quiet:
            for comparison in differences.per_group:
                say(comparison.sentence(workflow.FIRST, workflow.SECOND))
            if split_by == "file":
                say("LEAKY: the networks know copies of test images; the metrics are too good.")
            say(f"Open {printable(str(out / workflow.PAGE))}.")
    sys.exit(ExitCode.OK)
