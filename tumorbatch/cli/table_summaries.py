"""The text about a table of predictions, and about a bundle: `infer`, `verify`."""

import dataclasses
import json
from typing import TYPE_CHECKING

from tumorbatch.cli.summaries import (
    RECEIPT_NAMES,
    litter_line,
    no_image_line,
    rejected_files,
    shown_path,
)
from tumorbatch.files import counted
from tumorbatch.object_path import Location
from tumorbatch.status import Status

if TYPE_CHECKING:
    from tumorbatch.bundle_verify import Report as BundleReport
    from tumorbatch.infer.config import Report as InferReport
    from tumorbatch.infer.verify import Report as TableReport
    from tumorbatch.preprocess.part import Report as ShardPart


def infer_summary(report: "InferReport", out: Location) -> str:
    """Summarise files, labels, errors by reason, kept rows, speed and its bottleneck."""
    labels = ", ".join(f"{count:,} {name}" for name, count in report.labels.items())
    one_each = report.rows == report.files  # else the labels, which are of rows, are not of the files
    lines = [
        f"{report.files:,} files: {report.statuses.get(Status.OK, 0):,} predicted"
        f"{f' ({labels})' if one_each else ''}; errors: {rejected_files(report.statuses)}."
    ]
    lines += no_image_line(report.statuses)
    if not one_each:
        gone = ", also of files that no longer exist" if report.absent else ""
        lines.append(f"{report.rows:,} rows: one for each frame or page{gone}. Labels: {labels}.")
    lines += _not_computed(report)
    if report.unchanged:
        lines.append(f"Nothing new: {shown_path(out)} was not changed.")
        return "\n".join(lines)
    lines += _speed(report)
    lines.append(
        f"{shown_path(out)}: {report.rows:,} rows, {report.bytes:,} bytes, model {report.model_id}."
    )
    lines.append(f"Next: tumorbatch show {shown_path(out)}")
    return "\n".join(lines)


def part_summary(report: "InferReport | ShardPart", out: Location) -> str:
    """Summarise one part: its chunks, files, errors and speed, and what comes next."""
    from tumorbatch.infer.config import Report as InferReport

    lines = [
        f"Part {report.part}: {counted(report.chunks, 'chunk')}, {counted(report.files, 'file')}; "
        f"errors: {rejected_files(report.statuses)}."
    ]
    if report.chunks_kept:
        lines.append(f"Kept {counted(report.chunks_kept, 'chunk')} of an earlier task.")
    if isinstance(report, InferReport):
        lines += _speed(report)
    lines.append(
        f"Nothing is published yet: the command without --part writes {shown_path(out)} when all parts "
        "are done."
    )
    lines.append(f"Next: tumorbatch status {shown_path(out)}")
    return "\n".join(lines)


def _not_computed(report: "InferReport") -> list[str]:
    lines = []
    if report.files_kept:
        lines.append(f"Kept the rows of {counted(report.files_kept, 'unchanged file')}.")
    if report.absent:
        lines.append(f"Kept the rows of {counted(report.absent, 'file')} that no longer exist.")
    if report.young:
        lines.append(f"Left {counted(report.young, 'file')} to the next run: changed too recently.")
    if report.future:
        lines.append(f"Predicted {counted(report.future, 'file')} although the time is in the future.")
    if report.others:
        lines.append(f"Skipped {counted(report.others, 'file')} (not an image, or excluded).")
    return lines + litter_line(report.litter)


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


def infer_json(report: "InferReport", out: Location) -> str:
    """Return the receipt of `infer` as one line of JSON."""
    value = {RECEIPT_NAMES.get(name, name): one for name, one in dataclasses.asdict(report).items()}
    value["timings"] = {name: round(seconds, 3) for name, seconds in value["timings"].items()}
    value["seconds"] = round(report.seconds, 3)
    more = {"out": shown_path(out), "errors": report.errors, "bound": report.timings.bound()}
    return json.dumps({**value, **more}, ensure_ascii=False)


def table_summary(report: "TableReport", table: Location) -> str:
    """Summarise what was read of a predictions table, and whether it is intact."""
    files = counted(report.files, "file")
    read = f"{report.rows:,} rows in {files}, {report.bytes / 1e6:,.1f} MB"
    if report.problems:
        return f"{shown_path(table)} is damaged: {counted(len(report.problems), 'problem')} ({read})."
    return f"{shown_path(table)} is intact ({read})."


def bundle_summary(report: "BundleReport", folder: Location) -> str:
    """Summarise what was read of a model bundle, and whether it is intact."""
    read = f"{counted(report.files, 'file')}, {report.bytes / 1e6:,.1f} MB"
    if report.problems:
        return f"{shown_path(folder)} is damaged: {counted(len(report.problems), 'problem')} ({read})."
    return f"{shown_path(folder)} is intact: model {report.model_id} ({read})."
