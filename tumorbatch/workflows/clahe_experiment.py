"""The experiment on whether CLAHE helps: the same trainings with CLAHE and without."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch import shardset
from tumorbatch.atomic import make_folder, remove_temporaries, write_bytes, write_json
from tumorbatch.files import printable
from tumorbatch.lock import lock_inside, output_lock
from tumorbatch.runtime import versions
from tumorbatch.shardset import DATASET, Dataset
from tumorbatch.workflows import checks
from tumorbatch.workflows import steps as chain
from tumorbatch.workflows.steps import Consent, ShardsStep, Steps, TrainingStep

if TYPE_CHECKING:
    from tumorbatch.evaluation.answers import Answers
    from tumorbatch.evaluation.experiment import ArmsCompared
    from tumorbatch.evaluation.protocols import Protocol
    from tumorbatch.preprocess.shard import Config as ShardConfig
    from tumorbatch.train.config import Config as TrainConfig

log = logging.getLogger(__name__)

RESULT = "result.json"
FIGURE = "difference.png"
PAGE = "report.html"
MODELS = "models"
SCHEMA_VERSION = 1
FIRST, SECOND = "with CLAHE", "without CLAHE"
_ARMS = {FIRST: "clahe", SECOND: "plain"}  # name in words, name of files


@dataclass(frozen=True, slots=True)
class Config:
    """The experiment.

    Attributes:
        shards: Of the arm with CLAHE; the other has it off.
        training: Of the first seed; the others follow.
        seeds: Trainings in each arm.
    """

    shards: "ShardConfig"
    training: "TrainConfig"
    seeds: int

    def steps(self, source: Path, out: Path) -> Steps:
        """Return both shard sets and all trainings, seed by seed."""
        plain = replace(self.shards.preprocessing, clahe=False)
        configs = {FIRST: self.shards, SECOND: replace(self.shards, preprocessing=plain)}
        shards = {
            arm: ShardsStep(source, out / f"tfrecords-{_ARMS[arm]}", config_of_arm)
            for arm, config_of_arm in configs.items()
        }
        trainings = []
        for number in range(self.seeds):
            seed = self.training.schedule.seed + number
            config = replace(self.training, schedule=replace(self.training.schedule, seed=seed))
            trainings += [
                TrainingStep(shards[arm].out, out / MODELS / f"{_ARMS[arm]}-seed{seed}", config)
                for arm in _ARMS
            ]
        return Steps(list(shards.values()), trainings)


def run(source: Path, out: Path, config: Config, consent: Consent) -> "ArmsCompared":
    """Make what is missing, compare the arms, and write the result to `out`.

    Args:
        source: The images.
        out: Folder of the shard sets, the models and the result.
        config: The experiment.
        consent: Is asked before anything is made.

    Raises:
        TumorBatchError: As the stages and `consent`; `ConfigError` where `out` holds another
            experiment, or where the arms would not have the same split.
    """
    from tumorbatch.evaluation import experiment as analysis
    from tumorbatch.evaluation.protocols import dataset_protocol
    from tumorbatch.preprocess.classes import find_sources
    from tumorbatch.statistics.intervals import REPLICATES

    files = find_sources(source, config.shards.classes)
    make_folder(out)
    with output_lock(out, lock_inside(out)):
        names = {RESULT, FIGURE, PAGE}
        steps = config.steps(source, out)
        checks.refuse_foreign(out, {*names, MODELS, *(step.out.name for step in steps.shards)})
        remove_temporaries(out, *names)
        if steps.missing:
            consent(steps.missing, _cost(steps, files, config))
        first, second = (chain.make_shards(step) for step in steps.shards)
        # Groups and splits come from the pixels before equalisation; should that ever change, the arms
        # would be judged on other images.
        checks.refuse_other_images(steps.shards[0].out, steps.shards[1].out, same_split=True)
        make_folder(out / MODELS)
        models = [chain.make_training(step).model_id for step in steps.trainings]
        seeds = [step.config.schedule.seed for step in steps.trainings[:: len(_ARMS)]]
        compared = analysis.compare_arms(seeds, *_answer(steps), replicates=REPLICATES)
        value = _result(compared, config, (first, second), steps, models)
        _publish(out, compared, value, dataset_protocol(first), config)
    return compared


def _cost(steps: Steps, files: Sequence[Any], config: Config) -> Any:
    from tumorbatch.workflows import cost as costs

    shards = config.shards
    total = costs.Cost()
    for step in steps.shards:
        if step.missing:
            total += chain.shards_cost(files, step.config)
    missing = [step for step in steps.trainings if step.missing]
    if missing:
        size = shards.preprocessing.size
        images = round(len(files) * (shards.fractions.train + shards.fractions.validation))
        finished = [step for step in steps.trainings if not step.missing]
        speed = chain.speed(finished, config.training, size)
        log.info("%s: %.0f images/s, %s", config.training.architecture,
                 speed.images_per_second, speed.source)  # fmt: skip
        for training in missing:
            total += chain.training_cost(training, images, size, speed)
    return total


def _answer(steps: Steps) -> "tuple[list[Answers], list[Answers]]":
    """Return the answers of each arm's trainings, and the test split; same image order."""
    from tumorbatch.evaluation.experiment import answer

    arms: list[list[Answers]] = [[] for _ in _ARMS]
    for number, step in enumerate(steps.trainings):
        arms[number % len(_ARMS)].append(answer(step.out, step.tfrecords, step.config.device))
        chain.forget()
    return arms[0], arms[1]


