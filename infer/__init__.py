"""Stage 3, imported as `tumorbatch.infer`: from a folder and a model bundle to a table of predictions.

`predict` and `batches` return predictions; `infer_folder` writes a table, as the command does.
"""

from typing import TYPE_CHECKING

from tumorbatch import lazy

if TYPE_CHECKING:
    from tumorbatch.infer.api import batches, predict
    from tumorbatch.infer.config import Config as InferConfig
    from tumorbatch.infer.inference import run as infer_folder
    from tumorbatch.infer.listing import Selection
    from tumorbatch.infer.verify import run as verify_table

__all__ = [
    "InferConfig",
    "Selection",
    "batches",
    "infer_folder",
    "predict",
    "verify_table",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "predict": "tumorbatch.infer.api:predict",
        "batches": "tumorbatch.infer.api:batches",
        "infer_folder": "tumorbatch.infer.inference:run",
        "InferConfig": "tumorbatch.infer.config:Config",
        "Selection": "tumorbatch.infer.listing:Selection",
        "verify_table": "tumorbatch.infer.verify:run",
    },
)
