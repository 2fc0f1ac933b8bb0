"""Report what this machine can do and what is missing."""

import importlib
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tumorbatch import gpu, keras_settings, machine, native
from tumorbatch.files import counted
from tumorbatch.runtime import available_cores, free_memory, load_tensorflow, processor, versions

_LEAST_MEMORY = 2 << 30  # bytes; TensorFlow with cnn1 and its data takes 1.2 GB, resnet50 more
_LEAST_DISK = 1 << 30  # bytes; a set of 4,000 images, five bundles and a checkpoint
# What the speed of the CPU depends on, in /proc/cpuinfo's words.
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
# Variables that choose other code in the libraries: as fast or slower, and other last bits.
_CHANGE_BITS = (
    "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES", "OPENCV_CPU_DISABLE", "XLA_FLAGS", "TF_XLA_FLAGS",
    "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip
_LEAST_FILES = 256  # open at once; a run with 16 workers holds about 100
_PACKAGES = (
    "tensorflow", "keras", "numpy", "opencv-python-headless", "pydicom", "python-gdcm", "pyarrow",
    "safetensors", "scikit-learn", "matplotlib", "simplejpeg", "tensorboard",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        name: Name of what was checked.
        text: The result.
        well: False if something would fail or be slow.
    """

    name: str
    text: str
    well: bool = True


def run(folder: Path, quick: bool = False) -> list[Finding]:
    """Check versions, processor, GPU, the fast ways of training, memory and disk.

    Args:
        folder: A folder on the disk of the outputs.
        quick: Leave out what loads TensorFlow: the GPU as TensorFlow sees it, XLA, mixed precision.
    """
    slow = [] if quick else [*_graphics(), *_fast_ways()]
    return [*_software(), *_settings(), *_processor(), *slow, *_room(folder), *_limits()]


def _software() -> Iterator[Finding]:
    installed = versions(*_PACKAGES)
    optional = {"tensorboard": "--tensorboard"}
    for name, version in installed.items():
        broken = name == "python-gdcm" and not _gdcm_loads()
        yield Finding(name, f"{version}, cannot be loaded" if broken else version, not broken)
    for name in _PACKAGES:
        if name in optional and name not in installed:
            yield Finding(name, f"not installed; only {optional[name]} needs it (pip install {name})")
        elif name not in installed:
            yield Finding(name, f"not installed; pip install {name}", False)


def _gdcm_loads() -> bool:
    """Return whether the decoder of compressed DICOM is more than a name in the list of packages."""
    try:
        importlib.import_module("gdcm")
    except (ImportError, OSError):
        return False
    return True


def _settings() -> Iterator[Finding]:
    """Yield what the user has set that could change results, and whether it does."""
    for setting in keras_settings.ignored():
        yield Finding("Keras", f"{setting}: ignored by tumorbatch")
    for name in _CHANGE_BITS:
        if os.environ.get(name):
            text = f"{name}={os.environ[name]} changes speed, and the last bits of results"
            yield Finding("environment", text)


def _processor() -> Iterator[Finding]:
    model, flags = processor()
    useful = ", ".join(name for name in _FEATURES if name in flags) or "no vector extensions"
    yield Finding("processor", f"{model}; {available_cores()} cores for this process; {useful}")
    if flags and "avx2" not in flags:
        yield Finding("processor", "no AVX2: everything on the CPU is several times slower", False)
    pixels = native.choose()
    yield Finding("pixels", pixels.reason, pixels.library is not None or native.is_opencv_forced())


def _graphics() -> Iterator[Finding]:
    tf = load_tensorflow()
    usable = tf.config.list_physical_devices("GPU")
    driver, devices = gpu.driver(), gpu.devices()
    if not driver and not devices and not usable:
        yield Finding("GPU", "none: training and inference use the CPU")
        return
    yield Finding("driver", driver or "nvidia-smi does not answer", bool(driver))
    for name, loadable in gpu.libraries().items():
        text = "found" if loadable else f"cannot be opened; {gpu.INSTALL}"
        yield Finding(name, text, loadable or bool(usable))
    for device in usable:
        details = tf.config.experimental.get_device_details(device)
        capability = ".".join(map(str, details.get("compute_capability", ())))
        yield Finding(device.name, f"{details.get('device_name', '?')}, capability {capability}")
    if not usable:
        yield Finding("GPU", gpu.why_no_gpu(), False)


def _fast_ways() -> Iterator[Finding]:
    from tumorbatch.selftest import deviation

    tf = load_tensorflow()
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    for name, precision, xla in (
        ("XLA", "float32", True), ("mixed precision", "mixed_float16", False),
        ("both", "mixed_float16", True),
    ):  # fmt: skip
        problem = deviation(precision, xla)
        text = "a training step agrees with float32" if problem is None else f"a step {problem}"
        if not on_gpu:
            text += "; not used on a CPU"
        yield Finding(name, text, problem is None or not on_gpu)


def _room(folder: Path) -> Iterator[Finding]:
    memory, disk = free_memory(), shutil.disk_usage(folder).free
    if memory is not None:
        yield Finding("free memory", f"{memory / 1e9:.1f} GB", memory >= _LEAST_MEMORY)
    yield Finding("free disk", f"{disk / 1e9:.1f} GB in {folder.resolve()}", disk >= _LEAST_DISK)


def _limits() -> Iterator[Finding]:
    """Yield what a run needs in addition to memory and disk."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    text = "without limit" if unlimited else f"{soft:,} (`ulimit -n`)"
    yield Finding("open files", text, unlimited or soft >= _LEAST_FILES)
    problem = machine.shared_memory_problem()
    yield Finding("shared memory", problem or "can be used", not problem)
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile():
            yield Finding("temporary folder", f"{folder} can be written")
    except OSError as error:
        yield Finding("temporary folder", f"{error.strerror or error}: set TMPDIR", False)


def format_findings(findings: Sequence[Finding]) -> str:
    """Format the findings, one per line, with problems marked."""
    width = max(len(finding.name) for finding in findings)
    lines = [
        f"{'   ' if finding.well else '!! '}{finding.name:{width}}  {finding.text}"
        for finding in findings
    ]
    problems = sum(not finding.well for finding in findings)
    lines.append(f"{counted(problems, 'problem')}." if problems else "No problems.")
    return "\n".join(lines)
