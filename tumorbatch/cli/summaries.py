"""What the commands print when they are done."""

import dataclasses
import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch.errors import InputError
from tumorbatch.files import printable, visible
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
    return printable(str(path))  # a name that is not UTF-8 must not end a finished run in a traceback


def _rejected(statuses: dict[str, int]) -> str:
    bad = {name: count for name, count in statuses.items() if name not in ("found", Status.OK)}
    return ", ".join(f"{count:,} {name}" for name, count in sorted(bad.items())) or "none"


def _passed_over(litter: int) -> list[str]:
    """Return the line about files that are nobody's; none where there are none."""
    what = "files and folders that file managers have left (Thumbs.db and the like)"
    return [f"Passed over: {litter:,} {what}."] if litter else []


def shard_report(report: "preprocess_stage.Report", out: Path) -> str:
    """Found, written per split and class, duplicates, rejected by reason, speed, next command."""
    from tumorbatch import native  # OpenCV only where there are images

    dataset = report.dataset
    if report.unchanged:
        return f"{_name(out)} already holds exactly this: nothing to do."
    lines = [
        f"Found {report.found:,} files, wrote {report.found - report.errors:,}; "
        f"rejected: {_rejected(dataset.files)}.",
        *_passed_over(report.litter),
        f"{'':12}" + "".join(f"{name:>10}" for name in dataset.classes),
    ]
    for split, counts in dataset.counts.items():
        lines.append(f"{split:12}" + "".join(f"{counts[name]:>10,}" for name in dataset.classes))
    lines += _groups(report)
    if dataset.leaky:
        shared = dataset.shared
        lines.append(
            f"LEAKY: {shared['groups']:,} groups ({shared['sha256']:,} identical files) lie in more "
            "than one split. Test figures from this set are too good."
        )
    else:
        what = "file, image, group or shape" if dataset.split_by == "shape" else "file, image or group"
        lines.append(f"No {what} lies in two splits (checked in what was written).")
    if report.changes:
        told = ", ".join(f"{count:,} {what}" for what, count in report.changes.items())
        lines.append(f"Brought up to date: {told}. What was kept stayed in its split.")
    if report.taken_over:
        lines.append(f"{report.taken_over:,} files were taken over from an interrupted run.")
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
        f"Duplicates: {groups['byte_identical']:,} files are byte-identical to another, "
        f"{groups['pixel_identical']:,} pixel-identical, {groups['near_duplicate']:,} at least "
        f"nearly; {groups['groups']:,} groups."
    ]
    if groups["patients"]:
        told = f"Patients known: {groups['patients']:,}; each is one group."
        table = report.dataset.patient_table
        if any(table.values()):
            told += (
                f" NOT COVERED by the table: {table['files_without_patient']:,} files without a "
                f"patient, {table['paths_without_file']:,} paths without a file."
            )
        lines.append(told)
    if report.largest:
        largest = "; ".join(f"{size} like {path}" for size, path in report.largest)
        lines.append(f"Largest groups: {largest}.")
    if report.near_conflicts:
        lines.append(
            f"{len(report.near_conflicts)} groups of near duplicates hold both classes; look at "
            + "; ".join(" and ".join(pair) for pair in report.near_conflicts[:3])
            + "."
        )
    return lines


def verify_report(report: "verify_stage.Report", folder: Path) -> str:
    """What was read, and whether it is sound."""
    read = (
        f"{report.records:,} records in {report.shards} shards, {report.bytes / 1e6:,.1f} MB, "
        f"{report.seconds:.1f} s"
    )
    if report.problems:
        files = len({problem.file for problem in report.problems})
        return f"{_name(folder)} is damaged: {len(report.problems)} problems in {files} files ({read})."
    return f"{_name(folder)} is sound: all as `shard` wrote it ({read})."


def equalize_report(report: "equalize_stage.Report", out: Path) -> str:
    """Made, kept, rejected by reason, speed."""
    if report.unchanged:
        return f"{_name(out)} already holds exactly this: nothing to do."
    return "\n".join(
        [
            f"Found {report.files['found']:,} files, made {report.written:,} PNG files, kept "
            f"{report.kept:,}; rejected: {_rejected(report.files)}.",
            *_passed_over(report.litter),
            f"{report.seconds:.1f} s, {report.files['found'] / report.seconds:,.0f} images/s, "
            f"{report.bytes / 1e6:,.1f} MB in {_name(out)}.",
        ]
    )


