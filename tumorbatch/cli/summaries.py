"""The text that the commands about images print at their end, and what all summaries share."""

import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorbatch.dataset_shape import GIVEN
from tumorbatch.files import counted, printable, visible
from tumorbatch.leaks import LEAKY, LEAKY_ORIENTATION, UPGRADE
from tumorbatch.object_path import Location
from tumorbatch.status import NO_ERRORS, Status

if TYPE_CHECKING:
    from tumorbatch.preprocess import equalize_folder as equalize_stage
    from tumorbatch.preprocess import shard as preprocess_stage
    from tumorbatch.preprocess import verify as verify_stage
    from tumorbatch.preprocess.explore import explore as explore_stage


# Attributes that a receipt in JSON calls otherwise: programs read these names.
RECEIPT_NAMES = {"files_kept": "kept"}


def receipt_json(report: Any, out: Location, left_out: Collection[str] = (), **more: object) -> str:
    """Return the receipt of a run as one line of JSON.

    Args:
        report: A dataclass.
        out: What was written or checked.
        left_out: Attributes of `report` that are not shown.
        more: Further values; they replace attributes of the same name.
    """
    names = [field.name for field in dataclasses.fields(report) if field.name not in left_out]
    shown = {RECEIPT_NAMES.get(name, name): getattr(report, name) for name in names}
    values = {"out": shown_path(out), **shown, **more}
    if "seconds" in values:
        values["seconds"] = round(values["seconds"], 3)
    return json.dumps(values, ensure_ascii=False)


def shard_json(report: "preprocess_stage.Report", out: Path) -> str:
    """Return the receipt of `shard` as one line of JSON; dataset.json tells the rest."""
    dataset = report.dataset
    return receipt_json(
        report, out, ("dataset", "largest", "near_conflicts"), files=dataset.files,
        errors=report.errors, counts=dataset.counts, subclasses=dataset.subclasses,
        shards=len(dataset.shards), changes=dict(report.changes), pooled=list(report.pooled),
    )  # fmt: skip


def explore_json(report: "explore_stage.Report", out: Path) -> str:
    """Return the receipt of `explore` as one line of JSON; explore.json tells the rest."""
    files = report.findings["files"]
    return receipt_json(report, out, ("findings",), files=files, errors=report.errors)


def shown_path(path: Location) -> str:
    """Return a path as text for the terminal."""
    return visible_name(
        printable(str(path))
    )  # a name that is not UTF-8 must not raise at the end of a run


def visible_name(name: str) -> str:
    """Return a name as text for the terminal: it cannot end the line, nor command anything."""
    return visible(name)


def rejected_files(statuses: dict[str, int]) -> str:
    """Format the counts of rejected files by reason: "1 empty, 2 truncated", or "none"."""
    not_bad = ("found", *NO_ERRORS)
    bad = {name: count for name, count in statuses.items() if name not in not_bad}
    return ", ".join(f"{count:,} {name}" for name, count in sorted(bad.items())) or "none"


def no_image_line(statuses: dict[str, int]) -> list[str]:
    """Return the line about DICOM objects that hold no image by design, or no line without any."""
    count = statuses.get(Status.NOT_AN_IMAGE, 0)
    objects = counted(count, "DICOM object")
    return [f"Skipped {objects} without an image (reports, DICOMDIR and the like)."] if count else []


def litter_line(litter: int) -> list[str]:
    """Return the line about files left by file managers, or no line without such files."""
    items = counted(litter, "item")
    return [f"Skipped {items} of file managers (Thumbs.db and the like)."] if litter else []


def shard_summary(report: "preprocess_stage.Report", out: Path) -> str:
    """Summarise files, splits and classes, copies, rejected files, speed, and the next command."""
    from tumorbatch import native  # OpenCV only where there are images

    dataset = report.dataset
    if report.unchanged:
        return f"{shown_path(out)} is up to date: nothing to do."
    lines = [
        f"Found {report.files_found:,} files, wrote {dataset.files[Status.OK]:,}; "
        f"rejected: {rejected_files(dataset.files)}.",
        *no_image_line(dataset.files),
        *litter_line(report.litter),
        f"{'':12}" + "".join(f"{name:>10}" for name in dataset.classes),
    ]
    for split, counts in dataset.counts.items():
        lines.append(f"{split:12}" + "".join(f"{counts[name]:>10,}" for name in dataset.classes))
    lines += _layout(report)
    lines += _groups(report)
    if dataset.leaky:
        shared = dataset.shared
        if dataset.split_by == GIVEN:
            test = sum(dataset.counts["test"].values())
            lines.append(
                f"{shared['test_images']:,} of {test:,} test images have a copy in the other splits."
            )
        lines.append(
            f"LEAKY: {shared['groups']:,} groups ({shared['sha256']:,} identical files) are in more "
            "than one split. Test metrics from this set are too good."
        )
    else:
        units = "file, image, group or shape" if dataset.split_by == "shape" else "file, image or group"
        lines.append(f"No {units} is in two splits (checked in the shards as written).")
    if report.changes:
        changes = ", ".join(f"{count:,} {kind}" for kind, count in report.changes.items())
        lines.append(f"Updated: {changes}. Kept files stayed in their splits.")
    if report.taken_over:
        lines.append(f"{report.taken_over:,} files were already decoded by an interrupted run.")
    lines.append(
        f"{report.seconds:.1f} s, {report.files_found / report.seconds:,.0f} images/s, "
        f"{report.bytes / 1e6:,.1f} MB in {len(dataset.shards)} shards in {shown_path(out)}. "
        f"Equalised and resized {native.choose().reason}."
    )
    target = "" if out == Path("tfrecords") else f" {shown_path(out)}"
    lines.append(f"Next: tumorbatch train --arch cnn1{target}")
    return "\n".join(lines)


