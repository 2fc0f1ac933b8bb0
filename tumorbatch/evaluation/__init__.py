"""Evaluate models: answers on a split, measures with intervals, baselines, comparisons and their pages.

Nothing here makes shards or trains a network; `workflows` does that before it calls this package.
"""

from typing import TYPE_CHECKING

from tumorbatch import lazy

if TYPE_CHECKING:
    from tumorbatch.evaluation.config import Config as EvaluationConfig
    from tumorbatch.evaluation.config import Report as EvaluationReport

__all__ = [
    "EvaluationConfig",
    "EvaluationReport",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "EvaluationConfig": "tumorbatch.evaluation.config:Config",
        "EvaluationReport": "tumorbatch.evaluation.config:Report",
    },
)
