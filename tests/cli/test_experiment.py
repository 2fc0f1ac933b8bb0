"""`tumorbatch experiment clahe` as its users meet it: consent, arms, resumption, refusals."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tests.in_process import leave_out_workers
from tests.pages import make_quick
from tests.untrained import leave_out_training
from tumorbatch import bundle, shardset
from tumorbatch.errors import ExitCode
from tumorbatch.evaluation.experiment import answer
from tumorbatch.preprocess.shard import Config as ShardConfig

SHORT = ("--size", 32, "--epochs", 1, "--batch-size", 16, "--device", "cpu", "--workers", 2)
NAMES = ["clahe-seed3", "clahe-seed4", "plain-seed3", "plain-seed4"]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        leave_out_workers(patch)
        leave_out_training(patch)
        yield


@pytest.fixture(scope="module")
def done(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment of two seeds. Do not change it."""
    from tumorbatch.preprocessing_config import Preprocessing
    from tumorbatch.train.config import Config as TrainConfig
    from tumorbatch.train.config import Schedule
    from tumorbatch.workflows.clahe_experiment import Config, run

    out = tmp_path_factory.mktemp("experiment") / "clahe"
    shards = ShardConfig(preprocessing=Preprocessing(size=32), seed=3, workers=2)
    training = TrainConfig("cnn1", Schedule(epochs=1, batch_size=16, seed=3), device="cpu")
    run(sample, out, Config(shards, training, seeds=2), consent=lambda *_: None)
    return out


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "clahe"))


def _result(out: Path) -> Any:
    return json.loads((out / "result.json").read_text())


def _times(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("models/*/model.json")}


