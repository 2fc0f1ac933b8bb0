"""Build report.html of an evaluation, for a reviewer who asks whether the accuracy is real."""

from collections.abc import Mapping, Sequence
from typing import Any

from tumorbatch.evaluation import figures as draw_one
from tumorbatch.evaluation.answers import Answers
from tumorbatch.evaluation.error_gallery import GalleryPicture, add_errors
from tumorbatch.evaluation.label_suspects import add_suspects
from tumorbatch.evaluation.model_card import LIMITS
from tumorbatch.evaluation.page_probabilities import (
    ERRORS,
    Rows,
    add_calibration,
    add_choices,
    add_predictive_values,
)
from tumorbatch.evaluation.protocols import PROTOCOLS
from tumorbatch.evaluation.selective import FIGURE as SELECTIVE
from tumorbatch.evaluation.selective import add_selective
from tumorbatch.files import counted
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.report import style
from tumorbatch.report.html import Code, Column, Page, Picture, Strong
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.weighting import headline
from tumorbatch.tta import LOOKS

ROWS = (
    ("accuracy", "Accuracy"), ("sensitivity", "Sensitivity (recall)"), ("specificity", "Specificity"),
    ("precision", "Precision (PPV in this set)"), ("npv", "NPV in this set"), ("f1", "F1"),
    ("auc", "AUC"), ("average_precision", "Average precision"), *ERRORS,
)  # fmt: skip


def draw(about: Mapping[str, Any], test: Answers) -> dict[str, bytes]:
    """Return the test split's figures as PNG files, {name: bytes}; curves only with both classes."""
    measured, model = about["test"], about["model"]
    threshold = model["threshold"]
    ece = (
        Estimate.from_dict(measured["uncalibrated"]["ece"]),
        Estimate.from_dict(measured["figures"]["ece"]),
    )
    drawn = {
        SELECTIVE: draw_one.selective(test, about["selective"]),
        "confusion": draw_one.confusion(
            [
                (f"at the chosen threshold, {threshold:g}", measured["confusion"]),
                ("at threshold 0.5", measured["at_0.5"]["confusion"]),
            ]
        ),
        "scores": draw_one.scores(
            test.probabilities, test.labels, threshold
        ),
        "reliability": draw_one.reliability(
            measured["reliability"]["before"]["equal-width"],
            measured["reliability"]["after"]["equal-width"], ece, model["temperature"],
        ),
    }  # fmt: skip
    if measured["healthy"] and measured["tumor"]:
        drawn["roc"] = draw_one.roc(test, headline(measured))
        drawn["precision_recall"] = draw_one.precision_recall(test, headline(measured))
    return {name: style.png(figure) for name, figure in drawn.items()}


