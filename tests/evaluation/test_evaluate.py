"""`tumorbatch evaluate` as its users meet it: results, frozen choices, refusals, odd splits."""

import contextlib
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sklearn_metrics

from tests.answers import answers
from tests.bundles import rewrite
from tests.in_process import leave_out_workers
from tests.pages import make_quick
from tumorbatch import atomic, bundle, bundle_verify, shardset
from tumorbatch.errors import ExitCode
from tumorbatch.evaluation.answers import Answers, score_split
from tumorbatch.evaluation.baseline_tests import beyond_metadata, measure_baselines, verdict
from tumorbatch.evaluation.error_gallery import most_confident_errors
from tumorbatch.evaluation.split_metrics import (
    size_bucket,
    size_buckets,
    split_metrics,
    subgroups,
    within_file_kinds,
)
from tumorbatch.preprocess.shard import Config as ShardConfig
from tumorbatch.preprocess.shard import run as shard
from tumorbatch.preprocessing_config import Preprocessing
from tumorbatch.scoring import probability
from tumorbatch.statistics.intervals import Estimate, wilson
from tumorbatch.statistics.weighting import Weighting

PAGES = {
    "confusion.png", "scores.png", "reliability.png", "roc.png", "precision_recall.png",
    "selective.png",
}  # fmt: skip

_BUNDLE_FILES = (
    "model.json", "weights.safetensors", "known_images.safetensors", "history.json", "history.csv",
    "metrics.json", "model_card.md", "curves.png",
)  # fmt: skip


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def evaluated(
    model: Path, shard_set: Path, tmp_path_factory: pytest.TempPathFactory, cli: Any
) -> tuple[Path, Path, str]:
    """A copy of the bundle, its results, and what was printed; by the real command."""
    folder = tmp_path_factory.mktemp("evaluated")
    copy = Path(shutil.copytree(model, folder / "models" / "cnn1"))
    done = cli("evaluate", "cnn1", shard_set, cwd=folder)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "Traceback" not in done.stderr
    return copy, folder / "results" / "cnn1", done.stdout


