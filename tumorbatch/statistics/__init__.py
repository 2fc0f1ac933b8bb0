"""Measures, intervals and tests of a binary classifier, as functions of arrays.

Nothing here reads or writes files, draws, or imports a stage.
"""

from typing import TYPE_CHECKING

from tumorbatch import lazy

if TYPE_CHECKING:
    from tumorbatch.statistics.auc import auc_estimate
    from tumorbatch.statistics.intervals import Estimate, bootstrap, proportion
    from tumorbatch.statistics.mcnemar import mcnemar as mcnemar_test

__all__ = [
    "Estimate",
    "auc_estimate",
    "bootstrap",
    "mcnemar_test",
    "proportion",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "Estimate": "tumorbatch.statistics.intervals:Estimate",
        "proportion": "tumorbatch.statistics.intervals:proportion",
        "bootstrap": "tumorbatch.statistics.intervals:bootstrap",
        "mcnemar_test": "tumorbatch.statistics.mcnemar:mcnemar",
        "auc_estimate": "tumorbatch.statistics.auc:auc_estimate",
    },
)