def explore_report(report: "explore_stage.Report", out: Path) -> str:
    """Images per class, rejected by reason, copies, what the files give away, and where the page is."""
    found = report.findings
    classes = ", ".join(f"{count:,} {name}" for name, count in found["classes"].items())
    copies = found["duplicates"]["images_with_a_copy"]
    lines = [
        f"Found {report.found:,} files: {classes}; rejected: {_rejected(found['files'])}.",
        *_passed_over(report.litter),
        f"{copies:,} images are at least nearly a copy of another; {found['images']['sizes']:,} sizes.",
    ]
    lines += _metadata(found["metadata"])
    lines.append(f"{report.seconds:.1f} s, {report.found / report.seconds:,.0f} files/s.")
    lines.append(f"Open {_name(out / 'explore.html')}; every number is in explore.json beside it.")
    return "\n".join(lines)


def _metadata(of: dict[str, Any]) -> list[str]:
    if of["grouped"] is None:
        return []
    from tumorbatch.preprocess.explore.metadata import interval_to_tell

    low, high = interval_to_tell(of["grouped"])
    interval = f" (95 % interval {low:.1%} to {high:.1%}, n = {of['n']:,})"
    return [
        f"Height, width and format alone tell the class of {of['grouped']['accuracy']:.1%} of the "
        f"images{interval}; the more frequent class is {of['majority']['accuracy']:.1%}."
    ]


def train_report(report: "train_stage.Report", out: Path, tfrecords: Path) -> str:
    """Figures on validation and test with intervals, speed, and the next commands."""
    lines = []
    if report.unchanged:
        lines.append(f"{_name(out)} already holds exactly this training: nothing to do.")
    lines += _splits(report.metrics)
    lines += _choices(report.bundle, report.metrics)
    if report.leaky:
        lines.append(
            "LEAKY: copies of test images were trained on; these figures are too good to be true."
        )
    if report.fitted is not None:
        lines.append(f"{report.epochs} epochs in {report.seconds:.0f} s: {report.fitted.describe()}.")
    lines.append(f"Model {report.bundle.model_id} in {_name(out)}.")
    usual = out.parent == Path("models")
    name, model = (out.name, "") if usual else (_name(out), f" --model {_name(out)}")
    shards = "" if tfrecords == Path("tfrecords") else f" {_name(tfrecords)}"
    lines.append(f"Do simple baselines reach as much? tumorbatch evaluate {name}{shards}")
    lines.append(f"Next: tumorbatch infer FOLDER out.parquet{model}")
    return "\n".join(lines)


def _splits(metrics: dict[str, Any]) -> list[str]:
    """The figures of validation and test side by side."""
    heads = [f"{split}, n = {of['n']:,}" for split, of in metrics.items()]
    lines = [f"{'':14}{heads[0]:24}  {heads[1]}"]
    for name in ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc"):
        told = [_figure(of["figures"][name]) for of in metrics.values()]
        lines.append(f"{name:14}{told[0]:24}  {told[1]}")
    of_each = "; ".join(
        f"{split} {of['healthy']:,} and {of['tumor']:,}" for split, of in metrics.items()
    )
    lines.append(f"In brackets: 95 % intervals. Healthy and Tumor: {of_each}.")
    return lines


def _choices(bundle: "Bundle", metrics: dict[str, Any]) -> list[str]:
    """What the figures hang on, and what they would be at a threshold of 0.5."""
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
    """A line for each training: its figures, or why it failed."""
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
    "leaky": "LEAKY, copies of test images were trained on",
    "group": "grouped, copies of test images were not trained on",
    "shape": "held-out shapes, no image size of the test split was trained on",
    "external": "external set",
}


def evaluation_report(report: "EvaluationReport", out: Path) -> str:
    """The test split's figures with n and intervals, where the report lies, and what was frozen."""
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
        chosen, plain = (_figure(of["figures"][name]) for of in (test, test["at_0.5"]))
        n, plain_n = (of["figures"][name]["n"] for of in (test, test["at_0.5"]))
        lines.append(f"{name:18}{n:>6}  {chosen:24}{plain_n:>6}  {plain}")
    lines.append("In brackets: 95 % intervals.")
    if leaky:
        lines.append("LEAKY: these figures are too good to be true for new images.")
    if "overlap" in report.metrics:
        lines.append(_overlap(report.metrics["overlap"]))
    if report.metrics["verdict"]:
        lines.append(report.metrics["verdict"])
        lines.append(report.metrics["beyond_metadata"])
    how = "frozen in the bundle" if model["frozen"] else "NOT frozen: `infer` does not use them"
    lines.append(
        f"Threshold {model['threshold']:g} and temperature {model['temperature']:g} are {how}; "
        f"model {model['model_id']}."
    )
    lines.append(f"{report.seconds:.1f} s. Look at it: {_name(out / 'report.html')}")
    return "\n".join(lines)


