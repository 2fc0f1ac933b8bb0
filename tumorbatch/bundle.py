"""The model bundle: a trained network as data, never as code.

    weights.safetensors   float32 arrays by name
    model.json            what to build, what it was fed, how to read its output
    history.json          loss and metrics, one list a name, one value an epoch
    history.csv           the same as a table, one row an epoch
    curves.png            the same as a figure
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tumorbatch import architectures
from tumorbatch.errors import ConfigError, InputError, reason
from tumorbatch.files import printable, read_regular
from tumorbatch.json_reader import (
    ANYTHING,
    COUNT,
    FLAG,
    NULL,
    NUMBER,
    OBJECT,
    SHA256,
    SHARE,
    TEXT,
    Shape,
    check,
    read_object,
)
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.shardset import file_sha256

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
MODELS = Path("models")  # where `train` writes bundles by default
MODEL = "model.json"
WEIGHTS = "weights.safetensors"
KNOWN_IMAGES = "known_images.safetensors"
HISTORY = "history.json"
HISTORY_CSV = "history.csv"
CURVES = "curves.png"
METRICS = "metrics.json"
CARD = "model_card.md"
MAX_WEIGHTS_BYTES = 2 << 30  # 2 GiB, twenty times the largest of the architectures
_MODEL_SHAPE = {
    "model_id": TEXT,
    "architecture": TEXT,
    "preprocessing": OBJECT,
    "classes": [TEXT],
    "threshold": NUMBER,
    "temperature": NUMBER,
    "weights_sha256": SHA256,
    "known_images_sha256?": TEXT,
    "training": {
        "dataset_sha256?": TEXT,
        "split_by?": TEXT,
        "leaky?": FLAG,
        "variants?": [TEXT],
        "weights?": (NULL, {"origin": TEXT, "name": TEXT, "sha256": TEXT}),
        "schedule?": {"seed?": COUNT, "batch_size?": COUNT, TEXT: (NUMBER, FLAG, TEXT)},
        "augmentation?": (NULL, {TEXT: (NUMBER, FLAG)}),
        "epochs?": COUNT,
        "best_epoch?": COUNT,
        "parameters?": COUNT,
        "phases?": {TEXT: COUNT},
        "images_per_second?": NUMBER,
        "shapes?": [TEXT],
    },
    "versions": {TEXT: TEXT},
    "calibration?": OBJECT,
}
# What reports say about `Bundle.calibration`.
_CALIBRATION_SHAPE = {
    "split": TEXT,
    "dataset_sha256": TEXT,
    "threshold": {"value": NUMBER, "reached": FLAG, "rule": TEXT, "n": COUNT, "note": TEXT},
    "temperature": {"value": NUMBER, "n": COUNT, "note": TEXT},
}
_FIGURE_SHAPE = {
    "value": (NUMBER, NULL),
    "n": COUNT,
    "low": (NUMBER, NULL),
    "high": (NUMBER, NULL),
    "method": TEXT,
    "low_by_group?": (NUMBER, NULL),
    "high_by_group?": (NUMBER, NULL),
}
_SUMMARISED = ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc")
_FIGURES_SHAPE: dict[str, Any] = {
    "figures": {**dict.fromkeys(_SUMMARISED, _FIGURE_SHAPE), TEXT: _FIGURE_SHAPE},
    "at_0.5": {"figures": {"accuracy": _FIGURE_SHAPE, TEXT: _FIGURE_SHAPE}},
}
_SPLIT_SHAPE = {
    "n": COUNT,
    "healthy": COUNT,
    "tumor": COUNT,
    "groups": COUNT,
    **_FIGURES_SHAPE,
    "per_group?": _FIGURES_SHAPE,
}
_AUC_SHAPE: Shape = {"validation": {"figures": {"auc": {"value": SHARE}}}}
_METRICS_SHAPE: Shape = {"validation": _SPLIT_SHAPE, "test": _SPLIT_SHAPE}


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of model.json.

    Attributes:
        architecture: Name from the closed list.
        preprocessing: What the network's input went through.
        classes: Class names; index = label.
        threshold: A probability of at least this much is called Tumor.
        temperature: Logits are divided by it before the sigmoid; 1 means not calibrated.
        weights_sha256: Of weights.safetensors, hex.
        training: Summary of how it was trained.
        versions: Of the software that trained it.
        calibration: How temperature and threshold were chosen, on which split and shard set; empty in
            a bundle from before they were.
        known_images_sha256: Of known_images.safetensors, hex; "" in a bundle that carries none.
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

    @property
    def model_id(self) -> str:
        """Return architecture and 12 hex digits that identify weights, threshold and preprocessing."""
        deciding = json.dumps(
            [self.weights_sha256, self.threshold, self.temperature, self.preprocessing.fingerprint]
        )
        return f"{self.architecture}-{hashlib.sha256(deciding.encode()).hexdigest()[:12]}"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of model.json as JSON values."""
        value = asdict(self)
        value["preprocessing"] = self.preprocessing.to_dict()
        return {
            "schema_version": SCHEMA_VERSION,
            "model_id": self.model_id,
            "preprocessing_fingerprint": self.preprocessing.fingerprint,
            **value,
        }


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
        check(value, _MODEL_SHAPE)
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
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {reason(error)}. Train the model again.") from error
    if bundle.architecture not in architectures.ARCHITECTURES:
        raise ConfigError(
            f"{path} names the network {bundle.architecture!r}, which is not one of "
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
    calibration = bundle.calibration
    if fingerprint not in (None, bundle.preprocessing.fingerprint):
        return "has another preprocessing than its fingerprint says"
    if model_id != bundle.model_id:
        return f"has the model_id {model_id}, and its content that of {bundle.model_id}"
    if not calibration:
        return ""
    try:
        check(calibration, _CALIBRATION_SHAPE)
    except ValueError:
        return "does not say how its threshold and temperature were chosen"
    chosen = tuple(calibration[part]["value"] for part in ("threshold", "temperature"))
    if chosen != (bundle.threshold, bundle.temperature):
        return "has another threshold or temperature than those that it says were chosen"
    return ""


def check_weights(folder: Path, bundle: Bundle) -> None:
    """Raise `InputError` unless the weights on disk are those of model.json, to the bit."""
    path = folder / WEIGHTS
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise InputError(f"{path} is missing or unreadable: {reason(error)}.") from error
    if sha256 != bundle.weights_sha256:
        raise _exchanged(path, sha256, bundle)


def _exchanged(path: Path, sha256: str, bundle: Bundle) -> InputError:
    return InputError(
        f"{path} is damaged or was exchanged: its sha256 is {sha256[:12]}..., {MODEL} says "
        f"{bundle.weights_sha256[:12]}.... Bring the original back, or train the model again."
    )


def load_network(folder: Path, bundle: Bundle) -> Any:
    """Build the bundle's network and set its weights.

    Returns:
        `keras.Model`, see `architectures.build`.

    Raises:
        InputError: The weights are missing, were changed by as little as one bit, do not fit, are not
            float32, or are not finite.
    """
    import safetensors
    import safetensors.numpy

    path = folder / WEIGHTS
    try:
        data = read_regular(path, MAX_WEIGHTS_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or cannot be read: {reason(error)}.") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != bundle.weights_sha256:
        raise _exchanged(path, sha256, bundle)
    try:
        weights = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type numpy has not
        raise InputError(f"{path} is damaged: {error}.") from error
    size, channels = bundle.preprocessing.size, len(bundle.preprocessing.channels)
    network = architectures.build(bundle.architecture, size, channels=channels)
    expected = {variable.path: variable for variable in network.weights}
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights or name not in expected:
            where = "misses" if name not in weights else "has an unknown"
            raise InputError(f"{path} {where} weight {name!r} for {bundle.architecture}.")
        problem = _unfit(weights[name], expected[name])
        if problem:
            raise InputError(f"{path}: weight {name!r} {problem}. Train the model again.")
    for name, variable in expected.items():
        variable.assign(weights[name])
    return network


def _unfit(array: Any, variable: Any) -> str:
    """Return why an array cannot be a variable's value, as the end of a sentence; "" where it can.

    One value that is not finite makes every logit so, and not a number compares as false: as Healthy.
    """
    import numpy as np

    if array.shape != tuple(variable.shape):
        return f"has shape {array.shape}, expected {tuple(variable.shape)}"
    if array.dtype != np.float32:
        return f"is {array.dtype}, expected float32"
    if not np.isfinite(array).all():
        return "holds values that are not finite"
    if variable.name == "moving_variance" and (array < 0).any():
        return "holds negative variances"
    return ""


def serialize_weights(network: Any) -> bytes:
    """Return all weights of a `keras.Model` as the bytes of a safetensors file, float32."""
    import numpy as np
    import safetensors.numpy

    arrays = {
        variable.path: np.ascontiguousarray(variable.numpy(), dtype=np.float32)
        for variable in network.weights
    }
    data: bytes = safetensors.numpy.save(arrays)
    return data


def read_metrics(folder: Path, shape: Shape = _METRICS_SHAPE) -> dict[str, Any]:
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
            description, metrics = load(path.parent), read_metrics(path.parent, _AUC_SHAPE)
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
