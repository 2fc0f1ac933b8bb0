"""Evaluate a model: its answers, metrics with intervals, baselines, comparisons, pages."""

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
