"""report.html of an evaluation: for a reviewer who asks whether the accuracy is real."""

from collections.abc import Mapping, Sequence
from typing import Any

from tumorbatch.evaluation import figures as draw_one
from tumorbatch.evaluation.answers import Scored
from tumorbatch.evaluation.error_gallery import GalleryPicture, tell_errors
from tumorbatch.evaluation.model_card import LIMITS
from tumorbatch.evaluation.page_probabilities import (
    ERRORS,
    Rows,
    tell_calibration,
    tell_choices,
    tell_predictive_values,
)
from tumorbatch.labels import CLASS_NAMES
from tumorbatch.report import style
from tumorbatch.report.html import MISSING, Code, Column, Page, Strong
from tumorbatch.scoring import probability
from tumorbatch.statistics.intervals import Estimate

ROWS = (
    ("accuracy", "Accuracy"), ("sensitivity", "Sensitivity (recall)"), ("specificity", "Specificity"),
    ("precision", "Precision (PPV in this set)"), ("npv", "NPV in this set"), ("f1", "F1"),
    ("auc", "AUC"), ("average_precision", "Average precision"), *ERRORS,
)  # fmt: skip

PROTOCOLS = {
    "leaky": (
        "LEAKY split by file",
        "Copies and near copies of test images were trained on. These figures measure memory; they are "
        "too good, and say nothing about new images. They stand here to be compared with papers that "
        "split this way.",
    ),
    "group": (
        "grouped split",
        "Images that are byte-identical, pixel-identical or nearly identical stay in one split, so no "
        "copy of a test image was trained on.",
    ),
    "shape": (
        "held-out shapes",
        "No image of the test set has a height and width that was trained on; copies stay in one split "
        "too. A stress test: it comes nearer to images from another source.",
    ),
    "external": (
        "external set",
        "Another shard set than the one that the model was trained on; all of its images, whatever "
        "split they lie in. Nothing was chosen on it. That it shares no patient with the training data "
        "is what whoever started this evaluation said.",
    ),
}


def draw(about: Mapping[str, Any], test: Scored) -> dict[str, bytes]:
    """All figures of the test split as PNG files, {name: bytes}; curves only with both classes."""
    of, model = about["test"], about["model"]
    threshold = model["threshold"]
    ece = (Estimate.from_dict(of["uncalibrated"]["ece"]), Estimate.from_dict(of["figures"]["ece"]))
    drawn = {
        "confusion": draw_one.confusion(
            [
                (f"at the chosen threshold, {threshold:g}", of["confusion"]),
                ("at threshold 0.5", of["at_0.5"]["confusion"]),
            ]
        ),
        "scores": draw_one.scores(
            probability(test.logits, model["temperature"]), test.labels, threshold
        ),
        "reliability": draw_one.reliability(
            of["reliability"]["before"]["equal-width"], of["reliability"]["after"]["equal-width"],
            ece, model["temperature"],
        ),
    }  # fmt: skip
    if of["healthy"] and of["tumor"]:
        drawn["roc"] = draw_one.roc(test.logits, test.labels, of)
        drawn["precision_recall"] = draw_one.precision_recall(test.logits, test.labels, of)
    return {name: style.png(figure) for name, figure in drawn.items()}


def report(
    about: Mapping[str, Any], drawn: Mapping[str, bytes], gallery: Sequence[GalleryPicture]
) -> str:
    """The page.

    Args:
        about: The content of metrics.json.
        drawn: From `draw`.
        gallery: The most confident errors.
    """
    test, model = about["test"], about["model"]
    name, meaning = PROTOCOLS[about["protocol"]]
    accuracy, auc, sensitivity, specificity = (
        Estimate.from_dict(test["figures"][which])
        for which in ("accuracy", "auc", "sensitivity", "specificity")
    )
    page = Page(
        f"{model['name']}: accuracy {accuracy.text()} on {test['n']:,} test images, {name}",
        "On the test split, ", Strong(f"{test['n']:,} images in {test['groups']:,} groups of copies"),
        f" ({test['healthy']:,} Healthy, {test['tumor']:,} Tumor; protocol: ", Strong(name),
        f"), {model['architecture']} has an AUC of {auc.text()} and, at its threshold of "
        f"{model['threshold']:g}, an accuracy of {accuracy.text()}, a sensitivity of "
        f"{sensitivity.text()} (n = {sensitivity.n:,} Tumor) and a specificity of {specificity.text()} "
        f"(n = {specificity.n:,} Healthy). In brackets: 95 % intervals; that of the accuracy is "
        f"{_by_group(accuracy)} when groups of copies are resampled instead of images. ",
        Strong("Not a medical device; not for diagnosis."),
    )  # fmt: skip
    (page.note if about["protocol"] in ("group", "shape") else page.warning)(
        f"Protocol: {name}. {meaning}"
    )
    if about["protocol"] == "external":
        _overlap(page, about["overlap"])
    if model["trained_on_leaky_split"] and about["protocol"] != "leaky":
        page.warning(
            "The model was trained on a leaky split; its threshold and temperature come from it."
        )
    if about["verdict"]:
        (page.note if about["beats_baselines"] else page.warning)(about["verdict"])
    if not (test["healthy"] and test["tumor"]):
        page.warning("The test split holds one class only: AUC and curves are undefined.")
    _figures(page, about)
    _baselines(page, about)
    tell_choices(page, about)
    tell_calibration(page, about, drawn)
    tell_predictive_values(page, test)
    _curves(page, about, drawn)
    _parts(page, about)
    tell_errors(page, about, gallery)
    _limits(page)
    _made_of(page, about)
    return page.html()


