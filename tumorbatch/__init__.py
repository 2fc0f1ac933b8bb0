"""High-throughput batch classification of brain images as Healthy or Tumor.

The public Python API is `__all__`, shown with examples in docs/python.md. Names are imported when they
are first used, so `import tumorbatch` is instant and loads no TensorFlow.
"""

from pathlib import Path as _Path
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# In a source checkout the stages are sibling folders (preprocess/ is tumorbatch.preprocess);
# an installed wheel holds them inside the package, and this does nothing.
_root = _Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file() and (_root / "preprocess").is_dir():
    __path__.append(str(_root))

from tumorbatch import lazy  # noqa: E402 - after the path is complete

if TYPE_CHECKING:
    from tumorbatch import imaging, plots
    from tumorbatch.bundle import load as load_bundle
    from tumorbatch.errors import TumorBatchError
    from tumorbatch.evaluation.config import Config as EvaluationConfig
    from tumorbatch.export import run as export_model
    from tumorbatch.infer.api import predict
    from tumorbatch.infer.config import Config as InferConfig
    from tumorbatch.infer.inference import run as infer_folder
    from tumorbatch.preprocess.explore.explore import Config as ExploreConfig
    from tumorbatch.preprocess.explore.explore import run as explore_images
    from tumorbatch.preprocess.shard import Config as ShardConfig
    from tumorbatch.preprocess.shard import run as write_shards
    from tumorbatch.preprocessing_config import Preprocessing
    from tumorbatch.statistics.intervals import Estimate
    from tumorbatch.train.config import Augmentation, Schedule
    from tumorbatch.train.config import Config as TrainConfig
    from tumorbatch.train.training import run as train_model
    from tumorbatch.workflows.compare import Config as CompareConfig
    from tumorbatch.workflows.compare import run as compare_models
    from tumorbatch.workflows.evaluate import run as evaluate_model

__all__ = [
    "Augmentation",
    "CompareConfig",
    "Estimate",
    "EvaluationConfig",
    "ExploreConfig",
    "InferConfig",
    "Preprocessing",
    "Schedule",
    "ShardConfig",
    "TrainConfig",
    "TumorBatchError",
    "__version__",
    "compare_models",
    "evaluate_model",
    "explore_images",
    "export_model",
    "imaging",
    "infer_folder",
    "load_bundle",
    "plots",
    "predict",
    "train_model",
    "write_shards",
]

__getattr__ = lazy.attach(
    __name__,
    {
        "write_shards": "tumorbatch.preprocess.shard:run",
        "ShardConfig": "tumorbatch.preprocess.shard:Config",
        "Preprocessing": "tumorbatch.preprocessing_config:Preprocessing",
        "explore_images": "tumorbatch.preprocess.explore.explore:run",
        "ExploreConfig": "tumorbatch.preprocess.explore.explore:Config",
        "train_model": "tumorbatch.train.training:run",
        "TrainConfig": "tumorbatch.train.config:Config",
        "Schedule": "tumorbatch.train.config:Schedule",
        "Augmentation": "tumorbatch.train.config:Augmentation",
        "evaluate_model": "tumorbatch.workflows.evaluate:run",
        "EvaluationConfig": "tumorbatch.evaluation.config:Config",
        "compare_models": "tumorbatch.workflows.compare:run",
        "CompareConfig": "tumorbatch.workflows.compare:Config",
        "predict": "tumorbatch.infer.api:predict",
        "infer_folder": "tumorbatch.infer.inference:run",
        "InferConfig": "tumorbatch.infer.config:Config",
        "load_bundle": "tumorbatch.bundle:load",
        "export_model": "tumorbatch.export:run",
        "Estimate": "tumorbatch.statistics.intervals:Estimate",
        "TumorBatchError": "tumorbatch.errors:TumorBatchError",
        "imaging": "tumorbatch.imaging",
        "plots": "tumorbatch.plots",
    },
)
