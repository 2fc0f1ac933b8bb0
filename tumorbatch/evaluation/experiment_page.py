"""The result of an experiment, as a figure and as a page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tumorbatch.evaluation.compare_page import signed
from tumorbatch.evaluation.experiment import MEASURES, ArmsCompared, MeasureCompared
from tumorbatch.evaluation.protocols import Protocol
from tumorbatch.files import counted
from tumorbatch.report import style
from tumorbatch.report.html import Column, Page, Strong

METHOD = (
    "Both arms use the same images in the same splits, and both trainings of a pair have the same "
    "seed; only {difference} differs. A difference is that of one pair on the same test images. Its "
    "interval is the 2.5th to 97.5th percentile of {replicates:,} bootstrap samples of whole groups of "
    "duplicates, the same samples for both arms."
)
OVERALL = (
    "The interval of the mean difference includes both sources of chance, the seed and the test "
    "images, in the way in which radiology treats readers and cases: the model of Obuchowski and "
    "Rockette (1995) with both random, Hillis' (2007) degrees of freedom, and the covariances between "
    "seeds from the bootstrap samples, which all trainings share. Student's t over seeds alone, shown "
    "for three seeds or more, takes the test images as given, and is too narrow for new images."
)
THRESHOLD = (
    "AUC is the main measure; it does not need a threshold. Accuracy, sensitivity and specificity use "
    "each training's own threshold, chosen on its validation split. Their intervals are not corrected "
    "for multiple testing."
)


@style.style()
def draw(compared: Sequence[MeasureCompared], first: str, second: str) -> Any:
    """Return a matplotlib figure: differences of AUC and accuracy, of each seed and of all.

    Args:
        compared: One list of `experiment.compare_arms`.
        first: Name of the first arm.
        second: Name of the second.
    """
    drawn = [measure for measure in compared if measure.name in ("auc", "accuracy")]
    seeds = len(drawn[0].pairs)
    figure, axes = style.subplots(10.0, 2.2 + 0.32 * seeds, 1, len(drawn), sharey=True, sharex=True)
    for axis, difference in zip(np.atleast_1d(axes), drawn, strict=True):
        axis.axvline(0, color=style.GREY, linewidth=1.0)
        for row, pair in enumerate(difference.pairs):
            _interval(axis, row, pair.difference.value, pair.difference.low, pair.difference.high,
                      style.BLUE, "o")  # fmt: skip
        overall = difference.overall
        _interval(axis, seeds + 0.4, overall.mean, overall.low, overall.high,
                  style.VERMILLION, "D")  # fmt: skip
        axis.set_xlabel(f"{MEASURES[difference.name]}: {first} less {second} (95 % interval)")
        axis.set_yticks(
            [*range(seeds), seeds + 0.4],
            [*(f"seed {pair.seed}" for pair in difference.pairs), "all seeds"],
        )
        axis.set_ylim(seeds + 1.0, -0.6)
        axis.grid(axis="y", visible=False)
    return figure


def _interval(
    axis: Any, row: float, value: float | None, low: float | None, high: float | None, color: str,
    marker: str,
) -> None:  # fmt: skip
    if low is not None and high is not None:
        axis.plot([low, high], [row, row], color=color, linewidth=2.0, solid_capstyle="butt")
    axis.plot([value], [row], marker=marker, color=color, markersize=7, linestyle="none")


def page(
    title: str,
    compared: ArmsCompared,
    first: str,
    second: str,
    protocol: Protocol,
    setup: Sequence[tuple[str, str]],
    replicates: int,
    png: bytes,
) -> str:
    """Return the whole result as one HTML file.

    Args:
        title: Of the page.
        compared: From `experiment.compare_arms`.
        first: Name of the first arm.
        second: Name of the second; "with CLAHE" and "without", say.
        protocol: Of both arms.
        setup: Settings of the experiment, as (name, value).
        replicates: Bootstrap samples.
        png: The figure.
    """
    main = next(measure for measure in compared.per_group if measure.name == "auc")
    html = Page(title, Strong(main.sentence(first, second)), f" Protocol: {protocol.name}.")
    if protocol.leaky:
        html.warning(protocol.warning)
    seeds = len(main.pairs)
    if seeds < 3:
        html.warning(
            f"With {counted(seeds, 'seed')}, the variation between trainings is hardly known. Repeat "
            "with --seeds 5 or more before you use this result."
        )
    html.section("Differences")
    html.figure(
        png,
        f"Differences of AUC and accuracy, {first} less {second}, for each seed and for all, with 95 % "
        "intervals.",
        "Dots: one seed, 95 % interval over the images. Diamond: mean over the seeds, 95 % interval "
        f"over seeds and images. Above 0: better {first}. Each group of copies counted once.",
    )
    groups = f"n = {compared.n:,} test images in {compared.groups:,} groups of duplicates"
    for measures, how in (
        (compared.per_group, "Each group of copies counted once"), (compared.per_image, "Per image"),
    ):  # fmt: skip
        _add_means(html, measures, first, second, f"{how}: means over {seeds} seeds on {groups}.")
    html.section("Seed by seed")
    for measures, how in (
        (compared.per_group, "each group of copies counted once"), (compared.per_image, "per image"),
    ):  # fmt: skip
        _add_seeds(html, measures, first, second, f"Each pair of trainings, {how}.")
    html.section("How this was measured")
    html.paragraph(METHOD.format(difference="the equalisation", replicates=replicates))
    html.paragraph(OVERALL)
    html.paragraph(THRESHOLD)
    html.table(["setting", "value"], setup, "The trainings.")
    return html.html()


def _add_means(
    html: Page, measures: Sequence[MeasureCompared], first: str, second: str, caption: str
) -> None:
    with_seeds = measures[0].over_seeds is not None
    html.table(
        [
            "measure", Column(f"{first} (95 %)", True), Column(f"{second} (95 %)", True),
            Column("n", True), Column("difference", True),
            Column("95 % interval, seeds and images", True),
            *([Column("95 % interval, seeds alone", True)] if with_seeds else []),
        ],
        [
            [
                MEASURES[measure.name],
                *(f"{arm.mean:.3f} ({arm.interval()})" for arm in (measure.first, measure.second)),
                measure.pairs[0].first.n,
                f"{measure.overall.mean:+.3f}",
                measure.overall.interval("+"),
                *([measure.over_seeds.interval("+")] if measure.over_seeds else []),
            ]
            for measure in measures
        ],
        caption,
    )  # fmt: skip


def _add_seeds(
    html: Page, measures: Sequence[MeasureCompared], first: str, second: str, caption: str
) -> None:
    html.table(
        ["measure", Column("seed", True), Column(f"{first} (95 % interval)", True),
         Column(f"{second} (95 % interval)", True), Column("difference (95 % interval)", True),
         Column("n", True)],
        [
            [
                MEASURES[measure.name], str(pair.seed), pair.first.text(), pair.second.text(),
                signed(pair.difference), pair.first.n,
            ]
            for measure in measures
            for pair in measure.pairs
        ],
        caption,
    )  # fmt: skip