def evaluation_page(
    about: Mapping[str, Any],
    drawn: Mapping[str, bytes],
    gallery: Sequence[GalleryPicture],
    suspects: Sequence[Picture],
) -> str:
    """Return the page.

    Args:
        about: The content of metrics.json.
        drawn: From `draw`.
        gallery: The most confident errors.
        suspects: Pictures of label suspects.
    """
    test, model, protocol = about["test"], about["model"], PROTOCOLS[about["protocol"]]
    measures = headline(test)["figures"]
    accuracy, auc, sensitivity, specificity = (
        Estimate.from_dict(measures[name]) for name in ("accuracy", "auc", "sensitivity", "specificity")
    )
    per_image = Estimate.from_dict(test["figures"]["accuracy"])
    page = Page(
        f"{model['name']}: accuracy {accuracy.text()} on {test['groups']:,} groups of test images, "
        f"{protocol.title}",
        "On the test split, ", Strong(f"{test['n']:,} images in {test['groups']:,} groups of copies"),
        f" ({test['healthy']:,} Healthy, {test['tumor']:,} Tumor; protocol: ", Strong(protocol.title),
        f"), {model['architecture']} has an AUC of {auc.text()} and, at its threshold of "
        f"{model['threshold']:g}, an accuracy of {accuracy.text()}, a sensitivity of "
        f"{sensitivity.text()} (n = {sensitivity.n:,} groups with Tumor) and a specificity of "
        f"{specificity.text()} (n = {specificity.n:,} with Healthy). Each group of copies is counted "
        "once; in brackets: 95 % intervals over groups. Counted per image, the accuracy is "
        f"{per_image.over_groups.text()}. ",
        Strong("Not a medical device; not for diagnosis."),
    )  # fmt: skip
    (page.warning if protocol.leaky else page.note)(f"Protocol: {protocol.title}. {protocol.meaning}")
    if about["protocol"] == "external":
        _overlap(page, about["overlap"])
    _patients(page, about["dataset"]["patient_table"])
    if model["trained_on_leaky_split"] and not protocol.leaky:
        page.warning(
            "The model was trained on a leaky split; its threshold and temperature come from it."
        )
    if about["verdict"]:
        (page.note if about["beats_baselines"] else page.warning)(about["verdict"])
    if not (test["healthy"] and test["tumor"]):
        page.warning("The test split contains one class only: AUC and curves are undefined.")
    _measures(page, about)
    _baselines(page, about)
    add_choices(page, about)
    add_calibration(page, about, drawn)
    add_selective(page, about, drawn)
    add_predictive_values(page, test)
    _curves(page, about, drawn)
    _subgroups(page, about)
    add_errors(page, about, gallery)
    add_suspects(page, about["label_suspects"], suspects)
    _limits(page)
    _provenance(page, about)
    return page.html()


def _overlap(page: Page, overlap: Mapping[str, Any] | None) -> None:
    if overlap is None:
        page.warning(
            "Neither the bundle nor a shard set says what the model was trained on, so copies of "
            "training images may be among these. Give it with ", Code("--trained-on"),
            " and they are left out.",
        )  # fmt: skip
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in overlap.items() if kind != "left_out")
    page.note(
        f"Left out, because the model was trained or tuned on a copy: "
        f"{counted(overlap['left_out'], 'image')}{f' ({kinds})' if kinds else ''}."
    )


def _patients(page: Page, table: Mapping[str, int]) -> None:
    if any(table.values()):
        page.warning(
            f"The table of patients does not cover all: {table['files_without_patient']:,} files have "
            f"no patient in it, and {table['paths_without_file']:,} of its paths fit no file. "
            "Intervals are too narrow where one patient counts as several."
        )


def _measures(page: Page, about: Mapping[str, Any]) -> None:
    test, threshold = about["test"], about["model"]["threshold"]
    page.section("Measures")
    part = headline(test)
    rows: Rows = []
    for key, title in ROWS:
        once, plain, image = (
            Estimate.from_dict(values["figures"][key]) for values in (part, part["at_0.5"], test)
        )
        wilson = image.interval() if image.method == "wilson" else None
        rows.append(
            [title, once.text(), once.n, plain.text(), image.over_groups.text(), image.n, wilson]
        )
    page.table(
        [
            "test split", Column(f"at threshold {threshold:g}, each group once", True),
            Column("n (groups)", True), Column("at threshold 0.5, each group once", True),
            Column(f"at threshold {threshold:g}, per image", True), Column("n (images)", True),
            Column("Wilson's interval, per image", True),
        ],
        rows,
        "Positive class: Tumor. n: groups, or images, in the denominator. In brackets: 95 % intervals "
        "over groups.",
    )  # fmt: skip
    page.paragraph(
        "Each group of copies is counted once, so that an original with many copies has the same "
        "weight as one without: quote these measures. Intervals: a bootstrap over whole groups "
        f"({about['method']['replicates']:,} replicates, seed {about['method']['seed']}). If no "
        "replicate contains an error, there is no bootstrap interval, but an exact bound for an AUC of "
        "1, and Wilson's interval over groups for a share of 0 or 1. Wilson's interval per image "
        "assumes that copies are independent images and is too narrow. ECE is biased upwards on few "
        "images. All intervals take weights, temperature and threshold as given: they do not include "
        "the variation between training runs."
    )
    if "validation" not in about:  # of an external set
        return
    rows = []
    for key, title in ROWS:
        once, image = (
            Estimate.from_dict(values["figures"][key])
            for values in (headline(about["validation"]), about["validation"])
        )
        rows.append([title, once.text(), once.n, image.over_groups.text(), image.n])
    out_of_fold = about["model"].get("out_of_fold")
    judged = "out-of-fold predictions" if out_of_fold else "validation split"
    page.heading(f"{judged[0].upper()}{judged[1:]}")
    page.table(
        [
            judged, Column(f"at threshold {threshold:g}, each group once", True),
            Column("n (groups)", True), Column("per image", True), Column("n (images)", True),
        ],
        rows,
        "Training and validation images, each by a network that was not trained on it. Temperature and "
        "threshold were chosen on such predictions, and the best epoch of each network."
        if out_of_fold
        else "For comparison only: weights, temperature and threshold were chosen on it, so its "
        "measures are too optimistic.",
    )  # fmt: skip


