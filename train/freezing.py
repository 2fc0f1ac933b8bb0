"""Changing what a finished bundle says of its output, as a whole or not at all."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tumorbatch import bundle
from tumorbatch.atomic import recover_folder, replace_folder, write_bytes
from tumorbatch.bundle import Bundle
from tumorbatch.errors import InputError, OutputError, cannot_write
from tumorbatch.lock import output_lock


def frozen(
    temperature: Mapping[str, Any], threshold: Mapping[str, Any], dataset_sha256: str
) -> dict[str, Any]:
    """How temperature and threshold were chosen, for `Bundle.calibration`.

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


def with_calibration(used: Bundle, calibration: Mapping[str, Any]) -> Bundle:
    """The bundle with another temperature and threshold; its model_id changes with them."""
    return replace(
        used,
        temperature=float(calibration["temperature"]["value"]),
        threshold=float(calibration["threshold"]["value"]),
        calibration=dict(calibration),
    )


def renew(folder: Path, made: Bundle, metrics: Mapping[str, Any], card: str) -> bool:
    """Write model.json, metrics.json and model_card.md into the bundle at `folder`, all or none.

    The other files stay the very same (hard links, where the file system has them).

    Returns:
        False when they are there already: nothing was written.

    Raises:
        TryAgainError: A training holds the bundle.
        InputError: Another model took its place since it was read.
        OutputError: The bundle cannot be changed.
    """
    files = {
        bundle.METRICS: _json_text(metrics),
        bundle.CARD: card.encode(),
        bundle.MODEL: _json_text(made.to_dict()),
    }
    if all(_content(folder / name) == data for name, data in files.items()):
        return False
    folder = folder.resolve()  # a link stays a link
    new = folder.with_name(f".{folder.name}.new")
    try:
        with output_lock(folder, folder.with_name(f".{folder.name}.lock")):
            recover_folder(folder)
            if bundle.load(folder).weights_sha256 != made.weights_sha256:
                raise InputError(f"{folder} holds another model than a moment ago. Evaluate it again.")
            shutil.rmtree(new, ignore_errors=True)  # left by a run that was killed here
            try:
                shutil.copytree(folder, new, copy_function=_link)
                for name, data in files.items():
                    write_bytes(new / name, data)
                replace_folder(new, folder)
            except OSError as error:
                raise cannot_write(folder, error) from error
            finally:
                shutil.rmtree(new, ignore_errors=True)
    except OutputError as error:
        raise OutputError(
            f"{error} To evaluate without a change of the bundle: --no-freeze."
        ) from error
    return True


def _json_text(value: Any) -> bytes:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
