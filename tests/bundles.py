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


def write_ensemble(folder: Path) -> Path:
    """Write a bundle of two networks with each further file that `infer` reads; none can be used."""
    write_bundle(folder)
    (folder / bundle.WEIGHTS).unlink()

    def digest(name: str) -> str:
        (folder / name).write_bytes(name.encode())
        return hashlib.sha256(name.encode()).hexdigest()

    members = tuple(
        bundle.Member(
            name=f"m{number}",
            architecture="cnn1",
            weights_sha256=digest(bundle.member_file(number)),
            model_id=f"cnn1-{number}",
            weight=0.5,
            channels=Preprocessing().channels,
        )
        for number in range(2)
    )
    rewrite(
        folder,
        architecture=bundle.ENSEMBLE,
        members=members,
        weights_sha256=bundle.members_sha256(members),
        known_images_sha256=digest(bundle.KNOWN_IMAGES),
        familiarity_sha256=digest(bundle.FAMILIARITY),
    )
    return folder
