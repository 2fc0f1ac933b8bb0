"""The text that each command prints at its end."""

import dataclasses
import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch.errors import InputError
from tumorbatch.files import counted, printable, visible
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.status import Status

if TYPE_CHECKING:
    from tumorbatch.bundle import Bundle
    from tumorbatch.evaluation.config import Report as EvaluationReport
    from tumorbatch.infer.config import Report as InferReport
    from tumorbatch.infer.verify import Report as TableReport
    from tumorbatch.preprocess import equalize_folder as equalize_stage
    from tumorbatch.preprocess import shard as preprocess_stage
    from tumorbatch.preprocess import verify as verify_stage
    from tumorbatch.preprocess.explore import explore as explore_stage
    from tumorbatch.train import training as train_stage
    from tumorbatch.workflows.train_many import Outcome


def _name(path: Path) -> str:
    return printable(str(path))  # a name that is not UTF-8 must not raise at the end of a run


def _rejected(statuses: dict[str, int]) -> str:
    bad = {name: count for name, count in statuses.items() if name not in ("found", Status.OK)}
    return ", ".join(f"{count:,} {name}" for name, count in sorted(bad.items())) or "none"


def _litter(litter: int) -> list[str]:
    """Return the line about files that nobody wants, or no line without such files."""
    what = counted(litter, "item")
    return [f"Skipped {what} of file managers (Thumbs.db and the like)."] if litter else []


def shard_report(report: "preprocess_stage.Report", out: Path) -> str:
    """Summarise files, splits and classes, copies, rejected files, speed, and the next command."""
    from tumorbatch import native  # OpenCV only where there are images

    dataset = report.dataset
    if report.unchanged:
        return f"{_name(out)} is up to date: nothing to do."
    lines = [
        f"Found {report.found:,} files, wrote {report.found - report.errors:,}; "
        f"rejected: {_rejected(dataset.files)}.",
        *_litter(report.litter),
        f"{'':12}" + "".join(f"{name:>10}" for name in dataset.classes),
    ]
    for split, counts in dataset.counts.items():
        lines.append(f"{split:12}" + "".join(f"{counts[name]:>10,}" for name in dataset.classes))
    lines += _groups(report)
    if dataset.leaky:
        shared = dataset.shared
        lines.append(
            f"LEAKY: {shared['groups']:,} groups ({shared['sha256']:,} identical files) are in more "
            "than one split. Test metrics from this set are too good."
        )
    else:
        what = "file, image, group or shape" if dataset.split_by == "shape" else "file, image or group"
        lines.append(f"No {what} is in two splits (checked in the shards as written).")
    if report.changes:
        changes = ", ".join(f"{count:,} {what}" for what, count in report.changes.items())
        lines.append(f"Updated: {changes}. Kept files stayed in their splits.")
    if report.taken_over:
        lines.append(f"{report.taken_over:,} files were already decoded by an interrupted run.")
    lines.append(
        f"{report.seconds:.1f} s, {report.found / report.seconds:,.0f} images/s, "
        f"{report.bytes / 1e6:,.1f} MB in {len(dataset.shards)} shards in {_name(out)}. "
        f"Equalised and resized {native.choose().reason}."
    )
    target = "" if out == Path("tfrecords") else f" {_name(out)}"
    lines.append(f"Next: tumorbatch train --arch cnn1{target}")
    return "\n".join(lines)


def _groups(report: "preprocess_stage.Report") -> list[str]:
    groups = report.dataset.groups
    lines = [
        f"Copies: {groups['byte_identical']:,} files are byte-identical to another file, "
        f"{groups['pixel_identical']:,} pixel-identical, {groups['near_duplicate']:,} identical or "
        f"nearly identical; {groups['groups']:,} groups."
    ]
    if groups["patients"]:
        line = f"Known patients: {groups['patients']:,}; the files of each are one group."
        table = report.dataset.patient_table
        if any(table.values()):
            line += (
                f" NOT COVERED by the table: {table['files_without_patient']:,} files without a "
                f"patient, {table['paths_without_file']:,} paths without a file."
            )
        lines.append(line)
    if report.largest:
        largest = "; ".join(f"{size} copies of {path}" for size, path in report.largest)
        lines.append(f"Largest groups: {largest}.")
    if report.near_conflicts:
        lines.append(
            f"{len(report.near_conflicts)} groups of near copies contain both classes; check "
            + "; ".join(" and ".join(pair) for pair in report.near_conflicts[:3])
            + "."
        )
    return lines


