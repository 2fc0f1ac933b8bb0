"""Compare bundles: evaluate those that have no evaluation yet, then write one table of all."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tumorbatch import bundle, shardset
from tumorbatch.atomic import make_folder, remove_temporaries, write_bytes, write_json
from tumorbatch.bundle import Bundle
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import printable, visible
from tumorbatch.lock import lock_inside, output_lock
from tumorbatch.runtime import resolve
from tumorbatch.shardset import DATASET
from tumorbatch.workflows import checks
from tumorbatch.workflows import steps as chain

if TYPE_CHECKING:
    from tumorbatch.evaluation.answers import Answers
    from tumorbatch.evaluation.compare import Comparison

log = logging.getLogger(__name__)

MODELS_CSV = "models.csv"
PAIRS_CSV = "pairs.csv"
PAGE = "compare.html"
JSON = "compare.json"


@dataclass(frozen=True, slots=True)
class Config:
    """How to compare.

    Attributes:
        tfrecords: Shard sets that may be those of the models.
        results: Folder of the evaluations.
        device: "auto", "cpu" or "gpu".
        seed: Of baselines and bootstrap.
        reference: Put the report's own measures beside those of its networks.
    """

    tfrecords: Sequence[Path] = ()
    results: Path = Path("results")
    device: str = "auto"
    seed: int = 0
    reference: bool = False


def run(models: Sequence[Path], out: Path, config: Config) -> "Comparison":
    """Evaluate what has no evaluation, compare all, and write the tables to `out`.

    Raises:
        InputError: There is no bundle at all, or none that can be compared.
        OutputError: `out` or an evaluation cannot be written.
        TryAgainError: Another process is writing `out`.
    """
    from tumorbatch.evaluation import compare as analysis

    if config.device == "gpu":
        resolve(config.device)  # a missing GPU is not a fault of a model's
    names = (MODELS_CSV, PAIRS_CSV, PAGE, JSON)
    if out.is_dir():
        checks.refuse_foreign(out, names)
    folders = list(_bundles(models))
    shard_sets = checks.shard_sets(config.tfrecords)
    missing: dict[str, str] = {}
    judged = []
    for name, folder in folders:
        try:
            judged.append(_judged(name, folder, shard_sets, config))
        except (ConfigError, InputError) as error:
            log.warning("%s is left out: %s", name, error)
            missing[name] = printable(str(error))
    if not judged:
        if missing:
            raise InputError("None of these models can be compared. " + " ".join(missing.values()))
        raise InputError(
            f"{', '.join(map(str, models))} holds no model bundle. Train one with `tumorbatch train`."
        )
    baselines, alone = _baselines(judged, shard_sets, config.seed)
    comparison = analysis.compare_models(
        [*judged, *baselines], missing, alone, seed=config.seed, reference=config.reference
    )
    make_folder(out)
    with output_lock(out, lock_inside(out)):
        remove_temporaries(out, *names)
        publish(comparison, out)
    return comparison


def publish(comparison: "Comparison", out: Path) -> None:
    """Write the comparison's four files."""
    from tumorbatch.evaluation import compare_csv, compare_page

    write_bytes(out / MODELS_CSV, compare_csv.models_csv(comparison).encode())
    write_bytes(out / PAIRS_CSV, compare_csv.pairs_csv(comparison).encode())
    write_bytes(out / PAGE, compare_page.page(comparison).encode())
    write_json(out / JSON, comparison.to_dict())


def _bundles(models: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield name and folder of each bundle, each bundle once."""
    folders: list[Path] = []
    for path in map(bundle.find, models):
        if (path / bundle.MODEL).exists():
            folders.append(path)
        else:
            # A folder without model.json may be a bundle that lost it: said, unless it is a folder of
            # something else.
            inside = sorted(
                entry for entry in path.iterdir() if entry.name[0] != "." and entry.is_dir()
            )
            folders += [entry for entry in inside if _is_bundle(entry)]
    unique = list({folder.resolve(): folder for folder in folders})
    yield from zip(_names(unique), unique, strict=True)


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of each path: as few as make all names different."""
    count = 1
    names = [folder.name for folder in folders]
    while len(set(names)) < len(names):
        count += 1
        names = ["/".join(folder.parts[-count:]) for folder in folders]
    return [visible(printable(name)) for name in names]


def _is_bundle(folder: Path) -> bool:
    return any((folder / name).exists() for name in (bundle.MODEL, bundle.WEIGHTS))


def _judged(name: str, folder: Path, shard_sets: dict[str, Path], config: Config) -> "Answers":
    from tumorbatch.evaluation.results import fits, read_answers

    description = bundle.load(folder)
    bundle.check_weights(folder, description)
    evaluation = chain.evaluation_folder(folder, description, config.results)
    if not fits(evaluation, description):
        _evaluate(folder, description, evaluation, shard_sets, config)
    tfrecords = shard_sets.get(str(description.training.get("dataset_sha256")))
    dataset = None
    if tfrecords is not None:
        with contextlib.suppress(ConfigError, InputError):  # `_baselines` says that it is unreadable
            dataset = shardset.read(tfrecords / DATASET)
    return read_answers(name, description, evaluation, dataset)


def _evaluate(
    folder: Path, description: Bundle, evaluation: Path, shard_sets: dict[str, Path], config: Config
) -> None:
    from tumorbatch.evaluation import baselines
    from tumorbatch.evaluation.config import Config as EvaluationConfig

    tfrecords = shard_sets.get(str(description.training.get("dataset_sha256")))
    if tfrecords is None:
        raise InputError(
            f"{folder} has no evaluation in {config.results}, and the shard set that it was trained "
            "on is not among those given. Give it with --tfrecords."
        )
    how = EvaluationConfig(device=config.device, seed=config.seed)
    baseline_answers = baselines.evaluate(tfrecords, config.seed)
    chain.make_evaluation(folder, tfrecords, evaluation, how, baseline_answers)


def _baselines(
    judged: "Sequence[Answers]", shard_sets: dict[str, Path], seed: int
) -> "tuple[list[Answers], dict[str, str]]":
    """Return the baselines of every shard set found; {names of models: why they have none}."""
    from tumorbatch.evaluation import baselines

    answers: list[Answers] = []
    alone: dict[str, str] = {}
    for dataset in dict.fromkeys(judged_one.images.dataset for judged_one in judged):
        models = [judged_one for judged_one in judged if judged_one.images.dataset == dataset]
        names = ", ".join(judged_one.name for judged_one in models)
        if dataset not in shard_sets:
            alone[names] = "the shard set is not among those given by --tfrecords"
            continue
        try:
            of_dataset = baselines.evaluate(shard_sets[dataset], seed)
        except InputError as error:
            alone[names] = printable(str(error))
            continue
        answers += [baseline.on(models[0].images) for baseline in of_dataset]
    for names, why in alone.items():
        log.warning("no baselines for %s: %s", names, why)
    return answers, alone
