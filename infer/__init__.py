"""Stage 3, imported as `tumorbatch.infer`: a folder and a model bundle to a table of predictions.

`predict` and `batches` are for notebooks and scripts; `stage.run` is the command.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tumorbatch.infer.api import batches, predict

__all__ = ["batches", "predict"]


def __getattr__(name: str) -> Any:
    # Not at import: the worker processes import this package too, and need neither.
    if name in __all__:
        from tumorbatch.infer import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
