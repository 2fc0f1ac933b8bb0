"""The sections of explore's page that hold statistics, and how their numbers are written."""

from collections.abc import Mapping, Sequence
from typing import Any

from tumorbatch.labels import CLASS_NAMES
from tumorbatch.preprocess.explore import figures as pictures
from tumorbatch.preprocess.explore.metadata import interval_to_tell
from tumorbatch.preprocess.explore.statistics import ALPHA, RESAMPLES, SHAPIRO_MOST
from tumorbatch.preprocess.explore.survey import VERSIONS
from tumorbatch.report.html import MISSING, Cell, Code, Column, Page, Strong

VERSION_NAMES = {"before": "before CLAHE", "after": "after CLAHE"}
STATISTICS = ("mean", "median", "standard_deviation", "minimum", "maximum")
_TESTS = {"welch_t": "Welch's t", "mann_whitney_u": "Mann-Whitney U"}
_EFFECTS = {"cohens_d": "Cohen's d", "rank_biserial": "rank-biserial correlation"}
_EXPLAINED = {
    "cohens_d": "Cohen's d is the difference of the two means in units of their pooled standard "
    "deviation.",
    "rank_biserial": "The rank-biserial correlation runs from -1 to 1: twice the chance that a Tumor "
    "image is brighter than a Healthy one (ties count half), less 1. Its interval is over groups of "
    "copies and may hold 0 though the test, which takes images for independent, has a small p.",
}


def number(value: float | None, digits: int = 1) -> str | None:
    """Format with thousands separators and this many digits; None stays None."""
    return None if value is None else f"{value:,.{digits}f}"


def percent(value: float) -> str:
    """Format a share as a percentage with one digit."""
    return f"{100 * value:.1f} %"


def p_value(value: float) -> str:
    """Format with three digits, or as a power of ten if it is smaller."""
    if value >= 0.001:
        return f"{value:.3f}"
    return signed(f"{value:.1e}" if value > 1e-300 else "below 1e-300")


def signed(text: str) -> str:
    """Replace each hyphen by a minus sign: a line may break after a hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def _range(interval: list[float | None], digits: int = 3) -> str | None:
    low, high = interval
    return None if low is None or high is None else signed(f"{low:.{digits}f} to {high:.{digits}f}")


def percent_range(interval: Sequence[float | None]) -> str | None:
    """Format a 95 % interval of a share as percentages; None without one."""
    low, high = interval
    return None if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def statistics(values: Mapping[str, Any]) -> list[str | None]:
    """Return the cells of `STATISTICS`."""
    return [number(values[name], 0 if isinstance(values[name], int) else 1) for name in STATISTICS]


def statistics_columns(unit: str) -> list[Column]:
    """Return heads for `STATISTICS`, with their unit."""
    return [Column(f"{name.replace('_', ' ')} ({unit})", True) for name in STATISTICS]


def tests(document: Page, results: Mapping[str, Any], png: Mapping[str, bytes]) -> None:
    """Build the section on the images' mean grey values."""
    document.section("Do the classes differ in brightness?")
    document.figure(
        png[pictures.MEANS],
        "Histograms of the images' mean grey values, by class, before and after CLAHE",
    )
    means = results["image_means"]
    document.table(
        ["class", "when", Column("images", True), *statistics_columns("grey level")],
        [
            [name, VERSION_NAMES[version], means[version][name]["n"], *statistics(means[version][name])]
            for version in VERSIONS
            for name in CLASS_NAMES
        ],
        "Mean grey value of each image. The standard deviation is that of a sample (n - 1).",
    )
    document.paragraph(
        "The rule, as in the report that this project follows: Shapiro-Wilk in each class. If neither "
        f"test rejects normality (p at least {ALPHA}), Welch's t-test, otherwise Mann-Whitney U; "
        f"two-sided. Of more than {SHAPIRO_MOST:,} values, Shapiro-Wilk sees a random sample of "
        f"{SHAPIRO_MOST:,}, because SciPy's p-value may be inaccurate beyond. An effect above 0 "
        "means that Tumor is brighter."
    )
    document.paragraph(
        "Both tests assume independent images, and copies are not independent. So each test is shown "
        "twice: over all images, as in the report, and with one value for each group of copies or of "
        "DICOM files of one patient (the mean over the group). ",
        Strong("If the two differ, trust the second."),
        f" Intervals come from {RESAMPLES:,} resamples of whole groups.",
    )
    rows, reasons, effects_shown = _test_rows(means)
    document.table(
        [
            "when", "over", Column("n, Healthy + Tumor", True),
            Column("Shapiro-Wilk p, Healthy and Tumor", True), "test", Column("p", True), "effect",
            Column("95 % interval", True),
        ],
        rows,
        "Tests on the images' mean grey values.",
    )  # fmt: skip
    _opposite_effects(document, means)
    for reason in sorted(reasons):
        document.note(f"Not tested where {reason}.")
    for name in sorted(effects_shown):
        document.paragraph(_EXPLAINED[name])