def _overlap(page: Page, overlap: Mapping[str, Any] | None) -> None:
    if overlap is None:
        page.warning(
            "The shard set that the model was trained on was not at hand, so copies of training images "
            "may be among these. Give it with ", Code("--trained-on"), " and they are left out.",
        )  # fmt: skip
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in overlap.items() if kind != "left_out")
    page.note(
        f"Left out, because the model was trained or tuned on a copy: {overlap['left_out']:,} "
        f"image{'s' * (overlap['left_out'] != 1)}{f' ({kinds})' if kinds else ''}."
    )


def _figures(page: Page, about: Mapping[str, Any]) -> None:
    test = about["test"]
    threshold = about["model"]["threshold"]
    page.section("Figures")
    rows: Rows = []
    for key, title in ROWS:
        chosen, plain = (Estimate.from_dict(at["figures"][key]) for at in (test, test["at_0.5"]))
        grouped = None if chosen.method != "wilson" else _by_group(chosen)
        rows.append(
            [title, _value(chosen), chosen.n, chosen.interval(), grouped, _value(plain), plain.n,
             plain.interval()]
        )  # fmt: skip
    page.table(
        [
            "test split", Column(f"at threshold {threshold:g}", True), Column("n", True),
            Column("95 % interval", True), Column("groups resampled", True),
            Column("at threshold 0.5", True), Column("n", True), Column("95 % interval", True),
        ],
        rows,
        "Positive class: Tumor. n: images in the denominator.",
    )  # fmt: skip
    page.paragraph(
        "Intervals: Wilson's for accuracy, sensitivity, specificity, precision and NPV, which counts "
        "images as independent; beside it the same by a bootstrap that resamples whole groups of "
        f"copies ({about['method']['replicates']:,} replicates, seed {about['method']['seed']}). For "
        "all other figures the bootstrap alone; there is none where no replicate holds an error, and "
        "an exact bound for an AUC of 1. ECE leans upwards on few images. All intervals take weights, "
        "temperature and threshold as given: another training is in none of them."
    )
    if "validation" not in about:  # of an external set
        return
    rows = [
        [title, _value(figure), figure.n, figure.interval()]
        for key, title in ROWS
        for figure in (Estimate.from_dict(about["validation"]["figures"][key]),)
    ]
    page.heading("Validation split")
    page.table(
        [
            "validation split", Column(f"at threshold {threshold:g}", True), Column("n", True),
            Column("95 % interval", True),
        ],
        rows,
        "For comparison only: weights, temperature and threshold were chosen on it, so it flatters.",
    )  # fmt: skip


def _by_group(figure: Estimate) -> str:
    if figure.low_by_group is None or figure.high_by_group is None:
        return MISSING
    return f"{figure.low_by_group:.3f} to {figure.high_by_group:.3f}"


def _value(figure: Estimate) -> str | None:
    return None if figure.value is None else f"{figure.value:.3f}"


def _baselines(page: Page, about: Mapping[str, Any]) -> None:
    if not about["baselines"]:
        return
    page.section("Beside simple baselines")
    page.paragraph(
        "What needs no knowledge of tumours, on the same images. A model is worth what it adds to "
        "these."
    )
    auc, accuracy = (
        Estimate.from_dict(about["test"]["at_0.5"]["figures"][key]) for key in ("auc", "accuracy")
    )
    model = about["model"]["name"]
    within = about["test"]["within_file_kinds"]
    rows: Rows = [
        [model, "the model", accuracy.n, auc.text(), accuracy.text(), None, None, _told(within["auc"])]
    ]
    for row in about["baselines"]:
        auc, accuracy, difference = (
            Estimate.from_dict(row[key]) for key in ("auc", "accuracy", "auc_difference")
        )
        rows.append(
            [row["name"], row["description"], auc.n, auc.text(), accuracy.text(), difference.text(),
             "yes" if row["beaten"] else "NO", _told(row["within_file_kinds"]["auc"])]
        )  # fmt: skip
    page.table(
        [
            "who", "what it sees", Column("n", True), Column("AUC (95 %)", True),
            Column("accuracy at 0.5 (95 %)", True), Column("AUC of the model minus its (95 %)", True),
            "beaten", Column("AUC within kinds of file (95 %)", True),
        ],
        rows,
        "Difference: paired bootstrap over groups of copies. Beaten: its interval lies above 0. Within "
        f"kinds of file: of the {within['pairs']:,} pairs of a Tumor and a Healthy image that have the "
        "same height, width and format.",
    )  # fmt: skip
    page.paragraph(about["verdict"])
    page.paragraph(about["beyond_metadata"])


