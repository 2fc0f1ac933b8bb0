"""Cores, TensorFlow's switches, and the choice of a device."""

import json
import os
import platform
import sys
from typing import Any

import pytest

from tumorbatch import __version__, runtime
from tumorbatch.errors import ConfigError, TryAgainError
from tumorbatch.runtime import available_cores, resolve, versions

AFFINITY = """
import os
from tumorbatch.runtime import available_cores
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, cores[:1])
print(available_cores())
"""


def test_available_cores_are_those_of_the_affinity_mask(python: Any) -> None:
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))
    assert python(AFFINITY).communicate(timeout=60) == ("1\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, "device must be one of auto, cpu, gpu. Received: tpu"),
        ({"device": "GPU"}, "device must be one of"),
        ({"precision": "float16"}, "precision must be one of auto, float32, mixed_float16"),
        ({"xla": "yes"}, "xla must be one of auto, on, off"),
    ],
)
def test_unknown_values_are_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(**arguments)


def test_bfloat16_only_where_the_processor_has_instructions_for_it(
    tf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags in ({"avx2", "avx512_bf16"}, {"amx_bf16"}):
        monkeypatch.setattr(runtime, "processor", lambda flags=flags: ("a CPU", frozenset(flags)))
        by_hand = resolve("cpu", "bfloat16")
        assert by_hand.precision == "mixed_bfloat16"
        assert by_hand.reason.endswith("; this CPU has instructions for bfloat16")
        assert resolve("cpu").precision == "float32"
    monkeypatch.setattr(runtime, "processor", lambda: ("a CPU", frozenset({"avx2", "avx512f"})))
    with pytest.raises(ConfigError, match="needs a CPU with AVX512_BF16 or AMX"):
        resolve("cpu", "bfloat16")
    with pytest.raises(ConfigError, match="bfloat16 is for CPUs"):
        runtime._refuse_slow_bfloat16("gpu")


def test_versions() -> None:
    assert versions("numpy", "no-such-distribution") == {
        "tumorbatch": __version__,
        "python": platform.python_version(),
        "numpy": __import__("numpy").__version__,
    }


# One process for all that TensorFlow's import decides; it takes seconds.
TENSORFLOW = """
import dataclasses, json, os, sys
from tumorbatch.errors import ConfigError, TryAgainError
from tumorbatch.runtime import load_tensorflow, resolve
modules = "tensorflow" in sys.modules
tf = load_tensorflow(threads=1)
tf.reduce_sum(tf.ones([2, 2])).numpy()
light = sys.modules.keys().isdisjoint(("sklearn", "matplotlib"))
import matplotlib, sklearn
try:
    refusal = resolve("gpu") and None
except ConfigError as error:
    refusal = str(error)
print(json.dumps({
    "early": modules,
    "light": light,
    "again": load_tensorflow() is tf,
    "onednn": os.environ["TF_ENABLE_ONEDNN_OPTS"],
    "level": os.environ["TF_CPP_MIN_LOG_LEVEL"],
    "inter": tf.config.threading.get_inter_op_parallelism_threads(),
    "intra": tf.config.threading.get_intra_op_parallelism_threads(),
    "gpus": len(tf.config.list_physical_devices("GPU")),
    "refusal": refusal,
    "auto": dataclasses.asdict(resolve()),
    "cpu": dataclasses.asdict(resolve("cpu", "auto", "on")),
}))
"""


def test_tensorflow_is_silent_and_set_up(python: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")  # the user's own choice stays
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    out, err = python(TENSORFLOW).communicate(timeout=300)
    assert err == ""
    found = json.loads(out)
    assert (found["early"], found["light"]) == (False, True)
    assert found["again"] is True
    assert (found["onednn"], found["level"]) == ("0", "3")
    assert (found["inter"], found["intra"]) == (1, 1)
    assert found["cpu"] == {
        "device": "cpu",
        "precision": "float32",
        "xla": True,
        "threads": 1,
        "gpus": 0,
        "reason": "on the CPU: float32, XLA on, oneDNN off, 1 threads; on a CPU XLA and half precision "
        "make training slower",
    }
    if found["gpus"]:
        assert found["refusal"] is None
        assert found["auto"]["device"] == "gpu"
    else:
        assert found["refusal"].startswith(
            "--device gpu was asked for, and TensorFlow finds no usable GPU: "
        )
        assert found["auto"] == found["cpu"] | {
            "xla": False,
            "reason": found["cpu"]["reason"].replace("XLA on", "XLA off"),
        }


def test_without_random_numbers_tensorflow_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would abort the process."""
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(runtime, "_RANDOM", "/dev/absent")
    with pytest.raises(TryAgainError, match="/dev/absent is missing"):
        runtime.load_tensorflow()
