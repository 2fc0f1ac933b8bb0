"""Weights from files: the right numbers in, and whatever is wrong with a file told in words."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tests.conftest import Invoke
from tumorbatch import architectures
from tumorbatch.errors import InputError
from tumorbatch.train import imagenet, pretrained

Change = Callable[[h5py.File, Path], None]


def _base(seed: int = 0) -> Any:
    """A base of three layers with weights, and one without."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    base = keras.Model(image, layers.DepthwiseConv2D(3, name="depth")(x), name="base")
    random = np.random.default_rng(seed)
    base.set_weights([abs(random.normal(size=value.shape)) for value in base.get_weights()])
    return base


def _write_old(base: Any, path: Path) -> None:
    """As Keras before 3 wrote it, and as keras.applications' files are."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in base.layers]
        for layer in base.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{variable.name}:0" for variable in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights, strict=True):
                group[name] = variable.numpy()


@pytest.mark.parametrize("layout", ["Keras 3", "before"])
def test_both_layouts_give_the_very_weights(layout: str, tmp_path: Path) -> None:
    source, target = _base(1), _base(2)
    path = tmp_path / "some.weights.h5"
    source.save_weights(path) if layout == "Keras 3" else _write_old(source, path)
    pretrained.load(path, target)
    for one, other in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", architectures.PRETRAINED)
def test_every_base_reads_what_plain_keras_has_written(name: str, tmp_path: Path) -> None:
    kinds = {"resnet50": "ResNet50", "mobilenetv2": "MobileNetV2", "densenet121": "DenseNet121"}
    plain = getattr(keras.applications, kinds[name])(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    path = tmp_path / "plain.weights.h5"
    plain.save_weights(path)
    network = architectures.build(name, 64)  # another size: convolutions do not mind
    base = network.get_layer(architectures.BASE)
    pretrained.load(path, base)
    for one, other in zip(plain.weights, base.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def _vars(file: h5py.File, name: str) -> h5py.Group:
    for layer in file["layers"].values():
        if layer["vars"].attrs.get("name", "") == name:
            return layer["vars"]
    raise KeyError(name)


def _replace(name: str, value: Any) -> Change:
    def change(file: h5py.File, _: Path) -> None:
        group = _vars(file, name)
        del group["0"]
        group["0"] = value

    return change


def _rename(file: h5py.File, _: Path) -> None:
    _vars(file, "conv").attrs["name"] = "other"


def _twice(file: h5py.File, _: Path) -> None:
    _vars(file, "conv").attrs["name"] = "depth"


def _drop(file: h5py.File, _: Path) -> None:
    del _vars(file, "norm")["3"]


def _huge(file: h5py.File, _: Path) -> None:
    group = _vars(file, "conv")
    del group["0"]
    group.create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(1, 1024))  # 4 TiB, of no bytes


def _external(file: h5py.File, path: Path) -> None:
    group = _vars(file, "conv")
    secret = path.with_name("secret")
    secret.write_bytes(bytes(3 * 3 * 3 * 4 * 4))
    del group["0"]
    group.create_dataset("0", (3, 3, 3, 4), "f4", external=[(str(secret), 0, 432)])


def _link(file: h5py.File, path: Path) -> None:
    group = _vars(file, "conv")
    del group["0"]
    group["0"] = h5py.ExternalLink(str(path.with_name("other.h5")), "/0")


def _negative(file: h5py.File, _: Path) -> None:
    _vars(file, "norm")["3"][...] = -1


WRONG: dict[str, tuple[Change, str]] = {
    "another layer": (_rename, "lacks layer 'conv'"),
    "two of a name": (_twice, "two layers of the name 'depth'"),
    "an array too few": (_drop, "3 arrays, expected 4"),
    "another shape": (_replace("conv", np.zeros((3, 3, 4, 3), "f4")), r"\(3, 3, 4, 3\), expected"),
    "an impossible shape": (_huge, "expected"),
    "integers": (_replace("conv", np.zeros((3, 3, 3, 4), "i4")), "no floating-point"),
    "not numbers": (_replace("conv", np.full((3, 3, 3, 4), np.nan, "f4")), "infinite or no numbers"),
    "a negative variance": (_negative, "negative values"),
    "bytes of another file": (_external, "not stored in the file itself"),
    "a link to another file": (_link, "is a link"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_is_refused_and_nothing_is_changed(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "some.weights.h5"
    _base(1).save_weights(path)
    change, words = WRONG[wrong]
    with h5py.File(path, "r+") as file:
        change(file, path)
    target = _base(2)
    with pytest.raises(InputError, match=f"{path.name} cannot be used.*{words}"):
        pretrained.load(path, target)
    for one, other in zip(_base(2).get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_what_is_no_hdf5_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be used"):
        pretrained.load(path, _base())


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.weights.h5"
    _base().save_weights(path)
    data = path.read_bytes()
    for length in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match="cannot be used"):
            pretrained.load(path, _base())


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        pretrained.find(str(tmp_path / "absent.h5"), "resnet50")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a download that fails as it does without internet."""

    def fail(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure: Name or service not known")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.utils.get_file", fail)
    return tmp_path / "models"


@pytest.mark.parametrize("name", architectures.PRETRAINED)
def test_without_internet_the_error_says_what_to_put_where(name: str, offline: Path) -> None:
    with pytest.raises(InputError) as raised:
        pretrained.find("imagenet", name)
    text = str(raised.value)
    assert "https://storage.googleapis.com/tensorflow/keras-applications/" in text
    assert str(offline) in text
    assert "--weights FILE" in text
    assert "--weights none" in text