def _told(value: Mapping[str, Any]) -> str | None:
    figure = Estimate.from_dict(value)
    return None if figure.value is None else figure.text()


def _curves(page: Page, about: Mapping[str, Any], drawn: Mapping[str, bytes]) -> None:
    n = about["test"]["n"]
    page.section("Errors and curves")
    page.figure(
        drawn["confusion"],
        "Confusion matrices at the chosen threshold and at 0.5: "
        + _matrix(about["test"]["confusion"])
        + "; at 0.5: "
        + _matrix(about["test"]["at_0.5"]["confusion"]),
        f"Confusion matrices on the test split (n = {n:,}).",
    )
    page.figure(
        drawn["scores"],
        "Histograms of the calibrated probability of Tumor for Healthy and for Tumor images.",
        "How sure the network is, by true class. What lies on the wrong side of the line is an error.",
    )
    if "roc" in drawn:
        page.figure(
            drawn["roc"],
            f"ROC curve, AUC {Estimate.from_dict(about['test']['figures']['auc']).text()}.",
            "Receiver operating characteristic. Bars at the two thresholds: Wilson's 95 % intervals.",
        )
        page.figure(
            drawn["precision_recall"],
            "Precision over recall, average precision "
            f"{Estimate.from_dict(about['test']['figures']['average_precision']).text()}.",
            "Precision and recall. Precision hangs on the share of Tumor in this split.",
        )


def _matrix(counts: Mapping[str, int]) -> str:
    return (
        f"{counts['tn']} Healthy called Healthy, {counts['fp']} called Tumor; {counts['tp']} Tumor "
        f"called Tumor, {counts['fn']} called Healthy"
    )


def _parts(page: Page, about: Mapping[str, Any]) -> None:
    page.section("By file format and size")
    page.paragraph(
        "Where one class fills a format or a size, the file alone gives the class away, and a network "
        "can score by knowing the source. Figures at the chosen threshold; in brackets 95 % intervals "
        "(Wilson's, AUC by bootstrap). A dash: undefined, as a class is missing."
    )
    for key, head in (("by_format", "format"), ("by_size", "longer side (pixels)")):
        rows: Rows = []
        for part in about["parts"][key]:
            told = [Estimate.from_dict(part["figures"][name]) for name in (
                "accuracy", "sensitivity", "specificity", "auc"
            )]  # fmt: skip
            rows.append(
                [part["name"], part["n"], part["groups"], *(part[name] for name in CLASS_NAMES)]
                + [None if figure.value is None else figure.text() for figure in told]
            )
        numbers = ("n", "groups", *CLASS_NAMES, "accuracy", "sensitivity", "specificity", "AUC")
        page.table(
            [head, *(Column(number, True) for number in numbers)], rows, f"Test split by {head}."
        )


def _limits(page: Page) -> None:
    page.section("Limits")
    page.listing(LIMITS)


def _made_of(page: Page, about: Mapping[str, Any]) -> None:
    model, dataset = about["model"], about["dataset"]
    page.section("What this was made of")
    counts = "; ".join(
        f"{split}: " + ", ".join(f"{number:,} {name}" for name, number in of.items())
        for split, of in dataset["counts"].items()
    )
    shared = dataset["shared_between_splits"]
    page.table(
        ["what", "which"],
        [
            ["model", f"{model['name']}, {model['model_id']}"],
            ["weights", f"sha256 {model['weights_sha256']}"],
            ["parameters, epochs, seed", f"{model['parameters']}, {model['epochs']}, {model['seed']}"],
            ["shard set", f"{dataset['name']}, split by {dataset['split_by']}, seed {dataset['seed']}"],
            ["dataset.json", f"sha256 {dataset['sha256']}"],
            ["images", counts],
            ["in more than one split", ", ".join(f"{of} {name}" for name, of in shared.items())],
            ["patients known", f"{dataset['patients_known']:,}"],
            ["runtime", about["runtime"]],
            ["versions", ", ".join(f"{name} {of}" for name, of in about["versions"].items())],
        ],
    )  # fmt: skip
    page.paragraph(
        "All of it as numbers: ", Code("metrics.json"), "; each image's logit: ",
        Code("predictions.parquet"), "; the figures one by one: ", Code("figures/"), ".",
    )  # fmt: skip
