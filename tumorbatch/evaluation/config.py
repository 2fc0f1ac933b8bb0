"""How to evaluate, and the receipt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tumorbatch.checks import check_batch_size, check_seed
from tumorbatch.errors import ConfigError
from tumorbatch.statistics.calibration import Rule
from tumorbatch.statistics.intervals import REPLICATES


@dataclass(frozen=True, slots=True)
class Config:
    """How to evaluate.

    Attributes:
        rule: For the threshold, as `calibration.Rule.parse` takes it; None keeps the bundle's own, and
            takes the default for a bundle that has none.
        as_is: Judge the bundle at its own threshold and temperature, and leave it alone, whether they
            were chosen on data or not.
        freeze: Write the threshold and temperature, and the renewed metrics and card, into the bundle.
            None: metrics and card only, if threshold and temperature are its own. False: nothing.
        external: The shard set is another one than the model was trained on, on purpose: nothing is
            chosen on it, all of its images are judged, and the bundle is left alone.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.
        gallery: At most so many errors are shown.
        batch_size: Images a forward pass.
        device: "auto", "cpu" or "gpu".
        overwrite: Replace results of another model or shard set.
        tta: "none", or "flip": the mean logit of an image and its mirror; None: as in the bundle.
    """

    rule: str | None = None
    as_is: bool = False
    freeze: bool | None = None
    external: bool = False
    replicates: int = REPLICATES
    seed: int = 0
    gallery: int = 12
    batch_size: int = 32
    device: str = "auto"
    overwrite: bool = False
    tta: str | None = None

    def __post_init__(self) -> None:
        if self.rule is not None:
            Rule.parse(self.rule)
            if self.external:
                raise ConfigError(
                    "A threshold is chosen on the validation split of the model's own shard set, not "
                    "on an external one: leave out --threshold or --external."
                )
        if not REPLICATES <= self.replicates <= 1_000_000:
            raise ConfigError(
                f"--replicates must be between {REPLICATES:,} and 1,000,000: fewer give ends that the "
                f"next seed would move. Received: {self.replicates}."
            )
        check_seed(self.seed)
        if not 0 <= self.gallery <= 200:
            raise ConfigError(f"--gallery must be between 0 and 200. Received: {self.gallery}.")
        check_batch_size(self.batch_size)


@dataclass(frozen=True, slots=True)
class Patients:
    """The groups of an external set's images, by a table of patients.

    Attributes:
        groups: {path: number}; images of one patient, or copies of each other, have the same number.
        known: The number of patients in the table.
        table: How many of its paths fit no file, and how many files have no patient in it, as in
            dataset.json.
    """

    groups: Mapping[str, int]
    known: int
    table: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The receipt of a run.

    Attributes:
        metrics: The content of metrics.json.
        renewed: Whether the bundle was changed.
        before: The bundle's model_id before the run.
        seconds: Wall time.
    """

    metrics: dict[str, Any]
    renewed: bool
    before: str
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return the main metrics as JSON values, for one line of output."""
        model, test = self.metrics["model"], self.metrics["test"]
        names = ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc", "brier", "ece")
        return {
            "model": model["name"],
            "model_id": model["model_id"],
            "protocol": self.metrics["protocol"],
            "n": test["n"],
            "threshold": model["threshold"],
            "temperature": model["temperature"],
            "frozen": model["frozen"],
            "renewed": self.renewed,
            "bundle_model_id": model["bundle_model_id"],
            "bundle_model_id_before": self.before,
            **{name: test["figures"][name] for name in names},
            "beats_baselines": self.metrics["beats_baselines"],
            "seconds": round(self.seconds, 1),
        }
