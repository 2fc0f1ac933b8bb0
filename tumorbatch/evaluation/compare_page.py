"""A comparison of models as CSV, as a figure and as a page."""

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tumorbatch.evaluation.compare import (
    FIGURES,
    PROTOCOL_TEXTS,
    REPORT_FIGURES,
    Comparison,
    PairRow,
    Row,
    protocol,
)
from tumorbatch.report import style
from tumorbatch.report.html import Column, Page, Strong
from tumorbatch.statistics.intervals import Estimate

_DIGITS = 6  # in CSV: more than any interval is worth, and few enough to read
INTERVALS = (
    "In brackets: 95 % interval; Wilson's for accuracy, precision, recall and specificity, the "
    "bootstrap over duplicate groups for F1 and AUC ({replicates:,} samples). Wilson's counts images "
    "as independent; the bootstrap's interval of the same shares, wider where images repeat, is in the "
    "CSV file (low_by_group, high_by_group)."
)
REPORTED = (
    "The report's own figures (A. Öztüner) are those of its random validation split, without n or "
    "interval: of all protocols here the leaky one is nearest to it."
)
PAIRS = (
    "AUC and accuracy: first less second, with the 95 % interval of a paired bootstrap over duplicate "
    "groups; where it holds 0, the data do not tell the two apart. McNemar's test asks whether both "
    "err equally often; it counts images as independent, so that with copies in the test split its p "
    "is too small. p (Holm) is adjusted for all pairs of its table."
)


def models_csv(comparison: Comparison) -> str:
    """One line a model or baseline; shares are 0 to 1, empty where there is none."""
    head = [
        "name", "kind", "architecture", "model_id", "protocol", "split_by", "leaky", "dataset_sha256",
        "test_images", "test_groups", "threshold",
    ]  # fmt: skip
    for name in (*FIGURES, "accuracy_at_0.5"):
        head += [name, f"{name}_low", f"{name}_high", f"{name}_n"]
        head += [f"{name}_low_by_group", f"{name}_high_by_group"] if name not in ("f1", "auc") else []
    head += [f"report_{name}" for name in REPORT_FIGURES]
    lines = []
    for row in comparison.rows:
        of = row.to_dict()
        line = [
            of["name"], "baseline" if of["baseline"] else "model", of["architecture"], of["model_id"],
            of["protocol"], of["split_by"], of["leaky"], of["dataset_sha256"], of["n"], of["groups"],
            of["threshold"],
        ]  # fmt: skip
        for name, figure in (*row.figures.items(), ("", row.accuracy_at_half)):
            line += [*_rounded(figure), figure.n]
            if name not in ("f1", "auc"):
                line += [_round(figure.low_by_group), _round(figure.high_by_group)]
        line += [(row.report or {}).get(name) for name in REPORT_FIGURES]
        lines.append(line)
    return _csv(head, lines)


def pairs_csv(comparison: Comparison) -> str:
    """One line a pair that was judged on the same images."""
    head = ["first", "second", "protocol", "test_images"]
    for name in ("auc_difference", "accuracy_difference"):
        head += [name, f"{name}_low", f"{name}_high"]
    head += ["only_first_right", "only_second_right", "mcnemar_p", "mcnemar_p_holm", "mcnemar_method"]
    lines = [
        [
            pair.first, pair.second, pair.protocol, pair.auc.n, *_rounded(pair.auc),
            *_rounded(pair.accuracy), pair.test.first_only, pair.test.second_only,
            f"{pair.test.p:.4g}", f"{pair.p_adjusted:.4g}", pair.test.method,
        ]
        for pair in comparison.pairs
    ]  # fmt: skip
    return _csv(head, lines)


def _rounded(figure: Estimate) -> list[float | None]:
    return [_round(end) for end in (figure.value, figure.low, figure.high)]


def _round(end: float | None) -> float | None:
    return None if end is None else round(end, _DIGITS)


def _csv(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *([_harmless(cell) for cell in line] for line in lines)])
    return text.getvalue()


def _harmless(cell: Any) -> Any:
    """A name that a spreadsheet would take for a formula, as text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def p_value(p: float) -> str:
    """As it is told: three digits, and no zero."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def signed(figure: Estimate) -> str:
    """A difference with its sign and interval."""
    if figure.value is None or figure.low is None:
        return figure.text()
    value = round(figure.value, 3) + 0.0  # no -0
    return f"{value:+.3f} ({figure.interval(sign='+')})"


def reported(row: Row) -> str | None:
    """The report's four figures, per cent."""
    if row.report is None:
        return None
    return " / ".join(f"{100 * row.report[name]:.0f}" for name in REPORT_FIGURES)


def denominators(rows: Sequence[Row]) -> str:
    """The numbers of images behind the figures of one shard set, as a sentence."""
    recall, specificity = (rows[0].figures[name].n for name in ("recall", "specificity"))
    precision = ", ".join(f"{row.judged.name} {row.figures['precision'].n:,}" for row in rows)
    return (
        f"n = {recall + specificity:,} test images for accuracy, F1 and AUC; {recall:,} Tumor for "
        f"recall, {specificity:,} Healthy for specificity; for precision those that each calls Tumor: "
        f"{precision}."
    )


def not_beaten(pairs: Sequence[PairRow], baselines: set[str]) -> list[str]:
    """A sentence for each model whose AUC is not shown to be above a baseline's."""
    found = []
    for model, of in groupby(
        sorted((pair for pair in pairs if pair.second in baselines), key=lambda pair: pair.first),
        key=lambda pair: pair.first,
    ):
        above = [pair for pair in of if pair.auc.low is None or pair.auc.low <= 0]
        if above:
            told = ", ".join(f"{pair.second} (AUC {signed(pair.auc)})" for pair in above)
            found.append(f"{model} is not shown to be better than: {told}.")
    return found


