"""The sections of report.html on threshold, temperature, calibration and predictive values."""

from collections.abc import Mapping
from typing import Any

from tumorbatch.evaluation.choice import CAVEAT, ELSEWHERE, PLACES
from tumorbatch.report.html import Code, Column, Page, Strong
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.weighting import headline

ERRORS = (
    ("brier", "Brier score"), ("log_loss", "Log loss (nats)"), ("ece", "ECE, 15 equal-width bins"),
    ("ece_equal_mass", "ECE, 15 equal-mass bins"),
)  # fmt: skip
LINES = (  # of `recalibration`
    ("calibration_slope", "Calibration slope (1 is ideal)"),
    ("calibration_in_the_large", "Calibration in the large (logits; 0 is ideal)"),
)


Rows = list[list[str | int | None]]


def add_choices(page: Page, about: Mapping[str, Any]) -> None:
    """Add the section on how threshold and temperature were chosen.

    Args:
        page: To be extended.
        about: The content of metrics.json.
    """
    model = about["model"]
    page.section("Threshold and temperature")
    calibration = model["calibration"]
    if not calibration:
        page.warning(
            f"The bundle's threshold ({model['threshold']:g}) and temperature "
            f"({model['temperature']:g}) were not chosen on data."
        )
        return
    threshold, temperature = calibration["threshold"], calibration["temperature"]
    fixed = threshold["rule"].startswith("value=")
    where = "out-of-fold predictions" if model.get("out_of_fold") else "validation"
    chosen_on = "" if fixed else f" Images: {threshold['n']:,}."
    # Per image, as they were chosen: by group the log loss may be higher with the temperature than
    # without. Of an external set there is no validation.
    values = about.get("validation", {})
    reached = (
        " On {} it gives, per image, a sensitivity of {} and a specificity of {}.".format(
            where, *(_with_n(values["figures"][name]) for name in ("sensitivity", "specificity"))
        )
        if values
        else ""
    )
    losses = (
        " The log loss there is, per image, {} without and {} with it.".format(
            *(
                Estimate.from_dict(value["log_loss"]).text()
                for value in (values["uncalibrated"], values["figures"])
            )
        )
        if values
        else ""
    )
    page.listing(
        [
            [Strong(f"Threshold {model['threshold']:g}. "),
             f"{threshold['note']}{chosen_on}{reached} A calibrated probability of at least this is "
             "a prediction of Tumor."],
            [Strong(f"Temperature {model['temperature']:g}. "),
             f"{temperature['note']} Fitted on {temperature['n']:,} images.{losses} Logits "
             "are divided by it; it changes neither their order nor the AUC."],
        ]
    )  # fmt: skip
    _expected(page, calibration)
    if not threshold["reached"]:
        page.warning(threshold["note"])
    if model["frozen"]:
        page.paragraph("Both are frozen in the bundle, and ", Code("tumorbatch infer"), " uses them.")
    else:
        page.warning(
            "Both were NOT frozen (that needs --freeze): ", Code("tumorbatch infer"), " uses the "
            f"values in the bundle {model['bundle_model_id']}, and its predictions differ from those "
            "in this report."
        )  # fmt: skip


def _expected(page: Page, calibration: Mapping[str, Any]) -> None:
    """Add what the out-of-fold predictions let expect at home and elsewhere, where there are such."""
    expected = calibration.get("expected")
    if not expected:
        return
    names = ("sensitivity", "specificity", "accuracy", "auc")
    page.table(
        ["on images that no network had seen", *(Column(name, True) for name in names)],
        [
            [words, *(_with_n(expected[place][name]) for name in names)]
            if place in expected
            else [words, *("not measured" for _ in names)]
            for place, words in PLACES.items()
        ],
        "What to expect at this threshold. Out-of-fold predictions of single networks on all training "
        "and validation images, each group of copies counted once, with 95 % intervals. The best epoch "
        "of each network was chosen on its fold, so they are slightly too good."
        + (f" {CAVEAT}" if ELSEWHERE in expected else ""),
    )


def _with_n(value: Mapping[str, Any]) -> str:
    estimate = Estimate.from_dict(value).over_groups
    if estimate.low is None:
        return f"{estimate.text()} (n = {estimate.n:,})"
    return f"{estimate.value:.3f} ({estimate.interval()}; n = {estimate.n:,})"


def add_calibration(page: Page, about: Mapping[str, Any], drawn: Mapping[str, bytes]) -> None:
    """Add the errors of the probabilities before and after scaling, and the reliability diagram."""
    test = about["test"]
    page.section("Calibration")
    for part, how in ((headline(test), "each group of copies counted once"), (test, "per image")):
        rows: Rows = []
        for key, title in (*ERRORS, *LINES):
            after_in = part["figures"] if key in part["figures"] else part["recalibration"]
            before, after = (
                Estimate.from_dict(values[key]) for values in (part["uncalibrated"], after_in)
            )
            digits = 4 if key in part["figures"] else 3
            rows.append([title, after.n, before.text(digits), after.text(digits)])
        page.table(
            [
                "test split", Column("n", True), Column("before (temperature 1)", True),
                Column(f"after (temperature {about['model']['temperature']:g})", True),
            ],
            rows,
            f"{how[0].upper()}{how[1:]}. In brackets: 95 % intervals. Lower is better, except in the "
            "last two rows: a slope below 1 means that probabilities are too extreme; in the large, a "
            "value above 0 means that those of Tumor are too low on average.",
        )  # fmt: skip
    page.figure(
        drawn["reliability"],
        "Reliability diagrams before and after temperature scaling: observed share of Tumor against "
        "predicted probability, with the number of images in each of 15 bins.",
        "Reliability on the test split per image, 15 bins of equal width of the probability of Tumor. "
        "On the diagonal, predicted and observed shares agree. Below: number of images in each bin; "
        "bins with few images are uncertain.",
    )


def add_predictive_values(page: Page, test: Mapping[str, Any]) -> None:
    """Add PPV and NPV at stated prevalences."""
    page.section("Predictive values")
    page.paragraph(
        "The meaning of a prediction depends on how common tumours are where the tool is used; the "
        f"share in this test split, {test['tumor'] / test['n']:.1%} of {test['n']:,}, is that of a "
        "collection and not of any clinic. Computed with Bayes' theorem from sensitivity and "
        "specificity at the chosen threshold, each group of copies counted once; the intervals combine "
        "the ends of both intervals and are too wide."
    )
    rows: Rows = []
    for once, image in zip(headline(test)["predictive_values"], test["predictive_values"], strict=True):
        ppv, npv, ppv_image, npv_image = (
            Estimate.from_dict(row[key]) for row in (once, image) for key in ("ppv", "npv")
        )
        rows.append(
            [f"{once['prevalence']:.1%}", ppv.text(), npv.text(4), ppv.n, ppv_image.text(),
             npv_image.text(4)]
        )  # fmt: skip
    page.table(
        [
            Column("prevalence of Tumor", True), Column("PPV: Tumor if predicted Tumor", True),
            Column("NPV: Healthy if predicted Healthy", True), Column("n (groups)", True),
            Column("PPV per image", True), Column("NPV per image", True),
        ],
        rows,
        "In brackets: 95 % intervals.",
    )  # fmt: skip
