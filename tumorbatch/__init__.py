"""High-throughput batch classification of brain images as Healthy or Tumor."""

from pathlib import Path as _Path

__version__ = "0.1.0"

# In a source checkout the stages are sibling folders (preprocess/ is tumorbatch.preprocess);
# an installed wheel holds them inside the package, and this does nothing.
_root = _Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file() and (_root / "preprocess").is_dir():
    __path__.append(str(_root))