def test_what_lies_in_the_cache_is_used(offline: Path) -> None:
    offline.mkdir()
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    (offline / name).write_bytes(b"weights")
    found = pretrained.find("imagenet", "mobilenetv2")
    assert found is not None
    assert found.to_dict() == {
        "origin": "imagenet", "name": name, "sha256": hashlib.sha256(b"weights").hexdigest(),
    }  # fmt: skip


def test_a_damaged_copy_in_the_cache_is_refused(offline: Path) -> None:
    offline.mkdir()
    (offline / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"half of it")
    with pytest.raises(InputError, match="is damaged: its MD5"):
        pretrained.find("imagenet", "resnet50")


def test_a_folder_of_the_files_takes_the_place_of_the_cache(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / imagenet.PUBLISHED["mobilenetv2"].name
    for named in (tmp_path, None):
        start = "imagenet" if named is None else str(named)
        path.unlink(missing_ok=True)
        if named is None:
            monkeypatch.setenv(imagenet.ENVIRONMENT, str(tmp_path))
        with pytest.raises(InputError, match=r"tumorbatch weights fetch --to DIR"):
            pretrained.find(start, "mobilenetv2")
        path.write_bytes(b"weights")
        source = pretrained.find(start, "mobilenetv2")
        assert source is not None
        assert (source.path, source.origin) == (path, "imagenet")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Stands for the published file of mobilenetv2."""
    content = b"content of the published file"
    name = "mobilenetv2"
    url = imagenet.PUBLISHED[name].url
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(imagenet.PUBLISHED, name, imagenet.Published(url, md5, len(content)))

    def download(file: str, *_: object, cache_dir: Path, cache_subdir: str, **__: object) -> None:
        (cache_dir / cache_subdir / file).write_bytes(content)

    monkeypatch.setattr("keras.utils.get_file", download)
    return content


def test_fetch_writes_down_what_came(invoke: Invoke, published: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    code, output = invoke("weights", "fetch", "--arch", "mobilenetv2", "--to", folder, "--json")
    assert code == 0
    (entry,) = json.loads(output)["weights"]
    sha256 = hashlib.sha256(published).hexdigest()
    assert (entry["sha256"], entry["compared"]) == (sha256, ["length", "MD5"])
    name = imagenet.PUBLISHED["mobilenetv2"].name
    assert (folder / imagenet.SUMS).read_text() == f"{sha256}  {name}\n"
    (state,) = imagenet.check(["mobilenetv2"], folder)
    assert (state.problem, state.compared) == ("", ("length", "MD5", "sha256"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"content of the published fil", "has 28 bytes and should have 29"),
        (b"content of the published fila", "its MD5 is not"),
        (None, "is missing"),
    ],
)
def test_check_names_what_is_wrong(
    invoke: Invoke, published: bytes, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / imagenet.PUBLISHED["mobilenetv2"].name
    if content is not None:
        path.write_bytes(content)
    code, output = invoke("weights", "check", "--arch", "mobilenetv2", "--to", tmp_path)
    assert code == 3
    assert words in output
    if content is not None:
        code, output = invoke("weights", "fetch", "--arch", "mobilenetv2", "--to", tmp_path)
        assert code == 66
        assert words in output
        assert path.read_bytes() == content


def test_a_file_that_changed_after_it_was_fetched_is_named(tmp_path: Path) -> None:
    name = imagenet.PUBLISHED["mobilenetv2"].name
    (tmp_path / name).write_bytes(b"\0" * imagenet.PUBLISHED["mobilenetv2"].bytes)
    (tmp_path / imagenet.SUMS).write_text(f"{'ab' * 32}  {name}\n")
    (state,) = imagenet.check(["mobilenetv2"], tmp_path)
    assert "was changed since it was fetched" in state.problem


@pytest.mark.parametrize("name", architectures.PRETRAINED)
def test_the_published_weights_give_keras_own_features(name: str) -> None:
    (state,) = imagenet.check([name], imagenet.folder())
    if state.problem:
        pytest.skip(f"the ImageNet weights of {name} are not on this machine")
    assert pretrained.difference(name, state.path) <= pretrained.TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("densenet121", marks=pytest.mark.slow),
    ],
)
def test_a_base_computes_what_plain_keras_does(name: str, tmp_path: Path) -> None:
    """With random weights: what `weights check` compares."""
    kind = {"resnet50": "ResNet50", "mobilenetv2": "MobileNetV2", "densenet121": "DenseNet121"}[name]
    keras.utils.set_random_seed(0)
    path = tmp_path / "some.weights.h5"
    getattr(keras.applications, kind)(
        include_top=False, weights=None, input_shape=(96, 96, 3)
    ).save_weights(path)
    assert pretrained.difference(name, path) <= pretrained.TOLERANCE


def test_the_weights_of_a_stand_in_load() -> None:
    named = os.environ.get("TUMORBATCH_STANDIN_WEIGHTS")
    if not named:
        pytest.skip("TUMORBATCH_STANDIN_WEIGHTS names no file with weights of a MobileNetV2 base")
    assert pretrained.difference("mobilenetv2", Path(named)) <= pretrained.TOLERANCE