@pytest.fixture
def copy(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_quick(monkeypatch)  # `evaluated` has rendered all
    leave_out_workers(monkeypatch)
    return Path(shutil.copytree(model, tmp_path / "models" / "cnn1"))


# ----------------------------------------------------------------------------------------- results


def test_the_results_are_complete(evaluated: tuple[Path, Path, str]) -> None:
    _, out, printed = evaluated
    assert {path.name for path in out.iterdir()} == {
        "metrics.json", "predictions.parquet", "report.html", "label_suspects.csv", "figures",
    }  # fmt: skip
    drawn = {path.name for path in (out / "figures").iterdir()}
    assert drawn >= PAGES
    errors = _json(out / "metrics.json")["errors"]
    assert drawn - PAGES == {f"error-{number:02}.png" for number in range(1, len(errors) + 1)}
    assert [path.name for path in out.parent.iterdir()] == ["cnn1"]  # no lock, nothing half-written
    assert "report.html" in printed


def test_the_figures_are_those_of_the_predictions(evaluated: tuple[Path, Path, str]) -> None:
    """Recomputed by scikit-learn from the table of logits."""
    copy, out, printed = evaluated
    about, used = _json(out / "metrics.json"), bundle.load(copy)
    table = pq.read_table(out / "predictions.parquet")
    footer = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert footer["tumorbatch.model_id"] == used.model_id == about["model"]["model_id"]
    assert float(footer["tumorbatch.threshold"]) == used.threshold
    for split in ("validation", "test"):
        rows = [row for row in table.to_pylist() if row["split"] == split]
        labels, logits, probs, called = (
            np.array([row[name] for row in rows]) for name in ("label", "logit", "prob", "called")
        )
        assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
        assert probs == pytest.approx(1 / (1 + np.exp(-logits / used.temperature)), abs=1e-6)
        assert (called == (np.float32(probs) >= np.float32(used.threshold))).all()
        figures = {name: of["value"] for name, of in about[split]["figures"].items()}
        recall, precision = (
            function(labels, called, zero_division=np.nan)
            for function in (sklearn_metrics.recall_score, sklearn_metrics.precision_score)
        )
        assert figures["sensitivity"] == pytest.approx(recall)
        assert figures["precision"] == pytest.approx(precision)
        assert figures["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, logits))
        assert figures["brier"] == pytest.approx(
            sklearn_metrics.brier_score_loss(labels, probs), rel=1e-5
        )
        accuracy = about[split]["figures"]["accuracy"]
        assert (accuracy["low"], accuracy["high"]) == pytest.approx(
            wilson(int((called == labels).sum()), len(labels))
        )
        assert about[split]["groups"] == len({row["group"] for row in rows})
        weights = [1 / sum(row["group"] == other["group"] for other in rows) for row in rows]
        once = {name: of["value"] for name, of in about[split]["per_group"]["figures"].items()}
        assert once["accuracy"] == pytest.approx(
            sklearn_metrics.accuracy_score(labels, called, sample_weight=weights)
        )
        assert once["auc"] == pytest.approx(
            sklearn_metrics.roc_auc_score(labels, logits, sample_weight=weights)
        )
        assert about[split]["per_group"]["figures"]["accuracy"]["n"] == about[split]["groups"]
    told = Estimate.from_dict(about["test"]["per_group"]["figures"]["accuracy"]).text()
    assert told in printed
    assert (
        f"<h1>cnn1: accuracy {told} on {about['test']['groups']} groups of test images"
        in (out / "report.html").read_text()
    )


def test_every_figure_has_n_and_an_interval(evaluated: tuple[Path, Path, str]) -> None:
    _, out, _ = evaluated
    about = _json(out / "metrics.json")
    found = 0
    for split in ("validation", "test"):
        both = (about[split], about[split]["per_group"])
        for of in (of for part in both for of in (
            part["figures"], part["at_0.5"]["figures"], part["recalibration"], part["uncalibrated"]
        )):  # fmt: skip
            for name, figure in of.items():
                found += 1
                if figure["value"] is None:
                    # The precision of what nobody was called; the slope where classes do not overlap.
                    assert (name, figure["n"]) in (("npv", 0), ("precision", 0)) or "slope" in name
                    continue
                assert figure["n"] > 0, name
                if figure["low"] is None:  # what no resample of these 14 images can change
                    assert figure["value"] in (0, 1), name
                    continue
                assert figure["low"] <= figure["value"] <= figure["high"], name
    assert found == 2 * 2 * (12 + 12 + 2 + 6)


def test_the_report_is_one_file_that_names_protocol_and_limits(
    evaluated: tuple[Path, Path, str],
) -> None:
    _, out, _ = evaluated
    text = (out / "report.html").read_text()
    assert "grouped (duplicates together)" in text
    assert "LEAKY" not in text
    assert "Not a medical device" in text
    assert "http" not in text.replace("http-equiv", "")  # loads and links nothing
    about = _json(out / "metrics.json")
    suspects = min(12, len(about["label_suspects"]))  # beside the files in figures/
    assert text.count("<img") == len(list((out / "figures").iterdir())) + suspects
    for heading in ("Calibration", "Predictive values", "By file format and size",
                    "Most confident errors", "Label suspects", "Limits"):  # fmt: skip
        assert f"{heading}</h2>" in text


def test_the_report_shows_what_the_choices_were_made_on() -> None:
    """Temperature and threshold count images; by group, the log loss may be lower without it."""
    from tumorbatch.evaluation.choice import choose
    from tumorbatch.evaluation.page_probabilities import add_choices
    from tumorbatch.report.html import Page
    from tumorbatch.statistics.calibration import DEFAULT_RULE, Rule

    copies = [0] * 8  # of one image, which the model is right about
    images = answers([1] * 8 + [-1, 1], [1] * 8 + [0, 0], groups=np.array([*copies, 1, 2]))
    chosen = choose(images, {}, Rule.parse(DEFAULT_RULE), dataset_sha256="0")
    threshold, temperature = (chosen[name]["value"] for name in ("threshold", "temperature"))
    values = split_metrics(images.at(threshold, temperature), 100)
    losses = [one["log_loss"]["value"] for one in (values["uncalibrated"], values["figures"])]
    by_group = [values["per_group"][name]["log_loss"]["value"] for name in ("uncalibrated", "figures")]
    assert losses[0] > losses[1]
    assert by_group[0] < by_group[1]
    model = {"threshold": threshold, "temperature": temperature, "calibration": chosen, "frozen": True}
    page = Page("Report")
    add_choices(page, {"model": model, "validation": values})
    assert f"there is, per image, {losses[0]:.3f} (" in page.html()
    assert f" without and {losses[1]:.3f} (" in page.html()


def test_again_gives_the_same_bytes_and_leaves_the_bundle_alone(
    evaluated: tuple[Path, Path, str], shard_set: Path, invoke: Any
) -> None:
    copy, out, _ = evaluated
    before, times = _content(out), {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    code, _ = invoke("evaluate", copy, shard_set, "--out", out)
    assert code == ExitCode.OK
    assert _content(out) == before
    assert {path: path.stat().st_mtime_ns for path in copy.iterdir()} == times


# ------------------------------------------------------------------------------------------ frozen


def test_another_rule_is_frozen_and_makes_another_model(
    copy: Path, model: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    old = bundle.load(model)
    out = tmp_path / "results"
    code, output = invoke("evaluate", copy, shard_set, "--out", out, "--threshold", "0.37", "--freeze")
    assert code == ExitCode.OK
    new = bundle.load(copy)
    assert (new.threshold, new.temperature) == (0.37, old.temperature)
    assert new.calibration["threshold"]["rule"] == "value=0.37"
    assert new.model_id != old.model_id
    assert new.model_id in output
    assert new.training == old.training
    about, card = _json(out / "metrics.json"), (copy / "model_card.md").read_text()
    assert about["model"]["model_id"] == new.model_id
    assert about["test"]["threshold"] == 0.37
    assert _json(copy / "metrics.json")["test"] == about["test"]  # the bundle's figures follow
    front, name = card.split("---\n")[1], f"cnn1 ({new.model_id})"
    assert f"# {name}\n" in card
    accuracy = about["test"]["per_group"]["figures"]["accuracy"]["value"]
    for line in ("library_name: keras", "pipeline_tag: image-classification", f'- name: "{name}"'):
        assert line in front.splitlines()
    assert f"    - {{type: accuracy, value: {accuracy:.6f}, name: " in front
    assert "threshold 0.37 (frozen)" in card
    assert "| metadata forest |" in card
    assert "Not measured yet" not in card
    for name in ("weights.safetensors", "history.json", "history.csv", "curves.png"):
        assert (copy / name).read_bytes() == (model / name).read_bytes()
    assert sorted(path.name for path in copy.iterdir()) == sorted(path.name for path in model.iterdir())
    assert [path.name for path in copy.parent.iterdir()] == ["cnn1"]
    # Without a rule the bundle keeps the one it has; training again is still nothing to do.
    code, _ = invoke("evaluate", copy, shard_set, "--out", out)
    assert (code, bundle.load(copy).threshold) == (ExitCode.OK, 0.37)
    same = ("--arch", "cnn1", "--epochs", 2, "--batch-size", 8)
    code, output = invoke("train", shard_set, *same, "--out", copy)
    assert (code, "nothing to do" in output) == (ExitCode.OK, True)


def test_model_json_is_the_last_to_change(
    copy: Path, shard_set: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, the bundle still loads and decides as before; the same command mends it."""
    moved: list[str] = []

    def killed(source: Any, target: Any) -> None:
        if Path(target).parent == copy:
            moved.append(Path(target).name)
            if len(moved) == 2:
                raise KeyboardInterrupt("SIGKILL")
        replace_file(source, target)

    before, replace_file = bundle.load(copy), os.replace
    command = ("evaluate", copy, shard_set, "--out", tmp_path / "r", "--threshold", "0.37", "--freeze")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        assert invoke(*command)[0] == ExitCode.TRY_AGAIN
    assert moved == ["metrics.json", "model_card.md"]
    assert bundle.load(copy) == before
    assert invoke(*command)[0] == ExitCode.OK
    assert bundle.load(copy).threshold == 0.37
    assert "0.37 (frozen)" in (copy / "model_card.md").read_text()
    assert not list(copy.glob(".*"))


def test_a_threshold_is_judged_and_the_bundle_left_alone(
    copy: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    before, out = _content(copy), tmp_path / "results"
    code, output = invoke("evaluate", copy, shard_set, "--out", out, "--threshold", "0.37")
    assert code == ExitCode.OK
    assert "NOT frozen" in output
    assert _content(copy) == before
    model = _json(out / "metrics.json")["model"]
    assert (model["threshold"], model["frozen"]) == (0.37, False)
    assert model["bundle_model_id"] == bundle.load(copy).model_id != model["model_id"]
    assert "NOT frozen" in (out / "report.html").read_text()


def test_a_bundle_from_before_calibration_is_calibrated(
    copy: Path, model: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    rewrite(copy, threshold=0.5, temperature=1.0, calibration={})
    assert bundle.load(copy).calibration == {}
    code, _ = invoke("evaluate", copy, shard_set, "--out", tmp_path / "results", "--freeze")
    assert code == ExitCode.OK
    old, new = bundle.load(model), bundle.load(copy)
    assert new.temperature == pytest.approx(old.temperature, rel=1e-5)
    assert new.threshold == pytest.approx(old.threshold, rel=1e-5)
    assert new.model_id == bundle.load(copy).model_id


def test_json_is_one_line(copy: Path, shard_set: Path, tmp_path: Path, invoke: Any) -> None:
    code, output = invoke(
        "evaluate", copy, shard_set, "--out", tmp_path / "results", "--json", "--quiet"
    )
    assert code == ExitCode.OK
    (line,) = output.splitlines()
    value = json.loads(line)
    assert value["model_id"] == bundle.load(copy).model_id
    assert value["protocol"] == "group"
    assert {"value", "n", "low", "high"} <= value["accuracy"].keys()


def test_a_bundle_that_cannot_be_written_is_as_it_was(
    copy: Path, shard_set: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def full(path: Path) -> Any:
        """The disk is full when the second file is written."""
        with atomic.atomic_file(path) as file:
            if path.name == "model_card.md":
                raise OSError(errno.ENOSPC, "No space left on device")
            yield file

    before = _content(copy)
    monkeypatch.setattr("tumorbatch.evaluation.freeze.atomic_file", full)
    code, output = invoke(
        "evaluate", copy, shard_set, "--out", tmp_path / "results", "--threshold", "f1", "--freeze"
    )
    assert code == ExitCode.CANNOT_WRITE
    assert "disk is full" in output
    assert "--no-freeze" in output
    assert _content(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["cnn1"]
    assert not (tmp_path / "results").exists()


def test_results_that_show_dicom_files_are_the_owners_alone(
    copy: Path, shard_set: Path, tmp_path: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dicom(*arguments: Any) -> Answers:
        scored = score_split(*arguments)
        images = replace(scored.images, formats=("dicom", *scored.images.formats[1:]))
        return replace(scored, images=images)

    out = tmp_path / "results"
    monkeypatch.setattr("tumorbatch.evaluation.evaluate.score_split", dicom)
    assert invoke("evaluate", copy, shard_set, "--out", out)[0] == ExitCode.OK
    modes = {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()}
    assert modes == {0o600}


@pytest.mark.parametrize("name", _BUNDLE_FILES)
def test_verify_names_the_damaged_file_of_a_bundle(name: str, copy: Path, invoke: Any) -> None:
    code, output = invoke("verify", copy)
    assert (code, "is intact: model cnn1-" in output) == (ExitCode.OK, True)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2 if name.endswith("safetensors") else 0] ^= 1
    (copy / name).write_bytes(data if name != "model_card.md" else b"")
    code, output = invoke("verify", "--model", copy, "--quiet")
    assert (code, name in output) == (ExitCode.NO_INPUT, True)
    assert len(bundle_verify.run(copy).problems) == 1
    (copy / name).unlink()
    assert any(name in problem for problem in bundle_verify.run(copy).problems)


# ---------------------------------------------------------------------------------------- refusals


@pytest.fixture
def other_set(shard_set: Path, tmp_path: Path) -> Path:
    """The same shards under another dataset.json: another shard set, as far as one can tell."""
    other = Path(shutil.copytree(shard_set, tmp_path / "other"))
    value = _json(other / "dataset.json") | {"seed": 1}
    (other / "dataset.json").write_text(json.dumps(value))
    return other


def test_another_shard_set_is_refused_unless_it_is_external(
    copy: Path, other_set: Path, tmp_path: Path, invoke: Any
) -> None:
    before, out = _content(copy), tmp_path / "results"
    code, output = invoke("evaluate", copy, other_set, "--out", out)
    assert code == ExitCode.USAGE
    assert "trained on another shard set" in output
    assert "--external" in output
    assert not out.exists()
    _forget_images(copy)
    before = _content(copy)
    code, output = invoke("evaluate", copy, other_set, "--out", out, "--external")
    assert code == ExitCode.OK
    assert "external" in output
    assert _content(copy) == before  # nothing was chosen on it
    about = _json(out / "metrics.json")
    assert (about["protocol"], about["model"]["threshold"]) == ("external", bundle.load(copy).threshold)
    assert "external set" in (out / "report.html").read_text()
    assert about["overlap"] is None  # its own shard set is not here
    assert "may include copies of its training images" in " ".join(output.split())
    assert "may be among these" in (out / "report.html").read_text()
    # All of it was judged, and the same figures come from the same rows.
    assert "validation" not in about
    rows = pq.read_table(out / "predictions.parquet").to_pylist()
    assert len(rows) == about["test"]["n"] == sum(
        sum(of.values()) for of in shardset.load(other_set).counts.values()
    )  # fmt: skip
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    manifest = {row["path"]: row for row in pq.read_table(other_set / "manifest.parquet").to_pylist()}
    for row in rows:
        there = manifest[row["path"]]
        assert (row["label"], row["group"]) == (there["class"] == "Tumor", there["duplicate_group"])
        assert (row["width"], row["format"]) == (there["width"], there["format"])
    right = sum(row["called"] == row["label"] for row in rows) / len(rows)
    assert about["test"]["figures"]["accuracy"]["value"] == pytest.approx(right)


def _forget_images(folder: Path) -> None:
    """Make the bundle one that does not carry what it was trained on."""
    rewrite(folder, known_images_sha256="")
    (folder / "known_images.safetensors").unlink()


@pytest.mark.parametrize("given", [True, False], ids=["given", "found here"])
def test_copies_of_what_was_trained_on_are_left_out_of_an_external_set(
    given: bool, copy: Path, other_set: Path, shard_set: Path, tmp_path: Path, invoke: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "results"
    options: list[object] = ["--trained-on", shard_set] if given else []
    if not given:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "tfrecords-mine").symlink_to(shard_set)
    code, output = invoke("evaluate", copy, other_set, "--out", out, "--external", *options)
    assert code == ExitCode.OK, output
    about, counts = _json(out / "metrics.json"), shardset.load(shard_set).counts
    # The split was made by groups of copies, so what is new to the model is its test split.
    assert about["test"]["n"] == sum(counts["test"].values())
    known = sum(sum(counts[split].values()) for split in ("train", "validation"))
    assert about["overlap"] == {"left_out": known, "bytes": known}
    assert f"the model knows a copy: {known} images." in output
    assert f"{known} images ({known} bytes)" in (out / "report.html").read_text()
    # The same images, the same baselines: those that learned from the training split.
    invoke("evaluate", copy, shard_set, "--out", tmp_path / "own", "--no-freeze")
    own = _json(tmp_path / "own" / "metrics.json")
    assert about["baselines"] == own["baselines"]
    assert about["test"]["figures"]["auc"] == own["test"]["figures"]["auc"]


def test_a_bundle_that_carries_its_images_needs_no_shard_set(
    copy: Path, other_set: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "results"
    code, output = invoke("evaluate", copy, other_set, "--out", out, "--external")
    assert code == ExitCode.OK, output
    about, counts = _json(out / "metrics.json"), shardset.load(shard_set).counts
    known = sum(sum(counts[split].values()) for split in ("train", "validation"))
    assert about["overlap"]["bytes"] == known
    assert about["test"]["n"] == sum(counts["test"].values()) - about["overlap"].get("altered", 0)
    assert about["baselines"] == []  # they would learn from the shard set
    # Damage of that file is a sentence, and nothing is judged on what cannot be checked.
    path = copy / "known_images.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    code, output = invoke("evaluate", copy, other_set, "--out", out, "--external")
    assert (code, "known_images.safetensors is missing or damaged" in output) == (
        ExitCode.NO_INPUT, True,
    )  # fmt: skip


def test_the_groups_of_an_external_set_are_patients_and_copies(
    copy: Path, other_set: Path, tmp_path: Path, invoke: Any
) -> None:
    _forget_images(copy)
    rows = pq.read_table(other_set / "manifest.parquet").to_pylist()
    images = [row for row in rows if row["split"]]
    table, out = tmp_path / "patients.csv", tmp_path / "results"
    patient = {row["path"]: f"Jane Doe {number // 8}" for number, row in enumerate(images)}

    def evaluate(lines: dict[str, str], *more: str) -> tuple[int, str]:
        text = "".join(f'"{path}",{name}\n' for path, name in lines.items())
        table.write_text(f"path,patient\n{text}")
        command = ("evaluate", copy, other_set, "--out", out, "--external", "--groups", table)
        return invoke(*command, "--overwrite", *more)  # type: ignore[no-any-return]

    code, output = evaluate(patient)
    assert code == ExitCode.OK, output
    assert "Known patients: 12; the files of each are one group." in output
    assert "NOT COVERED" not in output
    about = _json(out / "metrics.json")
    assert about["dataset"]["patient_table"] == {"paths_without_file": 0, "files_without_patient": 0}
    # Patients who share a copy are one group, whose images are those of all of them.
    group = {
        row["path"]: row["group"] for row in pq.read_table(out / "predictions.parquet").to_pylist()
    }
    for key in (patient, {row["path"]: row["duplicate_group"] for row in images}):
        together: dict[Any, set[int]] = {}
        for path, value in key.items():
            together.setdefault(value, set()).add(group[path])
        assert all(len(groups) == 1 for groups in together.values())
    assert about["test"]["groups"] == len(set(group.values())) <= 12
    assert about["test"]["per_group"]["figures"]["accuracy"]["n"] == about["test"]["groups"]
    assert not any(b"Jane Doe" in data for data in _content(out).values())

    first, *others = patient
    lacking = {"Healthy/absent.png": "Jane Doe 0", **{path: patient[path] for path in others}}
    before = _content(out)
    code, output = evaluate(lacking)
    assert code == ExitCode.USAGE
    assert "1 of its paths fit no file (such as 'Healthy/absent.png')" in output
    assert f"1 files have no patient in it (such as {first!r})" in output
    assert _content(out) == before
    code, output = evaluate(lacking, "--allow-unmatched")
    assert code == ExitCode.OK, output
    assert "NOT COVERED by the table: 1 files without a patient, 1 paths without a file." in output
    table_of_set = _json(out / "metrics.json")["dataset"]["patient_table"]
    assert table_of_set == {"paths_without_file": 1, "files_without_patient": 1}
    assert "does not cover all: 1 files have no patient" in (out / "report.html").read_text()


def test_an_external_set_of_known_images_alone_judges_nothing(
    copy: Path, other_set: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    value = _json(other_set / "dataset.json")
    value["shards"] = [one for one in value["shards"] if one["split"] != "test"]
    (other_set / "dataset.json").write_text(json.dumps(value))
    out = tmp_path / "results"
    code, output = invoke(
        "evaluate", copy, other_set, "--out", out, "--external", "--trained-on", shard_set
    )
    assert (code, "nothing is left" in output) == (ExitCode.NO_INPUT, True)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trained-on", "x"), "--trained-on needs --external"),
        (("--external",), "leave out --external"),
        (("--external", "--threshold", "youden"), "leave out --threshold"),
        (("--threshold", "sensitivity"), "Received: sensitivity"),
        (("--replicates", 1999), "Received: 1999"),
        (("--seed", 2**32), "4294967295"),
        (("--gallery", -1), "Received: -1"),
        (("--batch-size", 0), "Received: 0"),
        (("--out", ".."), "cannot be replaced"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(
    options: tuple[object, ...], words: str, copy: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    code, output = invoke("evaluate", copy, shard_set, "--out", tmp_path / "results", *options)
    assert (code, words in output) == (ExitCode.USAGE, True), output
    assert not (tmp_path / "results").exists()


def test_other_pixels_are_refused(copy: Path, sample: Path, tmp_path: Path, invoke: Any) -> None:
    tfrecords = tmp_path / "tfrecords"
    shard(sample, tfrecords, ShardConfig(Preprocessing(size=32, clahe=False), workers=2))
    code, output = invoke("evaluate", copy, tfrecords, "--external", "--out", tmp_path / "results")
    assert code == ExitCode.USAGE
    assert "clahe: True in the model, False in the shards" in output


def test_no_model_is_a_sentence(shard_set: Path, tmp_path: Path, invoke: Any) -> None:
    code, output = invoke("evaluate", tmp_path / "nothing", shard_set)
    assert (code, "not a model bundle" in output) == (ExitCode.NO_INPUT, True)


def test_foreign_files_are_never_replaced(
    copy: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "results"
    out.mkdir()
    (out / "thesis.doc").write_text("the only copy")
    code, output = invoke("evaluate", copy, shard_set, "--out", out, "--overwrite")
    assert (code, "thesis.doc" in output) == (ExitCode.USAGE, True)
    assert os.listdir(out) == ["thesis.doc"]


def test_results_of_another_model_are_replaced_on_request_only(
    copy: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    out = tmp_path / "results"
    assert invoke("evaluate", copy, shard_set, "--out", out)[0] == ExitCode.OK
    about = _json(out / "metrics.json")
    about["model"]["weights_sha256"] = "another"
    (out / "metrics.json").write_text(json.dumps(about))
    code, output = invoke("evaluate", copy, shard_set, "--out", out)
    assert (code, "results of another model" in output) == (ExitCode.USAGE, True)
    assert invoke("evaluate", copy, shard_set, "--out", out, "--overwrite")[0] == ExitCode.OK
    assert _json(out / "metrics.json")["model"]["weights_sha256"] != "another"


def test_a_bundle_that_a_training_holds_is_left_alone(
    copy: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    from tumorbatch.lock import output_lock

    before = _content(copy)
    with output_lock(copy, copy.with_name(f".{copy.name}.lock")):
        code, output = invoke(
            "evaluate", copy, shard_set, "--out", tmp_path / "results", "--threshold", "f1", "--freeze"
        )
    assert (code, "in use" in output) == (ExitCode.TRY_AGAIN, True)
    assert _content(copy) == before
    assert not (tmp_path / "results").exists()


# ---------------------------------------------------------------------------------- leaky, and odd


def test_a_leaky_protocol_is_named_in_every_headline(
    copy: Path, sample: Path, tmp_path: Path, invoke: Any
) -> None:
    tfrecords, out = tmp_path / "tfrecords", tmp_path / "results"
    shard(sample, tfrecords, ShardConfig(Preprocessing(size=32), split_by="file", workers=2))
    _trained_on(copy, tfrecords)
    code, output = invoke("evaluate", copy, tfrecords, "--out", out, "--freeze")
    assert code == ExitCode.OK
    assert output.count("LEAKY") == 2
    assert _json(out / "metrics.json")["protocol"] == "leaky"
    text = (out / "report.html").read_text()
    title, heading = text.split("<title>")[1].split("<")[0], text.split("<h1>")[1].split("<")[0]
    assert "LEAKY" in title
    assert "LEAKY" in heading
    assert "LEAKY" in text.split('class="lead"')[1].split("</p>")[0]
    assert "Leaky: the split was drawn file by file" in (copy / "model_card.md").read_text()


def test_a_set_of_the_first_version_is_called_leaky_orientation(
    copy: Path, shard_set: Path, tmp_path: Path, invoke: Any
) -> None:
    old = Path(shutil.copytree(shard_set, tmp_path / "old"))
    (old / "dataset.json").write_text(json.dumps(_json(old / "dataset.json") | {"schema_version": 1}))
    _trained_on(copy, old)
    out = tmp_path / "results"
    code, output = invoke("evaluate", copy, old, "--out", out, "--freeze")
    assert code == ExitCode.OK, output
    assert "LEAKY-orientation" in output
    assert _json(out / "metrics.json")["protocol"] == "leaky-orientation"
    assert "LEAKY-orientation" in (out / "report.html").read_text().split("</title>")[0]
    assert "copies in one orientation only" in (copy / "model_card.md").read_text()


def _trained_on(folder: Path, tfrecords: Path) -> None:
    """Let the bundle say that it was trained on this shard set."""
    about = _json(folder / "model.json")
    about["training"] |= {
        "dataset_sha256": shardset.file_sha256(tfrecords / "dataset.json"),
        "leaky": shardset.load(tfrecords).leaky,
    }
    (folder / "model.json").write_text(json.dumps(about))


def test_an_empty_split_is_a_sentence(copy: Path, shard_set: Path, tmp_path: Path, invoke: Any) -> None:
    other = Path(shutil.copytree(shard_set, tmp_path / "other"))
    value = _json(other / "dataset.json")
    value["shards"] = [one for one in value["shards"] if one["split"] != "test"]
    (other / "dataset.json").write_text(json.dumps(value))
    _trained_on(copy, other)
    code, output = invoke("evaluate", copy, other, "--out", tmp_path / "results")
    assert (code, "test split" in output, "no image" in output) == (ExitCode.NO_INPUT, True, True)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([-2, -1, 1, 2, 3], [0, 0, 1, 1, 1]),  # five images, no error
        ([2, 1, -1, -2, -3], [0, 0, 1, 1, 1]),  # all wrong
        ([1, -1, 2], [1, 1, 1]),  # one class
        ([1, -1, 2], [0, 0, 0]),
        ([0.5], [1]),
    ],
)
def test_a_page_of_a_handful_of_images(logits: list[float], labels: list[int]) -> None:
    """Undefined figures, no curves, no gallery: still a page."""
    from tumorbatch.evaluation import page
    from tumorbatch.evaluation.selective import selective

    test = answers(logits, labels)
    of = split_metrics(test, replicates=100)
    sizes = [size_bucket(100, 80)] * test.images.n
    about = {
        "model": {
            "name": "m<b>", "model_id": "m-1", "architecture": "cnn1", "weights_sha256": "0",
            "threshold": 0.5, "temperature": 1.0, "calibration": {}, "frozen": True,
            "bundle_model_id": "m-1", "parameters": 1, "epochs": 1, "seed": 0,
            "trained_on_leaky_split": False, "tta": "none",
        },
        "selective": selective(test, 100),
        "dataset": {
            "name": "t", "sha256": "0", "split_by": "group", "leaky": False, "seed": 0, "counts": {},
            "shared_between_splits": {}, "patients_known": 0, "patient_table": {},
        },
        "protocol": "group", "method": {"replicates": 100, "seed": 0}, "validation": of, "test": of,
        "parts": {
            "by_format": subgroups(test, test.images.formats, ["png"]),
            "by_size": subgroups(test, sizes, size_buckets()),
        },
        "label_suspects": [], "baselines": [], "beats_baselines": None, "verdict": "", "runtime": "",
        "versions": {},
    }  # fmt: skip
    json.dumps(about, allow_nan=False)
    drawn = page.draw(about, test)
    both = len(set(labels)) == 2
    assert ("roc" in drawn) == both
    text = page.evaluation_page(about, drawn, [], [])
    assert ("one class only" in text) == (not both)
    assert "m&lt;b&gt;" in text
    assert "nan" not in text.replace("data:image/png;base64", "").split("<h2>")[1]
    if labels == [0, 0, 1, 1, 1] and logits[0] < 0:
        assert "There is no error on the 5 test images" in text


# ------------------------------------------------------------------------- errors, parts, baselines


def test_the_gallery_shows_both_kinds_and_no_copy_twice() -> None:
    logits = [5, 4, 3, 2, 1, -1, -2, -3, -9]
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 0]
    test = answers(logits, labels, groups=np.array([0, 0, 1, 2, 3, 4, 5, 5, 6]))
    assert most_confident_errors(test, 4).tolist() == [7, 5, 0, 2]
    assert most_confident_errors(test, 100).tolist() == [7, 5, 0, 2, 3, 4]
    assert most_confident_errors(test, 3).tolist() == [7, 0, 2]
    assert most_confident_errors(test, 0).tolist() == []
    only_missed = answers([-3, -2, -1], [1, 1, 1])
    assert most_confident_errors(only_missed, 2).tolist() == [0, 1]


def test_parts_are_the_figures_of_the_part() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    logits = rng.normal(labels, 1)
    names = ["a"] * 20 + ["b"] * 30 + ["c"] * 10
    labels[50:] = 1
    test = answers(logits, labels, threshold=0.4)
    rows = subgroups(test, names, ["c", "b", "a", "z"])
    assert [(row["name"], row["n"]) for row in rows] == [("c", 10), ("b", 30), ("a", 20)]
    counts = test.take(np.arange(20, 50)).decisions.confusion
    assert rows[1]["figures"]["accuracy"]["value"] == (counts["tn"] + counts["tp"]) / 30
    assert (rows[1]["Healthy"], rows[1]["Tumor"]) == (30 - labels[20:50].sum(), labels[20:50].sum())
    assert rows[0]["figures"]["auc"]["value"] is None
    assert rows[0]["figures"]["specificity"]["value"] is None


def test_size_buckets_cover_every_size_once() -> None:
    assert size_buckets() == ["up to 224", "225 to 256", "257 to 384", "385 to 512", "above 512"]
    assert [size_bucket(*of) for of in ((1, 1), (224, 3), (3, 225), (512, 512), (9, 513))] == [
        "up to 224", "up to 224", "225 to 256", "385 to 512", "above 512",
    ]  # fmt: skip


def _baseline(test: Answers, name: str, scores: Any) -> Answers:
    """In another order than the model's."""
    baseline = Answers(name, test.images, np.asarray(scores), description=f"what {name} sees")
    return baseline.take(np.random.default_rng(0).permutation(test.images.n))


def test_baselines_stand_beside_the_model_on_the_same_images() -> None:
    rng = np.random.default_rng(1)
    labels = np.r_[0, 1, rng.integers(0, 2, 298)]
    logits = rng.normal(1.5 * labels, 1)
    test = answers(logits, labels)
    same = probability(test.scores, 1.0).astype(np.float64)
    noise = rng.random(300)
    better = np.clip(labels + rng.normal(0, 0.3, 300), 0, 1)
    made = [_baseline(test, *of) for of in (("same", same), ("noise", noise), ("better", better))]
    rows = {row["name"]: row for row in measure_baselines(test, made, replicates=300)}
    assert {name: row["beaten"] for name, row in rows.items()} == {
        "same": False, "noise": True, "better": False,
    }  # fmt: skip
    difference = rows["same"]["auc_difference"]
    assert (difference["value"], difference["low"], difference["high"]) == (0, None, None)
    for name, scores in (("noise", noise), ("better", better)):
        expected = sklearn_metrics.roc_auc_score(labels, scores)
        assert rows[name]["auc"]["value"] == pytest.approx(expected)
        assert rows[name]["accuracy"]["value"] == pytest.approx(((scores >= 0.5) == labels).mean())
        ours = sklearn_metrics.roc_auc_score(labels, logits)
        assert rows[name]["auc_difference"]["value"] == pytest.approx(ours - expected, abs=1e-6)
    assert rows["better"]["auc_difference"]["high"] < 0
    words = verdict(list(rows.values()))
    assert "does NOT beat same" in words
    assert "better (AUC" in words
    assert "noise" not in words
    assert "beats every baseline" in verdict([rows["noise"]])
    assert verdict([]) == ""


def test_what_metadata_cannot_tell_is_told_apart_from_what_it_can() -> None:
    """Two kinds of file: of one size both classes, of the other Tumor alone."""
    labels = [0, 1, 0, 1, 0, 1, 1, 1, 1]
    logits = [-3.0, 3, -2, 2, 1, -1, 5, 5, 5]
    test = answers(logits, labels, widths=np.array([100] * 6 + [200] * 3))
    metadata = _baseline(test, "metadata", [0.5] * 6 + [1.0] * 3)
    row = measure_baselines(test, [metadata], replicates=200)[0]
    assert row["auc"]["value"] == pytest.approx((3 * 3 * 0.5 + 3 * 3) / 18)
    assert row["within_file_kinds"]["auc"]["value"] == 0.5
    found = within_file_kinds(test, Weighting(test.groups), 200)
    assert found["auc"]["value"] == pytest.approx(sklearn_metrics.roc_auc_score(labels[:6], logits[:6]))
    assert found["auc"]["n"] == 6
    assert {name: found[name] for name in ("kinds", "healthy", "tumor", "pairs")} == {
        "kinds": 1, "healthy": 3, "tumor": 3, "pairs": 9,
    }  # fmt: skip
    assert "too few independent images" in beyond_metadata(found)  # often a class is not drawn
    doubtful = {**found, "auc": {**found["auc"], "low": 0.4, "high": 1.0}}
    assert "not shown to be better than chance" in beyond_metadata(doubtful)
    wrong = {**found, "auc": {**found["auc"], "value": 0.2, "low": 0.1, "high": 0.3}}
    assert "the wrong way round" in beyond_metadata(wrong)
    surer = {**found, "auc": {**found["auc"], "low": 0.6}}
    assert "it knows more than the file's metadata" in beyond_metadata(surer)
    images = replace(test.images, formats=tuple("abcdefghi"))
    other = within_file_kinds(replace(test, images=images), Weighting(test.groups), 200)
    assert (other["auc"]["value"], other["pairs"]) == (None, 0)
    assert "cannot show whether" in beyond_metadata(other)
