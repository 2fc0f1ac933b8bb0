"""Metrics, intervals and tests of a binary classifier; imports no stage."""

from typing import TYPE_CHECKING

from tumorbatch import lazy

if TYPE_CHECKING:
    from tumorbatch.statistics.auc import auc_figure as auc_estimate
    from tumorbatch.statistics.intervals import Estimate, bootstrap, mcnemar, proportion

__all__ = [
    "Estimate",
    "auc_estimate",
    "bootstrap",
    "mcnemar",
    "proportion",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "Estimate": "tumorbatch.statistics.intervals:Estimate",
        "proportion": "tumorbatch.statistics.intervals:proportion",
        "bootstrap": "tumorbatch.statistics.intervals:bootstrap",
        "mcnemar": "tumorbatch.statistics.intervals:mcnemar",
        "auc_estimate": "tumorbatch.statistics.auc:auc_figure",
    },
)
