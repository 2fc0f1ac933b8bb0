"""Limits, and differences of settings, that several stages tell in the same words."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tumorbatch.errors import ConfigError, InputError, TooManyErrorsError, TryAgainError
from tumorbatch.status import NO_ERRORS, Status, count_errors

IMAGE_FORMATS = ("jpeg", "png", "tiff", "bmp", "webp", "dicom")
MAX_SEED = 2**32 - 1  # NumPy's, scikit-learn's and Keras' limit


def check_seed(seed: int) -> None:
    """Refuse (`ConfigError`) a seed that the libraries do not take."""
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"The seed must be between 0 and {MAX_SEED}. Received: {seed}.")


def check_workers(workers: int) -> None:
    """Refuse (`ConfigError`) fewer than one worker process."""
    if workers < 1:
        raise ConfigError(f"--workers must be at least 1. Received: {workers}.")


def check_formats(formats: Collection[str]) -> None:
    """Refuse (`ConfigError`) a set of image formats that is empty, or has an unknown one."""
    unknown = sorted(set(formats) - set(IMAGE_FORMATS))
    if unknown or not formats:
        received = ", ".join(unknown) or "none"
        raise ConfigError(f"--formats takes {', '.join(IMAGE_FORMATS)}. Received: {received}.")


def ordered(formats: Collection[str]) -> list[str]:
    """Return image formats in the order of `IMAGE_FORMATS`, each once."""
    return [name for name in IMAGE_FORMATS if name in formats]


def check_error_rate(rate: float) -> None:
    """Refuse (`ConfigError`) a share that is none."""
    if not 0 <= rate <= 1:
        raise ConfigError(f"--max-error-rate must be between 0 and 1. Received: {rate:g}.")


def told(statuses: Mapping[str, int]) -> str:
    """Format the statuses other than `ok`, most frequent first: "3 truncated, 1 empty"."""
    bad = Counter({name: count for name, count in statuses.items() if name not in NO_ERRORS})
    return ", ".join(f"{count} {status}" for status, count in bad.most_common())


def refuse_too_many_errors(statuses: Mapping[str, int], limit: float, consequence: str) -> None:
    """Raise `TooManyErrorsError` where a larger share of files than `limit` are errors.

    Objects that hold no image by design are no errors, and no part of all files either.

    Args:
        statuses: {status: files}, at least one file.
        limit: 0 to 1.
        consequence: The sentence that ends the message.
    """
    bad = count_errors(statuses)
    total = bad + statuses.get(Status.OK.value, 0)
    if bad and bad / total > limit:  # not bad > limit * total: 0.29 * 100 is less than 29
        raise TooManyErrorsError(
            f"{bad} of {total} files cannot be read ({told(statuses)}); --max-error-rate allows "
            f"{limit:.2%}. {consequence}"
        )


def refuse_nothing_read(outcomes: Iterable[tuple[str, str | None]], source: Path) -> None:
    """Raise where not one file could be read.

    Args:
        outcomes: Status and error of each file.
        source: The folder that was read.

    Raises:
        InputError: The files are all broken.
        TryAgainError: For some of them it was the machine's fault; the text says why.
    """
    every = list(outcomes)
    statuses = Counter(status for status, _ in every)
    if statuses[Status.OK.value]:
        return
    nothing = f"None of the {len(every)} files in {source} can be read ({told(statuses)})"
    reasons = [error for status, error in every if status == Status.MACHINE_ERROR]
    if reasons:
        raise TryAgainError(f"{nothing}: {reasons[0]}. The same command tries again.")
    raise InputError(f"{nothing}.")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, old value and new value of each setting in `now` that differs from `before`.

    Settings inside settings are compared one by one, so that the message names what was changed.
    """
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from differences(old, value)
        elif old != value:
            yield name, old, value


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; the others keep the config's own default."""
    return {name: value for name, value in options.items() if value is not None}
