"""One model under every protocol, side by side: a figure and a page."""

from itertools import groupby
from typing import Any

from tumorbatch.evaluation.compare import FIGURES, PROTOCOL_TEXTS, PROTOCOLS, Comparison, Row
from tumorbatch.evaluation.compare_page import denominators, explain, section, signed, warnings
from tumorbatch.evaluation.protocols import Protocols
from tumorbatch.report import style
from tumorbatch.report.html import Column, Page, Strong
from tumorbatch.statistics.intervals import Estimate

_COLORS = {"file": style.VERMILLION, "group": style.BLUE, "shape": style.GREEN}
_MARKERS = {"file": "X", "group": "o", "shape": "s"}
UNPAIRED = (
    "Each protocol has a test split of its own, so the columns are judged on other images; the "
    "training is the same: network, schedule, augmentation and seed. Copies of test images in the "
    "training set can raise the leaky column above the grouped one; what comes with the source of an "
    "image can raise the grouped one above held-out shapes. Whether they do, the differences below say."
)
DROPS = (
    "Difference of two protocols, with the 95 % interval of a bootstrap over duplicate groups of each "
    "test split ({replicates:,} samples); n: images of both. The two splits are taken as independent; "
    "they share some images, so that the intervals are rather too wide. One training each: what "
    "another seed would give is not in them."
)
SIDE_BY_SIDE = {"accuracy_at_half": "accuracy at 0.5", **FIGURES}


def by_name(comparison: Comparison) -> dict[str, dict[str, Row]]:
    """{name of model or baseline: {protocol: row}}, the models first."""
    rows = sorted(comparison.rows, key=lambda row: row.judged.is_baseline)
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.judged.name, {})[row.judged.split_by] = row
    return found


def figure_of(row: Row | None, name: str) -> Estimate | None:
    """One of `SIDE_BY_SIDE` of a row."""
    if row is None:
        return None
    return row.accuracy_at_half if name == "accuracy_at_half" else row.figures[name]


@style.style()
def draw(comparison: Comparison) -> Any:
    """A matplotlib figure: accuracy at 0.5 and AUC of model and baselines under each protocol."""
    rows = by_name(comparison)
    figure, axes = style.subplots(10.0, 1.6 + 0.75 * len(rows), 1, 2, sharey=True)
    for axis, name in zip(axes, ("accuracy_at_half", "auc"), strict=True):
        for place, of in enumerate(rows.values()):
            for number, split_by in enumerate(PROTOCOLS):
                shown = figure_of(of.get(split_by), name)
                if shown is None or shown.value is None:
                    continue
                at, color = place + 0.22 * (number - 1), _COLORS[split_by]
                if shown.low is not None and shown.high is not None:
                    axis.plot([shown.low, shown.high], [at, at], color=color, linewidth=2.0)
                axis.plot([shown.value], [at], marker=_MARKERS[split_by], color=color, markersize=7,
                          linestyle="none", label="" if place else PROTOCOLS[split_by])  # fmt: skip
        axis.set_xlabel(f"{SIDE_BY_SIDE[name]} on the test split (95 % interval)")
        axis.set_yticks(range(len(rows)), [style.plain(name) for name in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(PROTOCOLS))
    return figure


def summary(name: str, comparison: Comparison) -> str:
    """The result as a sentence."""
    rows = by_name(comparison)[name]
    told = [
        f"{rows[split_by].figures['auc'].text()} {words}"
        for split_by, words in PROTOCOLS.items()
        if split_by in rows
    ]
    return f"AUC of {name}: {'; '.join(told)}. The grouped figure is the one to quote."


def page(name: str, found: Protocols) -> str:
    """The whole as one HTML file, of the model `name`."""
    comparison = found.comparison
    made = Page(f"{name} under every protocol", Strong(summary(name, comparison)))
    made.section("Side by side")
    for split_by in PROTOCOLS:
        made.paragraph(PROTOCOL_TEXTS[split_by])
    made.paragraph(UNPAIRED)
    made.figure(
        style.png(draw(comparison)),
        "Accuracy at 0.5 and AUC of the model and of the baselines under each protocol.",
        "Lines: 95 % intervals.",
    )
    for _, of in groupby(comparison.rows, key=lambda row: row.judged.dataset):
        members = list(of)
        for sentence in warnings(members, comparison):
            made.paragraph(Strong(f"{_capital(PROTOCOLS[members[0].judged.split_by])}: {sentence}"))
    for _, of in groupby(comparison.rows, key=lambda row: row.judged.dataset):
        members = list(of)
        named = _capital(PROTOCOLS[members[0].judged.split_by])
        made.paragraph(f"{named}: {denominators(members)}")
    rows = by_name(comparison)
    for figure, head in SIDE_BY_SIDE.items():
        made.table(
            ["who", *(Column(words, True) for words in PROTOCOLS.values())],
            [
                [who, *(_told(figure_of(of.get(split_by), figure)) for split_by in PROTOCOLS)]
                for who, of in rows.items()
            ],
            f"{_capital(head)}, with 95 % interval.",
        )
    made.section("From one protocol to the next")
    made.table(
        ["who", "from", "to", Column("n", True), Column("AUC, first less second", True),
         Column("accuracy at 0.5, first less second", True)],
        [
            [drop.name, PROTOCOLS[drop.first], PROTOCOLS[drop.second], drop.auc.n, signed(drop.auc),
             signed(drop.accuracy)]
            for drop in found.drops
        ],
        "What is lost when the split becomes stricter.",
    )  # fmt: skip
    made.paragraph(DROPS.format(replicates=comparison.replicates))
    for _, of in groupby(comparison.rows, key=lambda row: row.judged.dataset):
        section(made, list(of), comparison)
    explain(made, comparison)
    return made.html()


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _told(figure: Estimate | None) -> str | None:
    return None if figure is None else figure.text()
