"""Pretrained weights of a base: found, and read from HDF5 as numbers only.

Nothing in the file is run: no pickle, no layer configuration, no `load_model`. Both layouts that Keras
has written are read, "layers/conv2d/vars/0" (Keras 3, *.weights.h5) and "block1/block1/kernel:0"
(before it, *.h5); each layer's arrays are matched by the layer's name, their order and their shape.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumorbatch import architectures
from tumorbatch.bundle_weights import MAX_WEIGHTS_BYTES
from tumorbatch.errors import InputError, reason
from tumorbatch.files import open_regular
from tumorbatch.shardset import file_sha256
from tumorbatch.train import imagenet

# Of the largest value in the feature maps; rounding in another order gives 1e-6 to 1e-5.
TOLERANCE = 1e-4


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
        start: "none", "imagenet" (see `imagenet.find`), a folder with those weights, or a file.
        architecture: One with a base.

    Raises:
        InputError: There is no such file, or it cannot be downloaded, or its checksum is wrong.
    """
    if start == "none":
        return None
    if start == "imagenet" or Path(start).is_dir():
        where = None if start == "imagenet" else Path(start)
        path, origin = imagenet.find(architecture, where), "imagenet"
    else:
        path, origin = Path(start), "file"
    if not path.is_file():
        raise InputError(
            f"{path} is not a file. --weights takes imagenet, none, an HDF5 file with the weights of "
            f"{architecture}'s base, or a folder from `tumorbatch weights fetch`."
        )
    return Source(path, origin, file_sha256(path))


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


def difference(architecture: str, path: Path) -> float:
    """Return how far a network's base with these weights is from plain Keras' with the same file.

    Two ways that share nothing but the file: our reader and scaling; and Keras' own loader with its
    `preprocess_input`, on one computed image of 96 x 96 pixels.

    Args:
        architecture: One with a base.
        path: The file.

    Returns:
        The largest difference of the last feature maps, as a share of their largest value.

    Raises:
        InputError: The file cannot be used.
    """
    import keras

    size = 96
    ramp = np.arange(size * size * 3, dtype=np.int64).reshape(1, size, size, 3)
    image = (ramp * ramp // 977 % 256).astype(np.uint8)
    network = architectures.build(architecture, size, channels=architectures.CHANNELS)
    base = network.get_layer(architectures.BASE)
    load(path, base)
    *scaling, _ = network.layers[: network.layers.index(base) + 1]
    ours = image
    for layer in scaling[1:]:  # behind the input
        ours = layer(ours)
    features = np.asarray(base(ours, training=False))
    module, kind = {
        "resnet50": (keras.applications.resnet, "ResNet50"),
        "mobilenetv2": (keras.applications.mobilenet_v2, "MobileNetV2"),
        "densenet121": (keras.applications.densenet, "DenseNet121"),
    }[architecture]
    plain = getattr(module, kind)(include_top=False, weights=None, input_shape=(size, size, 3))
    plain.load_weights(path)
    if architecture == "resnet50":  # Keras turns RGB into BGR; our channels are the input's own
        image = image[..., ::-1]
    expected = np.asarray(plain(module.preprocess_input(image.astype(np.float32)), training=False))
    return float(np.abs(features - expected).max() / np.abs(expected).max())


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
