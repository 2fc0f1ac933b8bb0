"""How this process uses its machine: cores, TensorFlow's switches, versions.

Importing this module does not import TensorFlow; `load_tensorflow` does, with the environment that
it must find at that moment.
"""

import contextlib
import gc
import importlib.abc
import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumorbatch import cgroups, keras_settings, standard_error
from tumorbatch.checks import check_choice
from tumorbatch.errors import ConfigError, TryAgainError
from tumorbatch.gpu import why_no_gpu

DEVICES = ("auto", "cpu", "gpu")
PRECISIONS = ("auto", "float32", "mixed_float16", "bfloat16")
SWITCHES = ("auto", "on", "off")
# Keras imports them where they are installed, for tools that are not used here: a third of its start.
_NOT_FOR_KERAS = ("IPython", "matplotlib", "pandas", "sklearn")
_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # instructions that make it faster than float32
_RANDOM = "/dev/urandom"
_MIN_COMPUTE_CAPABILITY = (7, 0)  # first with float16 tensor cores; a T4 has 7.5


def available_cores() -> int:
    """Return the cores this process may use: affinity mask, capped by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroups.core_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name and its instruction sets, in /proc/cpuinfo's words."""
    name, flags = "unknown", frozenset[str]()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = frozenset(value.split())
    return name, flags


def free_memory() -> int | None:
    """Return the bytes this process may still allocate, capped by the container's limit."""
    free = [cgroups.free_memory()]
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    return min((value for value in free if value is not None), default=None)


def versions(*packages: str) -> dict[str, str]:
    """Return versions of Python, this project and the named distributions, if installed."""
    from tumorbatch import __version__

    installed = {"tumorbatch": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


@dataclass(frozen=True, slots=True)
class Runtime:
    """What TensorFlow runs on, and why.

    Attributes:
        device: "cpu" or "gpu".
        precision: Keras dtype policy: "float32", "mixed_float16" or "mixed_bfloat16".
        xla: Whether the network is compiled with XLA.
        threads: Intra-op threads.
        reason: One sentence for the log and for model.json.
        gpus: GPUs that share each batch; 0 on the CPU.
    """

    device: str
    precision: str
    xla: bool
    threads: int
    reason: str
    gpus: int = 0


def load_tensorflow(threads: int | None = None, onednn: str = "auto") -> Any:
    """Import TensorFlow once, set up for this machine, and return the module.

    On a CPU without AVX-512 TensorFlow leaves oneDNN off by default; with it the forward pass of
    cnn1 is more than twice as fast (benchmarks/README.md). Both variables are read when TensorFlow
    is imported, and a value that the user has set wins. Keras comes with it, with our own settings.

    Args:
        threads: Intra-op threads; default: `available_cores()`.
        onednn: "on" or "off" also against the environment; "auto": on, unless that says otherwise.

    Raises:
        TryAgainError: There is no source of random numbers, without which TensorFlow aborts.
    """
    if "tensorflow" not in sys.modules:
        if not os.access(_RANDOM, os.R_OK):
            raise TryAgainError(
                f"TensorFlow cannot start: {_RANDOM} is missing or cannot be read. Give the container "
                "its devices, and run the same command again."
            )
        if onednn == "auto":
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        else:
            os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1" if onednn == "on" else "0"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with (
            standard_error.silenced(),
            keras_settings.shielded(),
            _hidden(*_NOT_FOR_KERAS),
            _no_garbage(),
        ):
            import tensorflow as tf

            importlib.import_module("keras")
        keras_settings.apply()
        # One op at a time with all threads inside it: two convolutions side by side on few cores
        # only evict each other's cache.
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.threading.set_intra_op_parallelism_threads(threads or available_cores())
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)  # shared nodes: take what is used
        tf.get_logger().setLevel("ERROR")
    import tensorflow as tf

    return tf


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Do not look for garbage inside the block, nor ever among what was made in it.

    A million objects that stay until the end: the collector's looks at them took a quarter of
    TensorFlow's import, and 0.6 s more at the end of the process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def load_arrow() -> None:
    """Import pyarrow and let it find no pandas, for a program that has no use for it.

    With its first array pyarrow imports pandas where that is installed: half a second.
    """
    with _hidden("pandas"):
        import pyarrow as pa

        pa.array([0])


