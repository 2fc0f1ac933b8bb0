"""Keras with this project's settings, whatever the user's other projects have set.

Keras reads ~/.keras/keras.json and variables of the environment when it is imported: backend, order of
the axes, floating-point type. A file of another project must not change a prediction, nor end a run.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumorbatch.errors import ConfigError
from tumorbatch.json_reader import read_object

_OURS: dict[str, Any] = {
    "backend": "tensorflow",
    "image_data_format": "channels_last",
    "floatx": "float32",
    "epsilon": 1e-7,
}
_HOME = "KERAS_HOME"
_VARIABLES = (
    "KERAS_BACKEND", "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED",
    "TF_USE_LEGACY_KERAS",
)  # fmt: skip


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Hide the user's settings from what is imported inside the block."""
    names = (*_VARIABLES, _HOME)
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["KERAS_BACKEND"] = _OURS["backend"]
    os.environ[_HOME] = os.path.join(os.devnull, "keras")  # no file can be there, or be made
    try:
        yield
    finally:
        for name in ("KERAS_BACKEND", _HOME):
            del os.environ[name]
        os.environ.update(before)


def apply() -> None:
    """Give Keras our settings, also where a notebook has imported it before with others.

    Raises:
        ConfigError: It was imported with another backend, which cannot be exchanged any more.
    """
    import keras

    if keras.config.backend() != _OURS["backend"]:
        raise ConfigError(
            f"Keras was imported with the backend {keras.config.backend()} in this process, and "
            "tumorbatch needs TensorFlow's. Start a new process, and import tumorbatch first."
        )
    keras.config.set_floatx(_OURS["floatx"])
    keras.config.set_epsilon(_OURS["epsilon"])
    keras.config.set_image_data_format(_OURS["image_data_format"])
    keras.config.set_dtype_policy(_OURS["floatx"])


def ignored() -> list[str]:
    """Return what the user has set for Keras and is not heeded here, as clauses."""
    found_settings = [f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name)]
    path = Path(os.environ.get(_HOME) or Path.home() / ".keras") / "keras.json"
    try:
        settings = read_object(path)
        found_settings += [
            f"{name}={settings[name]} in {path}"
            for name, ours in _OURS.items()
            if settings.get(name, ours) != ours
        ]
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        found_settings.append(f"{path}, which is not readable JSON")
    return found_settings
