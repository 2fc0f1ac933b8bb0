"""The model bundle: a trained network as data, never as code.

    weights.safetensors   float32 arrays by name; an ensemble has member-0.safetensors, ... instead
    model.json            what to build, what it was fed, how to read its output
    history.json          loss and metrics, one list a name, one value an epoch
    history.csv           the same as a table, one row an epoch
    curves.png            the same as a figure
    familiarity.safetensors   features of the training images, by which unfamiliar images are noticed
    out_of_fold.safetensors   logits of images that each network of an ensemble by folds has not seen
    known_images.safetensors  hashes and signatures of what it was trained on, where it carries them
    metrics.json          validation and test figures
    model_card.md         the same for people

The loader builds the network from this project's own code and then sets the weights. It never calls
Keras' `load_model`, which runs code from the file (16 published holes in two years).
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tumorbatch import architectures
from tumorbatch.bundle_shape import AUC_SHAPE, CALIBRATION_SHAPE, METRICS_SHAPE, MODEL_SHAPE
from tumorbatch.errors import ConfigError, InputError, reason
from tumorbatch.files import foreign_entries, printable
from tumorbatch.json_reader import ANYTHING, Shape, check, read_object
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.shardset import file_sha256
from tumorbatch.tta import NO_TTA, TTA

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
MODELS = Path("models")  # where `train` writes bundles by default
MODEL = "model.json"
WEIGHTS = "weights.safetensors"
FAMILIARITY = "familiarity.safetensors"
OUT_OF_FOLD = "out_of_fold.safetensors"
KNOWN_IMAGES = "known_images.safetensors"
HISTORY = "history.json"
HISTORY_CSV = "history.csv"
CURVES = "curves.png"
METRICS = "metrics.json"
CARD = "model_card.md"
ENSEMBLE = architectures.ENSEMBLE
_FILES = {
    MODEL,
    WEIGHTS,
    KNOWN_IMAGES,
    OUT_OF_FOLD,
    FAMILIARITY,
    HISTORY,
    HISTORY_CSV,
    CURVES,
    METRICS,
    CARD,
}


@dataclass(frozen=True, slots=True)
class Member:
    """One network of an ensemble.

    Attributes:
        name: Of the bundle that it comes from.
        architecture: Name from the closed list.
        weights_sha256: Of its weights, hex: those of that bundle, to the bit.
        model_id: Of that bundle.
        weight: Of its logit in the mean; all of them add up to 1.
        channels: The variants of an image that it sees, of those of the bundle's preprocessing.
    """

    name: str
    architecture: str
    weights_sha256: str
    model_id: str
    weight: float
    channels: tuple[str, ...]


def members_sha256(members: Sequence[Member]) -> str:
    """Return the sha256 (hex) that stands for all weights of an ensemble, in their order."""
    parts = [
        [member.architecture, member.weights_sha256, member.weight, member.channels]
        for member in members
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of model.json.

    Attributes:
        architecture: Name from the closed list, or `ENSEMBLE`.
        preprocessing: What the network's input went through.
        classes: Class names; index = label.
        threshold: A probability of at least this much is called Tumor.
        temperature: Logits are divided by it before the sigmoid; 1 means not calibrated.
        weights_sha256: Of weights.safetensors, hex; of an ensemble see `members_sha256`.
        training: Summary of how it was trained.
        versions: Of the software that trained it.
        calibration: How temperature and threshold were chosen, on which split and shard set; empty in
            a bundle from before they were.
        known_images_sha256: Of known_images.safetensors, hex; "" in a bundle that carries none.
        out_of_fold_sha256: Of out_of_fold.safetensors, hex; "" unless it was trained by folds.
        familiarity_sha256: Of familiarity.safetensors, hex; "" in a bundle that carries none.
        members: The networks of an ensemble, two or more; () for a single network.
        tta: One of `scoring.TTA`: how often the networks see an image.
    """

    architecture: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    threshold: float
    temperature: float
    weights_sha256: str
    training: dict[str, Any]
    versions: dict[str, str]
    calibration: dict[str, Any] = field(default_factory=dict)
    known_images_sha256: str = ""
    out_of_fold_sha256: str = ""
    familiarity_sha256: str = ""
    members: tuple[Member, ...] = ()
    tta: str = NO_TTA

    @property
    def weights(self) -> dict[str, tuple[str, str]]:
        """Return {file of weights: (architecture, sha256)}, in the order of the networks."""
        if not self.members:
            return {WEIGHTS: (self.architecture, self.weights_sha256)}
        return {
            member_file(number): (member.architecture, member.weights_sha256)
            for number, member in enumerate(self.members)
        }

    @property
    def files(self) -> dict[str, str]:
        """Return {file: sha256} of all that inference reads beside model.json."""
        files = {name: sha256 for name, (_, sha256) in self.weights.items()}
        files[KNOWN_IMAGES] = self.known_images_sha256
        files[FAMILIARITY] = self.familiarity_sha256
        return {name: sha256 for name, sha256 in files.items() if sha256}

    @property
    def model_id(self) -> str:
        """Return architecture and 12 hex digits that identify weights, threshold and preprocessing."""
        parts = [self.weights_sha256, self.threshold, self.temperature, self.preprocessing.fingerprint]
        deciding = json.dumps([*parts, *([self.tta] if self.tta != NO_TTA else [])])
        return f"{self.architecture}-{hashlib.sha256(deciding.encode()).hexdigest()[:12]}"

    def with_tta(self, tta: str | None) -> "Bundle":
        """Return the bundle that sees an image as often as `tta` says; None: as it is."""
        return self if tta is None else replace(self, tta=tta)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of model.json as JSON values."""
        value = asdict(self)
        value["preprocessing"] = self.preprocessing.to_dict()
        for name in ("members", "out_of_fold_sha256", "familiarity_sha256"):
            if not value[name]:  # model.json of a single network stays as it always was
                del value[name]
        if self.tta == NO_TTA:
            del value["tta"]
        return {
            "schema_version": SCHEMA_VERSION,
            "model_id": self.model_id,
            "preprocessing_fingerprint": self.preprocessing.fingerprint,
            **value,
        }


def member_file(number: int | str) -> str:
    """Return the name of the file with the weights of an ensemble's network, counted from 0."""
    return f"member-{number}.safetensors"


