"""Ensembles: the mean of several networks' logits, as a bundle that every command takes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.bundles import rewrite
from tests.untrained import leave_out_training
from tumorbatch import bundle, export
from tumorbatch.architectures import fold
from tumorbatch.atomic import write_json
from tumorbatch.bundle import MODEL, members_sha256
from tumorbatch.bundle_weights import load_network
from tumorbatch.errors import ConfigError, ExitCode, InputError
from tumorbatch.evaluation.gradcam import maps
from tumorbatch.known_images import KnownImages
from tumorbatch.workflows import ensemble
from tumorbatch.workflows.ensemble_bundle import Config

IMAGES = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 1), np.uint8)
ONCE = Config(device="cpu", batch_size=64)


@pytest.fixture(scope="module")
def cnn2(shard_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cnn2 bundle on the shard set of `model`, not trained."""
    from tumorbatch.train.config import Config, Schedule
    from tumorbatch.train.training import run

    folder = tmp_path_factory.mktemp("other") / "cnn2"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_training(patch)
        run(shard_set, folder, Config("cnn2", Schedule(epochs=1, batch_size=64), device="cpu"))
    return folder


@pytest.fixture(scope="module")
def joined(shard_set: Path, model: Path, cnn2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ensemble of both. Do not change it."""
    out = tmp_path_factory.mktemp("ensembles") / "both"
    ensemble.run([model, cnn2], shard_set, out, ONCE)
    return out


def _logits(folder: Path) -> Any:
    return load_network(folder, bundle.load(folder))(IMAGES, training=False).numpy()


def test_the_logit_is_the_mean_of_the_members(joined: Path, model: Path, cnn2: Path) -> None:
    expected = (_logits(model) + _logits(cnn2)) / 2
    np.testing.assert_allclose(_logits(joined), expected, rtol=1e-6, atol=1e-6)
    folded = fold(load_network(joined, bundle.load(joined)))
    np.testing.assert_allclose(folded(IMAGES).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_bundle_says_what_it_is_made_of(joined: Path, model: Path, cnn2: Path) -> None:
    made = bundle.load(joined)
    assert made.model_id.startswith("ensemble-")
    assert [(one.name, one.architecture, one.weight) for one in made.members] == [
        ("cnn1", "cnn1", 0.5), ("cnn2", "cnn2", 0.5)
    ]  # fmt: skip
    for number, folder in enumerate((model, cnn2)):
        member = joined / bundle.member_file(number)
        assert member.read_bytes() == (folder / bundle.WEIGHTS).read_bytes()
    assert made.training["dataset_sha256"] == bundle.load(model).training["dataset_sha256"]
    assert made.calibration["split"] == "validation"
    card = (joined / bundle.CARD).read_text()
    assert "mean of those of 2 networks" in card
    assert "ms for an image" in card


def test_the_known_images_of_members_are_united(joined: Path, model: Path) -> None:
    read = [
        KnownImages.read(folder / bundle.KNOWN_IMAGES, bundle.load(folder).known_images_sha256)
        for folder in (joined, model)
    ]
    assert set(map(bytes, read[0].sha256)) == set(map(bytes, read[1].sha256))
    trained = replace(read[1], validation=np.zeros(len(read[1].validation), bool))
    assert not KnownImages.united([read[1], trained]).validation.any()


def test_the_same_command_finds_it_done_and_another_is_refused(
    joined: Path, shard_set: Path, model: Path, cnn2: Path, tmp_path: Path, invoke: Any
) -> None:
    out = Path(shutil.copytree(joined, tmp_path / "both"))
    before = (out / MODEL).read_bytes()
    arguments = ("--tfrecords", shard_set, "--out", out, "--device", "cpu")
    code, output = invoke("ensemble", model, cnn2, *arguments)
    assert (code, "is up to date" in output) == (ExitCode.OK, True)
    assert "2 networks: cnn1, cnn2. The networks take" in output
    assert (out / MODEL).read_bytes() == before
    code, output = invoke("ensemble", cnn2, model, *arguments)
    assert (code, "already holds another model" in output) == (ExitCode.USAGE, True)
    (out / "notes.txt").touch()
    code, output = invoke("ensemble", model, cnn2, *arguments, "--overwrite")
    assert (code, "do not belong to a bundle (notes.txt)" in output) == (ExitCode.USAGE, True)


def test_an_ensemble_of_an_ensemble_keeps_equal_shares(
    joined: Path, shard_set: Path, cnn2: Path, tmp_path: Path
) -> None:
    third = Path(shutil.copytree(cnn2, tmp_path / "third"))
    data = (third / bundle.WEIGHTS).read_bytes()
    import hashlib

    import safetensors.numpy

    arrays = {name: -value for name, value in safetensors.numpy.load(data).items() if "dense" in name}
    changed = safetensors.numpy.save(safetensors.numpy.load(data) | arrays)
    (third / bundle.WEIGHTS).write_bytes(changed)
    rewrite(third, weights_sha256=hashlib.sha256(changed).hexdigest())
    report = ensemble.run([joined, third], shard_set, tmp_path / "out", ONCE)
    shares = [(one.name, one.weight) for one in report.bundle.members]
    assert shares == [("both/cnn1", 0.25), ("both/cnn2", 0.25), ("third", 0.5)]
    expected = (_logits(joined) + _logits(third)) / 2
    np.testing.assert_allclose(_logits(tmp_path / "out"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"dataset_sha256": "0" * 64}}, "were trained on different shard sets"),
        ({"preprocessing": {"size": 64}}, "were prepared differently"),
        ({}, "are the same network"),
    ],
)
def test_members_that_do_not_belong_together_are_refused(
    model: Path, shard_set: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    other = Path(shutil.copytree(model, tmp_path / "other"))
    if "preprocessing" in changes:
        changes = {"preprocessing": replace(bundle.load(other).preprocessing, size=64)}
    rewrite(other, **changes)
    with pytest.raises(ConfigError, match=words):
        ensemble.run([model, other], shard_set, tmp_path / "out", ONCE)
    assert not (tmp_path / "out").exists()


def test_members_may_see_different_variants(sample: Path, tmp_path: Path, invoke: Any) -> None:
    """Each network gets the channels that it was trained on, from one decode."""
    from tumorbatch.preprocess.shard import Config as ShardConfig
    from tumorbatch.preprocess.shard import run
    from tumorbatch.preprocessing_config import Preprocessing
    from tumorbatch.train.config import Config as TrainConfig
    from tumorbatch.train.config import Schedule
    from tumorbatch.train.training import run as train

    tfrecords, folders = tmp_path / "tfrecords", []
    run(
        sample,
        tfrecords,
        ShardConfig(Preprocessing(size=32, variants=("clahe", "normalised")), workers=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        leave_out_training(patch)
        for seed, variant in enumerate(("clahe", "normalised")):
            folders.append(tmp_path / variant)
            schedule = Schedule(epochs=1, batch_size=64, seed=seed)
            train(tfrecords, folders[-1], TrainConfig("cnn1", schedule, variants=(variant,)))
    made = ensemble.run(folders, tfrecords, tmp_path / "both", ONCE).bundle
    assert made.preprocessing.channels == ("clahe", "normalised")
    assert [member.channels for member in made.members] == [("clahe",), ("normalised",)]
    images = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 2), np.uint8)
    parts = [
        load_network(folder, bundle.load(folder))(images[..., number : number + 1], training=False)
        for number, folder in enumerate(folders)
    ]
    network = load_network(tmp_path / "both", made)
    for joined in (network, fold(network)):
        np.testing.assert_allclose(
            joined(images).numpy(), (parts[0] + parts[1]) / 2, rtol=1e-4, atol=1e-5
        )
    code, output = invoke(
        "infer", sample, tmp_path / "out.parquet", "--model", tmp_path / "both", "--workers", 1
    )
    assert code == ExitCode.SOME_ERRORS, output
    code, output = invoke(
        "evaluate", tmp_path / "both", tfrecords, "--out", tmp_path / "results", "--gallery", 2
    )
    assert code == ExitCode.OK, output


def test_one_model_is_no_ensemble(model: Path, shard_set: Path, tmp_path: Path, invoke: Any) -> None:
    code, output = invoke("ensemble", model, "--tfrecords", shard_set, "--out", tmp_path / "out")
    assert (code, "needs two models or more" in output) == (ExitCode.USAGE, True)


def test_a_changed_bundle_is_refused(joined: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(joined, tmp_path / "both"))
    made = bundle.load(folder)
    first, second = made.members
    for members, words in (
        ((first,), "two or more"),
        ((first, replace(second, weight=0.4)), "do not add up to 1"),
        ((first, replace(second, architecture="cnn1")), "misses weight|has an unknown weight"),
    ):
        write_json(
            folder / MODEL,
            replace(made, members=members, weights_sha256=members_sha256(members)).to_dict(),
        )
        with pytest.raises(InputError, match=words):
            load_network(folder, bundle.load(folder))
    write_json(folder / MODEL, replace(made, members=(second, first)).to_dict())
    with pytest.raises(InputError, match="has other networks than its weights_sha256 says"):
        bundle.load(folder)
    write_json(folder / MODEL, made.to_dict())
    with (folder / bundle.member_file(1)).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(InputError, match=r"member-1\.safetensors is damaged or was exchanged"):
        load_network(folder, bundle.load(folder))


def test_evaluate_compare_infer_and_export_take_it(
    joined: Path, shard_set: Path, sample: Path, tmp_path: Path, invoke: Any
) -> None:
    folder = Path(shutil.copytree(joined, tmp_path / "models" / "both"))
    results = tmp_path / "results"
    code, output = invoke("evaluate", folder, shard_set, "--out", results / "both", "--gallery", 2)
    assert code == ExitCode.OK, output
    about = json.loads((results / "both" / "metrics.json").read_bytes())
    assert [one["name"] for one in about["model"]["members"]] == ["cnn1", "cnn2"]
    assert "cnn2 (cnn2-" in (results / "both" / "report.html").read_text()
    code, output = invoke("evaluate", folder, shard_set, "--protocols", "--yes")
    assert (code, "The model is an ensemble" in output) == (ExitCode.USAGE, True)
    table = tmp_path / "out.parquet"
    code, output = invoke("infer", sample, table, "--model", folder, "--workers", 1)
    assert code == ExitCode.SOME_ERRORS, output
    assert pq.read_table(table)["model_id"][0].as_py() == bundle.load(folder).model_id
    assert invoke("verify", table)[0] == ExitCode.OK
    export.run(folder, tmp_path / "both.keras", "keras")
    import keras

    exported = keras.models.load_model(tmp_path / "both.keras", compile=False)  # noqa: TID251
    np.testing.assert_allclose(exported(IMAGES).numpy(), _logits(folder), rtol=1e-5, atol=1e-6)


def test_grad_cam_of_an_ensemble_is_the_mean_of_its_maps(joined: Path) -> None:
    heat = maps(load_network(joined, bundle.load(joined)), IMAGES[..., 0], np.array([0, 1, 0, 1]))
    assert heat.shape[0] == 4
    assert 0 <= heat.min() <= heat.max() <= 1
