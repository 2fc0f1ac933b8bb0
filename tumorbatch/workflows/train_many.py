"""Several trainings, one after another; one that fails does not end the others."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch.errors import ExitCode, TryAgainError, TumorBatchError
from tumorbatch.train.config import Config
from tumorbatch.train.training import Report
from tumorbatch.train.training import run as train
from tumorbatch.workflows.ensemble import Report as EnsembleReport
from tumorbatch.workflows.steps import forget

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one training ended.

    Attributes:
        name: Of its bundle.
        out: Its bundle.
        result: The receipt, or the error that ended it.
    """

    name: str
    out: Path
    result: Report | EnsembleReport | Exception


def run(
    tfrecords: Path,
    folder: Path,
    trainings: Mapping[str, Config],
    how: Callable[[Path, Path, Config], Any] | None = None,
) -> Iterator[Outcome]:
    """Train each, into the folder of its name under `folder`, and say how it ended.

    `how` trains each: one network, or one for each fold; None: one network. A signal ends the series.
    The same series again skips what is done and continues where it stopped.
    """
    for name, config in trainings.items():
        log.info("training %s", name)
        try:
            yield Outcome(name, folder / name, (how or train)(tfrecords, folder / name, config))
        except TumorBatchError as error:
            log.error("%s failed: %s", name, error)
            yield Outcome(name, folder / name, error)
        except Exception as error:  # a bug in one training must not cost the others
            log.exception("%s failed", name)
            yield Outcome(name, folder / name, error)
        forget()


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return the code of the first failure that a retry cannot fix, else of the first; else 0."""
    errors = [outcome.result for outcome in outcomes if isinstance(outcome.result, Exception)]
    errors.sort(key=lambda error: isinstance(error, TryAgainError))
    if not errors:
        return ExitCode.OK
    return errors[0].exit_code if isinstance(errors[0], TumorBatchError) else ExitCode.BUG
