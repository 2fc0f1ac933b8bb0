"""Weights of a bundle: read from disk into a network, and a network's weights as bytes.

The network is built from this project's own code; the file holds numbers alone.
"""

import hashlib
from pathlib import Path
from typing import Any

from tumorbatch import architectures
from tumorbatch.bundle import Bundle, exchanged
from tumorbatch.errors import InputError, reason
from tumorbatch.files import read_regular

MAX_WEIGHTS_BYTES = 2 << 30  # 2 GiB, twenty times the largest of the architectures


def load_network(folder: Path, bundle: Bundle) -> Any:
    """Build the bundle's network and set its weights.

    Returns:
        `keras.Model`, see `architectures.build`; of an ensemble see `architectures.ensemble`.

    Raises:
        InputError: The weights are missing, were changed by as little as one bit, do not fit, are not
            float32, or are not finite.
    """
    channels = bundle.preprocessing.channels
    seen = [member.channels for member in bundle.members] or [channels]
    networks = [
        _load_one(folder / name, sha256, architecture, bundle.preprocessing.size, len(names))
        for (name, (architecture, sha256)), names in zip(bundle.weights.items(), seen, strict=True)
    ]
    if not bundle.members:
        return networks[0]
    return architectures.ensemble(
        networks,
        [member.weight for member in bundle.members],
        [[channels.index(name) for name in names] for names in seen],
    )


def _load_one(path: Path, expected_sha256: str, architecture: str, size: int, channels: int) -> Any:
    import safetensors
    import safetensors.numpy

    try:
        data = read_regular(path, MAX_WEIGHTS_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or cannot be read: {reason(error)}.") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != expected_sha256:
        raise exchanged(path, sha256, expected_sha256)
    try:
        weights = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type numpy has not
        raise InputError(f"{path} is damaged: {error}.") from error
    network = architectures.build(architecture, size, channels=channels)
    expected = {variable.path: variable for variable in network.weights}
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights or name not in expected:
            where = "misses" if name not in weights else "has an unknown"
            raise InputError(f"{path} {where} weight {name!r} for {architecture}.")
        problem = _unfit(weights[name], expected[name])
        if problem:
            raise InputError(f"{path}: weight {name!r} {problem}. Train the model again.")
    for name, variable in expected.items():
        variable.assign(weights[name])
    return network


def _unfit(array: Any, variable: Any) -> str:
    """Return why an array cannot be a variable's value, as the end of a sentence; "" where it can.

    One value that is not finite makes every logit so, and not a number compares as false: as Healthy.
    """
    import numpy as np

    if array.shape != tuple(variable.shape):
        return f"has shape {array.shape}, expected {tuple(variable.shape)}"
    if array.dtype != np.float32:
        return f"is {array.dtype}, expected float32"
    if not np.isfinite(array).all():
        return "holds values that are not finite"
    if variable.name == "moving_variance" and (array < 0).any():
        return "holds negative variances"
    return ""


def serialize_weights(network: Any) -> bytes:
    """Return all weights of a `keras.Model` as the bytes of a safetensors file, float32."""
    import numpy as np
    import safetensors.numpy

    arrays = {
        variable.path: np.ascontiguousarray(variable.numpy(), dtype=np.float32)
        for variable in network.weights
    }
    data: bytes = safetensors.numpy.save(arrays)
    return data
