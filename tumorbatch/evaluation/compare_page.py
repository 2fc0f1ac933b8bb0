"""Show a comparison of models as a figure and as a page, and put it into sentences."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tumorbatch.evaluation.compare import (
    AT_HALF,
    MEASURES,
    PUBLISHED_MEASURES,
    Comparison,
    Pair,
    Row,
)
from tumorbatch.files import counted
from tumorbatch.report import style
from tumorbatch.report.html import Column, Page, Strong
from tumorbatch.statistics.intervals import Estimate

PER_GROUP_TEXT = (
    "Each group of copies is counted once, so that an original with eighty copies has the same weight "
    "as one without. In brackets: 95 % interval of a bootstrap that resamples whole groups "
    "({replicates:,} samples)."
)
PER_IMAGE_TEXT = (
    "Per image, every copy counts. In brackets: Wilson's 95 % interval for accuracy, precision, recall "
    "and specificity, which assumes independent images and is too narrow where images repeat; the "
    "bootstrap over groups for F1 and AUC."
)
PUBLISHED_TEXT = (
    "The report's own numbers (A. Öztüner) come from its random validation split, without n or "
    "interval: the leaky protocol is the nearest to it."
)
PAIRS_TEXT = (
    "AUC and accuracy: first less second, with the 95 % interval of a paired bootstrap over duplicate "
    "groups; where it includes 0, the data do not separate the two. McNemar's test asks whether both "
    "err equally often; it counts images as independent, so its p is too small if the "
    "test split contains copies. p (Holm) is adjusted for all pairs of its table."
)


def p_value(p: float) -> str:
    """Return a p-value with three digits, and never as zero."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def signed(estimate: Estimate) -> str:
    """Return a difference with its sign and interval."""
    if estimate.value is None or estimate.low is None:
        return estimate.text()
    value = round(estimate.value, 3) + 0.0  # no -0
    return f"{value:+.3f} ({estimate.interval(sign='+')})"


def published(row: Row) -> str | None:
    """Return the report's four figures, per cent."""
    if row.published is None:
        return None
    return " / ".join(f"{100 * row.published[name]:.0f}" for name in PUBLISHED_MEASURES)


def denominators(rows: Sequence[Row], per_group: bool = True) -> str:
    """Return how many groups (or images) the measures of one shard set count, as a sentence."""
    estimates = [row.per_group if per_group else row.per_image for row in rows]
    total, tumor, healthy = (estimates[0][name].n for name in ("auc", "recall", "specificity"))
    unit = "groups of test images" if per_group else "test images"
    precision = ", ".join(
        f"{row.answers.name} {values['precision'].n:,}"
        for row, values in zip(rows, estimates, strict=True)
    )
    return (
        f"n = {total:,} {unit} for accuracy, F1 and AUC; {tumor:,} Tumor for recall, {healthy:,} "
        f"Healthy for specificity; for precision those that it predicts as Tumor: {precision}."
    )


def not_beaten(pairs: Sequence[Pair]) -> list[str]:
    """Return a sentence for each model whose AUC is not shown to be above a baseline's."""
    with_baseline = sorted(
        (pair for pair in pairs if pair.second.is_baseline), key=lambda pair: pair.first.name
    )
    sentences = []
    for model, group in groupby(with_baseline, key=lambda pair: pair.first.name):
        lost = [pair for pair in group if pair.per_group.auc.low is None or pair.per_group.auc.low <= 0]
        if lost:
            listed = ", ".join(
                f"{pair.second.name} (AUC {signed(pair.per_group.auc)})" for pair in lost
            )
            sentences.append(f"{model} is not shown to be better than: {listed}.")
    return sentences


def warnings(rows: Sequence[Row], comparison: Comparison) -> list[str]:
    """Return `not_beaten` of the rows of one shard set, after the warning of a leaky protocol."""
    first = rows[0].answers
    leaky = [first.protocol.warning] if first.protocol.leaky else []
    pairs = [pair for pair in comparison.pairs if pair.first.images.dataset == first.images.dataset]
    return [*leaky, *not_beaten(pairs)]


def by_shard_set(comparison: Comparison) -> list[list[Row]]:
    """Return the rows of each shard set together."""
    return [
        list(rows) for _, rows in groupby(comparison.rows, key=lambda row: row.answers.images.dataset)
    ]


