"""Settings of a training by name: the report's own, and those that validation preferred.

How they were chosen, with seeds, intervals and what lost, is in docs/recipes.md.
"""

from dataclasses import dataclass, field
from typing import Any

REPORT, BEST = RECIPES = ("report", "best")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a recipe sets; what is given too wins.

    Attributes:
        variants: Of the images, as in `Config`; empty: the first in the records.
        schedule: Attributes of `Schedule`.
    """

    variants: tuple[str, ...] = ()
    schedule: dict[str, Any] = field(default_factory=dict)


# Adam without decay, at one rate; images with CLAHE. All else is the default of every training.
_REPORT = Settings(("clahe",), {"weight_decay": 0.0, "rate": "constant", "group_weights": "none"})
# Networks that are not here: nothing was measured to be better than the defaults.
_BEST = {
    "mobilenetv2": Settings(("plain",), {"rate": "cosine", "group_weights": "sqrt"}),
}


def settings(recipe: str | None, architecture: str) -> Settings:
    """Return what a recipe sets for an architecture.

    Args:
        recipe: One of `RECIPES`; None: nothing.
        architecture: Its name.
    """
    if recipe is None:
        return Settings()
    return _REPORT if recipe == REPORT else _BEST.get(architecture, Settings())


def is_chosen(architecture: str) -> bool:
    """Return whether `best` differs from the defaults, for an architecture."""
    return architecture in _BEST
