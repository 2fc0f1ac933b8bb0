"""How to train, checked before TensorFlow is loaded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tumorbatch import architectures
from tumorbatch.checks import check_batch_size, check_choice, check_seed
from tumorbatch.errors import ConfigError
from tumorbatch.folds import Fold
from tumorbatch.preprocessing_config import check_variants
from tumorbatch.train.recipes import settings

THRESHOLD = 0.5  # on the probability of Tumor
TEMPERATURE = 1.0  # the network's own probability: not calibrated
RATES = ("constant", "cosine", "plateau")
CLASS_WEIGHTS = ("none", "balanced")
GROUP_WEIGHTS = ("none", "sqrt", "equal")
FEEDS = ("auto", "ram", "stream")
KNOWN_IMAGES = ("auto", "on", "off")


class DivergedError(ConfigError):
    """The loss or the logits are not finite any more: the learning rate does not fit."""


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must be between {low:g} and {high:g}. Received: {value:g}.")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes to each training image. Shear, zoom and mirror are the report's.

    Attributes:
        shear: Largest horizontal shear, as the tangent of the angle; drawn from [-shear, shear].
        zoom: Largest relative change of size; the factor is drawn from [1 - zoom, 1 + zoom].
        flip: Whether half of the images are mirrored left to right.
        rotation: Largest turn about the centre, degrees; drawn from [-rotation, rotation].
        shift: Largest move along each axis, as a share of the side; drawn from [-shift, shift].
        contrast: Largest relative change of contrast, about the middle grey; drawn likewise.
        brightness: Largest change of brightness, as a share of white; drawn likewise.
    """

    shear: float = 0.2
    zoom: float = 0.2
    flip: bool = True
    rotation: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        _within("shear", self.shear, 0, 1)
        for name in ("zoom", "contrast"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1. Received: {value:g}.")
        _within("rotation", self.rotation, 0, 180)
        _within("shift", self.shift, 0, 1)
        _within("brightness", self.brightness, 0, 1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how fast, and against overfitting what.

    Attributes:
        epochs: At most this many; of a pretrained network with its base frozen.
        patience: Stop after so many epochs without a higher validation AUC; in each phase.
        batch_size: Images a step (32: the report).
        learning_rate: Of Adam, at the beginning.
        seed: Of the initial weights, the order of the images, and the augmentation.
        rate: "constant"; "cosine", down to 0 over all epochs; or "plateau", a third each time that
            half the patience has passed.
        weight_decay: Share of each kernel that a step takes away, times the learning rate (AdamW).
            0.05 was the best of what was tried, on validation (benchmarks/README.md).
        dropout: Of the last features, in addition to that of the architecture.
        label_smoothing: Labels become 0.5 s and 1 - 0.5 s.
        class_weights: "none", or "balanced": both classes weigh the same in the loss.
        group_weights: What an image weighs in the loss: "none": 1; "sqrt": 1 / the square root of the
            images of its duplicate group in the training split; "equal": 1 / their number, so that each
            group weighs the same. Normalised to a mean of 1.
        feature_copies: With the base frozen: train on the base's features of so many copies of each
            image, each with its own random changes, computed once; 0: new changes in every epoch.
        finetune_epochs: At most so many with the base's layers trained too, from the best weights
            before; 0 leaves the base as it is.
        finetune_learning_rate: Of this second phase.
        finetune_batch_norm: Train the base's batch normalisation too, instead of leaving it as it is
            in inference.
    """

    epochs: int = 40
    patience: int = 8
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    rate: str = "constant"
    weight_decay: float = 0.05
    dropout: float = 0.0
    label_smoothing: float = 0.0
    class_weights: str = "none"
    group_weights: str = "none"
    feature_copies: int = 0
    finetune_epochs: int = 0
    finetune_learning_rate: float = 1e-5
    finetune_batch_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1. Received: {getattr(self, name)}.")
        check_batch_size(self.batch_size)
        for name in ("learning_rate", "finetune_learning_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} must be above 0 and at most 1. Received: {getattr(self, name):g}."
                )
        check_seed(self.seed)
        check_choice("rate", self.rate, RATES)
        check_choice("class_weights", self.class_weights, CLASS_WEIGHTS)
        check_choice("--group-weights", self.group_weights, GROUP_WEIGHTS)
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 0 and below 1. Received: {getattr(self, name):g}."
                )
        _within("weight_decay", self.weight_decay, 0, 1)
        for name in ("finetune_epochs", "feature_copies"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0. Received: {getattr(self, name)}.")


_SCHEDULES: dict[str, dict[str, Any]] = {
    # The report unfroze resnet50's layers, left mobilenetv2's frozen, and does not say for
    # densenet121.
    "resnet50": {"finetune_epochs": 20},
    "densenet121": {"finetune_epochs": 20},
}


def schedule(
    architecture: str, weights: str | None = None, recipe: str | None = None, **changes: Any
) -> Schedule:
    """Return an architecture's own schedule, with some values changed.

    Args:
        architecture: Its name.
        weights: As in `Config`: random ones need no second phase.
        recipe: A name of `recipes`, whose values come before the defaults; or None.
        changes: Attributes of `Schedule`.
    """
    own = {} if weights == "none" else _SCHEDULES.get(architecture, {})
    return Schedule(**{**own, **settings(recipe, architecture).schedule, **changes})


@dataclass(frozen=True, slots=True)
class Config:
    """How to train.

    Attributes:
        architecture: One of `architectures.ARCHITECTURES`.
        schedule: How long, how fast.
        augmentation: Random changes to the training images, or None.
        weights: What a pretrained base starts from: "imagenet", "none" (random), an HDF5 file, or a
            folder of such files, see `imagenet.find`; None: "imagenet" where the architecture has a
            base.
        variants: Of the images in the records, see `Dataset.select`: one, or three as the channels of
            the input. Empty: the first.
        feed: "ram" holds the images in memory, "stream" reads the shards in each epoch, "auto"
            takes "ram" where they fit.
        device: "auto", "cpu" or "gpu".
        precision: One of `runtime.PRECISIONS`.
        xla: "auto", "on" or "off".
        threads: TensorFlow's, for one operation; None: the cores that this process may use.
        onednn: Intel's kernels on the CPU: "auto", "on" or "off".
        gpus: Train on so many GPUs of this machine, each with its part of every batch.
        steps_per_execution: Steps between two returns to Python; 0 chooses.
        deterministic: Slower ops where the fast ones may differ in the last bit from run to run.
        checkpoint_minutes: Time between two checkpoints inside an epoch.
        overwrite: Replace another bundle.
        tensorboard: Folder for TensorBoard's event files, or None.
        known_images: Whether the bundle carries hashes and signatures of its training and validation
            images: "on", "off", or "auto": not where one of them is DICOM, since they show whether
            a person was in the training set.
        fold: Train on training and validation split without this fold, and validate on it.
        shards: URI of the folder in S3 from which the shards are read in each epoch; "": they are in
            the folder of the shard set.
    """

    architecture: str
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    weights: str | None = None
    variants: tuple[str, ...] = ()
    feed: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    xla: str = "auto"
    threads: int | None = None
    onednn: str = "auto"
    gpus: int = 1
    steps_per_execution: int = 0
    deterministic: bool = False
    checkpoint_minutes: float = 5.0
    overwrite: bool = False
    tensorboard: Path | None = None
    known_images: str = "auto"
    fold: Fold | None = None
    shards: str = ""

    def __post_init__(self) -> None:
        check_choice("--arch", self.architecture, architectures.ARCHITECTURES)
        check_choice("--feed", self.feed, FEEDS)
        check_choice("--known-images", self.known_images, KNOWN_IMAGES)
        if self.variants:
            check_variants(self.variants)
            if len(self.variants) not in (1, architectures.CHANNELS):
                raise ConfigError(
                    f"--variant takes one name, or {architectures.CHANNELS} for the "
                    f"{architectures.CHANNELS} channels of the input. Received: "
                    f"{','.join(self.variants)}."
                )
        if self.shards and self.feed == "ram":
            raise ConfigError("--stream reads the shards in each epoch: leave out --feed ram.")
        if not self.checkpoint_minutes > 0:
            raise ConfigError(
                f"checkpoint_minutes must be above 0. Received: {self.checkpoint_minutes:g}."
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"--threads must be at least 1. Received: {self.threads}.")
        if self.gpus < 1:
            raise ConfigError(f"--gpus must be at least 1. Received: {self.gpus}.")
        if self.steps_per_execution < 0:
            raise ConfigError(
                f"--steps-per-execution must be at least 1. Received: {self.steps_per_execution}."
            )
        if self.architecture not in architectures.PRETRAINED and self.weights not in (None, "none"):
            raise ConfigError(
                f"{self.architecture} has no pretrained base: --weights is for "
                f"{', '.join(architectures.PRETRAINED)}."
            )
        if self.start == "none" and self.schedule.finetune_epochs:
            raise ConfigError(
                "There is nothing to fine-tune without pretrained weights: leave out --finetune-epochs."
            )
        if self.schedule.feature_copies and (self.start == "none" or self.gpus > 1):
            raise ConfigError(
                "--feature-copies needs a frozen base with pretrained weights, and one device. Leave "
                "it out."
            )

    @property
    def start(self) -> str:
        """Return where the base's weights come from: "imagenet", "none", or a path."""
        if self.architecture not in architectures.PRETRAINED:
            return "none"
        return self.weights or "imagenet"
