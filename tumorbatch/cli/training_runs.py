"""What `train` prints: the receipts of its trainings, and with --dry-run their cost."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch.cli.consent import print_plan
from tumorbatch.cli.console import say
from tumorbatch.errors import ConfigError

if TYPE_CHECKING:
    from tumorbatch.train.config import Config
    from tumorbatch.workflows.train_many import Outcome


def plan(
    tfrecords: Path,
    out: Path | None,
    alone: bool,
    trainings: "dict[str, Config]",
    folds: int | None,
    as_json: bool,
) -> None:
    """Print what would be trained where, and the cost."""
    from tumorbatch.workflows import plans

    if folds:
        raise ConfigError(
            "--dry-run does not know the cost of folds: leave out --folds, and take the cost "
            f"{folds} times."
        )
    if any(each.shards for each in trainings.values()):
        raise ConfigError("--dry-run looks at shards on this machine: leave out --stream.")
    folder = out or Path("models")
    places = {out if alone and out else folder / name: each for name, each in trainings.items()}
    print_plan(plans.of_train(tfrecords, places), as_json)


def print_series(outcomes: "Iterable[Outcome]", folder: Path, as_json: bool, quiet: bool) -> int:
    """Print the receipt of each training when it ends, then a summary; return the exit code."""
    from tumorbatch.cli.model_summaries import series_summary
    from tumorbatch.workflows import train_many

    finished = []
    for outcome in outcomes:
        finished.append(outcome)
        if not isinstance(outcome.result, Exception):
            print_receipt(outcome.result, outcome.out, folder, as_json, quiet, outcome.name)
    if not quiet and not as_json:
        say(series_summary(finished))
    return train_many.exit_code(finished)


def print_receipt(
    report: Any, out: Path, folder: Path, as_json: bool, quiet: bool, name: str | None = None
) -> None:
    """Print the receipt of a training; `name`: of one of several; None: of a part of its folds."""
    from tumorbatch.cli.model_summaries import train_json, train_summary

    if report is None:
        if not quiet:
            say("The folds of this part are trained. The command without --part finishes.")
    elif as_json:
        say(train_json(report, out))
    elif not quiet:
        text = train_summary(report, out, folder)
        say(text if name is None else f"{name}:\n{text}\n")