def _baselines(page: Page, about: Mapping[str, Any]) -> None:
    if not about["baselines"]:
        return
    page.section("Comparison with simple baselines")
    page.paragraph(
        "Rules that know nothing of tumours, on the same images. The value of a model is what it adds "
        "to them."
    )
    test, model = about["test"], about["model"]["name"]
    for per_group, caption in ((True, "Each group of copies counted once"), (False, "Per image")):
        part = headline(test) if per_group else test
        within = part["within_file_kinds"]
        auc, accuracy = (
            Estimate.from_dict(part["at_0.5"]["figures"][key]) for key in ("auc", "accuracy")
        )
        rows: Rows = [
            [model, "the model", auc.n, auc.text(), accuracy.over_groups.text(), None, None,
             _text(within["auc"])]
        ]  # fmt: skip
        for row in about["baselines"]:
            values = headline(row) if per_group else row
            auc, accuracy, difference = (
                Estimate.from_dict(values[key]) for key in ("auc", "accuracy", "auc_difference")
            )
            rows.append(
                [row["name"], row["description"], auc.n, auc.text(), accuracy.over_groups.text(),
                 difference.text(), ("yes" if row["beaten"] else "NO") if per_group else None,
                 _text(values["within_file_kinds"]["auc"])]
            )  # fmt: skip
        page.table(
            [
                "model or baseline", "what it uses", Column("n", True), Column("AUC (95 %)", True),
                Column("accuracy at 0.5 (95 %)", True), Column("AUC difference (95 %)", True),
                "beaten", Column("AUC within kinds of file (95 %)", True),
            ],
            rows,
            f"{caption}. AUC difference: model less baseline, paired bootstrap over groups of copies. "
            "Beaten: its interval is above 0, each group counted once. Within kinds of file: of the "
            f"{within['pairs']:,} pairs of a Tumor and a Healthy image that have the same height, "
            "width and format.",
        )  # fmt: skip
    page.paragraph(about["verdict"])
    page.paragraph(about["beyond_metadata"])


def _text(value: Mapping[str, Any]) -> str | None:
    estimate = Estimate.from_dict(value)
    return None if estimate.value is None else estimate.text()


def _curves(page: Page, about: Mapping[str, Any], drawn: Mapping[str, bytes]) -> None:
    n, part = about["test"]["n"], headline(about["test"])["figures"]
    page.section("Errors and curves")
    page.figure(
        drawn["confusion"],
        "Confusion matrices at the chosen threshold and at 0.5: "
        + _matrix(about["test"]["confusion"])
        + "; at 0.5: "
        + _matrix(about["test"]["at_0.5"]["confusion"]),
        f"Confusion matrices on the test split (n = {n:,} images).",
    )
    page.figure(
        drawn["scores"],
        "Histograms of the calibrated probability of Tumor for Healthy and for Tumor images.",
        "The model's confidence, by true class, per image. Images on the wrong side of the line are "
        "errors.",
    )
    if "roc" in drawn:
        page.figure(
            drawn["roc"],
            f"ROC curve, AUC {Estimate.from_dict(part['auc']).text()}.",
            "Receiver operating characteristic, each group of copies counted once. Bars at the two "
            "thresholds: 95 % intervals over groups.",
        )
        page.figure(
            drawn["precision_recall"],
            "Precision against recall, average precision "
            f"{Estimate.from_dict(part['average_precision']).text()}.",
            "Precision and recall, each group of copies counted once. Precision depends on the share "
            "of Tumor in this split.",
        )


