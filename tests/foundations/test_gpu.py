"""What is said about a GPU that cannot be used, for every thing that may be missing."""

import pytest

from tumorbatch import gpu
from tumorbatch.errors import ConfigError
from tumorbatch.runtime import resolve


@pytest.mark.parametrize(
    ("opens", "devices", "words"),
    [
        (set(), [], "no NVIDIA driver"),
        ({gpu.DRIVER}, [], "no /dev/nvidia0"),
        ({gpu.DRIVER}, ["/dev/nvidia0"], r"libcudart\.so\.12, .*libcudnn\.so\.9, .*cannot be opened"),
        (
            {gpu.DRIVER, *gpu.LIBRARIES} - {"libcudnn.so.9"},
            ["/dev/nvidia0"],
            r"GPU: libcudnn\.so\.9 can",
        ),
        ({gpu.DRIVER, *gpu.LIBRARIES}, ["/dev/nvidia0"], "CUDA_VISIBLE_DEVICES"),
    ],
)
@pytest.mark.usefixtures("tf")
def test_the_error_names_what_is_missing(
    opens: set[str], devices: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_opens", lambda name, package=None: name in opens)
    monkeypatch.setattr(gpu, "devices", lambda: devices)
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda *_: [])
    with pytest.raises(ConfigError, match=f"--device gpu was asked for.*{words}"):
        resolve("gpu")
    with pytest.raises(ConfigError, match=f"--gpus 2 was asked for, and 0.*{words}"):
        resolve(gpus=2)


@pytest.mark.usefixtures("tf")
def test_several_gpus_and_xla_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="XLA does not work with several GPUs"):
        resolve(xla="on", gpus=2)
    with pytest.raises(ConfigError, match="--gpus 2 was asked for, and"):
        resolve("cpu", gpus=2)


def test_a_library_that_is_there_opens_and_another_does_not() -> None:
    assert gpu._opens("libc.so.6")
    assert not gpu._opens("libnothing.so.99", "cudnn")
    assert set(gpu.libraries()) == set(gpu.LIBRARIES)
