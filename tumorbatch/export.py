"""A bundle for other programs: Keras' own formats, and TensorFlow's SavedModel."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumorbatch import bundle
from tumorbatch.atomic import atomic_folder, make_folder, real_folder, write_bytes, write_json
from tumorbatch.bundle import Bundle
from tumorbatch.errors import ConfigError, OutputError
from tumorbatch.runtime import load_tensorflow

KINDS = ("keras", "h5", "savedmodel")


def run(model: Path, out: Path, kind: str, overwrite: bool = False) -> None:
    """Write the bundle `model` to `out`, and what it expects to `out`.json.

    Args:
        model: A bundle.
        out: A file for "keras" and "h5", a folder for "savedmodel".
        kind: One of `KINDS`.
        overwrite: Replace what is there.

    Raises:
        InputError: The bundle is missing or damaged.
        ConfigError: There is something at `out`, or its ending does not fit.
        OutputError: `out` cannot be written.
    """
    loaded, out = bundle.load(model), real_folder(out)
    if kind not in KINDS:
        raise ConfigError(f"The format must be one of {', '.join(KINDS)}. Received: {kind}.")
    if kind != "savedmodel" and out.suffix != f".{kind}":
        raise ConfigError(f"{out} must end with .{kind}: Keras tells the format by it.")
    description = out.with_name(f"{out.name}.json")
    if not overwrite and (out.exists() or description.exists()):
        raise ConfigError(f"{out} or {description.name} exists. Give --overwrite, or another --out.")
    if overwrite and out.exists() and out.is_dir() is not (kind == "savedmodel"):
        raise ConfigError(f"{out} is of another kind. Give another name with --out.")
    load_tensorflow()
    network = bundle.load_network(model, loaded)
    make_folder(out.parent)
    try:
        if kind == "savedmodel":
            with atomic_folder(out) as folder, _quiet():
                network.export(folder, format="tf_saved_model", verbose=False)
        else:
            write_bytes(out, _saved(network, out))
        write_json(description, _description(loaded, kind))
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}.") from error


def _saved(network: Any, out: Path) -> bytes:
    """Return a network as the bytes of a Keras file; its kind depends on the suffix of `out`."""
    temporary = out.with_name(f".{out.name}.new{out.suffix}")
    try:
        with _quiet():
            network.save(temporary)
        return temporary.read_bytes()
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Keras' warning that .h5 is old and TensorFlow's note that it wrote its assets."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _description(loaded: Bundle, kind: str) -> dict[str, Any]:
    preprocessing = loaded.preprocessing
    return {
        "model_id": loaded.model_id,
        "format": kind,
        "input": {
            "dtype": "uint8",
            "shape": ["batch", preprocessing.size, preprocessing.size, 1],
            "meaning": "grey values 0 to 255",
        },
        "output": {
            "dtype": "float32",
            "shape": ["batch", 1],
            "meaning": "logit: the probability of Tumor is 1 / (1 + exp(-logit / temperature))",
        },
        "classes": list(loaded.classes),
        "temperature": loaded.temperature,
        "threshold": loaded.threshold,
        "inside": "repeating the grey channel three times, and scaling the values",
        "not_inside": "decoding, grey conversion, CLAHE and resizing, in this order, as in "
        "`preprocessing`; temperature and threshold",
        "preprocessing": preprocessing.to_dict(),
        "preprocessing_fingerprint": preprocessing.fingerprint,
        "weights_sha256": loaded.weights_sha256,
        "versions": loaded.versions,
        "warning": "Not a medical device; not for diagnosis.",
    }
