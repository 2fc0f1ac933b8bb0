"""What `export` writes loads in a process that knows nothing of tumorbatch, and predicts the same."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tumorbatch import architectures, bundle, export
from tumorbatch.bundle import Bundle
from tumorbatch.bundle_weights import load_network, serialize_weights
from tumorbatch.checks import EXPORT_KINDS
from tumorbatch.errors import ExitCode
from tumorbatch.preprocessing_config import Preprocessing

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
# Not even importable there: -I leaves out PYTHONPATH and the current folder.
PLAIN = """
import sys
sys.modules["tumorbatch"] = None
import numpy, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import tensorflow as tf
folder, *paths = sys.argv[1:]
images = numpy.load(folder + "/images.npy")
for path in paths:
    if path.endswith("savedmodel"):
        serve = tf.saved_model.load(path).signatures["serving_default"]
        (logits,) = serve(tf.constant(images)).values()
        logits = logits.numpy()
    else:
        logits = keras.models.load_model(path, compile=False).predict_on_batch(images)
    numpy.save(path + ".npy", logits)
"""


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mobilenetv2 bundle with random weights."""
    import hashlib

    folder = tmp_path_factory.mktemp("models") / "mobilenetv2"
    folder.mkdir()
    weights = serialize_weights(architectures.build("mobilenetv2", 32))
    about = Bundle(
        "mobilenetv2", Preprocessing(size=32), ("Healthy", "Tumor"), 0.5, 1.0,
        hashlib.sha256(weights).hexdigest(), {}, {},
    )  # fmt: skip
    (folder / bundle.WEIGHTS).write_bytes(weights)
    (folder / bundle.MODEL).write_text(json.dumps(about.to_dict()))
    return folder


@pytest.fixture(scope="module")
def exported(
    model: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    """Both networks in every format, and beside each file the logits of a process without tumorbatch.

    One process for all: to load TensorFlow takes longer than the rest.
    """
    root = tmp_path_factory.mktemp("exported")
    np.save(root / "images.npy", IMAGES)
    files = {}
    for which, folder in (("model", model), ("pretrained", pretrained)):
        for kind in EXPORT_KINDS if which == "model" else ("keras", "savedmodel"):
            files[which, kind] = root / which / kind / f"net.{kind}"
            files[which, kind].parent.mkdir(parents=True)
            export.run(folder, files[which, kind], kind)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, root, *files.values()],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return files


@pytest.mark.parametrize("which", ["model", "pretrained"])
def test_plain_keras_and_tensorflow_predict_the_same(
    which: str, exported: dict[tuple[str, str], Path], request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(which)
    network = load_network(folder, bundle.load(folder))
    expected = network(IMAGES, training=False).numpy()
    assert np.ptp(expected) > 0
    files = [out for (name, _), out in exported.items() if name == which]
    assert len(files) >= 2
    for out in files:
        assert sorted(os.listdir(out.parent)) == [out.name, f"{out.name}.json", f"{out.name}.npy"]
        logits = np.load(out.with_name(f"{out.name}.npy"))
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
        about = json.loads(out.with_name(f"{out.name}.json").read_text())
        assert about["model_id"] == bundle.load(folder).model_id
        assert about["input"]["shape"] == ["batch", 32, 32, 1]
        assert "CLAHE" in about["not_inside"]


def test_what_is_there_is_not_replaced(model: Path, tmp_path: Path, invoke: Any) -> None:
    out = tmp_path / "net.keras"
    out.write_text("mine")
    code, output = invoke("export", model, "--format", "keras", "--out", out)
    assert (code, "--overwrite" in output, out.read_text()) == (ExitCode.USAGE, True, "mine")
    code, output = invoke("export", model, "--format", "keras", "--out", out, "--overwrite")
    assert (code, out.read_bytes()[:2], output.count(str(out))) == (ExitCode.OK, b"PK", 1)


def test_wrong_names_and_bundles_are_sentences(model: Path, tmp_path: Path, invoke: Any) -> None:
    code, output = invoke("export", model, "--format", "h5", "--out", tmp_path / "net")
    assert (code, "must end with .h5" in output) == (ExitCode.USAGE, True)
    code, output = invoke("export", tmp_path, "--format", "h5")
    assert (code, "not a model bundle" in output) == (ExitCode.NO_INPUT, True)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", EXPORT_KINDS)
def test_nothing_is_written_to_the_folder_for_temporary_files(
    model: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AutoGraph's files would stay there after a kill: Python deletes them when it ends."""
    elsewhere, made = str(tmp_path / "tmp"), []
    os.mkdir(elsewhere)
    monkeypatch.setattr(tempfile, "tempdir", elsewhere)
    real = tempfile.NamedTemporaryFile

    def watched(*arguments: Any, **options: Any) -> Any:
        file = real(*arguments, **options)
        made.append(file.name)
        return file

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", watched)
    export.run(model, tmp_path / f"net.{kind}", kind)
    assert (made, tempfile.tempdir, os.listdir(elsewhere)) == ([], elsewhere, [])


def test_a_disk_that_fails_under_a_savedmodel_is_a_sentence(
    model: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's own writer raises ValueError, or crashes: it writes to memory."""
    real = Path.write_bytes

    def failing(path: Path, data: Any) -> int:
        if path.name == "fingerprint.pb":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    code, output = invoke("export", model, "--format", "savedmodel", "--out", tmp_path / "net")
    assert (code, "Input/output error" in output) == (ExitCode.CANNOT_WRITE, True)
    assert os.listdir(tmp_path) in ([], [".net.lock"])


@pytest.mark.parametrize("kind", ["savedmodel", "keras"])
def test_a_killed_export_is_finished_by_the_same_command(
    model: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the network and its description."""
    out = tmp_path / ("net" if kind == "savedmodel" else f"net.{kind}")
    real = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == f"{out.name}.json":
            raise SystemExit
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(SystemExit):
            export.run(model, out, kind)
    assert out.exists()
    (tmp_path / f".{out.name}.new").mkdir()  # a kill leaves that as well
    export.run(model, out, kind)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"{out.name}.json"]
