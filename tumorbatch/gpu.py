"""Why TensorFlow finds no GPU, in words: driver, devices, and CUDA's libraries."""

import ctypes
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

# What TensorFlow 2.17 to 2.21 opens at run time on Linux (CUDA 12, cuDNN 9), and the pip package of
# each, from the dependencies of `tensorflow[and-cuda]`.
LIBRARIES = {
    "libcudart.so.12": "cuda_runtime",
    "libcublas.so.12": "cublas",
    "libcublasLt.so.12": "cublas",
    "libcufft.so.11": "cufft",
    "libcusolver.so.11": "cusolver",
    "libcusparse.so.12": "cusparse",
    "libcudnn.so.9": "cudnn",
    "libnccl.so.2": "nccl",
    "libnvJitLink.so.12": "nvjitlink",
}
DRIVER = "libcuda.so.1"
INSTALL = "pip install 'tensorflow[and-cuda]' 'nvidia-cudnn-cu12>=9.24'"  # the extra `cuda`


def driver() -> str | None:
    """Return the NVIDIA driver's version and the GPUs' names from nvidia-smi; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - a program that the machine's owner put there
            [program, "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(line.strip() for line in answer.stdout.splitlines() if line.strip()) or None


def devices() -> list[str]:
    """Return the device files of NVIDIA GPUs that the machine, or the container, has."""
    return sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))


def libraries() -> dict[str, bool]:
    """Return {library that TensorFlow needs on a GPU: whether this process can open it}."""
    return {name: _opens(name, package) for name, package in LIBRARIES.items()}


def _opens(name: str, package: str | None = None) -> bool:
    paths = [name]
    nvidia = find_spec("nvidia") if package else None
    for folder in (nvidia.submodule_search_locations or []) if nvidia else []:
        paths.append(str(Path(folder) / str(package) / "lib" / name))
    for path in paths:
        try:
            ctypes.CDLL(path)
        except OSError:
            continue
        return True
    return False


def why_no_gpu() -> str:
    """Return what is missing for a GPU, as the middle of a sentence."""
    if not _opens(DRIVER):
        return (
            f"TensorFlow finds no usable GPU: there is no NVIDIA driver ({DRIVER} cannot be opened). "
            "Install it, or start the container with GPUs (docker run --gpus all)"
        )
    if not devices():
        return (
            "TensorFlow finds no usable GPU: there is a driver, but no /dev/nvidia0. Ask the scheduler "
            "for a GPU (Slurm: --gres=gpu:1), or start the container with GPUs (docker run --gpus all)"
        )
    missing = [name for name, loadable in libraries().items() if not loadable]
    if missing:
        return (
            f"TensorFlow finds no usable GPU: {', '.join(missing)} cannot be opened. Install them with "
            f"`{INSTALL}`"
        )
    return (
        "TensorFlow finds no usable GPU, though driver and libraries are there. Look at nvidia-smi and "
        "at CUDA_VISIBLE_DEVICES; `tumorbatch doctor` reports more"
    )
