"""Join several trained bundles into one that answers with the mean of their logits."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tumorbatch import bundle
from tumorbatch.atomic import (
    make_folder,
    real_folder,
    recover_folder,
)
from tumorbatch.bundle import Bundle, Member
from tumorbatch.checks import format_changes, refuse_nameless
from tumorbatch.errors import ConfigError
from tumorbatch.files import is_empty
from tumorbatch.known_images import KnownImages
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.out_of_fold import OutOfFold, mean, read
from tumorbatch.runtime import load_tensorflow
from tumorbatch.shardset import Dataset
from tumorbatch.workflows import checks
from tumorbatch.workflows.ensemble_bundle import Config, Joined, Part, publish

_NORMALISED_VERSION = "normalised_version"  # in `Preprocessing.to_dict`


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        bundle: What was written, or was already there.
        metrics: {"validation": ..., "test": ...}.
        seconds: Wall time.
        unchanged: True when the same ensemble was already there.
    """

    bundle: Bundle
    metrics: dict[str, Any]
    seconds: float
    unchanged: bool = False


def run(models: Sequence[Path], tfrecords: Path, out: Path, config: Config) -> Report:
    """Join the bundles `models`, and write the new bundle to `out`.

    Temperature and threshold are chosen on the validation split, which none of them was trained on; of
    bundles that were trained by folds on the mean of their out-of-fold logits.

    Args:
        models: Two bundles or more, ensembles among them; each has the same weight in the mean.
        tfrecords: The shard set that all of them were trained on.
        out: Folder of the new bundle.
        config: How.

    Raises:
        ConfigError: They do not belong together, or `out` holds something else.
        InputError: A bundle or the shard set is missing or damaged.
        OutputError: `out` cannot be written.
        TryAgainError: Another process is writing `out`.
    """
    started = time.monotonic()
    parts = [Part.load(folder) for folder in models]
    dataset = _refuse_unrelated(parts, tfrecords)
    joined = Joined(parts, join(parts), _by_folds(parts), _known_images(parts))
    refuse_nameless(out)
    out = real_folder(out)
    make_folder(out.parent)
    with output_lock(out, lock_beside(out)):
        recover_folder(out)
        if _already_done(out, joined.members, config.overwrite):
            done = bundle.load(out)
            return Report(done, bundle.read_metrics(out), time.monotonic() - started, True)
        load_tensorflow()
        made, metrics = publish(out, joined, tfrecords, dataset, config)
    return Report(made, metrics, time.monotonic() - started)


def _refuse_unrelated(parts: Sequence[Part], tfrecords: Path) -> Dataset:
    """Return the shard set; raise `ConfigError` unless all parts were trained on it."""
    if len(parts) < 2:
        raise ConfigError("An ensemble needs two models or more. Name them one after another.")
    first = parts[0]
    for part in parts[1:]:
        old, new = _common(first, part)
        changes = format_changes(old, new, f"in {first.name}", f"in {part.name}")
        if changes:
            raise ConfigError(
                f"{first.folder} and {part.folder} were trained on images that were prepared "
                f"differently ({changes}). Join models of the same preprocessing."
            )
        if part.bundle.training.get("dataset_sha256") != first.bundle.training.get("dataset_sha256"):
            raise ConfigError(
                f"{first.folder} and {part.folder} were trained on different shard sets: one of them "
                "may have been trained on the validation and test images of the other. Train both on "
                "the same shard set."
            )
    dataset = checks.load_own(tfrecords, first.bundle, first.folder)
    return dataset.select(_channels(parts)) if dataset.variants else dataset


def _common(*parts: Part) -> list[dict[str, Any]]:
    """Return for each part what must be the same in all; they may see different variants.

    Only a part that sees `normalised` has the version of it.
    """
    own = [part.bundle.preprocessing.to_dict() for part in parts]
    left_out = {"variants", "clahe"}
    if not all(_NORMALISED_VERSION in values for values in own):
        left_out.add(_NORMALISED_VERSION)
    return [{name: value for name, value in values.items() if name not in left_out} for values in own]


def _channels(parts: Sequence[Part]) -> tuple[str, ...]:
    """Return the variants that any part sees, each once."""
    return tuple(dict.fromkeys(name for part in parts for name in part.bundle.preprocessing.channels))


def join(parts: Sequence[Part]) -> tuple[Member, ...]:
    """Return the networks of all parts, each part with the same weight in the mean."""
    members = []
    for part in parts:
        description, share = part.bundle, 1 / len(parts)
        members += [
            replace(member, name=f"{part.name}/{member.name}", weight=share * member.weight)
            for member in description.members
        ] or [
            Member(
                part.name, description.architecture, description.weights_sha256,
                description.model_id, share, description.preprocessing.channels,
            )
        ]  # fmt: skip
    owner: dict[str, str] = {}
    for member in members:
        if member.weights_sha256 in owner:
            raise ConfigError(
                f"{owner[member.weights_sha256]} and {member.name} are the same network. Name each "
                "network once."
            )
        owner[member.weights_sha256] = member.name
    return tuple(members)


def _already_done(out: Path, members: Sequence[Member], overwrite: bool) -> bool:
    """Return whether `out` holds this ensemble; raise `ConfigError` if it may not be replaced."""
    bundle.refuse_foreign(out)
    if overwrite or not out.exists() or is_empty(out):
        return False
    if bundle.load(out).members != tuple(members):
        raise ConfigError(
            f"{out} already holds another model. Give another folder with --out, or --overwrite to "
            "replace it."
        )
    bundle.check_weights(out, bundle.load(out))
    return True


def _by_folds(parts: Sequence[Part]) -> dict[str, OutOfFold]:
    """Return the mean out-of-fold logits of all parts; {} where none was trained by folds.

    Raises:
        ConfigError: Some were, and others were not.
    """
    several = [
        read(part.folder / bundle.OUT_OF_FOLD, part.bundle.out_of_fold_sha256)
        for part in parts
        if part.bundle.out_of_fold_sha256
    ]
    if not several:
        return {}
    common = set.intersection(*(set(by) for by in several))
    if len(several) < len(parts) or not common:
        raise ConfigError(
            "Some of these models were trained by folds, on the validation split too, and others were "
            "not, or by other folds: there are no images to choose a threshold on. Train all of them "
            "with the same --folds and --folds-by, or none."
        )
    return {name: mean([by[name] for by in several]) for name in sorted(common)}


def _known_images(parts: Sequence[Part]) -> bytes:
    """Return the content of known_images.safetensors: the images of all parts that carry theirs."""
    several = [
        KnownImages.read(part.folder / bundle.KNOWN_IMAGES, part.bundle.known_images_sha256)
        for part in parts
        if part.bundle.known_images_sha256
    ]
    return KnownImages.united(several).to_bytes() if several else b""