def _result(
    compared: "ArmsCompared",
    config: Config,
    datasets: tuple[Dataset, Dataset],
    steps: Steps,
    models: Sequence[str],
) -> dict[str, Any]:
    """Return the content of result.json."""
    from tumorbatch.statistics.intervals import REPLICATES

    training = config.training
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": "clahe",
        "arms": list(_ARMS),
        "preprocessing": [dataset.preprocessing.to_dict() for dataset in datasets],
        "dataset_sha256": [shardset.file_sha256(step.out / DATASET) for step in steps.shards],
        "split_by": datasets[0].split_by,
        "leaky": datasets[0].leaky,
        "split_seed": datasets[0].seed,
        "counts": datasets[0].counts,
        "groups_in_test": compared.groups,
        "architecture": training.architecture,
        "weights": _describe_start(training.start),
        "schedule": asdict(training.schedule),
        "augmentation": asdict(training.augmentation) if training.augmentation else None,
        "seeds": [step.config.schedule.seed for step in steps.trainings[:: len(_ARMS)]],
        "models": list(models),
        "replicates": REPLICATES,
        "figures": {measure.name: measure.to_dict() for measure in compared.per_image},
        "figures_per_group": {measure.name: measure.to_dict() for measure in compared.per_group},
        "versions": versions("keras", "tensorflow", "numpy", "scipy", "scikit-learn"),
    }


def _describe_start(start: str) -> str:
    """Describe the initial weights in words; of a file only its name."""
    words = {"none": "from random weights", "imagenet": "from ImageNet weights"}
    return words.get(start) or f"from the weights in {printable(Path(start).name)}"


def _publish(
    out: Path, compared: "ArmsCompared", value: dict[str, Any], protocol: "Protocol", config: Config
) -> None:
    from tumorbatch.evaluation import experiment_page
    from tumorbatch.report import style

    schedule = config.training.schedule
    seeds = value["seeds"]
    equalised = config.shards.preprocessing
    setup = [
        ("network", f"{config.training.architecture}, {_describe_start(config.training.start)}"),
        ("training", f"at most {schedule.epochs} epochs, patience {schedule.patience}, batches of "
         f"{schedule.batch_size}, learning rate {schedule.learning_rate:g}"),
        ("seeds", ", ".join(map(str, seeds))),
        ("images", f"{equalised.size} x {equalised.size} pixels"),
        (FIRST, f"clip limit {equalised.clahe_clip:g}, {equalised.clahe_grid} x "
         f"{equalised.clahe_grid} tiles, before resizing"),
        ("split", f"by {value['split_by']}, seed {value['split_seed']}"
         + (": leaky, copies of test images are trained on" if value["leaky"] else "")),
        *((f"images in {split}", ", ".join(f"{number:,} {name}" for name, number in counts.items()))
          for split, counts in value["counts"].items()),
    ]  # fmt: skip
    png = style.png(experiment_page.draw(compared.per_group, FIRST, SECOND))
    title = f"Does CLAHE help {config.training.architecture}?"
    title += " (LEAKY split)" if value["leaky"] else ""
    html = experiment_page.page(
        title,
        compared,
        FIRST,
        SECOND,
        protocol,
        setup,
        value["replicates"],
        png,
    )
    write_bytes(out / FIGURE, png)
    write_bytes(out / PAGE, html.encode())
    write_json(out / RESULT, value)
