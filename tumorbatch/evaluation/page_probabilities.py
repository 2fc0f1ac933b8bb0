"""What report.html says of probabilities: threshold, temperature, calibration, predictive values."""

from collections.abc import Mapping
from typing import Any

from tumorbatch.report.html import Code, Column, Page, Strong
from tumorbatch.statistics.intervals import Estimate
from tumorbatch.statistics.weighting import headline

ERRORS = (
    ("brier", "Brier score"), ("log_loss", "Log loss (nats)"), ("ece", "ECE, 15 equal-width bins"),
    ("ece_equal_mass", "ECE, 15 equal-mass bins"),
)  # fmt: skip
LINES = (  # of `recalibration`
    ("calibration_slope", "Calibration slope (1 is right)"),
    ("calibration_in_the_large", "Calibration in the large (logits; 0 is right)"),
)


Rows = list[list[str | int | None]]


def tell_choices(page: Page, about: Mapping[str, Any]) -> None:
    """Add how threshold and temperature were chosen; `about` is the content of metrics.json."""
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
    given = threshold["rule"].startswith("value=")
    chosen_on = "" if given else f" Validation images: {threshold['n']:,}."
    values = headline(about.get("validation", {}))  # of an external set there is none
    reached = (
        " On validation it gives a sensitivity of {} and a specificity of {}.".format(
            *(_with_n(values["figures"][name]) for name in ("sensitivity", "specificity"))
        )
        if values
        else ""
    )
    losses = (
        " The log loss there is {} without and {} with it.".format(
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
             "called Tumor."],
            [Strong(f"Temperature {model['temperature']:g}. "),
             f"{temperature['note']} Fitted on {temperature['n']:,} validation images.{losses} Logits "
             "are divided by it; it changes neither their order nor the AUC."],
        ]
    )  # fmt: skip
    if not threshold["reached"]:
        page.warning(threshold["note"])
    if model["frozen"]:
        page.paragraph("Both are frozen in the bundle, and ", Code("tumorbatch infer"), " uses them.")
    else:
        page.warning(
            "Both were NOT frozen (--no-freeze): ", Code("tumorbatch infer"), " uses what the bundle "
            f"{model['bundle_model_id']} says, and its answers differ from the figures here."
        )  # fmt: skip


def _with_n(value: Mapping[str, Any]) -> str:
    figure = Estimate.from_dict(value)
    if figure.low is None:
        return f"{figure.text()} (n = {figure.n:,})"
    return f"{figure.value:.3f} ({figure.interval()}; n = {figure.n:,})"


def tell_calibration(page: Page, about: Mapping[str, Any], drawn: Mapping[str, bytes]) -> None:
    """Add errors of the probabilities before and after the temperature, and the reliability diagram."""
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
            f"{how[0].upper()}{how[1:]}. In brackets 95 % intervals. Lower is better, but for the last "
            "two rows: a slope below 1 says that probabilities are too extreme; in the large, above 0, "
            "that those of Tumor are too low on average.",
        )  # fmt: skip
    page.figure(
        drawn["reliability"],
        "Reliability diagrams before and after temperature scaling: observed share of Tumor over the "
        "predicted probability, with the number of images in each of 15 bins.",
        "Reliability on the test split per image, 15 bins of equal width of the probability of Tumor. "
        "Points on the diagonal: a probability means what it says. Below: images in each bin; a bin of "
        "few says little.",
    )


def tell_predictive_values(page: Page, test: Mapping[str, Any]) -> None:
    """Add PPV and NPV at stated prevalences."""
    page.section("Predictive values")
    page.paragraph(
        "What an answer means depends on how common tumours are where the tool is used; the share in "
        f"this test split, {test['tumor'] / test['n']:.1%} of {test['n']:,}, is that of a collection "
        "and not of any clinic. By Bayes' theorem from sensitivity and specificity at the chosen "
        "threshold, each group of copies counted once; the intervals are made of the ends of theirs, "
        "and rather too wide."
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
            Column("prevalence of Tumor", True), Column("PPV: Tumor if called Tumor", True),
            Column("NPV: Healthy if called Healthy", True), Column("n (groups)", True),
            Column("PPV per image", True), Column("NPV per image", True),
        ],
        rows,
        "In brackets 95 % intervals.",
    )  # fmt: skip