def warnings(rows: Sequence[Row], comparison: Comparison) -> list[str]:
    """`not_beaten` of the rows of one shard set."""
    baselines = {row.judged.name for row in rows if row.judged.is_baseline}
    dataset = rows[0].judged.dataset
    return not_beaten([pair for pair in comparison.pairs if pair.dataset == dataset], baselines)


@style.style()
def draw(rows: Sequence[Row]) -> Any:
    """A matplotlib figure: accuracy and AUC of each row with 95 % intervals; baselines hollow."""
    figure, axes = style.subplots(10.0, 1.6 + 0.3 * len(rows), 1, 2, sharey=True)
    for axis, name in zip(axes, ("accuracy", "auc"), strict=True):
        for place, row in enumerate(rows):
            of = row.figures[name]
            color = style.GREY if row.judged.is_baseline else style.BLUE
            if of.low is not None and of.high is not None:
                axis.plot([of.low, of.high], [place, place], color=color, linewidth=2.0)
            marker = "s" if row.judged.is_baseline else "o"
            face = "white" if row.judged.is_baseline else color
            axis.plot([of.value], [place], marker=marker, color=color, markerfacecolor=face,
                      markersize=6, linestyle="none")  # fmt: skip
        axis.set_xlabel(f"{FIGURES[name]} on the test split (95 % interval)")
        axis.set_yticks(range(len(rows)), [style.plain(row.judged.name) for row in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
    return figure


def page(comparison: Comparison) -> str:
    """The whole comparison as one HTML file."""
    models = [row for row in comparison.rows if not row.judged.is_baseline]
    made = Page(
        "Comparison of models",
        f"{len(models)} model{'s' * (len(models) != 1)} on their test splits"
        + ("" if comparison.alone else ", beside baselines that know nothing of tumours")
        + ". Only models of one section were judged on the same images; figures "
        "of different sections answer different questions.",
    )
    if comparison.missing:
        made.warning("Not in these tables:")
        made.listing(f"{name}: {why}" for name, why in comparison.missing.items())
    if comparison.alone:
        made.warning("No baselines stand beside these models:")
        made.listing(f"{name}: {why}" for name, why in comparison.alone.items())
    for _, of in groupby(comparison.rows, key=lambda row: row.judged.dataset):
        section(made, list(of), comparison)
    explain(made, comparison)
    return made.html()


def explain(made: Page, comparison: Comparison) -> None:
    """Add the section on how the tables are to be read."""
    made.section("How to read this")
    made.paragraph(INTERVALS.format(replicates=comparison.replicates))
    made.paragraph(
        "Models answer at their own threshold, which was chosen on validation; baselines, and the "
        "column “accuracy at 0.5”, at 0.5. AUC needs no threshold."
    )
    made.paragraph(REPORTED)
    made.paragraph(PAIRS)


def section(made: Page, rows: list[Row], comparison: Comparison) -> None:
    """Add a section for what was judged on the same images: table, figure, pairs, words."""
    one = rows[0].judged
    named = protocol(one.split_by, one.leaky)
    made.section(f"{named[0].upper()}{named[1:]}")
    made.paragraph(PROTOCOL_TEXTS[one.split_by])
    if one.leaky and one.split_by != "file":
        made.warning("The proof failed: images or groups lie in more than one split.")
    pairs = [pair for pair in comparison.pairs if pair.dataset == one.dataset]
    for sentence in warnings(rows, comparison):
        made.paragraph(Strong(sentence))
    who = [f"{row.judged.name}{' (baseline)' * row.judged.is_baseline}" for row in rows]
    heads = ("AUC", *(FIGURES[name] for name in REPORT_FIGURES))
    made.table(
        ["who", *(Column(head, True) for head in heads), Column("the report's, per cent", True)],
        [
            [name, *(row.figures[of].text() for of in ("auc", *REPORT_FIGURES)), reported(row)]
            for name, row in zip(who, rows, strict=True)
        ],
        f"Test split, {rows[0].to_dict()['groups']:,} groups of duplicates, shard set "
        f"{one.dataset[:12]}. {denominators(rows)} With 95 % intervals. The report's: accuracy, "
        "precision, recall and F1.",
    )
    made.table(
        ["who", *(Column(head, True) for head in (
            "threshold", "sensitivity", "specificity", "accuracy at 0.5"
        ))],
        [
            [
                name, f"{row.judged.threshold:g}", row.figures["recall"].text(),
                row.figures["specificity"].text(), row.accuracy_at_half.text(),
            ]
            for name, row in zip(who, rows, strict=True)
        ],
        "Models at their own threshold, chosen on validation, baselines at 0.5; and all at 0.5, as in "
        "most papers.",
    )  # fmt: skip
    png = style.png(draw(rows))
    made.figure(
        png, "Accuracy and AUC of each row of the table above, with 95 % intervals.",
        "Filled circles: models. Hollow squares: baselines.",
    )  # fmt: skip
    if pairs:
        made.table(
            ["first", "second", Column("AUC, first less second", True),
             Column("accuracy, first less second", True), Column("only first right (images)", True),
             Column("only second right (images)", True), Column("McNemar's p", True),
             Column("p (Holm)", True)],
            [
                [pair.first, pair.second, signed(pair.auc), signed(pair.accuracy),
                 pair.test.first_only, pair.test.second_only, p_value(pair.test.p),
                 p_value(pair.p_adjusted)]
                for pair in pairs
            ],
            f"Pairs on the same {len(one.labels):,} images.",
        )  # fmt: skip
