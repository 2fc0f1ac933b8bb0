"""How this process uses its machine: cores, TensorFlow's switches, versions.

Importing this module does not import TensorFlow; `load_tensorflow` does, with the environment that
it must find at that moment.
"""

import importlib.metadata
import math
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch.errors import ConfigError

DEVICES = ("auto", "cpu", "gpu")
PRECISIONS = ("auto", "float32", "mixed_float16")
SWITCHES = ("auto", "on", "off")
_MIN_COMPUTE_CAPABILITY = (7, 0)  # first with float16 tensor cores; a T4 has 7.5


def available_cores() -> int:
    """Cores that this process may use: its affinity mask, capped by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores or 1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores or 1)


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, this project and the named distributions (absent ones left out)."""
    from tumorbatch import __version__

    found = {"tumorbatch": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Runtime:
    """What TensorFlow runs on, and why.

    Attributes:
        device: "cpu" or "gpu".
        precision: Keras dtype policy, "float32" or "mixed_float16".
        xla: Whether the network is compiled with XLA.
        threads: Intra-op threads.
        reason: One sentence for the log and for model.json.
    """

    device: str
    precision: str
    xla: bool
    threads: int
    reason: str


def load_tensorflow(threads: int | None = None) -> Any:
    """Import TensorFlow once, set up for this machine, and return the module.

    On a CPU without AVX-512 TensorFlow leaves oneDNN off by default; with it the forward pass of
    cnn1 is more than twice as fast (benchmarks/README.md). Both variables are read when TensorFlow
    is imported, and a value that the user has set wins.

    Args:
        threads: Intra-op threads; default: `available_cores()`.
    """
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _QuietStandardError():
            import tensorflow as tf
        # One op at a time with all threads inside it: two convolutions side by side on few cores
        # only evict each other's cache.
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.threading.set_intra_op_parallelism_threads(threads or available_cores())
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)  # shared nodes: take what is used
        tf.get_logger().setLevel("ERROR")
    import tensorflow as tf

    return tf


class _QuietStandardError:
    """Swallow what native code writes to file descriptor 2 before TensorFlow's log level applies."""

    def __enter__(self) -> None:
        sys.stderr.flush()
        self._saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        sys.stderr.flush()
        os.dup2(self._saved, 2)
        os.close(self._saved)


def resolve(device: str = "auto", precision: str = "auto", xla: str = "auto") -> Runtime:
    """Choose device, precision and XLA.

    `auto` means: on a GPU with compute capability 7.0 or more mixed_float16 and XLA; on a CPU
    float32 without XLA, which there makes training slower.

    Raises:
        ConfigError: A value is not in the closed list, or `device` is "gpu" and TensorFlow finds none.
    """
    for name, value, allowed in (
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
        ("xla", xla, SWITCHES),
    ):
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}. Received: {value}.")
    tf = load_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise ConfigError(
            "--device gpu was asked for, and TensorFlow finds no usable GPU. Check `nvidia-smi`; "
            "install the CUDA libraries with `pip install 'tumorbatch[cuda]'`; or use --device cpu."
        )
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    if device == "cpu" or not gpus:
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        where = "on the CPU"
        chosen, compiled, name = "float32", False, "cpu"
    else:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability", (0, 0))
        where = f"on {details.get('device_name', 'a GPU')}, compute capability {capability}"
        fast = capability >= _MIN_COMPUTE_CAPABILITY
        chosen, compiled, name = ("mixed_float16" if fast else "float32"), fast, "gpu"
    precision = chosen if precision == "auto" else precision
    use_xla = compiled if xla == "auto" else xla == "on"
    reason = f"{where}: {precision}, XLA {'on' if use_xla else 'off'}, {threads} threads"
    return Runtime(name, precision, use_xla, threads, reason)