def test_without_consent_it_says_what_it_costs_and_makes_nothing(
    sample: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "clahe"
    code, output = invoke("experiment", "clahe", sample, "--seeds", 2, *SHORT, "--out", out)
    assert code == ExitCode.USAGE
    assert "Error: This makes 2 shard sets and 4 trainings: about 1 minute, " in output
    assert " MB of disk" in output
    assert "give --yes" in output
    assert "images/s, measured now" in output
    assert [path.name for path in out.iterdir()] == []


def test_both_arms_have_the_same_images_in_the_same_splits(done: Path) -> None:
    columns = ["path", "sha256", "split", "duplicate_group", "position"]
    arms = [
        pq.read_table(done / f"tfrecords-{arm}" / "manifest.parquet", columns=columns).to_pylist()
        for arm in ("clahe", "plain")
    ]
    assert arms[0] == arms[1]
    with_clahe, without = (shardset.load(done / f"tfrecords-{arm}") for arm in ("clahe", "plain"))
    assert (with_clahe.preprocessing.clahe, without.preprocessing.clahe) == (True, False)
    assert with_clahe.shards[0].sha256 != without.shards[0].sha256


def test_the_trainings_differ_in_arm_and_seed_alone(done: Path) -> None:
    trainings = {name: bundle.load(done / "models" / name).training for name in NAMES}
    for name, of in trainings.items():
        assert of["schedule"]["seed"] == int(name[-1])
        rest = [{**one["schedule"], "seed": 0} for one in (of, trainings["clahe-seed3"])]
        assert rest[0] == rest[1]
        assert of["augmentation"] == trainings["clahe-seed3"]["augmentation"]
    assert len({of["dataset_sha256"] for of in trainings.values()}) == 2


def test_the_result_is_that_of_the_bundles(done: Path) -> None:
    result = _result(done)
    assert result["seeds"] == [3, 4]
    assert result["arms"] == ["with CLAHE", "without CLAHE"]
    per_seed = result["figures"]["auc"]["per_seed"]
    for of in per_seed:
        for arm, side in (("clahe", "first"), ("plain", "second")):
            answers = answer(
                done / "models" / f"{arm}-seed{of['seed']}", done / f"tfrecords-{arm}", "cpu"
            )
            auc = roc_auc_score(answers.labels, answers.scores)
            assert of[side]["value"] == pytest.approx(auc, abs=1e-9)
            assert of[side]["n"] == answers.images.n
        assert of["difference"]["value"] == pytest.approx(of["first"]["value"] - of["second"]["value"])
    assert result["figures_per_group"]["auc"]["per_seed"][0]["first"]["n"] == result["groups_in_test"]
    overall = result["figures"]["auc"]["difference"]
    assert overall["mean"] == pytest.approx(sum(of["difference"]["value"] for of in per_seed) / 2)
    assert overall["low"] < overall["mean"] < overall["high"]
    assert result["figures"]["auc"]["difference_over_seeds_alone"] is None  # two seeds
    assert result["replicates"] >= 2000


def test_the_page_and_the_figure_are_whole(done: Path) -> None:
    assert (done / "difference.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    html = (done / "report.html").read_text()
    assert "Does CLAHE help cnn1?" in html
    assert "With 2 seeds, the variation between trainings is hardly known." in html
    assert sorted(path.name for path in done.iterdir()) == [
        "difference.png", "models", "report.html", "result.json", "tfrecords-clahe", "tfrecords-plain"
    ]  # fmt: skip


def test_again_there_is_nothing_to_make_and_nothing_to_ask(
    copy: Path, sample: Path, invoke: Any
) -> None:
    before, times = (copy / "result.json").read_bytes(), _times(copy)
    again = ("experiment", "clahe", sample, "--seeds", 2, "--seed", 3, *SHORT, "--out", copy)
    code, output = invoke(*again)
    assert (code, "This makes" in output) == (ExitCode.OK, False)
    assert "Mean AUC over 2 seeds" in output
    assert _times(copy) == times
    assert (copy / "result.json").read_bytes() == before


@pytest.mark.slow
def test_what_is_missing_is_made_and_the_rest_kept(copy: Path, sample: Path, invoke: Any) -> None:
    shutil.rmtree(copy / "models" / "plain-seed4")
    times, before = _times(copy), _result(copy)
    again = ("experiment", "clahe", sample, "--seeds", 2, "--seed", 3, *SHORT, "--out", copy)
    code, output = invoke(*again)
    assert code == ExitCode.USAGE
    assert "This makes 1 training: " in output
    assert "as measured in its own training" in output
    code, _ = invoke(*again, "--yes", "--quiet")
    assert code == ExitCode.OK
    assert {name: time for name, time in _times(copy).items() if name in times} == times
    assert sorted(_times(copy)) == NAMES
    assert _result(copy)["figures"]["auc"]["per_seed"][0] == before["figures"]["auc"]["per_seed"][0]


def test_another_experiment_in_its_place_is_refused(copy: Path, sample: Path, invoke: Any) -> None:
    times = _times(copy)
    changed = (*SHORT[:3], 2, *SHORT[4:])
    code, output = invoke(
        "experiment", "clahe", sample, "--seeds", 2, "--seed", 3, *changed, "--out", copy, "--yes"
    )
    assert code == ExitCode.USAGE
    assert "epochs: 1 there, 2 asked for" in output
    assert "--overwrite" in output
    assert _times(copy) == times


def test_arms_with_other_splits_are_refused(done: Path, tmp_path: Path) -> None:
    from tumorbatch.errors import ConfigError
    from tumorbatch.workflows.checks import refuse_other_images

    first = done / "tfrecords-clahe"
    second = Path(shutil.copytree(done / "tfrecords-plain", tmp_path / "other"))
    refuse_other_images(first, second, same_split=True)
    table = pq.read_table(second / "manifest.parquet")
    splits = table["split"].to_pylist()
    a, b = splits.index("train"), splits.index("test")
    splits[a], splits[b] = splits[b], splits[a]
    place = table.schema.get_field_index("split")

    def replace_manifest(changed: Any) -> None:
        pq.write_table(changed, second / "manifest.parquet")
        value = json.loads((second / "dataset.json").read_bytes())
        value["manifest_sha256"] = shardset.file_sha256(second / "manifest.parquet")
        (second / "dataset.json").write_text(json.dumps(value))

    replace_manifest(table.set_column(place, "split", [splits]))
    refuse_other_images(first, second, same_split=False)
    with pytest.raises(ConfigError, match="same images in other splits"):
        refuse_other_images(first, second, same_split=True)
    replace_manifest(table.slice(1))
    with pytest.raises(ConfigError, match="do not hold the same images"):
        refuse_other_images(first, second, same_split=False)
