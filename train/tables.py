"""Tables on the terminal, of what `compare` and `evaluate --protocols` found."""

from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tumorbatch.statistics import Figure
from tumorbatch.train.compare import FIGURES, PROTOCOLS, Comparison, Row
from tumorbatch.train.compare_page import p_value, signed, warnings
from tumorbatch.train.protocols import Protocols
from tumorbatch.train.protocols_page import SIDE_BY_SIDE, by_name, figure_of, summary

_WIDTH = 140  # columns, where there is no terminal


def _console() -> Console:
    return Console(width=None if Console().is_terminal else _WIDTH, highlight=False)


def _two_lines(figure: Figure, reported: float | None = None) -> str:
    """Value, interval below it; the report's own figure beside the value."""
    if figure.value is None:
        return "undefined"
    beside = "" if reported is None else f" | {reported:.2f}"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}{beside}"
    return f"{figure.value:.3f}{beside}\n{figure.low:.3f}-{figure.high:.3f}"


def comparison_table(found: Comparison) -> None:
    """Print one table for each shard set, and its pairs of models, to standard output."""
    console = _console()
    for dataset, of in groupby(found.rows, key=lambda row: row.judged.dataset):
        rows = list(of)
        _models(console, rows)
        _pairs(console, found, dataset)
        for sentence in warnings(rows, found):
            console.print(sentence, markup=False, style="bold")
    console.print(
        "Below each figure its 95 % interval (Wilson; F1 and AUC: bootstrap over duplicate groups); "
        "behind |, the report's own, which has neither n nor interval and is of a random split.",
        markup=False,
    )
    for name, why in found.missing.items():
        console.print(f"NOT COMPARED: {name}: {why}", markup=False)


def _models(console: Console, rows: list[Row]) -> None:
    one = rows[0].to_dict()
    table = Table(
        title=f"{one['protocol']}: n = {one['n']:,} test images, {one['groups']:,} groups",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("")
    for head in (*FIGURES.values(), "accuracy at 0.5"):
        table.add_column(head, justify="right")
    for row in rows:
        name = f"{row.judged.name}\n(baseline)" if row.judged.is_baseline else row.judged.name
        report = row.report or {}
        cells = [_two_lines(figure, report.get(key)) for key, figure in row.figures.items()]
        cells.append(_two_lines(row.accuracy_at_half))
        table.add_row(escape(name), *cells)
    console.print(table)


def _pairs(console: Console, found: Comparison, dataset: str) -> None:
    pairs = [pair for pair in found.pairs if pair.dataset == dataset]
    if pairs:
        table = Table("first", "second", title="pairs on the same images", title_justify="left")
        for head in ("AUC, first - second", "accuracy, first - second", "McNemar p", "p (Holm)"):
            table.add_column(head, justify="right")
        for pair in pairs:
            table.add_row(
                escape(pair.first), escape(pair.second), signed(pair.auc), signed(pair.accuracy),
                p_value(pair.test.p), p_value(pair.p_adjusted),
            )  # fmt: skip
        console.print(table)


def protocols_table(name: str, protocols: Protocols) -> None:
    """Print the model `name` and the baselines under every protocol, side by side."""
    found = protocols.comparison
    console = _console()
    table = Table(title=f"{escape(name)}, side by side (95 % interval)", title_justify="left")
    table.add_column("figure")
    table.add_column("")
    for words in PROTOCOLS.values():
        table.add_column(words, justify="right")
    for figure, head in SIDE_BY_SIDE.items():
        for number, (who, of) in enumerate(by_name(found).items()):
            cells = (figure_of(of.get(split_by), figure) for split_by in PROTOCOLS)
            told = ("" if cell is None else cell.told() for cell in cells)
            table.add_row("" if number else head, escape(who), *told)
        table.add_section()
    console.print(table)
    for drop in protocols.drops:
        if drop.name == name:
            console.print(
                f"{PROTOCOLS[drop.first]} less {PROTOCOLS[drop.second]}: AUC {signed(drop.auc)}, "
                f"accuracy at 0.5 {signed(drop.accuracy)}",
                markup=False,
            )
    for _, rows in groupby(found.rows, key=lambda row: row.judged.dataset):
        members = list(rows)
        for sentence in warnings(members, found):
            console.print(f"{PROTOCOLS[members[0].judged.split_by]}: {sentence}", markup=False)
    console.print(summary(name, found), markup=False, style="bold")