@style.style()
def draw(rows: Sequence[Row]) -> Any:
    """Return a matplotlib figure: accuracy and AUC of each row with intervals; baselines hollow."""
    figure, axes = style.subplots(10.0, 1.6 + 0.3 * len(rows), 1, 2, sharey=True, sharex=True)
    for axis, name in zip(axes, ("accuracy", "auc"), strict=True):
        for place, row in enumerate(rows):
            estimate = row.per_group[name]
            color = style.GREY if row.answers.is_baseline else style.BLUE
            if estimate.low is not None and estimate.high is not None:
                axis.plot([estimate.low, estimate.high], [place, place], color=color, linewidth=2.0)
            marker = "s" if row.answers.is_baseline else "o"
            face = "white" if row.answers.is_baseline else color
            axis.plot([estimate.value], [place], marker=marker, color=color, markerfacecolor=face,
                      markersize=6, linestyle="none")  # fmt: skip
        axis.set_xlabel(f"{MEASURES[name]}, each group once (95 % interval)")
        axis.set_yticks(range(len(rows)), [style.plain(row.answers.name) for row in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
    return figure


def page(comparison: Comparison) -> str:
    """Return the whole comparison as one HTML file."""
    models = [row for row in comparison.rows if not row.answers.is_baseline]
    html = Page(
        "Comparison of models",
        f"{counted(len(models), 'model')} on their test splits"
        + ("" if comparison.alone else ", with baselines that know nothing of tumours")
        + ". Only the models of one section were evaluated on the same images; do not compare "
        "measures of different sections.",
    )
    if comparison.missing:
        html.warning("Not in these tables:")
        html.listing(f"{name}: {why}" for name, why in comparison.missing.items())
    if comparison.alone:
        html.warning("These models have no baselines:")
        html.listing(f"{name}: {why}" for name, why in comparison.alone.items())
    for rows in by_shard_set(comparison):
        add_section(html, rows, comparison)
    add_explanation(html, comparison)
    return html.html()


def add_explanation(html: Page, comparison: Comparison) -> None:
    """Add the section on how to read the tables."""
    html.section("How to read this")
    html.paragraph(PER_GROUP_TEXT.format(replicates=comparison.replicates))
    html.paragraph(PER_IMAGE_TEXT)
    html.paragraph(
        "Models use their own threshold, which was chosen on validation; baselines, and the column "
        "“accuracy at 0.5”, use 0.5. AUC does not need a threshold."
    )
    if comparison.has_reference:
        html.paragraph(PUBLISHED_TEXT)
    html.paragraph(PAIRS_TEXT)


def add_section(html: Page, rows: list[Row], comparison: Comparison) -> None:
    """Add the section of one shard set: its protocol, tables, figure and pairs."""
    first = rows[0].answers
    name = first.protocol.name
    html.section(f"{name[0].upper()}{name[1:]}")
    html.paragraph(first.protocol.meaning)
    for sentence in warnings(rows, comparison):
        html.paragraph(Strong(sentence))
    who = [f"{row.answers.name}{' (baseline)' * row.answers.is_baseline}" for row in rows]
    reference = any(row.published is not None for row in rows)
    heads = ("AUC", *(MEASURES[name] for name in PUBLISHED_MEASURES))
    where = (
        f"Test split, {first.images.n:,} images in {first.images.group_count:,} groups of copies, "
        f"shard set {first.images.dataset[:12]}."
    )
    for per_group, caption in (
        (True, f"Each group of copies counted once. {where} {denominators(rows)} With 95 % intervals."
         + " The report's: accuracy, precision, recall and F1." * reference),
        (False, f"The same per image. {denominators(rows, per_group=False)}"),
    ):  # fmt: skip
        estimates = [row.per_group if per_group else row.per_image for row in rows]
        html.table(
            [
                "model or baseline",
                *(Column(head, True) for head in heads),
                *[Column("the report's, per cent", True)] * reference,
            ],
            [
                [
                    name,
                    *(values[key].text() for key in ("auc", *PUBLISHED_MEASURES)),
                    *[published(row)] * reference,
                ]
                for name, row, values in zip(who, rows, estimates, strict=True)
            ],
            caption,
        )
    html.table(
        ["model or baseline", *(Column(head, True) for head in (
            "threshold", "sensitivity", "specificity", "accuracy at 0.5", "accuracy at 0.5, per image"
        ))],
        [
            [
                name, f"{row.answers.threshold:g}", row.per_group["recall"].text(),
                row.per_group["specificity"].text(), row.per_group[AT_HALF].text(),
                row.per_image[AT_HALF].text(),
            ]
            for name, row in zip(who, rows, strict=True)
        ],
        "Models at their own threshold, chosen on validation, baselines at 0.5; and all at 0.5, as in "
        "most papers. Each group once, except in the last column.",
    )  # fmt: skip
    html.figure(
        style.png(draw(rows)),
        "Accuracy and AUC of each row of the first table above, with 95 % intervals.",
        "Filled circles: models. Hollow squares: baselines.",
    )
    pairs = [pair for pair in comparison.pairs if pair.first.images.dataset == first.images.dataset]
    if pairs:
        _add_pairs(html, pairs)


def _add_pairs(html: Page, pairs: Sequence[Pair]) -> None:
    images = pairs[0].first.images
    html.table(
        ["first", "second", Column("AUC, first less second", True),
         Column("accuracy, first less second", True), Column("AUC per image", True),
         Column("accuracy per image", True), Column("only first right (images)", True),
         Column("only second right (images)", True), Column("McNemar's p", True),
         Column("p (Holm)", True)],
        [
            [pair.first.name, pair.second.name, signed(pair.per_group.auc),
             signed(pair.per_group.accuracy), signed(pair.per_image.auc),
             signed(pair.per_image.accuracy), pair.test.first_only, pair.test.second_only,
             p_value(pair.test.p), p_value(pair.p_adjusted)]
            for pair in pairs
        ],
        f"Pairs on the same {images.n:,} images in {images.group_count:,} groups; differences with "
        "each group counted once unless it says per image.",
    )  # fmt: skip
