"""`train --folds`: a network for each fold, joined, with predictions of images that it has not seen."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.untrained import leave_out_training
from tumorbatch import bundle, shardset
from tumorbatch.bundle_weights import load_network
from tumorbatch.errors import ConfigError, ExitCode
from tumorbatch.fold_images import fold_images
from tumorbatch.folds import BOTH, GROUP, SHAPE, Fold, Folds
from tumorbatch.known_images import KnownImages
from tumorbatch.out_of_fold import read
from tumorbatch.shard_reader import read_names, read_split
from tumorbatch.train.config import Config, Schedule
from tumorbatch.workflows import ensemble, ensemble_bundle, train_folds

SHORT = Config("cnn1", Schedule(epochs=1, batch_size=64), device="cpu", deterministic=True)


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_training(monkeypatch)


@pytest.fixture(scope="module")
def folded(shard_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of either kind, of networks that were not trained. Do not change it."""
    out = tmp_path_factory.mktemp("folds") / "models" / "cnn1-folds2"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_training(patch)
        train_folds.run(shard_set, out, SHORT, Folds(2, BOTH))
    return out


def test_the_networks_are_those_of_the_folds_by_group(folded: Path) -> None:
    made = bundle.load(folded)
    assert [member.name for member in made.members] == ["group-0", "group-1"]
    assert made.training["members_training"]["folds"] == {"count": 2, "by": "both"}
    assert sorted(path.name for path in folded.parent.iterdir()) == [folded.name]
    known = KnownImages.read(folded / bundle.KNOWN_IMAGES, made.known_images_sha256)
    assert not known.validation.any()  # each is trained on by one of them


def test_each_logit_is_that_of_the_network_that_has_not_seen_the_image(
    folded: Path, shard_set: Path
) -> None:
    dataset, made = shardset.load(shard_set), bundle.load(folded)
    by = read(folded / bundle.OUT_OF_FOLD, made.out_of_fold_sha256)
    images = fold_images(shard_set, dataset, 2, GROUP)
    pixels = {
        name: image
        for split in ("train", "validation")
        for name, image in zip(
            read_names(shard_set, dataset, split), read_split(shard_set, dataset, split)[0], strict=True
        )
    }
    network = load_network(folded, made)
    members = [layer for layer in network.layers if "_member_" in layer.name]
    for number, member in enumerate(members):
        held = np.flatnonzero(images.folds == number)
        batch = np.stack([pixels[images.paths[index]] for index in held])[..., np.newaxis]
        expected = member(batch, training=False).numpy()[:, 0]
        np.testing.assert_allclose(by[GROUP].logit[held], expected, rtol=1e-4, atol=1e-5)
    assert by[SHAPE].is_complete(len(images.paths))


def test_the_threshold_is_that_of_held_out_shapes_and_both_places_are_told(folded: Path) -> None:
    calibration = bundle.load(folded).calibration
    assert calibration["split"] == "out-of-fold"
    assert "out-of-fold predictions with shapes held out" in calibration["threshold"]["note"]
    assert set(calibration["expected"]) == {"home", "elsewhere"}
    card = (folded / bundle.CARD).read_text()
    assert "| elsewhere (image shapes that were not trained on: folds by shape) | " in card
    assert "not measured |" not in card
    assert "Elsewhere is not one place" in card
    assert "| out-of-fold | " in card


