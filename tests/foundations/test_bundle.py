"""The model bundle: nothing but data is read, and only data that was not changed."""

import hashlib
import json
import os
import pickle  # noqa: TID251 - to make what must never be loaded
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.bundles import rewrite
from tumorbatch import bundle
from tumorbatch.atomic import write_bytes, write_json
from tumorbatch.bundle import MODEL, WEIGHTS, Bundle, best, load
from tumorbatch.bundle_weights import MAX_WEIGHTS_BYTES, load_network, serialize_weights
from tumorbatch.errors import ConfigError, ExitCode, InputError
from tumorbatch.preprocessing_config import Preprocessing

SIZE = 32
NAMES = ("cnn1", "cnn2")


def _write(folder: Path, architecture: str, weights: bytes) -> Bundle:
    folder.mkdir()
    made = Bundle(
        architecture=architecture,
        preprocessing=Preprocessing(size=SIZE),
        classes=("Healthy", "Tumor"),
        threshold=0.5,
        temperature=1.0,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        training={"epochs": 1},
        versions={"tumorbatch": "0"},
    )
    write_bytes(folder / WEIGHTS, weights)
    write_json(folder / MODEL, made.to_dict())
    return made


@pytest.fixture(scope="module")
def networks(tf: Any) -> dict[str, Any]:
    """Untrained networks, with statistics that differ from those of a fresh one."""
    import keras

    from tumorbatch.architectures import build

    made = {}
    for seed, name in enumerate(NAMES):
        keras.utils.set_random_seed(seed)
        made[name] = build(name, SIZE)
        for variable in made[name].weights:
            variable.assign(variable + 0.25)
    return made


@pytest.fixture(scope="module")
def bundles(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for name, network in networks.items():
        _write(folder / name, name, serialize_weights(network))
    return folder


@pytest.fixture
def folder(bundles: Path, tmp_path: Path) -> Path:
    """A cnn1 bundle, to be damaged."""
    return Path(shutil.copytree(bundles / "cnn1", tmp_path / "models" / "cnn1"))


def _logits(network: Any) -> list[float]:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), np.uint8)
    logits: list[float] = network(images, training=False).numpy()[:, 0].tolist()
    return logits


def _edit(folder: Path, **changes: Any) -> None:
    """Change fields of model.json; a field that is given as `...` is taken away."""
    value = json.loads((folder / MODEL).read_bytes()) | changes
    kept = {name: field for name, field in value.items() if field is not ...}
    (folder / MODEL).write_text(json.dumps(kept))


