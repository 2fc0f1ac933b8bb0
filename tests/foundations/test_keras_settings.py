"""Keras' settings of the user's other projects change nothing here, and `doctor` tells of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tumorbatch import doctor, keras_settings

SAYS = """
import os
before = dict(os.environ)
from tumorbatch.runtime import load_tensorflow
load_tensorflow(threads=1)
import keras
from tumorbatch.architectures import build
network = build("cnn1", 32)
config = keras.config
print(config.backend(), config.image_data_format(), config.floatx(), config.epsilon())
print(network.output_shape, {str(weight.dtype) for weight in network.weights}, network.count_params())
print(config.max_epochs(), {name for name in before if "KERAS" in name} - os.environ.keys())
"""
EXPECTED = """\
tensorflow channels_last float32 1e-07
(None, 1) {'float32'} 36033
None set()
"""


@pytest.mark.parametrize(
    "text",
    [
        '{"image_data_format": "channels_first", "backend": "jax", "floatx": "float16"}',
        '{"floatx": "float8"}',  # Keras itself ends with a ValueError
    ],
)
def test_no_setting_of_the_user_is_heeded(tmp_path: Path, text: str) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(text)
    variables = {"KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "1", "TF_USE_LEGACY_KERAS": "1"}
    environment = {**os.environ, "HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    environment |= {"TF_ENABLE_ONEDNN_OPTS": "0"}
    environment.pop("KERAS_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", SAYS], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == (EXPECTED, "")
    assert (tmp_path / ".keras" / "keras.json").read_text() == text


def test_what_is_ignored_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KERAS_BACKEND", "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert keras_settings.ignored() == []
    settings: dict[str, Any] = {"backend": "tensorflow", "floatx": "float32", "epsilon": 1e-7}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    assert keras_settings.ignored() == []
    (tmp_path / "keras.json").write_text(
        json.dumps(settings | {"image_data_format": "channels_first", "floatx": "float16"})
    )
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert keras_settings.ignored() == [
        "KERAS_BACKEND=jax",
        f"image_data_format=channels_first in {tmp_path / 'keras.json'}",
        f"floatx=float16 in {tmp_path / 'keras.json'}",
    ]
    findings = [finding for finding in doctor._settings() if finding.name == "Keras"]
    assert len(findings) == 3
    assert all("ignored by tumorbatch" in finding.text and finding.well for finding in findings)
    (tmp_path / "keras.json").write_text("[")
    assert "not readable JSON" in keras_settings.ignored()[1]