def verify_report(report: "verify_stage.Report", folder: Path) -> str:
    """Summarise what was read, and whether it is intact."""
    read = (
        f"{report.records:,} records in {report.shards} shards, {report.bytes / 1e6:,.1f} MB, "
        f"{report.seconds:.1f} s"
    )
    if report.problems:
        files = len({problem.file for problem in report.problems})
        return (
            f"{_name(folder)} is damaged: {counted(len(report.problems), 'problem')} in "
            f"{counted(files, 'file')} ({read})."
        )
    return f"{_name(folder)} is intact ({read})."


def equalize_report(report: "equalize_stage.Report", out: Path) -> str:
    """Summarise files written, kept and rejected, and the speed."""
    if report.unchanged:
        return f"{_name(out)} is up to date: nothing to do."
    return "\n".join(
        [
            f"Found {report.files['found']:,} files, wrote {report.written:,} PNG files, kept "
            f"{report.kept:,}; rejected: {_rejected(report.files)}.",
            *_litter(report.litter),
            f"{report.seconds:.1f} s, {report.files['found'] / report.seconds:,.0f} images/s, "
            f"{report.bytes / 1e6:,.1f} MB in {_name(out)}.",
        ]
    )


def explore_report(report: "explore_stage.Report", out: Path) -> str:
    """Summarise classes, rejected files, copies, what the files reveal, and where the page is."""
    findings = report.findings
    classes = ", ".join(f"{count:,} {name}" for name, count in findings["classes"].items())
    copies = findings["duplicates"]["images_with_a_copy"]
    lines = [
        f"Found {report.found:,} files: {classes}; rejected: {_rejected(findings['files'])}.",
        *_litter(report.litter),
        f"{copies:,} images have an identical or nearly identical copy in the set; "
        f"{findings['images']['sizes']:,} sizes.",
    ]
    lines += _metadata(findings["metadata"])
    lines.append(f"{report.seconds:.1f} s, {report.found / report.seconds:,.0f} files/s.")
    lines.append(f"Open {_name(out / 'explore.html')}; every number is in explore.json beside it.")
    return "\n".join(lines)


def _metadata(metadata: dict[str, Any]) -> list[str]:
    if metadata["grouped"] is None:
        return []
    from tumorbatch.preprocess.explore.metadata import interval_to_tell

    low, high = interval_to_tell(metadata["grouped"])
    interval = f" (95 % interval {low:.1%} to {high:.1%}, n = {metadata['n']:,})"
    return [
        f"Height, width and format alone predict the class of {metadata['grouped']['accuracy']:.1%} of "
        f"the images{interval}; always the more frequent class: {metadata['majority']['accuracy']:.1%}."
    ]


def train_report(report: "train_stage.Report", out: Path, tfrecords: Path) -> str:
    """Summarise validation and test metrics with intervals, speed, and the next commands."""
    lines = []
    if report.unchanged:
        lines.append(f"{_name(out)} is up to date: nothing to do.")
    lines += _splits(report.metrics)
    lines += _choices(report.bundle, report.metrics)
    if report.leaky:
        lines.append(
            "LEAKY: the network was trained on copies of test images; these metrics are too good."
        )
    if report.fitted is not None:
        lines.append(f"{report.epochs} epochs in {report.seconds:.0f} s: {report.fitted.describe()}.")
    lines.append(f"Model {report.bundle.model_id} in {_name(out)}.")
    usual = out.parent == Path("models")
    name, model = (out.name, "") if usual else (_name(out), f" --model {_name(out)}")
    shards = "" if tfrecords == Path("tfrecords") else f" {_name(tfrecords)}"
    lines.append(f"Next: compare with simple baselines: tumorbatch evaluate {name}{shards}")
    lines.append(f"Next: tumorbatch infer FOLDER out.parquet{model}")
    return "\n".join(lines)


def _splits(metrics: dict[str, Any]) -> list[str]:
    """Return the metrics of validation and test side by side, as lines."""
    heads = [f"{split}, n = {values['n']:,}" for split, values in metrics.items()]
    lines = [f"{'':14}{heads[0]:24}  {heads[1]}"]
    for name in ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc"):
        cells = [_figure(values["figures"][name]) for values in metrics.values()]
        lines.append(f"{name:14}{cells[0]:24}  {cells[1]}")
    of_each = "; ".join(
        f"{split} {values['healthy']:,} and {values['tumor']:,}" for split, values in metrics.items()
    )
    lines.append(f"In brackets: 95 % intervals. Healthy and Tumor images: {of_each}.")
    return lines


