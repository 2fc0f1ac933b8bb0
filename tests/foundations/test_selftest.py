"""The self-test: it passes where the fast ways work, and falls back loudly where one does not."""

import os
import re
from typing import Any

import numpy as np
import pytest

from tumorbatch import selftest
from tumorbatch.runtime import Runtime

pytestmark = pytest.mark.usefixtures("tf")

FAST = Runtime("gpu", "mixed_float16", True, 2, "on a T4", 1)


@pytest.mark.parametrize(
    ("precision", "xla"),
    [("float32", True), ("mixed_float16", False), ("mixed_float16", True), ("mixed_bfloat16", False)],
)
def test_the_fast_ways_agree_with_float32_here(precision: str, xla: bool) -> None:
    deviation = selftest.deviation(precision, xla)
    if precision == "mixed_bfloat16" and "ONEDNN_MAX_CPU_ISA" in os.environ:
        # Without the instructions for bfloat16 oneDNN may refuse it: `checked` then says so.
        assert deviation is None or "AbortedError" in deviation
    else:
        assert deviation is None


def test_a_runtime_that_works_is_kept() -> None:
    assert selftest.checked(FAST) == FAST
    slow = Runtime("gpu", "float32", False, 2, "on an old GPU", 1)
    assert selftest.checked(slow) is slow


def _raise() -> Any:
    raise RuntimeError("DNN library initialization failed.\nmore")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda loss, gradient: _raise(), r"RuntimeError \(DNN library initialization failed\.\)"),
        (lambda loss, gradient: (np.nan, gradient), "infinite values"),
        (lambda loss, gradient: (loss * 1.05, gradient), "gives a loss of"),
        (lambda loss, gradient: (loss, gradient * 0.8), "gradient that is 20% off"),
        (lambda loss, gradient: (loss, np.full_like(gradient, np.inf)), "infinite values"),
    ],
)
def test_a_wrong_step_falls_back_loudly(
    broken: Any, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    true_step = selftest._step

    def step(precision: str, xla: bool) -> Any:
        found = true_step("float32", False)
        return found if precision == "float32" else broken(*found)

    monkeypatch.setattr(selftest, "_step", step)
    with caplog.at_level("WARNING", "tumorbatch"):
        runtime = selftest.checked(FAST)
    assert (runtime.precision, runtime.xla, runtime.device) == ("float32", False, "gpu")
    assert "self-test failed" in runtime.reason
    assert caplog.text.count("SELF-TEST FAILED") == 1
    assert re.search(words, caplog.text)
