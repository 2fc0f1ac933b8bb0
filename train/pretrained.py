"""Pretrained weights of a base: found, downloaded once, and read from HDF5 as numbers only.

Nothing in the file is run: no pickle, no layer configuration, no `load_model`. Both layouts that Keras
has written are read, "layers/conv2d/vars/0" (Keras 3, *.weights.h5) and "block1/block1/kernel:0"
(before it, *.h5); each layer's arrays are matched by the layer's name, their order and their shape.
"""

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch.bundle import MAX_WEIGHTS_BYTES
from tumorbatch.errors import InputError, reason
from tumorbatch.files import open_regular
from tumorbatch.shardset import file_sha256

_HOST = "https://storage.googleapis.com/tensorflow/keras-applications"
_TIMEOUT = 30  # seconds without an answer; a node without internet often gives none at all


@dataclass(frozen=True, slots=True)
class _Published:
    """Keras' own ImageNet weights of a base: keras/src/applications, the "no top" files."""

    url: str
    md5: str | None  # None: Keras publishes none for it

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


_IMAGENET = {
    "resnet50": _Published(
        f"{_HOST}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
    "mobilenetv2": _Published(
        f"{_HOST}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", None
    ),
    "densenet121": _Published(
        f"{_HOST}/densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "30ee3e1110167f948a6b9946edeeb738",
    ),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A file of weights.

    Attributes:
        path: Where it lies.
        origin: "imagenet" or "file".
        sha256: Hex.
    """

    path: Path
    origin: str
    sha256: str

    def to_dict(self) -> dict[str, str]:
        """Return the values for model.json."""
        return {"origin": self.origin, "name": self.path.name, "sha256": self.sha256}


def find(start: str, architecture: str) -> Source | None:
    """Return the weights file that `start` names; download it if needed.

    Args:
        start: "none", "imagenet", or a path.
        architecture: One with a base.

    Raises:
        InputError: There is no such file, or it cannot be downloaded, or its checksum is wrong.
    """
    if start == "none":
        return None
    if start == "imagenet":
        path, origin = _imagenet(architecture), start
    else:
        path, origin = Path(start), "file"
    if not path.is_file():
        raise InputError(
            f"{path} is not a file. --weights takes imagenet, none, or an HDF5 file with the "
            f"weights of {architecture}'s base."
        )
    return Source(path, origin, file_sha256(path))


def _imagenet(architecture: str) -> Path:
    published = _IMAGENET[architecture]
    # Keras' cache, so that a copy which other programs have fetched is found.
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = home / "models" / published.name
    if path.is_file():
        if published.md5 in (None, _md5(path)):
            return path
        raise InputError(
            f"{path} is damaged: its MD5 is not {published.md5}. Delete it, and fetch it again from "
            f"{published.url}."
        )
    import keras

    try:
        with _silent(), _timeout():
            keras.utils.get_file(
                published.name, published.url, cache_dir=home, cache_subdir="models",
                file_hash=published.md5, hash_algorithm="md5" if published.md5 else "auto",
            )  # fmt: skip
    except Exception as error:  # get_file turns every failure into a bare Exception
        raise InputError(
            f"The ImageNet weights of {architecture} are not on this machine and cannot be downloaded "
            f"({error}). Fetch {published.url} where there is internet and put it to {path}; or give "
            "another file with --weights FILE, or start from random weights with --weights none."
        ) from error
    return path


def _md5(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress the progress bar on standard output, where the result belongs."""
    import keras

    before = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            yield
    finally:
        if before:
            keras.config.enable_interactive_logging()


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load(path: Path, base: Any) -> None:
    """Set a base's weights from an HDF5 file; after an error, none of them has changed.

    Args:
        path: The file.
        base: `keras.Model` of `keras.applications`.

    Raises:
        InputError: The file is damaged, is no HDF5, is too large, points to other files, lacks or
            has too many layers, or has an array of another shape or with values that no trained
            network has.
    """
    import h5py

    layers = {layer.name: layer for layer in base.layers if layer.weights}
    try:
        with open_regular(path) as stream, h5py.File(stream, "r") as file:
            if os.fstat(stream.fileno()).st_size > MAX_WEIGHTS_BYTES:
                raise ValueError("it is larger than any network's weights")
            stored = _layers(file)
            for name in sorted(layers.keys() ^ stored.keys()):
                raise ValueError(f"it {'lacks' if name in layers else 'has an unknown'} layer {name!r}")
            values = [
                (variable, value)
                for name, layer in layers.items()
                for variable, value in zip(
                    layer.weights, _arrays(name, stored[name], layer.weights), strict=True
                )
            ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be used as the weights of this network's base: {reason(error)}."
        ) from error
    for variable, value in values:
        variable.assign(value)


def _layers(file: Any) -> dict[str, list[Any]]:
    """Return {layer's name: its datasets, in the layer's order} for layers that have weights."""
    arrays_of_layer = {}
    if "layer_names" in file.attrs:  # before Keras 3
        for name in _names(file.attrs["layer_names"]):
            group = _member(file, name)
            arrays = [_member(group, weight) for weight in _names(group.attrs["weight_names"])]
            if arrays:
                arrays_of_layer[name] = arrays
        return arrays_of_layer
    layers = _member(file, "layers")
    for key in layers:
        variables = _member(_member(layers, key), "vars")
        if len(variables):
            name = str(variables.attrs.get("name", key))
            if name in arrays_of_layer:
                raise ValueError(f"it has two layers of the name {name!r}")
            arrays_of_layer[name] = [_member(variables, str(index)) for index in range(len(variables))]
    return arrays_of_layer


def _names(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _member(group: Any, name: str) -> Any:
    """Return a member that `group` itself holds: a link could lead to any readable file."""
    import h5py

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise ValueError(f"it lacks {name!r}")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link")
        group = group[part]
    return group


def _arrays(name: str, datasets: list[Any], variables: list[Any]) -> list[NDArray[np.float32]]:
    import h5py

    if len(datasets) != len(variables):
        raise ValueError(f"layer {name!r} has {len(datasets)} arrays, expected {len(variables)}")
    arrays = []
    for dataset, variable in zip(datasets, variables, strict=True):
        title = f"{variable.name} of layer {name!r}"
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
            raise ValueError(f"{title} is not stored in the file itself")
        # Before it is read: a small file can promise an array of any size.
        if tuple(dataset.shape) != tuple(variable.shape):
            raise ValueError(
                f"{title} has shape {tuple(dataset.shape)}, expected {tuple(variable.shape)}"
            )
        if dataset.dtype.kind != "f":
            raise ValueError(f"{title} holds no floating-point numbers")
        value = np.asarray(dataset[()], dtype=np.float32)
        if not np.isfinite(value).all():
            raise ValueError(f"{title} holds values that are infinite or no numbers")
        if variable.name == "moving_variance" and (value < 0).any():
            raise ValueError(f"{title} holds negative values")
        arrays.append(value)
    return arrays