def test_a_killed_run_keeps_finished_networks_and_ends_the_same(
    folded: Path, shard_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / folded.name
    real, calls = train_folds.training.run, []

    def killed(tfrecords: Path, folder: Path, config: Config) -> Any:
        calls.append(config.fold)
        if len(calls) == 3:
            raise SystemExit
        return real(tfrecords, folder, config)

    monkeypatch.setattr(train_folds.training, "run", killed)
    with pytest.raises(SystemExit):
        train_folds.run(shard_set, out, SHORT, Folds(2, BOTH))
    assert not out.exists()
    first = (tmp_path / f".{out.name}.folds" / "group-0" / bundle.WEIGHTS).stat().st_ino
    train_folds.run(shard_set, out, SHORT, Folds(2, BOTH))
    assert calls[:3] == [Fold(0, 2), Fold(1, 2), Fold(0, 2, SHAPE)]
    assert bundle.load(out).model_id == bundle.load(folded).model_id
    assert bundle.load(out).out_of_fold_sha256 == bundle.load(folded).out_of_fold_sha256
    assert first > 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_tasks_share_the_folds_and_the_command_without_part_joins_them(
    folded: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / folded.name
    command = ("train", shard_set, "--arch", "cnn1", "--epochs", 1, "--batch-size", 64, "--device",
               "cpu", "--deterministic", "--folds", 2, "--folds-by", "both", "--out", out)  # fmt: skip
    for task in ("1/2", "2/2"):
        code, output = invoke(*command, "--part", task)
        assert (code, "without --part finishes" in output) == (ExitCode.OK, True), output
        assert not out.exists()
    work = tmp_path / f".{out.name}.folds"
    assert {path.name for path in work.iterdir() if path.name[0] != "."} == {
        "group-0", "group-1", "shape-0", "shape-1"
    }  # fmt: skip
    assert invoke(*command)[0] == ExitCode.OK
    assert bundle.load(out).model_id == bundle.load(folded).model_id


def test_the_same_command_finds_it_done_and_other_settings_are_refused(
    folded: Path, shard_set: Path, invoke: Any
) -> None:
    before = (folded / bundle.MODEL).read_bytes()
    arguments = ("train", shard_set, "--arch", "cnn1", "--epochs", 1, "--batch-size", 64, "--device",
                 "cpu", "--deterministic", "--out", folded)  # fmt: skip
    code, output = invoke(*arguments, "--folds", 2, "--folds-by", "both")
    assert (code, "is up to date" in output) == (ExitCode.OK, True), output
    assert "Expect at home" in output
    assert "Expect elsewhere" in output
    code, output = invoke(*arguments, "--folds", 2)
    assert (code, "trained differently" in output) == (ExitCode.USAGE, True)
    code, output = invoke(*arguments)
    assert (code, "trained differently" in output) == (ExitCode.USAGE, True)
    assert (folded / bundle.MODEL).read_bytes() == before
    code, output = invoke(*arguments, "--folds", 2, "--feed", "stream", "--overwrite")
    assert (code, "held in memory" in output) == (ExitCode.USAGE, True)


def test_evaluate_judges_held_out_predictions(
    folded: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    folder = Path(shutil.copytree(folded, tmp_path / "folds"))
    out = tmp_path / "results"
    code, output = invoke("evaluate", folder, shard_set, "--out", out, "--gallery", 0)
    assert code == ExitCode.OK, output
    about = json.loads((out / "metrics.json").read_bytes())
    dataset = shardset.load(shard_set)
    both = dataset.records("train") + dataset.records("validation")
    assert about["validation"]["n"] == both
    assert {row["split"] for row in about["label_suspects"]} <= {"out-of-fold", "test"}
    rows = pq.read_table(out / "predictions.parquet")
    assert pc.sum(pc.equal(rows["split"], "out-of-fold")).as_py() == both
    report = (out / "report.html").read_text()
    assert "What to expect at this threshold" in report
    assert "Out-of-fold predictions" in report
    # Another rule is chosen on the same predictions.
    code, output = invoke(
        "evaluate", folder, shard_set, "--out", out, "--threshold", "youden", "--gallery", 0
    )  # fmt: skip
    assert code == ExitCode.OK, output
    assert "out-of-fold predictions" in bundle.load(folder).calibration["threshold"]["note"]


def test_ensembles_of_folds_and_of_others_do_not_mix(
    folded: Path, model: Path, shard_set: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="Some of these models were trained by folds"):
        ensemble.run([folded, model], shard_set, tmp_path / "out", ensemble_bundle.Config())
