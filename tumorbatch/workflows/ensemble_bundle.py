"""Write the bundle of an ensemble: scored, calibrated, with all weights of its networks."""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tumorbatch import bundle, familiarity
from tumorbatch.atomic import (
    PRIVATE,
    atomic_folder,
    write_bytes,
    write_json,
)
from tumorbatch.bundle import ENSEMBLE, Bundle, Member, members_sha256
from tumorbatch.bundle_weights import MAX_WEIGHTS_BYTES, load_network
from tumorbatch.checks import check_batch_size
from tumorbatch.errors import ConfigError
from tumorbatch.evaluation.answers import score_split
from tumorbatch.evaluation.choice import choose_and_measure
from tumorbatch.evaluation.held_out import as_validation, out_of_fold_answers
from tumorbatch.evaluation.model_card import model_card
from tumorbatch.files import counted, printable, read_regular
from tumorbatch.out_of_fold import OutOfFold, to_bytes
from tumorbatch.runtime import resolve, versions
from tumorbatch.scoring import Scorer, scorer, with_channels
from tumorbatch.shardset import Dataset

log = logging.getLogger(__name__)

_TIMED = 3  # forward passes of a batch, of which the fastest counts


@dataclass(frozen=True, slots=True)
class Config:
    """How to join.

    Attributes:
        device: "auto", "cpu" or "gpu".
        batch_size: Images a forward pass, while the members are scored.
        overwrite: Replace another model that is there.
    """

    device: str = "auto"
    batch_size: int = 32
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)


@dataclass(frozen=True, slots=True)
class Part:
    """A bundle that goes into an ensemble.

    Attributes:
        folder: Where it lies.
        name: By which reports name it.
        bundle: The content of its model.json.
    """

    folder: Path
    name: str
    bundle: Bundle

    @classmethod
    def load(cls, folder: Path) -> "Part":
        """Read a bundle, and check its weights."""
        description = bundle.load(folder)
        bundle.check_weights(folder, description)
        return cls(folder, printable(folder.resolve().name), description)


@dataclass(frozen=True, slots=True)
class Joined:
    """What goes into an ensemble.

    Attributes:
        parts: The bundles.
        members: Their networks.
        by_folds: {how folds were made: logits of images that the networks have not seen}; {}: none of
            them was trained on the validation split.
        known_images: Content of known_images.safetensors, or nothing.
        training: Further values of `Bundle.training`.
    """

    parts: Sequence[Part]
    members: tuple[Member, ...]
    by_folds: dict[str, OutOfFold]
    known_images: bytes
    training: dict[str, Any] = field(default_factory=dict)


def publish(
    out: Path, joined: Joined, tfrecords: Path, dataset: Dataset, config: Config
) -> tuple[Bundle, dict[str, Any]]:
    """Score, choose temperature and threshold, and write the whole bundle next to `out`.

    Args:
        out: Folder of the bundle. Hold its lock.
        joined: What goes into it.
        tfrecords: The shard set.
        dataset: Its description.
        config: How.
    """
    parts, members = joined.parts, joined.members
    runtime = resolve(config.device, precision="float32")
    log.info("%s: %s", counted(len(members), "network"), runtime.reason)
    networks = [load_network(part.folder, part.bundle) for part in parts]
    tta = _tta(parts)
    scorers = [scorer(network, config.batch_size, runtime, tta) for network in networks]
    shares = [sum(member.weight for member in _of(part, members)) for part in parts]

    seen = [
        [dataset.preprocessing.channels.index(name) for name in part.bundle.preprocessing.channels]
        for part in parts
    ]

    def mean_logit(images: Any) -> Any:
        whole = with_channels(images)
        logits = [
            share * score(whole[..., numbers])
            for share, score, numbers in zip(shares, scorers, seen, strict=True)
        ]
        return np.sum(logits, axis=0, dtype=np.float32)

    by_folds = out_of_fold_answers(tfrecords, dataset, joined.by_folds)
    answers = {
        "validation": as_validation(by_folds)
        if by_folds
        else score_split(tfrecords, dataset, "validation", mean_logit),
        "test": score_split(tfrecords, dataset, "test", mean_logit),
    }
    sha256 = str(parts[0].bundle.training["dataset_sha256"])
    metrics, calibration = choose_and_measure(answers, sha256, by_folds)
    logits = to_bytes(joined.by_folds) if by_folds else b""
    familiar = _familiarity(parts)
    description = Bundle(
        architecture=ENSEMBLE,
        preprocessing=dataset.preprocessing,
        classes=parts[0].bundle.classes,
        threshold=calibration["threshold"]["value"],
        temperature=calibration["temperature"]["value"],
        weights_sha256=members_sha256(members),
        training={
            **_training(parts, dataset),
            "parameters": sum(network.count_params() for network in networks),
            "cost": _cost(parts, scorers, config.batch_size),
            **joined.training,
        },
        versions=versions("keras", "tensorflow", "numpy"),
        calibration=calibration,
        known_images_sha256=_sha256(joined.known_images),
        out_of_fold_sha256=_sha256(logits),
        familiarity_sha256=_sha256(familiar),
        members=members,
        tta=tta,
    )
    arrays = {bundle.OUT_OF_FOLD: logits, bundle.FAMILIARITY: familiar}
    _write(out, joined, description, dataset, metrics, arrays)
    return description, metrics


