"""A bundle for other programs: Keras' own formats, and TensorFlow's SavedModel."""

import contextlib
import logging
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tumorbatch import bundle
from tumorbatch.atomic import (
    atomic_folder,
    discard_folder,
    make_folder,
    new_folder,
    real_folder,
    recover_folder,
    remove_temporaries,
    sync_folder,
    write_bytes,
    write_json,
    writing,
)
from tumorbatch.bundle import Bundle
from tumorbatch.bundle_weights import load_network
from tumorbatch.checks import EXPORT_KINDS, check_choice
from tumorbatch.errors import ConfigError, OutputError, cannot_write, not_finished
from tumorbatch.lock import lock_beside, output_lock
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.runtime import load_tensorflow


def run(model: Path, out: Path, kind: str, overwrite: bool = False) -> None:
    """Write the bundle `model` to `out`, and what it expects to `out`.json.

    Args:
        model: A bundle.
        out: A file for "keras" and "h5", a folder for "savedmodel".
        kind: One of `checks.EXPORT_KINDS`.
        overwrite: Replace what is there.

    Raises:
        InputError: The bundle is missing or damaged.
        ConfigError: There is something at `out`, or its ending does not fit.
        OutputError: `out` cannot be written.
    """
    loaded, out = bundle.load(model), real_folder(out)
    check_choice("The format", kind, EXPORT_KINDS)
    if kind != "savedmodel" and out.suffix != f".{kind}":
        raise ConfigError(f"{out} must end with .{kind}: Keras takes the format from it.")
    if out.exists() and out.is_dir() is not (kind == "savedmodel"):
        raise ConfigError(f"{out} is of another kind. Give another name with --out.")
    make_folder(out.parent)
    with output_lock(out, lock_beside(out)), writing(out):
        description, waiting = out.with_name(f"{out.name}.json"), out.with_name(f".{out.name}.json.new")
        # The description waits while the network is exchanged: where it does, a run was killed there.
        interrupted = waiting.exists()
        recover_folder(out)  # also where it ends here: what a run could not delete goes
        remove_temporaries(out.parent, out.name, waiting.name)
        if not (overwrite or interrupted) and (out.exists() or description.exists()):
            raise ConfigError(
                f"{out} or {description.name} exists. Give --overwrite, or another --out."
            )
        load_tensorflow()
        network = load_network(model, loaded)
        with atomic_folder(out) if kind == "savedmodel" else _file(out) as target:
            _save(network, target, kind, out)
            write_json(waiting, _description(loaded, kind))
        try:
            os.replace(waiting, description)
            sync_folder(out.parent)
        except OSError as error:
            raise not_finished(out, error) from error


@contextlib.contextmanager
def _file(out: Path) -> Iterator[Path]:
    """Yield a path with the name of `out` in its own folder; afterwards, put the file in place."""
    folder = out.with_name(f".{out.name}.new")
    new_folder(folder)
    try:
        yield folder / out.name
        write_bytes(out, (folder / out.name).read_bytes())
    finally:
        discard_folder(folder)


def _save(network: Any, target: Path, kind: str, out: Path) -> None:
    """Let Keras or TensorFlow write the network.

    Raises:
        OutputError: They cannot; the errors of their own writers have many types.
    """
    import tensorflow as tf

    try:
        with _quiet():
            if kind == "savedmodel":
                _save_folder(network, target)
            else:
                network.save(target)
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        if isinstance(error, OSError) and error.errno:
            raise cannot_write(out, error) from error
        sentence = str(error).partition("\n")[0].rstrip(".")
        raise OutputError(
            f"Cannot write {out}: {sentence}. What was at that path before is unchanged."
        ) from error


def _save_folder(network: Any, folder: Path) -> None:
    """Let TensorFlow write a SavedModel to memory, and copy it to `folder`, which is empty.

    Its own writer reads back what it has written, and ends the process (SIGSEGV) where the disk does
    not give it.
    """
    import tensorflow as tf

    memory = f"ram://{secrets.token_hex(8)}"
    with _without_autograph():
        network.export(memory, format="tf_saved_model", verbose=False)
    for path, _, names in tf.io.gfile.walk(memory):
        below = folder / path.removeprefix(memory).strip("/")
        below.mkdir(exist_ok=True)
        for name in names:
            with tf.io.gfile.GFile(f"{path}/{name}", "rb") as file:
                (below / name).write_bytes(file.read())
    tf.io.gfile.rmtree(memory)


@contextlib.contextmanager
def _without_autograph() -> Iterator[None]:
    """Let AutoGraph take the functions of the block as they are.

    It writes each that it converts to a temporary file, which stays when the process is killed. Where
    it cannot, it does not convert; Keras' functions need no conversion.
    """
    before = tempfile.tempdir
    tempfile.tempdir = os.devnull  # no folder
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Keras' warning that .h5 is old, and TensorFlow on its assets and on AutoGraph."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _inside(preprocessing: Preprocessing) -> str:
    repeated = (
        "repeating the grey channel three times, and " if len(preprocessing.channels) == 1 else ""
    )
    return f"{repeated}scaling the values"


def _outside(preprocessing: Preprocessing) -> str:
    steps = "CLAHE and resizing, in this order, as in `preprocessing`"
    if preprocessing.variants:
        steps = "and the variants of `preprocessing`, one a channel (docs/formats.md)"
    return f"decoding, grey conversion, {steps}; temperature and threshold"


def _description(loaded: Bundle, kind: str) -> dict[str, Any]:
    preprocessing = loaded.preprocessing
    return {
        "model_id": loaded.model_id,
        "format": kind,
        "input": {
            "dtype": "uint8",
            "shape": ["batch", *preprocessing.shape[:2], len(preprocessing.channels)],
            "meaning": "grey values 0 to 255",
            **({"channels": list(preprocessing.channels)} if preprocessing.variants else {}),
        },
        "output": {
            "dtype": "float32",
            "shape": ["batch", 1],
            "meaning": "logit: the probability of Tumor is 1 / (1 + exp(-logit / temperature))",
        },
        "classes": list(loaded.classes),
        "temperature": loaded.temperature,
        "tta": loaded.tta,
        "tta_meaning": "flip, which is not inside: the mean logit of the image and its mirror",
        "threshold": loaded.threshold,
        "inside": _inside(preprocessing),
        "not_inside": _outside(preprocessing),
        "preprocessing": preprocessing.to_dict(),
        "preprocessing_fingerprint": preprocessing.fingerprint,
        "weights_sha256": loaded.weights_sha256,
        "versions": loaded.versions,
        "warning": "Not a medical device; not for diagnosis.",
    }
