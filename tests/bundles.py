"""Bundles that say something else, in themselves consistent: as another training would make them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tumorbatch import bundle
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocessing_config import Preprocessing


def rewrite(folder: Path, **changes: Any) -> bundle.Bundle:
    """Write model.json anew with other attributes of `Bundle`."""
    made = replace(bundle.load(folder), **changes)
    (folder / bundle.MODEL).write_text(json.dumps(made.to_dict()))
    return made


def write_bundle(folder: Path, size: int = 32) -> Path:
    """Write a bundle whose weights no network can use, for a run with another in its place."""
    folder.mkdir(parents=True)
    (folder / bundle.WEIGHTS).write_bytes(b"no weights")
    written = bundle.Bundle(
        architecture="cnn1",
        preprocessing=Preprocessing(size=size),
        classes=CLASS_NAMES,
        threshold=0.5,
        temperature=1.0,
        weights_sha256=hashlib.sha256(b"no weights").hexdigest(),
        training={},
        versions={},
    )
    (folder / bundle.MODEL).write_text(json.dumps(written.to_dict()))
    return folder