def _write(
    out: Path,
    joined: Joined,
    description: Bundle,
    dataset: Dataset,
    metrics: dict[str, Any],
    arrays: dict[str, bytes],
) -> None:
    """Write the whole bundle next to `out`, then exchange the two."""
    with atomic_folder(out) as folder:
        if joined.known_images:
            write_bytes(folder / bundle.KNOWN_IMAGES, joined.known_images, PRIVATE)
        for name, data in arrays.items():
            if data:
                write_bytes(folder / name, data)
        files = [part.folder / name for part in joined.parts for name in part.bundle.weights]
        for name, path in zip(description.weights, files, strict=True):
            write_bytes(folder / name, read_regular(path, MAX_WEIGHTS_BYTES))
        bundle.check_weights(folder, description)  # a training may have replaced one since
        write_json(folder / bundle.METRICS, metrics)
        write_bytes(folder / bundle.CARD, model_card(description, dataset, metrics).encode())
        write_json(folder / bundle.MODEL, description.to_dict())


def _training(parts: Sequence[Part], dataset: Dataset) -> dict[str, Any]:
    """Return how the networks were trained, as `Bundle.training` of the whole."""
    several = [part.bundle.training for part in parts]
    shapes = {shape for training in several for shape in training.get("shapes", ())}
    known = all("shapes" in training for training in several)
    return {
        "architecture": ENSEMBLE,
        "dataset_sha256": several[0]["dataset_sha256"],
        "split_by": dataset.split_by,
        "leaky": dataset.leaky,
        "leak": dataset.leak,
        "epochs": sum(training.get("epochs", 0) for training in several),
        **({"shapes": sorted(shapes, key=_sides)} if known else {}),
    }


def _sides(shape: str) -> list[int]:
    return [int(side) for side in shape.split("x")]


def _cost(parts: Sequence[Part], scorers: Sequence[Scorer], batch_size: int) -> dict[str, Any]:
    """Return how long the networks take for an image, measured on a full batch."""
    milliseconds = {}
    for part, score in zip(parts, scorers, strict=True):
        images = np.zeros((batch_size, *part.bundle.preprocessing.shape), np.uint8)
        times = []
        for _ in range(_TIMED):
            started = time.perf_counter()
            score(images)
            times.append(time.perf_counter() - started)
        milliseconds[part.name] = round(1000 * min(times) / batch_size, 3)
    return {
        "networks": sum(max(1, len(part.bundle.members)) for part in parts),
        "milliseconds_per_image": round(sum(milliseconds.values()), 3),
        "of_members": milliseconds,
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if data else ""


def _of(part: Part, members: Sequence[Member]) -> list[Member]:
    """Return the networks that come from a part."""
    own = {sha256 for _, sha256 in part.bundle.weights.values()}
    return [member for member in members if member.weights_sha256 in own]


def _familiarity(parts: Sequence[Part]) -> bytes:
    """Return what all networks know of their training images; nothing if one of them lacks it."""
    if not all(part.bundle.familiarity_sha256 for part in parts):
        return b""
    return familiarity.to_bytes(
        [
            one
            for part in parts
            for one in familiarity.read(
                part.folder / bundle.FAMILIARITY, part.bundle.familiarity_sha256
            )
        ]
    )


def _tta(parts: Sequence[Part]) -> str:
    """Return how all parts look at an image; raise `ConfigError` if they do so in different ways."""
    several = {part.bundle.tta for part in parts}
    if len(several) > 1:
        raise ConfigError(
            "Some of these models were frozen with --tta flip, and others were not. Freeze all of them "
            "in one way, by `tumorbatch evaluate --tta`."
        )
    return several.pop()
