"""Changing what a finished bundle says of its output."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tumorbatch import bundle
from tumorbatch.atomic import atomic_file, json_bytes, remove_temporaries
from tumorbatch.bundle import Bundle
from tumorbatch.errors import InputError, OutputError
from tumorbatch.files import read_regular
from tumorbatch.json_reader import MAX_BYTES
from tumorbatch.lock import lock_beside, output_lock


def frozen(
    temperature: Mapping[str, Any], threshold: Mapping[str, Any], dataset_sha256: str
) -> dict[str, Any]:
    """Return how temperature and threshold were chosen, for `Bundle.calibration`.

    Args:
        temperature: A `calibration.Temperature` as a dictionary.
        threshold: A `calibration.Threshold` likewise.
        dataset_sha256: Of the dataset.json whose validation split they were chosen on.
    """
    return {
        "split": "validation",
        "dataset_sha256": dataset_sha256,
        "temperature": dict(temperature),
        "threshold": dict(threshold),
    }


def with_calibration(bundle: Bundle, calibration: Mapping[str, Any]) -> Bundle:
    """Return the bundle with another temperature and threshold; its model_id changes."""
    return replace(
        bundle,
        temperature=float(calibration["temperature"]["value"]),
        threshold=float(calibration["threshold"]["value"]),
        calibration=dict(calibration),
    )


def renew(folder: Path, renewed: Bundle, metrics: Mapping[str, Any], card: str) -> bool:
    """Write model.json, metrics.json and model_card.md into the bundle at `folder`.

    All three are on the disk before the first takes its place, and model.json, which decides, comes
    last. The folder itself is not exchanged: it would be away for a moment, and `infer` may come by.

    Returns:
        False when they are there already: nothing was written.

    Raises:
        TryAgainError: A training holds the bundle.
        InputError: Another model took its place since it was read.
        OutputError: The bundle cannot be changed.
    """
    files = {  # in reverse: contexts end in the order opposite to their beginning
        bundle.MODEL: json_bytes(renewed.to_dict()),
        bundle.CARD: card.encode(),
        bundle.METRICS: json_bytes(metrics),
    }
    if all(_content(folder / name) == data for name, data in files.items()):
        return False
    folder = folder.resolve()
    try:
        with output_lock(folder, lock_beside(folder)):
            if bundle.load(folder).weights_sha256 != renewed.weights_sha256:
                raise InputError(f"{folder} holds another model than a moment ago. Evaluate it again.")
            for name in files:
                remove_temporaries(folder, name)
            with contextlib.ExitStack() as stack:
                for name, data in files.items():
                    stack.enter_context(atomic_file(folder / name)).write(data)
    except OutputError as error:
        raise OutputError(
            f"{error} To evaluate without a change of the bundle: --no-freeze."
        ) from error
    return True


def _content(path: Path) -> bytes | None:
    try:
        return read_regular(path, MAX_BYTES)
    except (OSError, ValueError):
        return None
