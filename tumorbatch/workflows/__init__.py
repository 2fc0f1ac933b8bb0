"""Run several stages one after another: evaluate with baselines, compare models, train many.

The only package that may import all stages. It contains no statistics, no pages and no
command-line options.
"""

from typing import TYPE_CHECKING

from tumorbatch import lazy

if TYPE_CHECKING:
    from tumorbatch.workflows.compare import Config as CompareConfig
    from tumorbatch.workflows.compare import run as compare_models
    from tumorbatch.workflows.ensemble import run as join_models
    from tumorbatch.workflows.ensemble_bundle import Config as EnsembleConfig
    from tumorbatch.workflows.evaluate import run as evaluate_model
    from tumorbatch.workflows.train_many import run as train_models

__all__ = [
    "CompareConfig",
    "EnsembleConfig",
    "compare_models",
    "evaluate_model",
    "join_models",
    "train_models",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "evaluate_model": "tumorbatch.workflows.evaluate:run",
        "join_models": "tumorbatch.workflows.ensemble:run",
        "EnsembleConfig": "tumorbatch.workflows.ensemble_bundle:Config",
        "compare_models": "tumorbatch.workflows.compare:run",
        "CompareConfig": "tumorbatch.workflows.compare:Config",
        "train_models": "tumorbatch.workflows.train_many:run",
    },
)
