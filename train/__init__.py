"""Stage 2, imported as `tumorbatch.train`: from shards to a model bundle.

Networks are in `tumorbatch.architectures`, because other stages load them too. Nothing here decodes
images.
"""

from typing import TYPE_CHECKING

from tumorbatch import lazy

if TYPE_CHECKING:
    from tumorbatch.train.config import Augmentation, Schedule
    from tumorbatch.train.config import Config as TrainConfig
    from tumorbatch.train.config import schedule as schedule_of
    from tumorbatch.train.training import run as train_model

__all__ = [
    "Augmentation",
    "Schedule",
    "TrainConfig",
    "schedule_of",
    "train_model",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "train_model": "tumorbatch.train.training:run",
        "TrainConfig": "tumorbatch.train.config:Config",
        "Schedule": "tumorbatch.train.config:Schedule",
        "Augmentation": "tumorbatch.train.config:Augmentation",
        "schedule_of": "tumorbatch.train.config:schedule",
    },
)