def _choices(bundle: "Bundle", metrics: dict[str, Any]) -> list[str]:
    """Return what the metrics depend on, and the accuracy at a threshold of 0.5, as lines."""
    lines = [f"Threshold {bundle.threshold:g}, temperature {bundle.temperature:g}."]
    if bundle.calibration:
        note = bundle.calibration["threshold"]["note"]
        lines = [f"Threshold {bundle.threshold:g}, temperature {bundle.temperature:g}. {note}"]
        at = metrics["test"]["at_0.5"]["figures"]["accuracy"]
        lines.append(
            f"At threshold 0.5 the test accuracy is {at['value']:.3f} "
            f"({at['low']:.3f} to {at['high']:.3f}, n = {at['n']})."
        )
    return lines


def series_report(outcomes: "list[Outcome]") -> str:
    """Summarise each training in one line: its metrics, or why it failed."""
    lines = [f"{'':20}{'n':>6}  {'test accuracy (95 %)':24}  validation AUC (95 %)"]
    for outcome in outcomes:
        result = outcome.result
        if isinstance(result, Exception):
            lines.append(f"{outcome.name:20}  FAILED: {result}")
            continue
        validation, test = (result.metrics[split] for split in ("validation", "test"))
        accuracy, auc = _figure(test["figures"]["accuracy"]), _figure(validation["figures"]["auc"])
        lines.append(f"{outcome.name:20}{test['n']:>6}  {accuracy:24}  {auc}")
    return "\n".join(lines)


_PROTOCOLS = {
    "leaky": "LEAKY, the model was trained on copies of test images",
    "group": "grouped, the model was not trained on copies of test images",
    "shape": "held-out shapes, the model was not trained on any image size of the test split",
    "external": "external set",
}


def evaluation_report(report: "EvaluationReport", out: Path) -> str:
    """Summarise the test metrics with n and intervals, what was frozen, and where the report is."""
    model, test = report.metrics["model"], report.metrics["test"]
    leaky = report.metrics["protocol"] == "leaky"
    lines = [
        f"{model['name']} on {test['n']:,} test images in {test['groups']:,} groups of copies, "
        f"protocol: {_PROTOCOLS[report.metrics['protocol']]}",
        f"{'':18}{'n':>6}  {'at threshold ' + format(model['threshold'], 'g'):24}{'n':>6}  "
        "at threshold 0.5",
    ]
    for name in (
        "accuracy", "sensitivity", "specificity", "precision", "f1", "auc", "average_precision",
        "brier", "log_loss", "ece",
    ):  # fmt: skip
        chosen, plain = (_figure(values["figures"][name]) for values in (test, test["at_0.5"]))
        n, plain_n = (values["figures"][name]["n"] for values in (test, test["at_0.5"]))
        lines.append(f"{name:18}{n:>6}  {chosen:24}{plain_n:>6}  {plain}")
    lines.append("In brackets: 95 % intervals.")
    if leaky:
        lines.append("LEAKY: these metrics are too good; expect less on new images.")
    if "overlap" in report.metrics:
        lines.append(_overlap(report.metrics["overlap"]))
    if report.metrics["verdict"]:
        lines.append(report.metrics["verdict"])
        lines.append(report.metrics["beyond_metadata"])
    how = "frozen in the bundle" if model["frozen"] else "NOT frozen; `infer` does not use them"
    lines.append(
        f"Threshold {model['threshold']:g} and temperature {model['temperature']:g} are {how}; "
        f"model {model['model_id']}."
    )
    lines.append(f"{report.seconds:.1f} s. Open {_name(out / 'report.html')}")
    return "\n".join(lines)


def _overlap(overlap: dict[str, Any] | None) -> str:
    if overlap is None:
        return (
            "The model's own shard set was not given (--trained-on): these images may include "
            "copies of its training images."
        )
    return f"Left out, because the model knows a copy: {overlap['left_out']:,} images."


def _figure(value: dict[str, Any]) -> str:
    return Estimate.from_dict(value).text()