class _Hidden(importlib.abc.MetaPathFinder):
    """Finds nothing, and does not let others find some packages."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(self, fullname: str, *_: Any) -> None:
        if fullname in self._packages:
            raise ModuleNotFoundError(f"{fullname} is not used here", name=fullname)


@contextlib.contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Make imports of these packages fail inside the block, unless they are loaded already."""
    finder = _Hidden(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def resolve(
    device: str = "auto",
    precision: str = "auto",
    xla: str = "auto",
    gpus: int = 1,
    threads: int | None = None,
    onednn: str = "auto",
) -> Runtime:
    """Choose device, precision, XLA, threads and oneDNN.

    `auto` means: on a GPU with compute capability 7.0 or more mixed_float16 and XLA; on a CPU
    float32 without XLA, which there makes training slower; on several GPUs without XLA, which Keras
    does not combine with them. "bfloat16" is for CPUs that have instructions for it. Threads and
    oneDNN: see `load_tensorflow`; where TensorFlow runs already, as in a notebook, they are what they
    were.

    Raises:
        ConfigError: A value is not in the closed list, there are fewer GPUs than asked for, XLA was
            asked for on several, or bfloat16 where the processor has no instructions for it.
    """
    for name, value, allowed in (
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
        ("xla", xla, SWITCHES),
        ("onednn", onednn, SWITCHES),
    ):
        check_choice(name, value, allowed)
    if gpus > 1 and xla == "on":
        raise ConfigError("XLA does not work with several GPUs: leave out --xla on, or --gpus.")
    tf = load_tensorflow(threads, onednn)
    gpu_devices = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpu_devices:
        raise ConfigError(f"--device gpu was asked for, and {why_no_gpu()}. Or use --device cpu.")
    if gpus > 1 and (device == "cpu" or len(gpu_devices) < gpus):
        raise ConfigError(
            f"--gpus {gpus} was asked for, and {len(gpu_devices)} can be used"
            + (f": {why_no_gpu()}." if not gpu_devices else " on this machine.")
        )
    threads_in_use = tf.config.threading.get_intra_op_parallelism_threads()
    if device == "cpu" or not gpu_devices:
        if gpu_devices:
            tf.config.set_visible_devices([], "GPU")
        where, fast, name, gpus = "on the CPU", False, "cpu", 0
    else:
        details = tf.config.experimental.get_device_details(gpu_devices[0])
        capability = details.get("compute_capability", (0, 0))
        where = f"on {details.get('device_name', 'a GPU')}, compute capability {capability}"
        where = f"{gpus} GPUs, the first {where}" if gpus > 1 else where
        fast, name = capability >= _MIN_COMPUTE_CAPABILITY, "gpu"
    if precision == "auto":
        precision = "mixed_float16" if fast else "float32"
    elif precision == "bfloat16":
        _refuse_slow_bfloat16(name)
        precision = "mixed_bfloat16"
    use_xla = fast and gpus == 1 if xla == "auto" else xla == "on"
    switches = f"XLA {'on' if use_xla else 'off'}, oneDNN {'on' if _onednn() else 'off'}"
    why = _why(name, precision, fast, gpus)
    reason = f"{where}: {precision}, {switches}, {threads_in_use} threads; {why}"
    return Runtime(name, precision, use_xla, threads_in_use, reason, gpus)


def _refuse_slow_bfloat16(device: str) -> None:
    """Raise `ConfigError` where bfloat16 is not for this device."""
    if device == "gpu":
        raise ConfigError("--precision bfloat16 is for CPUs. On a GPU use mixed_float16 or auto.")
    if processor()[1].isdisjoint(_BFLOAT16):
        raise ConfigError(
            "--precision bfloat16 needs a CPU with AVX512_BF16 or AMX; on this one it would be slower "
            "than float32. Use --precision auto."
        )


def _onednn() -> bool:
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0"


def _why(device: str, precision: str, fast: bool, gpus: int) -> str:
    """Explain what `auto` chose."""
    if precision == "mixed_bfloat16":
        return "this CPU has instructions for bfloat16"
    if device == "cpu":
        return "on a CPU XLA and half precision make training slower"
    if not fast:
        return "half precision and XLA pay from compute capability 7.0 on"
    if gpus > 1:
        return "tensor cores make half precision fast, and Keras has no XLA with several GPUs"
    return "tensor cores make half precision and XLA fast"
