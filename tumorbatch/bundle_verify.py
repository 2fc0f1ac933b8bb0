"""Whether a model bundle is still what `train` or `evaluate` wrote, without TensorFlow."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch import bundle
from tumorbatch.bundle import Bundle
from tumorbatch.bundle_weights import MAX_WEIGHTS_BYTES
from tumorbatch.errors import ConfigError, InputError, reason
from tumorbatch.files import read_regular
from tumorbatch.json_reader import MAX_BYTES, NUMBER, TEXT, read_object
from tumorbatch.shardset import file_sha256

_HISTORY_SHAPE = {TEXT: [NUMBER]}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        model_id: As model.json says; "" where that cannot be read.
        files: Files of the bundle.
        bytes: Of them.
        problems: Sentences, each with the file that has it; none: the bundle is sound.
    """

    model_id: str
    files: int
    bytes: int
    problems: tuple[str, ...]


def is_bundle(path: Path) -> bool:
    """Return whether a folder looks like a bundle, whole or not."""
    return path.is_dir() and any(
        (path / name).exists() for name in (bundle.MODEL, bundle.WEIGHTS, bundle.member_file(0))
    )


def run(folder: Path) -> Report:
    """Read all of a bundle: identity, hashes, weights, known images, history, metrics, card.

    Whether the weights fit the network follows from their sha256 in model.json.

    Raises:
        InputError: There is no bundle at `folder`.
    """
    if not is_bundle(folder):
        bundle.load(folder)  # says so
    problems: list[str] = []
    model_id = ""
    try:
        description = bundle.load(folder)
        model_id = description.model_id
        problems += _weights(folder, description)
        problems += _known_images(folder, description)
        problems += _further_arrays(folder, description)
        if not description.members:  # an ensemble has no history of its own
            problems += [*_history(folder), *_curves(folder)]
    except (ConfigError, InputError) as error:
        problems.append(str(error))
    problems += [*_metrics(folder), *_file(folder / bundle.CARD, b"")]
    files = [path for path in folder.iterdir() if path.is_file()]
    return Report(model_id, len(files), sum(path.stat().st_size for path in files), tuple(problems))


def _weights(folder: Path, description: Bundle) -> Iterator[str]:
    import numpy as np
    import safetensors
    import safetensors.numpy

    try:
        bundle.check_weights(folder, description)
    except InputError as error:
        yield str(error)
        return
    for file in description.weights:
        path = folder / file
        try:
            data = read_regular(path, MAX_WEIGHTS_BYTES)
            arrays: dict[str, Any] = safetensors.numpy.load(data)
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            yield f"{path} is damaged: {error}. Bring the original back, or train the model again."
            continue
        for name, array in sorted(arrays.items()):
            if array.dtype != np.float32 or not np.isfinite(array).all():
                yield f"{path}: weight {name!r} is not float32, or not finite. Train the model again."


def _further_arrays(folder: Path, description: Bundle) -> Iterator[str]:
    for name, expected in (
        (bundle.OUT_OF_FOLD, description.out_of_fold_sha256),
        (bundle.FAMILIARITY, description.familiarity_sha256),
    ):
        path = folder / name
        try:
            if expected and file_sha256(path) != expected:
                yield f"{path} was changed: its sha256 is not that of model.json. Bring it back."
        except OSError as error:
            yield f"{path} is missing or unreadable: {reason(error)}."


def _known_images(folder: Path, description: Bundle) -> Iterator[str]:
    path = folder / bundle.KNOWN_IMAGES
    if description.known_images_sha256:
        from tumorbatch.known_images import KnownImages

        try:
            KnownImages.read(path, description.known_images_sha256)
        except InputError as error:
            yield str(error)
    elif path.exists():
        yield f"{path} does not belong to the bundle: model.json does not name it. Delete it."


def _history(folder: Path) -> Iterator[str]:
    path = folder / bundle.HISTORY
    try:
        history = read_object(path, _HISTORY_SHAPE)
        epochs = {len(values) for values in history.values()}
        if len(epochs) != 1:
            raise ValueError("its lists differ in length")
    except (OSError, ValueError) as error:
        yield f"{path} is missing or damaged: {reason(error)}. `infer` works without it."
        return
    path = folder / bundle.HISTORY_CSV
    try:
        rows = list(csv.reader(read_regular(path, MAX_BYTES).decode().splitlines()))
        if rows[:1] != [["epoch", *history]] or {len(rows) - 1} != epochs:
            raise ValueError(f"it has not the columns or epochs of {bundle.HISTORY}")
    except (OSError, ValueError, csv.Error) as error:
        yield f"{path} is missing or damaged: {reason(error)}. `infer` works without it."


def _metrics(folder: Path) -> Iterator[str]:
    try:
        bundle.read_metrics(folder)
    except InputError as error:
        yield str(error)


def _curves(folder: Path) -> Iterator[str]:
    yield from _file(folder / bundle.CURVES, b"\x89PNG\r\n\x1a\n")


def _file(path: Path, begin: bytes) -> Iterator[str]:
    """Yield what is wrong with a file that nothing but people reads."""
    try:
        data = read_regular(path, MAX_BYTES)
        if not data or not data.startswith(begin):
            raise ValueError("its first bytes are not those of such a file")
    except (OSError, ValueError) as error:
        yield f"{path} is missing or damaged: {reason(error)}. `infer` works without it."
