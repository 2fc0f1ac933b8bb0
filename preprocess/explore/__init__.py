"""Describe a folder of images before it is used: a page, figures and numbers.

It decodes with the code of `shard` and writes no shards.
"""

from typing import TYPE_CHECKING

from tumorbatch import lazy

if TYPE_CHECKING:
    from tumorbatch.preprocess.explore.explore import Config as ExploreConfig
    from tumorbatch.preprocess.explore.explore import run as explore_images
    from tumorbatch.preprocess.explore.metadata import interval_to_tell as accuracy_interval

__all__ = [
    "ExploreConfig",
    "accuracy_interval",
    "explore_images",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "explore_images": "tumorbatch.preprocess.explore.explore:run",
        "accuracy_interval": "tumorbatch.preprocess.explore.metadata:interval_to_tell",
        "ExploreConfig": "tumorbatch.preprocess.explore.explore:Config",
    },
)
