"""The text that `train` and `evaluate` print at their end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tumorbatch.cli.summaries import patients_line, receipt_json, shown_path, visible_name
from tumorbatch.evaluation.choice import PLACES
from tumorbatch.evaluation.model_card import cost_of_ensemble
from tumorbatch.evaluation.protocols import PROTOCOLS
from tumorbatch.files import counted
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.weighting import headline

if TYPE_CHECKING:
    from tumorbatch.bundle import Bundle
    from tumorbatch.evaluation.config import Report as EvaluationReport
    from tumorbatch.train import training as train_stage
    from tumorbatch.workflows.ensemble import Report as EnsembleReport
    from tumorbatch.workflows.train_many import Outcome


def train_json(report: "train_stage.Report | EnsembleReport", out: Path) -> str:
    """Return the receipt of a training as one line of JSON, with the content of metrics.json."""
    return receipt_json(report, out, ("bundle", "fitted"), model_id=report.bundle.model_id)


def train_summary(report: "train_stage.Report | EnsembleReport", out: Path, tfrecords: Path) -> str:
    """Summarise validation and test metrics with intervals, speed, and the next commands."""
    if report.bundle.members:
        return ensemble_summary(cast("EnsembleReport", report), out, tfrecords)
    report = cast("train_stage.Report", report)
    lines = []
    if report.unchanged:
        lines.append(f"{shown_path(out)} is up to date: nothing to do.")
    lines += _splits(report.metrics)
    lines += _choices(report.bundle, report.metrics)
    if report.leaky:
        lines.append(PROTOCOLS["leaky"].warning)
    if report.fitted is not None:
        lines.append(f"{report.epochs} epochs in {report.seconds:.0f} s: {report.fitted.describe()}.")
    return "\n".join([*lines, *_next_commands(report.bundle, out, tfrecords)])


def ensemble_summary(report: "EnsembleReport", out: Path, tfrecords: Path) -> str:
    """Summarise an ensemble: metrics, networks, cost, and the next commands."""
    made = report.bundle
    lines = [f"{shown_path(out)} is up to date: nothing to do."] if report.unchanged else []
    lines += _splits(report.metrics, "out-of-fold" if made.out_of_fold_sha256 else "validation")
    lines += _choices(made, report.metrics)
    lines += _expected(made)
    if made.training.get("leaky"):
        lines.append(PROTOCOLS["leaky"].warning)
    names = ", ".join(visible_name(member.name) for member in made.members)
    lines.append(f"{counted(len(made.members), 'network')}: {names}.{cost_of_ensemble(made)}")
    return "\n".join([*lines, *_next_commands(made, out, tfrecords)])


def _next_commands(bundle: "Bundle", out: Path, tfrecords: Path) -> list[str]:
    usual = out.parent == Path("models")
    name, model = (out.name, "") if usual else (shown_path(out), f" --model {shown_path(out)}")
    shards = "" if tfrecords == Path("tfrecords") else f" {shown_path(tfrecords)}"
    return [
        f"Model {bundle.model_id} in {shown_path(out)}.",
        f"Next: compare with simple baselines: tumorbatch evaluate {name}{shards}",
        f"Next: tumorbatch infer FOLDER out.parquet{model}",
    ]


_COUNTED = "each group of copies counted once"


def _expected(bundle: "Bundle") -> list[str]:
    """Return what folds let expect at home and elsewhere, as lines."""
    expected = bundle.calibration.get("expected", {})
    return [
        f"Expect {words}: sensitivity {_estimate(expected[place]['sensitivity'])}, specificity "
        f"{_estimate(expected[place]['specificity'])}, AUC {_estimate(expected[place]['auc'])}."
        for place, words in PLACES.items()
        if place in expected
    ]


def _splits(metrics: dict[str, Any], validation: str = "validation") -> list[str]:
    """Return the metrics of validation and test side by side, each group of copies counted once."""
    metrics = {validation: metrics["validation"], "test": metrics["test"]}
    parts = {split: headline(values) for split, values in metrics.items()}
    heads = [f"{split}, n = {part['figures']['accuracy']['n']:,}" for split, part in parts.items()]
    lines = [f"{'':14}{heads[0]:24}  {heads[1]}"]
    for name in ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc"):
        cells = [_estimate(part["figures"][name]) for part in parts.values()]
        lines.append(f"{name:14}{cells[0]:24}  {cells[1]}")
    lines.append(f"n: groups; {_COUNTED}. In brackets: 95 % intervals over groups.")
    images = "; ".join(
        f"{split} {values['n']:,} ({values['healthy']:,} Healthy, {values['tumor']:,} Tumor), accuracy "
        f"{_over_groups(values['figures']['accuracy'])}"
        for split, values in metrics.items()
    )
    lines.append(f"Per image: {images}.")
    return lines


def _choices(bundle: "Bundle", metrics: dict[str, Any]) -> list[str]:
    """Return what the metrics depend on, and the accuracy at a threshold of 0.5, as lines."""
    lines = [f"Threshold {bundle.threshold:g}, temperature {bundle.temperature:g}."]
    if bundle.calibration:
        note = bundle.calibration["threshold"]["note"]
        lines = [f"Threshold {bundle.threshold:g}, temperature {bundle.temperature:g}. {note}"]
        accuracy = headline(metrics["test"])["at_0.5"]["figures"]["accuracy"]
        lines.append(
            f"At threshold 0.5 the test accuracy is {_estimate(accuracy)}, n = {accuracy['n']:,}."
        )
    return lines


def series_summary(outcomes: "list[Outcome]") -> str:
    """Summarise each training in one line: its metrics, or why it failed."""
    lines = [f"{'':20}{'groups':>6}  {'test accuracy (95 %)':24}  validation AUC (95 %)"]
    for outcome in outcomes:
        result = outcome.result
        if isinstance(result, Exception):
            lines.append(f"{outcome.name:20}  FAILED: {result}")
            continue
        validation, test = (
            headline(result.metrics[split])["figures"] for split in ("validation", "test")
        )
        accuracy, auc = _estimate(test["accuracy"]), _estimate(validation["auc"])
        lines.append(f"{outcome.name:20}{test['accuracy']['n']:>6}  {accuracy:24}  {auc}")
    lines.append(f"{_COUNTED.capitalize()}; intervals over groups.")
    return "\n".join(lines)


def evaluation_summary(report: "EvaluationReport", out: Path) -> str:
    """Summarise the test metrics with n and intervals, what was frozen, and where the report is."""
    model, test = report.metrics["model"], report.metrics["test"]
    protocol, part = PROTOCOLS[report.metrics["protocol"]], headline(test)
    lines = [
        f"{model['name']} on {test['n']:,} test images in {test['groups']:,} groups of copies, "
        f"protocol: {protocol.title}",
        f"{'':18}{'groups':>6}  {'at threshold ' + format(model['threshold'], 'g'):24}"
        f"{'at threshold 0.5':24}{'images':>6}  per image, at {model['threshold']:g}",
    ]
    for name in (
        "accuracy", "sensitivity", "specificity", "precision", "f1", "auc", "average_precision",
        "brier", "log_loss", "ece",
    ):  # fmt: skip
        chosen, plain = (_estimate(values["figures"][name]) for values in (part, part["at_0.5"]))
        image = test["figures"][name]
        lines.append(
            f"{name:18}{part['figures'][name]['n']:>6}  {chosen:24}{plain:24}{image['n']:>6}  "
            f"{_over_groups(image)}"
        )
    lines.append(f"In brackets: 95 % intervals over groups. To the left {_COUNTED}: quote these.")
    if protocol.leaky:
        lines.append(protocol.warning)
    if "overlap" in report.metrics:
        lines.append(_overlap(report.metrics["overlap"]))
    dataset = report.metrics["dataset"]
    if dataset["patients_known"]:
        lines.append(patients_line(dataset["patients_known"], dataset["patient_table"]))
    if report.metrics["verdict"]:
        lines.append(report.metrics["verdict"])
        lines.append(report.metrics["beyond_metadata"])
    lines += _frozen(model, report.before)
    lines.append(f"{report.seconds:.1f} s. Open {shown_path(out / 'report.html')}")
    return "\n".join(lines)


def _frozen(model: dict[str, Any], before: str) -> list[str]:
    """Say whether `infer` uses the threshold of the evaluation, and what that means for tables."""
    chosen = f"Threshold {model['threshold']:g} and temperature {model['temperature']:g} are"
    if not model["frozen"]:
        return [
            f"{chosen} NOT frozen: `infer` continues with the bundle's own (model {before}). --freeze "
            f"would make it model {model['model_id']}; `infer` does not continue tables of {before} "
            "with that."
        ]
    lines = [f"{chosen} frozen in the bundle; model {model['model_id']}."]
    if model["bundle_model_id"] != before:
        lines.append(
            f"The bundle was model {before} before: `infer` refuses to continue its tables, also with "
            "--incremental (exit code 2). docs/operations.md: how to change over."
        )
    return lines


def _overlap(overlap: dict[str, Any] | None) -> str:
    if overlap is None:
        return (
            "Neither the bundle nor a shard set (--trained-on) says what the model was trained on: "
            "these images may include copies of its training images."
        )
    return f"Left out, because the model knows a copy: {overlap['left_out']:,} images."


def _estimate(value: dict[str, Any]) -> str:
    return Estimate.from_dict(value).text()


def _over_groups(value: dict[str, Any]) -> str:
    return Estimate.from_dict(value).over_groups.text()
