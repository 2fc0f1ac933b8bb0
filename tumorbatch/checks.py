"""Limits and differences of settings that several stages check, with one wording."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tumorbatch.errors import ConfigError, InputError, TooManyErrorsError, TryAgainError
from tumorbatch.object_path import Location
from tumorbatch.status import NO_ERRORS, Status, count_errors

IMAGE_FORMATS = ("jpeg", "png", "tiff", "bmp", "webp", "dicom", "nifti")
EXPORT_KINDS = ("keras", "h5", "savedmodel")
_ALL_BEFORE = IMAGE_FORMATS[:-1]  # what earlier versions recorded where all formats were allowed
MAX_SEED = 2**32 - 1  # NumPy's, scikit-learn's and Keras' limit
MAX_BATCH = 4096  # images; the last batch is padded to this size, so it costs memory


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


def sorted_formats(formats: Collection[str]) -> list[str]:
    """Return image formats in the order of `IMAGE_FORMATS`, each once."""
    return [name for name in IMAGE_FORMATS if name in formats]


def same_formats(old: object, new: object) -> bool:
    """Return whether two recorded sets of formats, lists or texts with commas, mean the same.

    All formats of an earlier version mean all of this one: its outputs are continued.
    """
    pair = tuple(
        tuple(value.split(",")) if isinstance(value, str) else tuple(value)
        for value in (old, new)
        if isinstance(value, str | list | tuple)
    )
    return old == new or pair == (_ALL_BEFORE, IMAGE_FORMATS)


def check_batch_size(batch_size: int) -> None:
    """Refuse (`ConfigError`) a batch of no images, or of too many."""
    if not 1 <= batch_size <= MAX_BATCH:
        raise ConfigError(f"--batch-size must be between 1 and {MAX_BATCH}. Received: {batch_size}.")


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse (`ConfigError`) a value that is not in a closed list.

    Args:
        name: Of the option or setting, for the message.
        value: What was given.
        allowed: The list.
    """
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}. Received: {value}.")


def check_error_rate(rate: float) -> None:
    """Refuse (`ConfigError`) a number that is not a share."""
    if not 0 <= rate <= 1:
        raise ConfigError(f"--max-error-rate must be between 0 and 1. Received: {rate:g}.")


def format_errors(statuses: Mapping[str, int]) -> str:
    """Format the statuses that are errors, most frequent first: "3 truncated, 1 empty"."""
    bad = Counter({name: count for name, count in statuses.items() if name not in NO_ERRORS})
    return ", ".join(f"{count} {status}" for status, count in bad.most_common())


def refuse_too_many_errors(statuses: Mapping[str, int], limit: float, consequence: str) -> None:
    """Raise `TooManyErrorsError` if more than `limit` of the files are errors.

    Objects that hold no image by design are not errors, and are not counted among the files.

    Args:
        statuses: {status: files}, at least one file.
        limit: 0 to 1.
        consequence: The sentence that ends the message.
    """
    bad = count_errors(statuses)
    total = bad + statuses.get(Status.OK.value, 0)
    if bad and bad / total > limit:  # not bad > limit * total: 0.29 * 100 is less than 29
        raise TooManyErrorsError(
            f"{bad} of {total} files cannot be read ({format_errors(statuses)}); --max-error-rate "
            f"allows {limit:.2%}. {consequence}"
        )


def refuse_nothing_read(outcomes: Iterable[tuple[str, str | None]], source: Location) -> None:
    """Raise if no file could be read.

    Args:
        outcomes: Status and error of each file.
        source: The folder that was read.

    Raises:
        InputError: All files are broken.
        TryAgainError: Some could not be read because of the machine; the text says why.
    """
    pairs = list(outcomes)
    statuses = Counter(status for status, _ in pairs)
    if statuses[Status.OK.value]:
        return
    sentence = f"None of the {len(pairs)} files in {source} can be read ({format_errors(statuses)})"
    reasons = [error for status, error in pairs if status == Status.MACHINE_ERROR]
    if reasons:
        raise TryAgainError(f"{sentence}: {reasons[0]}. The same command tries again.")
    raise InputError(f"{sentence}.")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, old value and new value of each setting in `new` that differs from `old`.

    Settings inside settings are compared one by one, so that the message names what was changed.
    """
    for name, value in new.items():
        old_value = old.get(name)
        if isinstance(value, Mapping) and isinstance(old_value, Mapping):
            yield from differences(old_value, value)
        elif old_value != value and not (name == "formats" and same_formats(old_value, value)):
            yield name, old_value, value


def format_changes(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    old_words: str = "there",
    new_words: str = "asked for",
) -> str:
    """Format `differences` for a message: "seed: 0 there, 1 asked for; another shard set", or ""."""
    return "; ".join(
        "another shard set"
        if name == "dataset_sha256"
        else f"{name}: {old_value} {old_words}, {new_value} {new_words}"
        for name, old_value, new_value in differences(old, new)
    )


def refuse_other_plan(holder: object, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless an interrupted run was to make the same as this one.

    Args:
        holder: The file or folder with the work so far, for the message.
        old: Settings of the interrupted run.
        new: Settings of this run; those of `old` that it lacks do not count.
    """
    changes = format_changes(old, new, "then", "now")
    if changes:
        raise ConfigError(
            f"{holder} holds an interrupted run that was about something else ({changes}). Repeat that "
            "command to finish it, or start again with --overwrite."
        )


def refuse_nameless(out: Path) -> None:
    """Raise `ConfigError` for an output folder without its own name, such as `.` or `..`."""
    if out.name in ("", ".."):
        raise ConfigError(f"{out} cannot be replaced. Give a folder with its own name with --out.")


def only_given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; for the others, the config's own default holds."""
    return {name: value for name, value in options.items() if value is not None}
