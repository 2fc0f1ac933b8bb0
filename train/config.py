"""How to train, checked before TensorFlow is loaded."""

from dataclasses import dataclass, field

from tumorbatch import architectures
from tumorbatch.errors import ConfigError

MAX_BATCH = 4096  # images; the last batch is padded to this size, so it costs memory
MAX_SEED = 2**32 - 1  # NumPy's and Keras' limit
THRESHOLD = 0.5  # on the probability of Tumor
TEMPERATURE = 1.0  # the network's own probability: not calibrated


class DivergedError(ConfigError):
    """The loss or the logits are not finite any more: the learning rate does not fit."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes to each training image, as the report has them.

    Attributes:
        shear: Largest horizontal shear, as the tangent of the angle; drawn from [-shear, shear].
        zoom: Largest relative change of size; the factor is drawn from [1 - zoom, 1 + zoom].
        flip: Whether half of the images are mirrored left to right.
    """

    shear: float = 0.2
    zoom: float = 0.2
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.shear <= 1:
            raise ConfigError(f"The shear must lie between 0 and 1. Received: {self.shear:g}.")
        if not 0 <= self.zoom < 1:
            raise ConfigError(f"The zoom must lie between 0 and 1. Received: {self.zoom:g}.")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: At most this many.
        patience: Stop after so many epochs without a higher validation AUC.
        batch_size: Images a step (32: the report).
        learning_rate: Of Adam.
        seed: Of the initial weights, the order of the images, and the augmentation.
    """

    epochs: int = 40
    patience: int = 8
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1. Received: {getattr(self, name)}.")
        if self.batch_size > MAX_BATCH:
            raise ConfigError(f"batch_size must be at most {MAX_BATCH}. Received: {self.batch_size}.")
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(
                f"learning_rate must lie above 0 and up to 1. Received: {self.learning_rate:g}."
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"The seed must lie between 0 and {MAX_SEED}. Received: {self.seed}.")


@dataclass(frozen=True, slots=True)
class Config:
    """How to train.

    Attributes:
        architecture: One of `architectures.ARCHITECTURES`.
        schedule: Epochs, patience, batch size, learning rate, seed.
        augmentation: Random changes to the training images, or None.
        device: "auto", "cpu" or "gpu".
        precision: "auto", "float32" or "mixed_float16".
        xla: "auto", "on" or "off".
        deterministic: Slower ops where the fast ones may differ in the last bit from run to run.
        checkpoint_minutes: Time between two checkpoints inside an epoch.
        overwrite: Replace another bundle.
    """

    architecture: str
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    device: str = "auto"
    precision: str = "auto"
    xla: str = "auto"
    deterministic: bool = False
    checkpoint_minutes: float = 5.0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.architecture not in architectures.ARCHITECTURES:
            raise ConfigError(
                f"--arch must be one of {', '.join(architectures.ARCHITECTURES)}. "
                f"Received: {self.architecture}."
            )
        if not self.checkpoint_minutes > 0:
            raise ConfigError(
                f"checkpoint_minutes must be above 0. Received: {self.checkpoint_minutes:g}."
            )
