"""Show one model under every protocol, side by side, as a figure and as a page."""

from typing import Any

from tumorbatch.evaluation.compare import AT_HALF, MEASURES, Comparison, Row
from tumorbatch.evaluation.compare_page import (
    add_explanation,
    add_section,
    by_shard_set,
    denominators,
    signed,
    warnings,
)
from tumorbatch.evaluation.protocol_drops import SideBySide, protocols_of
from tumorbatch.evaluation.protocols import PROTOCOLS
from tumorbatch.report import style
from tumorbatch.report.html import Column, Page, Strong
from tumorbatch.statistics.intervals import Estimate

_LOOKS = ((style.VERMILLION, "X"), (style.BLUE, "o"), (style.GREEN, "s"), (style.GREY, "D"))
UNPAIRED = (
    "Each protocol has its own test split, so the columns show different images; the training is the "
    "same: network, schedule, augmentation and seed. Copies of test images in the training set can "
    "raise the leaky column above the grouped one; properties of the source of an image can raise the "
    "grouped one above held-out shapes. The differences below show whether they do."
)
DROPS = (
    "Difference of two protocols, with the 95 % interval of a bootstrap over groups of duplicates in "
    "each test split ({replicates:,} samples); n: groups of both. The calculation takes the two "
    "splits as independent; they share some images, so the intervals are rather too wide. One "
    "training each: they do not include the variation between training runs."
)
SIDE_BY_SIDE = {AT_HALF: "accuracy at 0.5", **MEASURES}


def by_name(comparison: Comparison) -> dict[str, dict[str, Row]]:
    """Return {name of model or baseline: {protocol: row}}, the models first."""
    rows = sorted(comparison.rows, key=lambda row: row.answers.is_baseline)
    table: dict[str, dict[str, Row]] = {}
    for row in rows:
        table.setdefault(row.answers.name, {})[row.answers.protocol.key] = row
    return table


def estimate_of(row: Row | None, name: str, per_group: bool = True) -> Estimate | None:
    """Return one of `SIDE_BY_SIDE` of a row, or None without a row."""
    if row is None:
        return None
    return (row.per_group if per_group else row.per_image)[name]


@style.style()
def draw(comparison: Comparison) -> Any:
    """Return a matplotlib figure: accuracy at 0.5 and AUC of each row under each protocol."""
    rows = by_name(comparison)
    keys = protocols_of(comparison)
    figure, axes = style.subplots(10.0, 1.6 + 0.75 * len(rows), 1, 2, sharey=True, sharex=True)
    for axis, name in zip(axes, (AT_HALF, "auc"), strict=True):
        for place, columns in enumerate(rows.values()):
            for number, key in enumerate(keys):
                estimate = estimate_of(columns.get(key), name)
                if estimate is None or estimate.value is None:
                    continue
                at, (color, marker) = place + 0.22 * (number - 1), _LOOKS[number % len(_LOOKS)]
                if estimate.low is not None and estimate.high is not None:
                    axis.plot([estimate.low, estimate.high], [at, at], color=color, linewidth=2.0)
                axis.plot([estimate.value], [at], marker=marker, color=color, markersize=7,
                          linestyle="none", label="" if place else PROTOCOLS[key].name)  # fmt: skip
        axis.set_xlabel(f"{SIDE_BY_SIDE[name]}, each group once (95 % interval)")
        axis.set_yticks(range(len(rows)), [style.plain(name) for name in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(keys))
    return figure


def summary(name: str, comparison: Comparison) -> str:
    """Return the result as a sentence."""
    rows = by_name(comparison)[name]
    listed = [
        f"{rows[key].per_group['auc'].text()} {PROTOCOLS[key].name}"
        for key in protocols_of(comparison)
        if key in rows
    ]
    return (
        f"AUC of {name}, each group of copies counted once: {'; '.join(listed)}. Quote the grouped "
        "value."
    )


def page(name: str, result: SideBySide) -> str:
    """Return the whole as one HTML file, of the model `name`."""
    comparison = result.comparison
    html = Page(f"{name} under every protocol", Strong(summary(name, comparison)))
    html.section("Side by side")
    for key in protocols_of(comparison):
        html.paragraph(PROTOCOLS[key].meaning)
    html.paragraph(UNPAIRED)
    html.figure(
        style.png(draw(comparison)),
        "Accuracy at 0.5 and AUC of the model and of the baselines under each protocol.",
        "Lines: 95 % intervals. Each group of copies counted once.",
    )
    for rows in by_shard_set(comparison):
        for sentence in warnings(rows, comparison):
            html.paragraph(Strong(f"{_title(rows)}: {sentence}"))
    for rows in by_shard_set(comparison):
        html.paragraph(f"{_title(rows)}: {denominators(rows)}")
    _add_tables(html, comparison)
    _add_drops(html, result)
    for rows in by_shard_set(comparison):
        add_section(html, rows, comparison)
    add_explanation(html, comparison)
    return html.html()


def _add_tables(html: Page, comparison: Comparison) -> None:
    keys = protocols_of(comparison)
    for per_group, how in ((True, "each group of copies counted once"), (False, "per image")):
        for measure, head in SIDE_BY_SIDE.items():
            html.table(
                ["model or baseline", *(Column(PROTOCOLS[key].name, True) for key in keys)],
                [
                    [who, *(_text(estimate_of(row.get(key), measure, per_group)) for key in keys)]
                    for who, row in by_name(comparison).items()
                ],
                f"{_capital(head)}, {how}, with 95 % interval.",
            )


def _add_drops(html: Page, result: SideBySide) -> None:
    html.section("From one protocol to the next")
    for per_group, how in ((True, "Each group of copies counted once."), (False, "Per image.")):
        rows: list[list[str | int | None]] = []
        for drop in result.drops:
            difference = drop.per_group if per_group else drop.per_image
            rows.append(
                [drop.name, PROTOCOLS[drop.first].name, PROTOCOLS[drop.second].name, difference.auc.n,
                 signed(difference.auc), signed(difference.accuracy)]
            )  # fmt: skip
        html.table(
            ["model or baseline", "from", "to", Column("n", True),
             Column("AUC, first less second", True),
             Column("accuracy at 0.5, first less second", True)],
            rows,
            f"Loss when the split becomes stricter. {how}",
        )  # fmt: skip
    html.paragraph(DROPS.format(replicates=result.comparison.replicates))


def _title(rows: list[Row]) -> str:
    return _capital(rows[0].answers.protocol.name)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _text(estimate: Estimate | None) -> str | None:
    return None if estimate is None else estimate.text()
