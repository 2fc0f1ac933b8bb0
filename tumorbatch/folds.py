"""Folds: training and validation split together, divided so that each image is held out once.

The test split stays out of it. Copies stay together, as in the splits; by shape, so do all images of
one height and width, which stands for images from elsewhere.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tumorbatch.checks import check_choice
from tumorbatch.errors import ConfigError

GROUP, SHAPE, BOTH = "group", "shape", "both"
FOLDS_BY = (GROUP, SHAPE, BOTH)
SPLITS = ("train", "validation")
MOST = 20


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold.

    Attributes:
        number: From 0; its images are held out.
        count: Of the folds.
        by: `GROUP` or `SHAPE`.
    """

    number: int
    count: int
    by: str = GROUP

    def __post_init__(self) -> None:
        check_choice("--folds-by", self.by, (GROUP, SHAPE))
        if not 2 <= self.count <= MOST:
            raise ConfigError(f"--folds must be between 2 and {MOST}. Received: {self.count}.")
        if not 0 <= self.number < self.count:
            raise ConfigError(f"A fold's number must be below {self.count}. Received: {self.number}.")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Folds:
    """How the images are divided.

    Attributes:
        count: Of the folds.
        by: `GROUP`: copies stay together; `SHAPE`: images of one height and width too; `BOTH`: twice as
            many trainings: the networks are those of the first, the threshold that of the second.
    """

    count: int
    by: str = GROUP

    def all(self) -> list[Fold]:
        """Return every fold, in the order in which they are trained."""
        kinds = (GROUP, SHAPE) if self.by == BOTH else (self.by,)
        return [Fold(number, self.count, by) for by in kinds for number in range(self.count)]