def _layout(report: "preprocess_stage.Report") -> list[str]:
    """Return what the folders of the source meant: joined classes, and folders for splits."""
    lines = []
    totals = Counter[str]()
    for counts in report.dataset.subclasses.values():
        totals.update(counts)
    if totals:
        subclasses = ", ".join(
            f"{visible_name(name)} {count:,}" for name, count in sorted(totals.items())
        )
        lines.append(f"Subclasses (column subclass of the manifest): {subclasses}.")
    if report.dataset.split_by == GIVEN:
        lines.append("The splits are those of the source's folders (--splits given).")
    if report.pooled:
        folders = " and ".join(map(visible_name, report.pooled))
        lines.append(f"{folders} were pooled and split anew; --splits given keeps them.")
    return lines


def patients_line(known: int, table: Mapping[str, int]) -> str:
    """Say how many patients are known, and what their table does not cover.

    Args:
        known: Number of patients.
        table: As in dataset.json; {} without a table.
    """
    line = f"Known patients: {known:,}; the files of each are one group."
    if any(table.values()):
        line += (
            f" NOT COVERED by the table: {table['files_without_patient']:,} files without a patient, "
            f"{table['paths_without_file']:,} paths without a file."
        )
    return line


def _groups(report: "preprocess_stage.Report") -> list[str]:
    groups = report.dataset.groups
    lines = [
        f"Copies: {groups['byte_identical']:,} files are byte-identical to another file, "
        f"{groups['pixel_identical']:,} pixel-identical, {groups['near_duplicate']:,} identical or "
        f"nearly identical; {groups['groups']:,} groups."
    ]
    if groups["patients"]:
        lines.append(patients_line(groups["patients"], report.dataset.patient_table))
    if report.largest:
        largest = "; ".join(f"{size} copies of {visible_name(path)}" for size, path in report.largest)
        lines.append(f"Largest groups: {largest}.")
    if report.near_conflicts:
        lines.append(
            f"{len(report.near_conflicts)} groups of near copies contain both classes; check "
            + "; ".join(" and ".join(map(visible_name, pair)) for pair in report.near_conflicts[:3])
            + "."
        )
    return lines


_LEAKS: dict[str | None, tuple[str, ...]] = {
    LEAKY: ("LEAKY: copies lie in more than one split; test metrics from this set are too good.",),
    LEAKY_ORIENTATION: (UPGRADE,),
}


def verify_summary(report: "verify_stage.Report", folder: Location) -> str:
    """Summarise what was read, and whether it is intact."""
    read = (
        f"{report.records:,} records in {report.shards} shards, {report.bytes / 1e6:,.1f} MB, "
        f"{report.seconds:.1f} s"
    )
    if report.problems:
        files = len({problem.file for problem in report.problems})
        return (
            f"{shown_path(folder)} is damaged: {counted(len(report.problems), 'problem')} in "
            f"{counted(files, 'file')} ({read})."
        )
    intact = f"{shown_path(folder)} is intact ({read})."
    return "\n".join([intact, *_LEAKS.get(report.leak, ())])


def equalize_summary(report: "equalize_stage.Report", out: Path) -> str:
    """Summarise files written, kept and rejected, and the speed."""
    if report.unchanged:
        return f"{shown_path(out)} is up to date: nothing to do."
    return "\n".join(
        [
            f"Found {report.files['found']:,} files, wrote {report.written:,} PNG files, kept "
            f"{report.files_kept:,}; rejected: {rejected_files(report.files)}.",
            *litter_line(report.litter),
            f"{report.seconds:.1f} s, {report.files['found'] / report.seconds:,.0f} images/s, "
            f"{report.bytes / 1e6:,.1f} MB in {shown_path(out)}.",
        ]
    )


def explore_summary(report: "explore_stage.Report", out: Path) -> str:
    """Summarise classes, rejected files, copies, what the files reveal, and where the page is."""
    findings = report.findings
    classes = ", ".join(f"{count:,} {name}" for name, count in findings["classes"].items())
    copies = findings["duplicates"]["images_with_a_copy"]
    lines = [
        f"Found {report.files_found:,} files: {classes}; "
        f"rejected: {rejected_files(findings['files'])}.",
        *litter_line(report.litter),
        f"{copies:,} images have an identical or nearly identical copy in the set; "
        f"{findings['images']['sizes']:,} sizes.",
    ]
    lines += _metadata(findings["metadata"])
    lines.append(f"{report.seconds:.1f} s, {report.files_found / report.seconds:,.0f} files/s.")
    lines.append(
        f"Open {shown_path(out / 'explore.html')}; every number is in explore.json next to it."
    )
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