def infer_report(report: "InferReport", out: Path) -> str:
    """Summarise files, labels, errors by reason, kept rows, speed and its bottleneck."""
    labels = ", ".join(f"{count:,} {name}" for name, count in report.labels.items())
    lines = [
        f"{report.files:,} files: {report.files - report.errors:,} predicted ({labels}); "
        f"errors: {_rejected(report.statuses)}."
    ]
    if report.rows != report.files:
        lines.append(f"{report.rows:,} rows: one for each frame or page.")
    lines += _not_computed(report)
    if report.unchanged:
        lines.append(f"Nothing new: {_name(out)} was not changed.")
        return "\n".join(lines)
    lines += _speed(report)
    lines.append(
        f"{_name(out)}: {report.rows:,} rows, {report.bytes:,} bytes, model {report.model_id}."
    )
    lines.append(f"Next: tumorbatch show {_name(out)}")
    return "\n".join(lines)


def _not_computed(report: "InferReport") -> list[str]:
    lines = []
    if report.kept:
        lines.append(f"Kept the rows of {counted(report.kept, 'unchanged file')}.")
    if report.absent:
        lines.append(f"Kept the rows of {counted(report.absent, 'file')} that no longer exist.")
    if report.young:
        lines.append(f"Left {counted(report.young, 'file')} to the next run: changed too recently.")
    if report.future:
        lines.append(f"Predicted {counted(report.future, 'file')} although the time is in the future.")
    if report.others:
        lines.append(f"Skipped {counted(report.others, 'file')} (not an image, or excluded).")
    return lines + _litter(report.litter)


_JUDGED_FROM = 3.0  # seconds of work; in shorter runs, starting the workers takes most of the time


def _speed(report: "InferReport") -> list[str]:
    times = report.timings
    if not report.computed or not times.processing:
        return []
    working = max(1e-9, times.processing - times.loading)
    bound = {
        "decoding": "decoding is the bottleneck (more --workers or cores would help)",
        "model": "the model is the bottleneck (a GPU or a smaller network would help)",
        "neither": "both share the cores",
    }[times.bound()]
    return [
        f"{times.processing:.1f} s, {report.computed / times.processing:,.0f} images/s "
        f"({report.seconds:.1f} s in total, {times.loading:.1f} s of it to load TensorFlow).",
        f"Decoding {times.decoding:.1f} s of worker time; model {times.model:.1f} s "
        f"({times.model / working:.0%} of the time), waiting for images {times.waiting / working:.0%}"
        + (f": {bound}." if working > _JUDGED_FROM else "."),
    ]


def infer_json(report: "InferReport", out: Path) -> str:
    """Return the receipt of `infer` as one line of JSON."""
    value = dataclasses.asdict(report)
    value["timings"] = {name: round(seconds, 3) for name, seconds in value["timings"].items()}
    value["seconds"] = round(report.seconds, 3)
    more = {"out": _name(out), "errors": report.errors, "bound": report.timings.bound()}
    return json.dumps({**value, **more}, ensure_ascii=False)


def table_report(report: "TableReport", table: Path) -> str:
    """Summarise what was read of a predictions table, and whether it is intact."""
    read = f"{report.rows:,} rows in {report.files} files, {report.bytes / 1e6:,.1f} MB"
    if report.problems:
        return f"{_name(table)} is damaged: {counted(len(report.problems), 'problem')} ({read})."
    return f"{_name(table)} is intact ({read})."


def predictions_table(file: Path, rows: int, errors: bool) -> None:
    """Print a predictions file's metadata and first rows to standard output.

    Raises:
        InputError: There is no readable predictions file.
    """
    from rich.table import Table

    from tumorbatch.cli.console import output
    from tumorbatch.infer.predictions import iterate_rows, read_metadata

    metadata = read_metadata(file)
    if "model_id" not in metadata:
        raise InputError(f"{_name(file)} is not a predictions file of tumorbatch.")
    console = output(120)
    for name in ("model_id", "threshold", "statuses", "labels", "finished"):
        console.print(f"{name}: {metadata[name]}", markup=False, highlight=False)
    table = Table("path", "frame", "status", "label", "prob_tumor", "size", "format", "flags", "error")
    selected = (row for row in iterate_rows(file) if not errors or row["status"] != Status.OK)
    for row in islice(selected, rows):
        table.add_row(*_cells(row))
    console.print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    from rich.markup import escape

    probability, width = row["prob_tumor"], row["width"]
    cells = [
        row["path"],
        str(row.get("frame", "")),
        row["status"],
        row["label"],
        None if probability is None else f"{probability:.4f}",
        None if width is None else f"{width}x{row['height']}",
        row["format"],
        row["flags"],
        row["error"],
    ]
    return [escape(visible(cell or "")) for cell in cells]