def _matrix(counts: Mapping[str, int]) -> str:
    return (
        f"{counts['tn']} Healthy predicted Healthy, {counts['fp']} predicted Tumor; "
        f"{counts['tp']} Tumor predicted Tumor, {counts['fn']} predicted Healthy"
    )


def _subgroups(page: Page, about: Mapping[str, Any]) -> None:
    parts = [("by_format", "format"), ("by_size", "longer side (pixels)")]
    if "by_subclass" in about["parts"]:
        page.section("By subclass, file format and size")
        parts.insert(0, ("by_subclass", "subclass"))
    else:
        page.section("By file format and size")
    page.paragraph(
        "If all images of a format or a size belong to one class, the file alone reveals the class, "
        "and a network can be right by recognising the source. Measures at the chosen threshold; in "
        "brackets: 95 % intervals over groups. A dash: undefined, because a class is missing."
    )
    heads = ("n (images)", "groups", *CLASS_NAMES, "accuracy", "sensitivity", "specificity", "AUC")
    for key, head in parts:
        for per_group, how in ((True, "each group of copies counted once"), (False, "per image")):
            rows: Rows = []
            for row in about["parts"][key]:
                measures = (headline(row) if per_group else row)["figures"]
                estimates = [
                    Estimate.from_dict(measures[name]).over_groups
                    for name in ("accuracy", "sensitivity", "specificity", "auc")
                ]
                rows.append(
                    [row["name"], row["n"], row["groups"], *(row[name] for name in CLASS_NAMES)]
                    + [None if estimate.value is None else estimate.text() for estimate in estimates]
                )
            page.table(
                [head, *(Column(number, True) for number in heads)],
                rows,
                f"Test split by {head}, {how}.",
            )


def _limits(page: Page) -> None:
    page.section("Limits")
    page.listing(LIMITS)


def _networks(members: Sequence[Mapping[str, Any]]) -> str:
    """Return the networks of an ensemble, as a list in one line."""
    return ", ".join(f"{member['name']} ({member['model_id']})" for member in members)


def _provenance(page: Page, about: Mapping[str, Any]) -> None:
    model, dataset = about["model"], about["dataset"]
    page.section("Origin of these results")
    counts = "; ".join(
        f"{split}: " + ", ".join(f"{number:,} {name}" for name, number in count.items())
        for split, count in dataset["counts"].items()
    )
    shared = dataset["shared_between_splits"]
    page.table(
        ["part", "value"],
        [
            ["model", f"{model['name']}, {model['model_id']}"],
            ["weights", f"sha256 {model['weights_sha256']}"],
            *([["networks", _networks(model["members"])]] if "members" in model else []),
            ["looks at each image", LOOKS[model["tta"]]],
            ["parameters, epochs, seed", f"{model['parameters']}, {model['epochs']}, {model['seed']}"],
            ["shard set", f"{dataset['name']}, split by {dataset['split_by']}, seed {dataset['seed']}"],
            ["dataset.json", f"sha256 {dataset['sha256']}"],
            ["images", counts],
            ["in more than one split", ", ".join(f"{count} {name}" for name, count in shared.items())],
            ["patients known", f"{dataset['patients_known']:,}"],
            ["runtime", about["runtime"]],
            ["versions", ", ".join(f"{name} {count}" for name, count in about["versions"].items())],
        ],
    )  # fmt: skip
    page.paragraph(
        "All of this as numbers: ", Code("metrics.json"), "; the logit of each image: ",
        Code("predictions.parquet"), "; the figures as single files: ", Code("figures/"), ".",
    )  # fmt: skip