def _test_rows(means: Mapping[str, Any]) -> tuple[list[list[Cell]], set[str], set[str]]:
    """Return the rows of the tests, the reasons of those that were left out, and the effects' names."""
    rows: list[list[Cell]] = []
    reasons, effects_shown = set(), set()
    for version in VERSIONS:
        for key, unit in (("all_images", "all images"), ("one_value_a_group", "one value a group")):
            test = means[version][key]
            normality = [test["shapiro_wilk"][name.lower()] for name in CLASS_NAMES]
            counts = " + ".join(f"{one['n']:,}" for one in normality)
            row: list[Cell] = [VERSION_NAMES[version], unit, counts]
            normal = (one["p_value"] for one in normality)
            row.append(" and ".join(MISSING if p is None else p_value(p) for p in normal))
            if test["test"] is None:
                reasons.add(test["reason"])
                rows.append([*row, None, None, None, None])
                continue
            effect = test["effect"]
            effects_shown.add(effect["name"])
            effect_text = f"{_EFFECTS[effect['name']]} {signed(format(effect['value'], '+.3f'))}"
            row += [
                _TESTS[test["test"]],
                p_value(test["p_value"]),
                effect_text,
                _range(effect["interval_95"]),
            ]
            rows.append(row)
    return rows, reasons, effects_shown


def _opposite_effects(document: Page, means: Mapping[str, Any]) -> None:
    """Note where the effects with and without copies have opposite signs."""
    opposite = []
    for version in VERSIONS:
        effects = [one["effect"]["value"] for one in means[version].values() if one.get("test")]
        if len(effects) == 2 and effects[0] * effects[1] < 0:
            opposite.append(VERSION_NAMES[version])
    if opposite:
        where = f"both {' and '.join(opposite)}" if len(opposite) > 1 else opposite[0]
        document.note(
            f"Copies decide: {where}, the effect over all images and the effect with one value per "
            "group have opposite signs."
        )


def metadata(document: Page, results: Mapping[str, Any]) -> None:
    """Build the section on what size and format reveal."""
    baseline = results["metadata"]
    document.section("What size and format alone reveal")
    document.paragraph(
        f"A random forest of {baseline['trees']} trees that sees height, width and format of a "
        "file, and no pixel, cross-validated. Copies are never in two folds. In the last row, "
        "images of one height and width are not in two folds either, as if the new images came "
        "from elsewhere."
        + (
            f" On {baseline['n']:,} of {baseline['of']:,} images, drawn by whole groups."
            if baseline["n"] < baseline["of"]
            else ""
        )
    )
    names = {
        "majority": "always the more frequent class",
        "grouped": "height, width, format",
        "shapes_held_out": "the same, whole sizes held out",
    }
    rows: list[list[Cell]] = []
    for key, label in names.items():
        row = baseline[key]
        if row is None:
            rows.append([label, baseline["n"], *[None] * 6])
            continue
        rows.append(
            [
                label, baseline["n"], row.get("folds"), percent(row["accuracy"]),
                percent_range(row["interval_95"]), percent_range(row["group_interval_95"]),
                number(row.get("auc"), 3), _range(row.get("auc_interval_95", [None, None])),
            ]
        )  # fmt: skip
    document.table(
        [
            "predictor", Column("n (images)", True), Column("folds", True), Column("accuracy", True),
            Column("95 % interval, were images independent (Wilson)", True),
            Column("95 % interval over groups (bootstrap)", True), Column("AUC", True),
            Column("95 % interval over groups", True),
        ],
        rows,
        "Accuracy without the pixels.",
    )  # fmt: skip
    grouped = baseline["grouped"]
    if grouped is None:
        document.note("Too few groups of images for a cross-validation.")
    elif interval_to_tell(grouped)[0] > baseline["majority"]["accuracy"]:
        document.warning(
            "Size and format of the files reveal their class. A network sees the size as blur and as "
            "proportions, and may recognise the source of an image rather than a tumour: compare its "
            "accuracy with this one, and hold out whole sizes (",
            Code("tumorbatch shard --split-by shape"),
            ").",
        )
    elif grouped["accuracy"] < baseline["majority"]["accuracy"]:
        document.paragraph(
            "Size and format predict the class no better than the majority does. The forest is right "
            "less often than the majority because of the cross-validation: a class that is rarer "
            "in one fold is more frequent in the others, from which the forest learns."
        )
    else:
        document.paragraph("Size and format predict the class no better than the majority does.")