def _overlap(overlap: dict[str, Any] | None) -> str:
    if overlap is None:
        return (
            "The model's own shard set was not at hand (--trained-on): copies of what it was trained "
            "on may be among these images."
        )
    return f"Left out, as the model was trained or tuned on a copy: {overlap['left_out']:,} images."


def _figure(value: dict[str, Any]) -> str:
    return Estimate.from_dict(value).text()


def infer_report(report: "InferReport", out: Path) -> str:
    """Files, labels, errors by reason, what was kept, speed and what bounds it."""
    labels = ", ".join(f"{count:,} {name}" for name, count in report.labels.items())
    lines = [
        f"{report.files:,} files: {report.files - report.errors:,} predicted ({labels}); "
        f"errors: {_rejected(report.statuses)}."
    ]
    if report.rows != report.files:
        lines.append(f"{report.rows:,} rows: one for each frame or page.")
    told = {
        "kept from before": report.kept,
        "with rows, but not there any more": report.absent,
        "too young, left for the next run": report.young,
        "with a time in the future, predicted": report.future,
        "no images or not selected, left out": report.others,
        "left by file managers, passed over": report.litter,
    }
    if any(told.values()):
        parts = (f"{count:,} {what}" for what, count in told.items() if count)
        lines.append(f"Files: {'; '.join(parts)}.")
    if report.unchanged:
        lines.append(f"Nothing new: {_name(out)} was left as it is.")
        return "\n".join(lines)
    lines += _speed(report)
    lines.append(
        f"{_name(out)}: {report.rows:,} rows, {report.bytes:,} bytes, model {report.model_id}."
    )
    lines.append(f"Look at it: tumorbatch show {_name(out)}")
    return "\n".join(lines)


_JUDGED_FROM = 3.0  # seconds of work; before that, starting the workers is most of it


def _speed(report: "InferReport") -> list[str]:
    times = report.timings
    if not report.computed or not times.processing:
        return []
    working = max(1e-9, times.processing - times.loading)
    bound = {
        "decoding": "the bound is decoding (more --workers or cores would help)",
        "model": "the bound is the model (a GPU or a smaller network would help)",
        "neither": "both share the cores",
    }[times.bound()]
    return [
        f"{times.processing:.1f} s, {report.computed / times.processing:,.0f} images/s "
        f"({report.seconds:.1f} s in all; {times.loading:.1f} s of it TensorFlow's start).",
        f"Decoding {times.decoding:.1f} s of worker time; model {times.model:.1f} s "
        f"({times.model / working:.0%} of the time), waiting for images {times.waiting / working:.0%}"
        + (f": {bound}." if working > _JUDGED_FROM else "."),
    ]


def infer_json(report: "InferReport", out: Path) -> str:
    """The receipt of `infer` as one line of JSON."""
    value = dataclasses.asdict(report)
    value["timings"] = {name: round(of, 3) for name, of in value["timings"].items()}
    value["seconds"] = round(report.seconds, 3)
    more = {"out": _name(out), "errors": report.errors, "bound": report.timings.bound()}
    return json.dumps({**value, **more}, ensure_ascii=False)


def table_report(report: "TableReport", table: Path) -> str:
    """What was read of a predictions table, and whether it is sound."""
    read = f"{report.rows:,} rows in {report.files} files, {report.bytes / 1e6:,.1f} MB"
    if report.problems:
        return f"{_name(table)} is damaged: {len(report.problems)} problems ({read})."
    return f"{_name(table)} is sound: all as `infer` wrote it ({read})."


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
        raise InputError(f"{_name(file)} is no predictions file of tumorbatch.")
    console = output(120)
    for name in ("model_id", "threshold", "statuses", "labels", "finished"):
        console.print(f"{name}: {metadata[name]}", markup=False, highlight=False)
    table = Table("path", "frame", "status", "label", "prob_tumor", "size", "format", "flags", "error")
    found = (row for row in iterate_rows(file) if not errors or row["status"] != Status.OK)
    for row in islice(found, rows):
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