def refuse_foreign(out: Path) -> None:
    """Raise `ConfigError` if a folder for a bundle is a file, or holds other files than a bundle's."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file. Give the bundle another folder with --out.")
    weights = {path.name for path in out.glob(member_file("*"))}
    foreign = foreign_entries(out, _FILES | weights)
    if foreign:
        raise ConfigError(
            f"{out} holds files that do not belong to a bundle ({foreign}). Give another folder with "
            "--out."
        )


def load(folder: Path) -> Bundle:
    """Read and check model.json; the weights stay on disk.

    Raises:
        InputError: The bundle is missing or damaged.
        ConfigError: It was written by another version of the format, or names an unknown network.
    """
    path = folder / MODEL
    if not path.is_file():
        raise InputError(
            f"{folder} is not a model bundle: it has no {MODEL}. Train a model with `tumorbatch "
            "train`, or give the folder of a bundle."
        )
    try:
        value = read_object(path, {"schema_version": ANYTHING})
        if value["schema_version"] != SCHEMA_VERSION:
            raise ConfigError(
                f"{path} has format version {value['schema_version']}; this tumorbatch reads "
                f"{SCHEMA_VERSION}. Train the model again."
            )
        check(value, MODEL_SHAPE)
        bundle = Bundle(
            architecture=value["architecture"],
            preprocessing=Preprocessing.from_dict(value["preprocessing"]),
            classes=tuple(value["classes"]),
            threshold=float(value["threshold"]),
            temperature=float(value["temperature"]),
            weights_sha256=value["weights_sha256"],
            training=value["training"],
            versions=value["versions"],
            calibration=value.get("calibration", {}),
            known_images_sha256=value.get("known_images_sha256", ""),
            out_of_fold_sha256=value.get("out_of_fold_sha256", ""),
            familiarity_sha256=value.get("familiarity_sha256", ""),
            tta=value.get("tta", NO_TTA),
            members=tuple(
                Member(**{**member, "channels": tuple(member["channels"])})
                for member in value.get("members", ())
            ),
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {reason(error)}. Train the model again.") from error
    single = (member.architecture for member in bundle.members or (bundle,))
    for name in single:
        if name not in architectures.ARCHITECTURES:
            raise ConfigError(
                f"{path} names the network {name!r}, which is not one of "
                f"{', '.join(architectures.ARCHITECTURES)}."
            )
    if not (0 < bundle.threshold < 1 and 0 < bundle.temperature < math.inf):
        raise InputError(f"{path} has an impossible threshold or temperature.")
    if bundle.classes != CLASS_NAMES:
        raise InputError(f"{path} must have the classes {', '.join(CLASS_NAMES)}, in this order.")
    problem = _contradiction(bundle, value["model_id"], value.get("preprocessing_fingerprint"))
    if problem:
        raise InputError(
            f"{path} {problem}. It was changed by hand, or is damaged: bring the original back, or "
            "train the model again. Another threshold: `tumorbatch evaluate --threshold`."
        )
    return bundle


def _contradiction(bundle: Bundle, model_id: str, fingerprint: str | None) -> str:
    """Return what in model.json cannot be true, as the middle of a sentence; or "".

    Tables and reports name a model by its id, and say how its threshold was chosen.
    """
    calibration, members = bundle.calibration, bundle.members
    if (bundle.architecture == ENSEMBLE) != (len(members) > 1):
        return "must name the networks of an ensemble, two or more, and of no other model"
    if bundle.tta not in TTA:
        return f"has another tta than {', '.join(TTA)}"
    if members and members_sha256(members) != bundle.weights_sha256:
        return "has other networks than its weights_sha256 says"
    if members and {name for member in members for name in member.channels} != set(
        bundle.preprocessing.channels
    ):
        return "has networks that see other variants than its preprocessing makes"
    if members and not (
        min(member.weight for member in members) > 0
        and math.isclose(sum(member.weight for member in members), 1)
    ):
        return "has weights of networks that are not positive or do not add up to 1"
    if fingerprint not in (None, bundle.preprocessing.fingerprint):
        return "has another preprocessing than its fingerprint says"
    if model_id != bundle.model_id:
        return f"has the model_id {model_id}, and its content that of {bundle.model_id}"
    if not calibration:
        return ""
    try:
        check(calibration, CALIBRATION_SHAPE)
    except ValueError:
        return "does not say how its threshold and temperature were chosen"
    chosen = tuple(calibration[part]["value"] for part in ("threshold", "temperature"))
    if chosen != (bundle.threshold, bundle.temperature):
        return "has another threshold or temperature than those that it says were chosen"
    return ""


def check_weights(folder: Path, bundle: Bundle) -> None:
    """Raise `InputError` unless the weights on disk are those of model.json, to the bit."""
    for name, (_, expected) in bundle.weights.items():
        path = folder / name
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            raise InputError(f"{path} is missing or unreadable: {reason(error)}.") from error
        if sha256 != expected:
            raise exchanged(path, sha256, expected)


def exchanged(path: Path, sha256: str, expected: str) -> InputError:
    """Return the error of a file of weights that is not the one in model.json."""
    return InputError(
        f"{path} is damaged or was exchanged: its sha256 is {sha256[:12]}..., {MODEL} says "
        f"{expected[:12]}.... Bring the original back, or train the model again."
    )


def read_metrics(folder: Path, shape: Shape = METRICS_SHAPE) -> dict[str, Any]:
    """Return the figures of a bundle's metrics.json: {"validation": ..., "test": ...}.

    Raises:
        InputError: The file is missing or damaged.
    """
    path = folder / METRICS
    try:
        return read_object(path, shape)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is missing or damaged: {reason(error)}. Train the model again."
        ) from error


def names(folder: Path = MODELS) -> list[str]:
    """Return the sorted names of the bundles in a folder."""
    # Not the hidden folders: they belong to a training run that is under way or was killed.
    return sorted(path.parent.name for path in folder.glob(f"[!.]*/{MODEL}"))


def find(name: Path, models: Path = MODELS) -> Path:
    """Return the folder that a bundle's path or name means; a path that exists wins.

    Args:
        name: A path, or the name of a folder in `models`.
        models: Where bundles lie.

    Raises:
        InputError: There is no such folder; the message lists the bundles in `models`.
    """
    for folder in (name, models / name):
        if folder.is_dir():
            return folder
    listed = ", ".join(map(printable, names(models))) or "no bundle"
    raise InputError(
        f"{name} is not a model bundle: there is no folder {name}, and {models}/ holds {listed}. Train "
        "a model with `tumorbatch train`, or give the folder of a bundle."
    )


def best(folder: Path = MODELS) -> Path:
    """Return the bundle in a folder that has the highest validation AUC.

    A bundle of a leaky split is taken only if there is no other: its figures are too good. Bundles
    that cannot be used are skipped, with a warning.

    Raises:
        InputError: There is no bundle.
    """
    ranked = []
    for path in (folder / name / MODEL for name in names(folder)):
        try:
            description, metrics = load(path.parent), read_metrics(path.parent, AUC_SHAPE)
        except (ConfigError, InputError) as error:
            log.warning("%s is skipped: %s", path.parent, error)
            continue
        auc = metrics["validation"]["figures"]["auc"]["value"]
        ranked.append((bool(description.training.get("leaky")), -auc, path.parent, description))
    for _, _, candidate, description in sorted(ranked, key=lambda entry: entry[:2]):
        try:
            check_weights(candidate, description)
        except InputError as error:
            log.warning("%s is skipped: %s", candidate, error)
            continue
        return candidate
    raise InputError(
        f"{folder} holds no model bundle that can be used. Train one with `tumorbatch train`, or name "
        "one with --model FOLDER."
    )
