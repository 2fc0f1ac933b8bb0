"""What an experiment found, as a figure and as a page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tumorbatch.evaluation.compare_page import signed
from tumorbatch.evaluation.experiment import FIGURES, Compared
from tumorbatch.report import style
from tumorbatch.report.html import Column, Page, Strong

METHOD = (
    "Both arms hold the same images in the same splits, and each pair of trainings has the same seed; "
    "only {difference} differs. A difference is that of one pair on the same test images. Its "
    "interval is the 2.5th to 97.5th percentile of {replicates:,} bootstrap samples in which whole "
    "groups of duplicates are drawn, the same for both arms."
)
OVERALL = (
    "The interval of the mean difference counts both sources of chance, the seed and the test images, "
    "as readers and cases are counted in radiology: the model of Obuchowski and Rockette (1995) with "
    "both random, Hillis' (2007) degrees of freedom, and the covariances between seeds from the "
    "bootstrap samples, which all trainings share. Student's t over seeds alone, shown from three "
    "seeds on, takes the test images as given and is narrower than it should be for new images."
)
THRESHOLD = (
    "AUC is the question that was asked; it needs no threshold. Accuracy, sensitivity and specificity "
    "use each training's own threshold, chosen on its validation split, and are told beside it: their "
    "intervals are not corrected for being several."
)


@style.style()
def draw(compared: Sequence[Compared], first: str, second: str) -> Any:
    """A matplotlib figure: differences of AUC and accuracy, of each seed and of all, with intervals.

    Args:
        compared: From `experiment.compare`.
        first: Name of the first arm.
        second: Name of the second.
    """
    shown = [of for of in compared if of.name in ("auc", "accuracy")]
    seeds = len(shown[0].pairs)
    figure, axes = style.subplots(10.0, 2.2 + 0.32 * seeds, 1, len(shown), sharey=True)
    for axis, of in zip(np.atleast_1d(axes), shown, strict=True):
        axis.axvline(0, color=style.GREY, linewidth=1.0)
        for row, pair in enumerate(of.pairs):
            _interval(axis, row, pair.difference.value, pair.difference.low, pair.difference.high,
                      style.BLUE, "o")  # fmt: skip
        _interval(axis, seeds + 0.4, of.overall.mean, of.overall.low, of.overall.high,
                  style.VERMILLION, "D")  # fmt: skip
        axis.set_xlabel(f"{FIGURES[of.name]}: {first} less {second} (95 % interval)")
        axis.set_yticks(
            [*range(seeds), seeds + 0.4], [*(f"seed {pair.seed}" for pair in of.pairs), "all seeds"]
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
    compared: Sequence[Compared],
    first: str,
    second: str,
    split: str,
    setup: Sequence[tuple[str, str]],
    n: int,
    groups: int,
    replicates: int,
    png: bytes,
) -> str:
    """The whole result as one HTML file.

    Args:
        title: Of the page.
        compared: From `experiment.compare`.
        first: Name of the first arm.
        second: Name of the second; "with CLAHE" and "without", say.
        split: The protocol in a few words.
        setup: What was done, as (what, value).
        n: Test images.
        groups: Of duplicates among them.
        replicates: Bootstrap samples.
        png: The figure.
    """
    main = next(of for of in compared if of.name == "auc")
    made = Page(title, Strong(main.sentence(first, second)), f" Protocol: {split}.")
    seeds = [pair.seed for pair in main.pairs]
    if len(seeds) < 3:
        made.warning(
            f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: how much trainings differ by chance is hardly "
            "known. Repeat with --seeds 5 or more before acting on this."
        )
    made.section("Differences")
    made.figure(
        png,
        f"Differences of AUC and accuracy, {first} less {second}, for each seed and for all, with 95 % "
        "intervals.",
        "Dots: one seed, 95 % interval over the images. Diamond: mean over the seeds, 95 % interval "
        f"over seeds and images. To the right of 0: better {first}.",
    )
    made.table(
        [
            "figure", Column(f"{first} (95 %)", True), Column(f"{second} (95 %)", True),
            Column("n", True), Column("difference", True),
            Column("95 % interval, seeds and images", True),
            *([Column("95 % interval, seeds alone", True)] if main.over_seeds else []),
        ],
        [
            [
                FIGURES[of.name],
                *(f"{arm.mean:.3f} ({arm.interval()})" for arm in (of.first, of.second)),
                of.pairs[0].first.n,
                f"{of.overall.mean:+.3f}",
                of.overall.interval("+"),
                *([of.over_seeds.interval("+")] if of.over_seeds else []),
            ]
            for of in compared
        ],
        f"Means over {len(seeds)} seeds on n = {n:,} test images ({groups:,} groups of duplicates).",
    )  # fmt: skip
    made.section("Seed by seed")
    made.table(
        ["figure", Column("seed", True), Column(f"{first} (95 % interval)", True),
         Column(f"{second} (95 % interval)", True), Column("difference (95 % interval)", True),
         Column("n", True)],
        [
            [
                FIGURES[of.name], str(pair.seed), pair.first.text(), pair.second.text(),
                signed(pair.difference), pair.first.n,
            ]
            for of in compared
            for pair in of.pairs
        ],
        "Each pair of trainings on the same test images.",
    )  # fmt: skip
    made.section("How this was found")
    made.paragraph(METHOD.format(difference="the equalisation", replicates=replicates))
    made.paragraph(OVERALL)
    made.paragraph(THRESHOLD)
    made.table(["what", "value"], setup, "What was trained on what.")
    return made.html()