def _edit_weights(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the arrays, and make model.json vouch for them."""
    arrays = safetensors.numpy.load_file(folder / WEIGHTS)
    change(arrays)
    _replace_weights(folder, safetensors.numpy.save(arrays))


def _replace_weights(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS).write_bytes(data)
    rewrite(folder, weights_sha256=hashlib.sha256(data).hexdigest())


# --- the whole ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_network_is_the_saved_one(networks: dict[str, Any], bundles: Path, name: str) -> None:
    loaded = load_network(bundles / name, load(bundles / name))
    assert _logits(loaded) == _logits(networks[name])
    # As often as one likes in one process, whatever else was built there.
    again = load_network(bundles / name, load(bundles / name))
    assert _logits(again) == _logits(networks[name])


def test_model_json_round_trip(folder: Path) -> None:
    value = json.loads((folder / MODEL).read_bytes())
    assert json.loads(json.dumps(load(folder).to_dict())) == value
    assert value["schema_version"] == 1
    assert value["preprocessing_fingerprint"] == Preprocessing(size=SIZE).fingerprint
    assert value["classes"] == ["Healthy", "Tumor"]


def test_the_model_id_names_what_decides_a_prediction(folder: Path) -> None:
    made = load(folder)
    assert made.model_id.startswith("cnn1-")
    others = [
        replace(made, threshold=0.4),
        replace(made, temperature=2.0),
        replace(made, weights_sha256="0" * 64),
        replace(made, preprocessing=Preprocessing(size=SIZE, clahe=False)),
    ]
    assert len({made.model_id, *(other.model_id for other in others)}) == 5
    assert replace(made, training={}, versions={}).model_id == made.model_id


CALIBRATION = {
    "split": "validation", "dataset_sha256": "0" * 64,
    "threshold": {"value": 0.5, "rule": "youden", "reached": True, "n": 9, "note": "Chosen."},
    "temperature": {"value": 1.0, "n": 9, "note": "Fitted."},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": 0.4}, "has the model_id cnn1-"),
        ({"model_id": "cnn1-000000000000"}, "has the model_id cnn1-000000000000"),
        ({"calibration": {**CALIBRATION, "threshold": None}}, "does not say how"),
        ({"calibration": {**CALIBRATION, "dataset_sha256": ...}}, "does not say how"),
        ({"calibration": {"threshold": "high"}}, "does not say how"),
        ({"calibration": {**CALIBRATION, "threshold": {**CALIBRATION["threshold"], "value": 0.4}}},
         "has another threshold"),
        ({"calibration": {**CALIBRATION, "temperature": {**CALIBRATION["temperature"], "n": "9"}}},
         "does not say how"),
    ],
)  # fmt: skip
def test_a_bundle_that_contradicts_itself_is_refused(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    """Reports tell how the threshold was chosen, and name the model by its id: both must be true."""
    _edit(folder, calibration=CALIBRATION)
    assert load(folder).calibration == CALIBRATION
    if "calibration" in changes:
        changes = {"calibration": {k: v for k, v in changes["calibration"].items() if v is not ...}}
    _edit(folder, **changes)
    with pytest.raises(InputError, match=words):
        load(folder)


def test_the_weights_file_is_float32_and_holds_weights_alone(bundles: Path) -> None:
    arrays = safetensors.numpy.load_file(bundles / "cnn2" / WEIGHTS)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    kinds = {name.rpartition("/")[2] for name in arrays}
    # No random state (of Dropout), no metrics, no optimizer.
    assert kinds == {"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"}


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.999999])
def test_one_flipped_bit_in_the_weights(folder: Path, place: float) -> None:
    path = folder / WEIGHTS
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{path} is damaged or was exchanged"):
        load_network(folder, load(folder))


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_weights_of_another_length(folder: Path, change: Callable[[bytes], bytes]) -> None:
    path = folder / WEIGHTS
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=f"{path} is damaged or was exchanged"):
        load_network(folder, load(folder))


def test_no_weights_file(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match=f"{folder / WEIGHTS} is missing"):
        load_network(folder, load(folder))


def test_a_weights_file_too_large_to_be_one(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(MAX_WEIGHTS_BYTES + 1)  # sparse
    with pytest.raises(InputError, match="no such file is so large"):
        load_network(folder, load(folder))


def test_a_missing_and_an_unknown_weight(folder: Path) -> None:
    _edit_weights(folder, lambda arrays: arrays.pop("logit/bias"))
    with pytest.raises(InputError, match=r"misses weight 'logit/bias' for cnn1"):
        load_network(folder, load(folder))
    _edit_weights(folder, lambda arrays: arrays.update({"logit/bias": np.zeros(1, np.float32)}))
    load_network(folder, load(folder))
    _edit_weights(folder, lambda arrays: arrays.update({"more": np.zeros(1, np.float32)}))
    with pytest.raises(InputError, match="has an unknown weight 'more' for cnn1"):
        load_network(folder, load(folder))


@pytest.mark.parametrize("shape", [(), (2,), (1, 1)])
def test_a_weight_of_another_shape(folder: Path, shape: tuple[int, ...]) -> None:
    _edit_weights(folder, lambda arrays: arrays.update({"logit/bias": np.zeros(shape, np.float32)}))
    with pytest.raises(InputError, match="weight 'logit/bias' has shape"):
        load_network(folder, load(folder))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["logit/bias", "conv_1/kernel"])
def test_a_weight_that_is_not_finite(folder: Path, name: str, value: float) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name].flat[-1] = value

    assert name in safetensors.numpy.load_file(folder / WEIGHTS)
    _edit_weights(folder, change)
    with pytest.raises(InputError, match=f"weight '{name}' holds values that are not finite"):
        load_network(folder, load(folder))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_weights_of_another_type(folder: Path, dtype: Any) -> None:
    _edit_weights(
        folder, lambda arrays: arrays.update({"logit/bias": arrays["logit/bias"].astype(dtype)})
    )
    with pytest.raises(InputError, match=f"weight 'logit/bias' is {np.dtype(dtype)}, expected float32"):
        load_network(folder, load(folder))


def test_a_negative_variance(bundles: Path, tmp_path: Path) -> None:
    """Its square root is not a number, and so is every logit."""
    folder = Path(shutil.copytree(bundles / "cnn2", tmp_path / "cnn2"))
    (name, *_) = (key for key in safetensors.numpy.load_file(folder / WEIGHTS) if "variance" in key)
    _edit_weights(folder, lambda arrays: arrays.update({name: -arrays[name]}))
    with pytest.raises(InputError, match=f"weight '{name}' holds negative variances"):
        load_network(folder, load(folder))


def test_weights_of_another_network_or_size(folder: Path, bundles: Path) -> None:
    rewrite(folder, architecture="cnn2")
    with pytest.raises(InputError, match="misses weight"):
        load_network(folder, load(folder))
    rewrite(folder, architecture="cnn1", preprocessing=Preprocessing(size=64))
    with pytest.raises(InputError, match="has shape"):
        load_network(folder, load(folder))


def test_a_weights_file_that_is_none(folder: Path) -> None:
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    for data in (
        b"",
        b"not safetensors at all",
        pickle.dumps({"logit/bias": [0.0]}),
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", len(header)) + header + bytes(4),  # a type that NumPy has not
    ):
        _replace_weights(folder, data)
        with pytest.raises(InputError, match=f"{folder / WEIGHTS}"):
            load_network(folder, load(folder))


# --- model.json ---------------------------------------------------------------------------------


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="is not a model bundle"):
            load(folder)


def test_a_truncated_model_json(folder: Path) -> None:
    whole = (folder / MODEL).read_bytes().rstrip()
    for length in range(0, len(whole), 7):
        (folder / MODEL).write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"{folder / MODEL} is damaged"):
            load(folder)


@pytest.mark.parametrize(
    "field",
    ["schema_version", "architecture", "preprocessing", "classes", "threshold", "temperature"],
)
def test_a_missing_field(folder: Path, field: str) -> None:
    _edit(folder, **{field: ...})
    with pytest.raises(InputError, match=f"is damaged.*{field}"):
        load(folder)


@pytest.mark.parametrize("value", [b"[]", b"null", b"1", b'"text"', b"\xff\xfe", b"{}"])
def test_another_kind_of_json(folder: Path, value: bytes) -> None:
    (folder / MODEL).write_bytes(value)
    with pytest.raises(InputError, match="is damaged"):
        load(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite(folder: Path, number: str) -> None:
    """Python's own reader takes all of them; in a threshold none could be compared with."""
    _edit(folder, training={"epochs": "HERE"})
    text = (folder / MODEL).read_text()
    (folder / MODEL).write_text(text.replace('"HERE"', number))
    with pytest.raises(InputError, match=r"it has (NaN|-?Infinity|a number that is too large)"):
        load(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version(folder: Path, version: Any) -> None:
    _edit(folder, schema_version=version)
    with pytest.raises(ConfigError, match=f"has format version {version}; this tumorbatch reads 1"):
        load(folder)


@pytest.mark.parametrize("name", ["vgg16", "", "CNN1", "../cnn1"])
def test_an_unknown_network(folder: Path, name: str) -> None:
    _edit(folder, architecture=name)
    with pytest.raises(ConfigError, match=r"names the network .* which is not one of cnn1, cnn2"):
        load(folder)


def test_another_preprocessing_version(folder: Path) -> None:
    _edit(folder, preprocessing=Preprocessing(size=SIZE).to_dict() | {"decode_version": 99})
    with pytest.raises(ConfigError, match="version 99 of the decoding rules"):
        load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", 0),
        ("threshold", 1.5),
        ("threshold", float("nan")),
        ("threshold", "high"),
        ("temperature", 0),
        ("temperature", -1),
        ("temperature", float("inf")),
        ("temperature", None),
        ("classes", ["Tumor", "Healthy"]),  # would turn every label around
        ("classes", ["Healthy"]),
        ("classes", "Healthy"),
        ("training", 3),
    ],
)
def test_impossible_values(folder: Path, field: str, value: Any) -> None:
    _edit(folder, **{field: value})
    with pytest.raises(InputError, match=f"{folder / MODEL}"):
        load(folder)


