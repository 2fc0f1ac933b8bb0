"""`tumorbatch compare` and `evaluate --protocols` as their users meet them."""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from tests.bundles import rewrite
from tests.in_process import leave_out_workers
from tests.pages import make_quick
from tests.untrained import leave_out_training
from tumorbatch import bundle, shardset
from tumorbatch.errors import ExitCode
from tumorbatch.statistics.intervals import Estimate


@pytest.fixture(scope="module", autouse=True)
def quick(model: Path) -> Iterator[None]:  # which is trained before
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        leave_out_workers(patch)
        leave_out_training(patch, epochs=2)  # as tests/conftest.py trains `model`
        yield


@pytest.fixture(scope="module")
def trained(model: Path, shard_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder: tfrecords/, models/cnn1, models/cnn2, and a comparison of the two."""
    from tumorbatch.train.config import Config as TrainConfig
    from tumorbatch.train.config import Schedule
    from tumorbatch.train.training import run as train
    from tumorbatch.workflows.compare import Config, run

    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(shard_set, folder / "tfrecords")
    shutil.copytree(model, folder / "models" / "cnn1")
    train(shard_set, folder / "models" / "cnn2", TrainConfig("cnn2", Schedule(epochs=1, batch_size=16)))
    results = folder / "results"
    run(
        [folder / "models"],
        results / "compare",
        Config([folder / "tfrecords"], results, "cpu"),
    )
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working folder."""
    folder = Path(shutil.copytree(trained, tmp_path / "work"))
    monkeypatch.chdir(folder)
    return folder


def _rows(folder: Path, name: str = "models.csv") -> list[dict[str, str]]:
    with (folder / "results" / "compare" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _predictions(folder: Path, name: str) -> dict[str, np.ndarray[Any, Any]]:
    table = pq.read_table(folder / "results" / name / "predictions.parquet")
    rows = [row for row in table.to_pylist() if row["split"] == "test"]
    keys = ("label", "logit", "called", "prob", "group")
    return {key: np.array([row[key] for row in rows]) for key in keys}


def test_each_model_has_the_figures_of_its_predictions(trained: Path) -> None:
    rows = {row["name"]: row for row in _rows(trained)}
    assert list(rows) == ["majority", "metadata forest", "thumbnail 1-NN", "cnn1", "cnn2"]
    for name in ("cnn1", "cnn2"):
        found, row = _predictions(trained, name), rows[name]
        assert float(row["auc"]) == pytest.approx(
            roc_auc_score(found["label"], found["logit"]), abs=1e-6
        )
        accuracy = accuracy_score(found["label"], found["called"])
        assert float(row["accuracy"]) == pytest.approx(accuracy, abs=1e-6)
        at_half = accuracy_score(found["label"], found["prob"] >= 0.5)
        assert float(row["accuracy_at_0.5"]) == pytest.approx(at_half, abs=1e-6)
        of = bundle.load(trained / "models" / name)
        assert (row["model_id"], float(row["threshold"])) == (of.model_id, of.threshold)
        assert int(row["test_images"]) == len(found["label"])
        _, group, size = np.unique(found["group"], return_inverse=True, return_counts=True)
        once = accuracy_score(found["label"], found["called"], sample_weight=1 / size[group])
        assert float(row["accuracy_per_group"]) == pytest.approx(once, abs=1e-6)
        assert int(row["accuracy_per_group_n"]) == int(row["test_groups"]) == len(size)
    assert "report_accuracy" not in rows["cnn2"]


def test_a_models_figures_are_those_of_its_own_evaluation(trained: Path) -> None:
    rows = {row["name"]: row for row in _rows(trained)}
    about = json.loads((trained / "results" / "cnn1" / "metrics.json").read_text())
    for theirs, ours in (
        ("auc", "auc"),
        ("sensitivity", "recall"),
        ("f1", "f1"),
        ("accuracy", "accuracy"),
    ):
        figure = about["test"]["figures"][theirs]
        for end, key in (("value", ours), ("low", f"{ours}_low"), ("high", f"{ours}_high")):
            if figure[end] is None:  # no interval
                assert rows["cnn1"][key] == "", key
            else:
                assert float(rows["cnn1"][key]) == pytest.approx(figure[end], abs=1e-6), key
    for of in about["baselines"]:
        assert float(rows[of["name"]]["auc"]) == pytest.approx(of["auc"]["value"], abs=1e-6)


def test_every_pair_but_two_baselines(trained: Path) -> None:
    pairs = {(row["first"], row["second"]) for row in _rows(trained, "pairs.csv")}
    baselines = ("majority", "metadata forest", "thumbnail 1-NN")
    assert pairs == {("cnn2", "cnn1"), *((m, b) for m in ("cnn1", "cnn2") for b in baselines)}


def test_the_bundles_stay_as_they_were(trained: Path, model: Path) -> None:
    for path in (trained / "models" / "cnn1").iterdir():
        assert path.read_bytes() == (model / path.name).read_bytes(), path.name


def test_again_nothing_is_evaluated_and_the_table_is_printed(work: Path, invoke: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.glob("results/cnn*/*")}
    content = (work / "results/compare/compare.html").read_bytes()
    code, output = invoke("compare", "--device", "cpu")
    assert code == ExitCode.OK
    assert {path: path.stat().st_mtime_ns for path in work.glob("results/cnn*/*")} == before
    assert (work / "results/compare/compare.html").read_bytes() == content
    auc = next(row for row in _rows(work) if row["name"] == "cnn1")["auc"]
    for text in ("grouped (duplicates together)", "recall = sensitivity", "majority", "McNemar p",
                 f"{float(auc):.3f}"):  # fmt: skip
        assert text in output


def test_a_damaged_bundle_is_named_and_the_others_are_compared(work: Path, invoke: Any) -> None:
    weights = work / "models" / "cnn2" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    shutil.copytree(work / "models" / "cnn1", work / "models" / "cut")
    (work / "models" / "cut" / "model.json").write_text("{")
    shutil.copytree(work / "models" / "cnn1", work / "models" / "lost")
    (work / "models" / "lost" / "model.json").unlink()
    code, output = invoke("compare", "--device", "cpu")
    assert code == ExitCode.SOME_ERRORS
    value = json.loads((work / "results/compare/compare.json").read_text())
    assert sorted(value["missing"]) == ["cnn2", "cut", "lost"]
    assert "damaged or was exchanged" in value["missing"]["cnn2"]
    assert [row["name"] for row in value["rows"] if not row["baseline"]] == ["cnn1"]
    assert "NOT COMPARED: cut" in output
    assert "Traceback" not in output


def test_without_its_shard_set_a_model_is_named_or_told_without_baselines(
    work: Path, invoke: Any
) -> None:
    shutil.rmtree(work / "results" / "cnn2")
    (work / "tfrecords").rename(work / "elsewhere")
    code, output = invoke("compare", "--device", "cpu")
    assert code == ExitCode.SOME_ERRORS
    assert "give it with --tfrecords" in output.lower().replace("\n", " ")
    assert "no baselines for cnn1" in output
    assert [row["name"] for row in _rows(work)] == ["cnn1"]
    code, _ = invoke("compare", "--device", "cpu", "--tfrecords", "elsewhere", "--quiet")
    assert code == ExitCode.OK
    assert len(_rows(work)) == 5


def test_a_changed_threshold_is_evaluated_anew(work: Path, invoke: Any) -> None:
    rewrite(work / "models" / "cnn1", threshold=0.125, calibration={})
    code, _ = invoke("compare", "models/cnn1", "--device", "cpu", "--quiet")
    assert code == ExitCode.OK
    row = _rows(work)[-1]
    assert (row["name"], float(row["threshold"])) == ("cnn1", 0.125)


def test_what_was_not_frozen_is_not_what_is_compared(work: Path, invoke: Any) -> None:
    """`infer` decides by the bundle's threshold, so that one is told; the other answer stays."""
    asked = ("evaluate", "cnn1", "--threshold", "0.999", "--no-freeze", "--device", "cpu", "--quiet")
    assert invoke(*asked)[0] == ExitCode.OK
    before = (work / "results/cnn1/metrics.json").read_bytes()
    code, _ = invoke("compare", "models/cnn1", "--device", "cpu", "--quiet")
    assert code == ExitCode.OK
    row, of = _rows(work)[-1], bundle.load(work / "models/cnn1")
    assert (row["model_id"], float(row["threshold"])) == (of.model_id, of.threshold)
    assert (work / "results/cnn1/metrics.json").read_bytes() == before
    # Nor is it overwritten by a bundle of the same weights and name with another threshold.
    shutil.copytree(work / "models/cnn1", work / "m3/cnn1")
    rewrite(work / "m3/cnn1", threshold=0.77, calibration={})
    for _ in range(2):
        code, _ = invoke("compare", "models/cnn1", "m3", "--device", "cpu", "--quiet")
        assert code == ExitCode.OK
        assert [row["threshold"] for row in _rows(work)][3:] == ["0.77", str(of.threshold)]
    assert (work / "results/cnn1/metrics.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["edited", "cut", "gone"])
def test_predictions_that_are_not_those_of_the_figures_are_made_anew(
    damage: str, work: Path, invoke: Any
) -> None:
    path = work / "results/cnn1/predictions.parquet"
    before, rows = path.read_bytes(), _rows(work)
    if damage == "edited":
        table = pq.read_table(path)
        pq.write_table(pa.concat_tables([table, table]), path)
    elif damage == "cut":
        path.write_bytes(before[:-100])
    else:
        path.unlink()
    assert invoke("compare", "--device", "cpu", "--quiet")[0] == ExitCode.OK
    assert path.read_bytes() == before
    assert _rows(work) == rows


def test_a_damaged_shard_set_leaves_the_models_without_baselines(work: Path, invoke: Any) -> None:
    next((work / "tfrecords").glob("train-*")).unlink()
    code, output = invoke("compare", "--device", "cpu")
    assert code == ExitCode.SOME_ERRORS
    assert [row["name"] for row in _rows(work)] == ["cnn1", "cnn2"]
    assert "WITHOUT BASELINES: cnn1, cnn2:" in output
    value = json.loads((work / "results/compare/compare.json").read_text())
    assert list(value["without_baselines"]) == ["cnn1, cnn2"]
    page = (work / "results/compare/compare.html").read_text()
    assert "These models have no baselines" in page
    assert "beside baselines that know nothing" not in page


def test_what_is_no_fault_of_a_model_ends_the_comparison(work: Path, invoke: Any) -> None:
    shutil.rmtree(work / "results" / "cnn2")
    (work / "file").write_text("")
    code, output = invoke("compare", "--results", "file", "--out", "out", "--device", "cpu")
    assert (code, "Cannot write" in output) == (ExitCode.CANNOT_WRITE, True)
    code, output = invoke("compare", "--tfrecords", "nosuch")
    assert (code, "nosuch is not there" in output) == (ExitCode.NO_INPUT, True)
    (work / ".out.parquet.tmp-4242").write_text("another run's")
    code, output = invoke("compare", "--out", ".", "--device", "cpu")
    assert (code, "holds what is not from this command" in output) == (ExitCode.USAGE, True)
    assert (work / ".out.parquet.tmp-4242").exists()


def test_names_are_harmless_in_tables(work: Path, invoke: Any) -> None:
    for name in ("=cmd|calc!A0", "\x1b[31mred", os.fsdecode(b"\xff\xe9")):
        shutil.copytree(work / "models" / "cnn1", work / "models" / name)
    code, output = invoke("compare", "--device", "cpu")
    assert code == ExitCode.OK
    assert [row["name"] for row in _rows(work)][3:] == [
        "'=cmd|calc!A0", r"\u001b[31mred", r"\xff\xe9", "cnn1", "cnn2",
    ]  # fmt: skip
    assert "\x1b[31m" not in output


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_no_interval_is_cut_off_on_a_narrow_terminal(
    columns: int, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tumorbatch.cli import tables
    from tumorbatch.evaluation import compare, results

    monkeypatch.setattr(tables, "_WIDTH", columns)
    one = results.read_answers("cnn1", bundle.load(work / "models/cnn1"), work / "results/cnn1")
    found = compare.compare_models([one], {}, replicates=100)
    tables.comparison_table(found)
    output = capsys.readouterr().out
    for figure in found.rows[0].per_group.values():
        ends = [f"{end:.3f}" for end in (figure.value, figure.low, figure.high) if end is not None]
        assert all(end in output for end in ends)
    assert "\N{HORIZONTAL ELLIPSIS}" not in output
    assert max(map(len, output.splitlines())) <= columns


def test_the_shard_set_at_hand_says_the_protocol(work: Path) -> None:
    """A bundle from before does not say whether copies were seen in every orientation."""
    from tumorbatch.evaluation.results import read_answers

    known = bundle.load(work / "models/cnn1")
    training = {name: value for name, value in known.training.items() if name != "leak"}
    before, results = replace(known, training=training), work / "results/cnn1"
    assert read_answers("cnn1", before, results).protocol.key == "leaky-orientation"
    dataset = shardset.load(work / "tfrecords")
    assert read_answers("cnn1", before, results, dataset).protocol.key == "group"


def test_results_of_another_model_of_that_name_stay(work: Path, invoke: Any) -> None:
    (work / "other").mkdir()
    shutil.copytree(work / "models" / "cnn2", work / "other" / "cnn1")
    before = (work / "results/cnn1/metrics.json").read_bytes()
    code, _ = invoke("compare", "models/cnn1", "other/cnn1", "--device", "cpu", "--quiet")
    assert code == ExitCode.OK
    assert (work / "results/cnn1/metrics.json").read_bytes() == before
    assert [row["name"] for row in _rows(work)[3:]] == ["models/cnn1", "other/cnn1"]


def test_names_are_as_long_as_it_takes_to_tell_bundles_apart() -> None:
    from tumorbatch.workflows.compare import _names

    assert _names([Path("/a/models/cnn1"), Path("/a/models/cnn2")]) == ["cnn1", "cnn2"]
    assert _names([Path("/a/x/cnn1"), Path("/b/x/cnn1"), Path("/b/x/cnn2")]) == [
        "a/x/cnn1", "b/x/cnn1", "b/x/cnn2"
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["absent", "empty"])
def test_no_model_is_a_sentence(what: str, work: Path, invoke: Any) -> None:
    if what == "empty":
        (work / "empty").mkdir()
    code, output = invoke("compare", what)
    assert code == ExitCode.NO_INPUT
    assert output.startswith("Error: ")
    assert "ive the folder of a bundle" in output or "`tumorbatch train`" in output


# ------------------------------------------------------------------------------- evaluate --protocols


@pytest.fixture(scope="module")
def protocols(trained: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which cnn1 was evaluated under all protocols."""
    from tumorbatch.evaluation.config import Config as EvaluationConfig
    from tumorbatch.workflows.protocols import Config, run

    folder = tmp_path_factory.mktemp("protocols") / "work"
    shutil.copytree(trained, folder)
    how = EvaluationConfig(device="cpu", gallery=0)
    config = Config(how, source=sample, workers=2)
    out = folder / "results/protocols/cnn1"
    run(folder / "models/cnn1", folder / "tfrecords", out, config, consent=lambda *_: None)
    return folder


@pytest.fixture
def again(protocols: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(protocols, tmp_path / "work"))
    monkeypatch.chdir(folder)
    return folder


PROTOCOLS = ("evaluate", "cnn1", "--protocols", "--device", "cpu")


def _protocol_rows(folder: Path) -> list[dict[str, Any]]:
    value = json.loads((folder / "results/protocols/cnn1/protocols.json").read_text())
    rows: list[dict[str, Any]] = value["rows"]
    return rows


def _bundles(folder: Path) -> dict[str, int]:
    paths = folder.glob("results/protocols/cnn1/*/model.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in paths}


def test_every_protocol_has_the_same_training_and_its_baselines(protocols: Path) -> None:
    rows = _protocol_rows(protocols)
    assert [row["protocol_key"] for row in rows] == [
        key for key in ("leaky", "group", "shape") for _ in range(4)
    ]
    assert [row["name"] for row in rows[:4]] == [
        "majority",
        "metadata forest",
        "thumbnail 1-NN",
        "cnn1",
    ]
    own = bundle.load(protocols / "models/cnn1").training
    for split_by in ("file", "shape"):
        folder = protocols / f"tfrecords-{split_by}"
        of = bundle.load(protocols / f"results/protocols/cnn1/cnn1-{split_by}").training
        assert of["dataset_sha256"] == shardset.file_sha256(folder / "dataset.json")
        for key in ("architecture", "schedule", "augmentation", "weights"):
            assert of[key] == own[key]
        there, here = (shardset.load(path).config for path in (folder, protocols / "tfrecords"))
        assert there == here | {"split_by": split_by}
    # Nothing is under models/, where `infer` would choose the leaky one by its validation AUC.
    assert sorted(path.name for path in (protocols / "models").iterdir()) == ["cnn1", "cnn2"]


def test_the_page_names_each_protocol_in_words(protocols: Path) -> None:
    folder = protocols / "results/protocols/cnn1"
    html = (folder / "protocols.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    for words in ("leaky (random by file)", "grouped (duplicates together)", "held-out shapes"):
        assert words in html
    assert "copies and near copies of test images were trained on" in html
    for row in _protocol_rows(protocols):
        for of in (row, row["per_group"]):
            assert Estimate.from_dict(of["figures"]["auc"]).text() in html
    assert (folder / "protocols.png").read_bytes().startswith(b"\x89PNG")
    assert len((folder / "protocols.csv").read_text().splitlines()) == 13


def test_all_there_is_nothing_to_make_nor_to_ask(again: Path, invoke: Any) -> None:
    before, content = _bundles(again), _protocol_rows(again)
    code, output = invoke(*PROTOCOLS)  # not even the source is needed
    assert (code, "This makes" in output) == (ExitCode.OK, False)
    assert "held-out shapes" in output
    assert (_bundles(again), _protocol_rows(again)) == (before, content)


def test_what_is_missing_needs_consent_and_is_made_alone(
    again: Path, sample: Path, invoke: Any
) -> None:
    shutil.rmtree(again / "results/protocols/cnn1/cnn1-shape")
    shutil.rmtree(again / "tfrecords-shape")
    before = _bundles(again)
    code, output = invoke(*PROTOCOLS, "--src", sample)
    assert code == ExitCode.USAGE
    assert "This makes 1 shard set and 1 training: about " in output
    assert "as measured in its own training, 2 epochs" in output
    assert "give --yes" in output
    assert not (again / "tfrecords-shape").exists()
    code, _ = invoke(*PROTOCOLS, "--src", sample, "--yes", "--quiet")
    assert code == ExitCode.OK
    after = _bundles(again)
    assert sorted(after) == ["cnn1-file", "cnn1-shape"]
    assert after["cnn1-file"] == before["cnn1-file"]


def test_bundles_elsewhere_are_taken_where_they_are_the_very_training(again: Path, invoke: Any) -> None:
    (again / "models-file").mkdir()
    shutil.move(again / "results/protocols/cnn1/cnn1-file", again / "models-file/whatever")
    shutil.copytree(again / "models/cnn2", again / "models-file/another")
    code, output = invoke(*PROTOCOLS, "--reuse", "models-file")
    assert code == ExitCode.OK
    assert "models-file/whatever is taken for the protocol file" in output
    assert sorted(_bundles(again)) == ["cnn1-shape"]


@pytest.mark.parametrize("what", ["set", "bundle", "source", "shards"])
def test_what_does_not_fit_is_refused(what: str, again: Path, sample: Path, invoke: Any) -> None:
    options: list[object] = []
    expected = ExitCode.USAGE
    if what == "set":  # of another seed
        path = again / "tfrecords-file/dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 9}))
        named = "seed: 9 there, 0 asked for"
    elif what == "bundle":
        path = again / "results/protocols/cnn1/cnn1-file/model.json"
        value = json.loads(path.read_text())
        value["training"]["schedule"]["epochs"] = 7
        path.write_text(json.dumps(value))
        named = "epochs: 7 there, 2 asked for"
    elif what == "source":
        shutil.rmtree(again / "tfrecords-file")
        shutil.rmtree(again / "results/protocols/cnn1/cnn1-file")
        less = again / "less"
        shutil.copytree(sample, less)
        next(path for path in sorted(less.rglob("*.png"))).unlink()
        options = ["--src", less, "--yes"]
        named = "1 of its images are gone or have another size"
    else:
        (again / "tfrecords").rename(again / "mine")
        shutil.copytree(again / "tfrecords-file", again / "tfrecords")
        named = "was trained on another shard set than tfrecords"
    before = _protocol_rows(again)
    code, output = invoke(*PROTOCOLS, *options)
    assert (code, named in output) == (expected, True), output
    assert _protocol_rows(again) == before


def test_a_source_of_the_same_sizes_and_other_content_blocks_nothing(
    again: Path, sample: Path, invoke: Any
) -> None:
    """It is seen when the shards are made; the set that was made of it does not stay in the way."""
    shutil.rmtree(again / "tfrecords-file")
    shutil.rmtree(again / "results/protocols/cnn1/cnn1-file")
    other = Path(shutil.copytree(sample, again / "other"))
    path = next(path for path in sorted(other.rglob("*.png")) if path.stat().st_size > 100)
    data = path.read_bytes()
    path.write_bytes(data[:-40] + bytes(40))
    code, output = invoke(*PROTOCOLS, "--src", other, "--yes")
    assert code == ExitCode.USAGE
    assert "do not hold the same images" in output
    assert not (again / "tfrecords-file").exists()
    (again / "tfrecords-file").mkdir()
    (again / "tfrecords-file" / "notes.txt").write_text("mine")
    assert invoke(*PROTOCOLS, "--src", other, "--yes")[0] == ExitCode.USAGE
    assert (again / "tfrecords-file" / "notes.txt").read_text() == "mine"
    shutil.rmtree(again / "tfrecords-file")
    path.write_bytes(data)
    (path.parent / "dangling.png").symlink_to("nowhere")  # no image that was in a split
    (path.parent / "Thumbs.db").write_bytes(b"new")
    assert invoke(*PROTOCOLS, "--src", other, "--yes", "--quiet")[0] == ExitCode.OK


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--weights", "nosuch.h5"), ExitCode.USAGE, "cnn1 starts from no weights"),
        (
            ("--groups", "nosuch.csv"),
            ExitCode.NO_INPUT,
            "nosuch.csv, given with --groups",
        ),
        (("--reuse", "nosuch"), ExitCode.NO_INPUT, "nosuch, given with --reuse, is not a folder"),
        (("--out", "models"), ExitCode.USAGE, "holds what is not from this command (cnn1, cnn2)"),
    ],
)
def test_what_is_named_must_be_there(
    options: tuple[str, ...], code: int, words: str, again: Path, invoke: Any
) -> None:
    found, output = invoke(*PROTOCOLS, *options)
    assert (found, words in output) == (code, True), output


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((*PROTOCOLS, "--threshold", "youden"), "--threshold cannot be combined with --protocols"),
        ((*PROTOCOLS, "--external"), "--external cannot be combined with --protocols"),
        (("evaluate", "cnn1", "--yes"), "--yes needs --protocols"),
        (("evaluate", "cnn1", "--src", "data/raw"), "--src needs --protocols"),
    ],
)
def test_no_option_is_ignored(options: tuple[str, ...], named: str, again: Path, invoke: Any) -> None:
    code, output = invoke(*options)
    assert (code, named in output) == (ExitCode.USAGE, True)