# --- foreign files, and the choice of a bundle --------------------------------------------------

_opened: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and (event == "open" or event.startswith("pickle.")):
        _opened.append(str(arguments[0]))


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("a pickle was loaded",))


def test_files_that_could_hold_code_are_never_opened(folder: Path, networks: dict[str, Any]) -> None:
    global _opened
    names = ["model.pkl", "weights.pickle", "weights.h5", "model.h5", "model.keras", "saved_model.pb"]
    for name in names:
        (folder / name).write_bytes(pickle.dumps(_Bomb()))
    sys.addaudithook(_watch)  # for good: there is no way to take one away
    _opened = []
    try:
        network = load_network(folder, load(folder))
    finally:
        opened, _opened = _opened, None
    inside = {Path(path).name for path in opened if path.startswith(str(folder))}
    assert inside == {MODEL, WEIGHTS}
    assert not any("find_class" in event for event in opened)
    assert _logits(network) == _logits(networks["cnn1"])


def _figures(auc: float | None) -> dict[str, object]:
    """What `best` reads of a split's metrics."""
    return {"figures": {"auc": {"value": auc}}}


def _metrics(folder: Path, metrics: Any) -> Path:
    _write(folder, "cnn1", b"weights, which nobody reads")
    (folder / bundle.METRICS).write_text(json.dumps(metrics))
    return folder


def test_best_takes_the_highest_validation_auc(tmp_path: Path) -> None:
    for name, validation, test in (("a", 0.7, 0.99), ("b", 0.9, 0.6), ("c", 0.8, 0.8)):
        _metrics(tmp_path / name, {"validation": _figures(validation), "test": _figures(test)})
    assert best(tmp_path) == tmp_path / "b"


def test_best_takes_a_leaky_one_only_where_there_is_no_other(tmp_path: Path) -> None:
    for name, leaky, auc in (("a", True, 0.99), ("b", True, 0.98)):
        folder = _metrics(tmp_path / name, {"validation": _figures(auc)})
        rewrite(folder, training={"leaky": leaky})
    assert best(tmp_path) == tmp_path / "a"
    _metrics(tmp_path / "c", {"validation": _figures(0.6)})
    assert best(tmp_path) == tmp_path / "c"


def test_best_takes_the_first_of_equals(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        _metrics(tmp_path / name, {"validation": _figures(0.9)})
    assert best(tmp_path) == tmp_path / "a"


def test_best_passes_over_what_is_no_finished_bundle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"validation": _figures(0.6)}
    better = {"validation": _figures(0.9)}
    _metrics(tmp_path / "good", good)
    _metrics(tmp_path / ".cnn1.new", better)  # what a killed training leaves
    _metrics(tmp_path / ".cnn1.old", better)
    (_metrics(tmp_path / "without a model", better) / MODEL).unlink()
    (_metrics(tmp_path / "without metrics", better) / bundle.METRICS).unlink()
    for number, metrics in enumerate(
        [None, [], {}, {"validation": {}}, {"validation": _figures(None)}, float("nan"),
         {"validation": _figures(float("nan"))}]
    ):  # fmt: skip
        _metrics(tmp_path / f"broken {number}", metrics)
    (_metrics(tmp_path / "other weights", better) / WEIGHTS).write_bytes(b"other weights")
    (_metrics(tmp_path / "broken model", better) / MODEL).write_bytes(b"[" * 100_000)
    os.mkfifo(_metrics(tmp_path / "pipe", better) / "fifo")
    (tmp_path / "pipe/fifo").replace(tmp_path / "pipe" / WEIGHTS)
    (tmp_path / "file").write_bytes(b"")
    assert best(tmp_path) == tmp_path / "good"
    # Each of them is named, and why: somebody may count on it.
    told = {record.args[0].name for record in caplog.records}
    assert told >= {"without metrics", "other weights", "broken model", "pipe", "broken 0"}


@pytest.mark.parametrize("name", ["", "missing", "file"])
def test_best_without_any_bundle(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="holds no model bundle"):
        best(tmp_path / name)


def _empty_bundles(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / bundle.MODEL).touch()


def test_a_models_name_stands_for_its_folder_under_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _empty_bundles(Path("models"), "cnn2", "cnn1", ".cnn3.new")
    assert bundle.find(Path("cnn1")) == Path("models/cnn1")
    assert bundle.find(Path("models/cnn1")) == Path("models/cnn1")
    assert bundle.find(tmp_path / "models" / "cnn2") == tmp_path / "models" / "cnn2"
    Path("cnn1").mkdir()
    assert bundle.find(Path("cnn1")) == Path("cnn1")  # a path that exists wins
    with pytest.raises(InputError, match="there is no folder resnet, and models/ holds cnn1, cnn2"):
        bundle.find(Path("resnet"))


def test_without_any_model_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="models/ holds no bundle"):
        bundle.find(Path("cnn1"))


@pytest.mark.parametrize(
    "command",
    [
        ("infer", ".", "out.parquet", "--model", "cnn9"),
        ("evaluate", "cnn9"),
        ("compare", "cnn1", "cnn9"),
        ("export", "cnn9", "--format", "keras"),
    ],
)
def test_every_command_finds_models_by_the_same_rule(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    _empty_bundles(Path("models"), "cnn1")
    code, output = invoke(*command)
    assert code == ExitCode.NO_INPUT
    assert "cnn9 is not a model bundle: there is no folder cnn9, and models/ holds cnn1." in output
