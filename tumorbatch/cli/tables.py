"""Tables on the terminal, of what `compare` and `evaluate --protocols` found."""

from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tumorbatch.cli.console import output
from tumorbatch.evaluation.compare import FIGURES, PROTOCOLS, Comparison, Row
from tumorbatch.evaluation.compare_page import denominators, p_value, signed, warnings
from tumorbatch.evaluation.protocols import Protocols
from tumorbatch.evaluation.protocols_page import SIDE_BY_SIDE, by_name, figure_of, summary
from tumorbatch.statistics.intervals import Estimate

_WIDTH = 140  # columns, where there is no terminal
_ROOM = 125  # columns that a row a model takes


def _two_lines(figure: Estimate, reported: float | None = None) -> str:
    """Format a value with its interval below and the report's value beside it."""
    if figure.value is None:
        return "undefined"
    beside = "" if reported is None else f" | {reported:.2f}"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}{beside}\nno interval"
    return f"{figure.value:.3f}{beside}\n{figure.low:.3f}-{figure.high:.3f}"


def comparison_table(comparison: Comparison) -> None:
    """Print one table for each shard set, and its pairs of models, to standard output.

    A row a model where there is room for it; on narrow terminals a row a figure, so that no interval is
    cut off.
    """
    console = output(_WIDTH)
    for dataset, members in groupby(comparison.rows, key=lambda row: row.judged.dataset):
        rows = list(members)
        console.print(escape(_title(rows)), style="bold")
        (_models if console.width >= _ROOM else _narrow_models)(console, rows)
        _pairs(console, comparison, dataset)
        for sentence in warnings(rows, comparison):
            console.print(sentence, markup=False, style="bold")
    console.print(
        "With each figure its 95 % interval (Wilson; F1 and AUC: bootstrap over duplicate groups); "
        "behind |, the report's own, which has neither n nor interval and is of a random split.",
        markup=False,
    )
    for name, why in comparison.missing.items():
        console.print(f"NOT COMPARED: {name}: {why}", markup=False)
    for names, why in comparison.alone.items():
        console.print(f"WITHOUT BASELINES: {names}: {why}", markup=False)


def _title(rows: list[Row]) -> str:
    one = rows[0].to_dict()
    return f"{one['protocol']}: {denominators(rows)} In {one['groups']:,} groups of copies."


def _name(row: Row, gap: str) -> str:
    return f"{row.judged.name}{gap}(baseline)" if row.judged.is_baseline else row.judged.name


def _models(console: Console, rows: list[Row]) -> None:
    table = Table("")
    for head in (*FIGURES.values(), "accuracy at 0.5"):
        table.add_column(head, justify="right")
    for row in rows:
        report = row.report or {}
        cells = [_two_lines(figure, report.get(key)) for key, figure in row.figures.items()]
        cells.append(_two_lines(row.accuracy_at_half))
        table.add_row(escape(_name(row, "\n")), *cells)
    console.print(table)


def _narrow_models(console: Console, rows: list[Row]) -> None:
    table = Table("", "figure")
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    for row in rows:
        report = row.report or {}
        shown = {**{FIGURES[key]: figure_of_row for key, figure_of_row in row.figures.items()},
                 "accuracy at 0.5": row.accuracy_at_half}  # fmt: skip
        own = {FIGURES[key]: f" | {value:.2f}" for key, value in report.items()}
        for number, (head, figure) in enumerate(shown.items()):
            who = "" if number else escape(_name(row, " "))
            table.add_row(who, head, f"{figure.text()}{own.get(head, '')}", f"{figure.n:,}")
        table.add_section()
    console.print(table)


def _pairs(console: Console, comparison: Comparison, dataset: str) -> None:
    pairs = [pair for pair in comparison.pairs if pair.dataset == dataset]
    if not pairs:
        return
    if console.width < _ROOM:
        for pair in pairs:
            console.print(
                f"{pair.first} - {pair.second}: AUC {signed(pair.auc)}, accuracy "
                f"{signed(pair.accuracy)}; McNemar p {p_value(pair.test.p)} (Holm "
                f"{p_value(pair.p_adjusted)})",
                markup=False,
            )
        return
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
    comparison = protocols.comparison
    console = output(_WIDTH)
    for _, rows_of_set in groupby(comparison.rows, key=lambda row: row.judged.dataset):
        console.print(_title(list(rows_of_set)), markup=False)
    table = Table(title=f"{escape(name)}, side by side (95 % interval)", title_justify="left")
    table.add_column("figure")
    table.add_column("")
    wide = console.width >= _ROOM
    for words in PROTOCOLS.values() if wide else ("protocol", "figure"):
        table.add_column(words, justify="right" if wide or words == "figure" else "left")
    for figure, head in SIDE_BY_SIDE.items():
        for number, (who, rows) in enumerate(by_name(comparison).items()):
            cells = {
                words: figure_of(rows.get(split_by), figure) for split_by, words in PROTOCOLS.items()
            }
            texts = {words: "" if cell is None else cell.text() for words, cell in cells.items()}
            first = "" if number else head
            if wide:
                table.add_row(first, escape(who), *texts.values())
                continue
            for at, (words, text) in enumerate(texts.items()):
                table.add_row("" if at else first, "" if at else escape(who), words, text)
        table.add_section()
    console.print(table)
    for drop in protocols.drops:
        if drop.name == name:
            console.print(
                f"{PROTOCOLS[drop.first]} less {PROTOCOLS[drop.second]}: AUC {signed(drop.auc)}, "
                f"accuracy at 0.5 {signed(drop.accuracy)}",
                markup=False,
            )
    for _, rows_of_set in groupby(comparison.rows, key=lambda row: row.judged.dataset):
        members = list(rows_of_set)
        for sentence in warnings(members, comparison):
            console.print(f"{PROTOCOLS[members[0].judged.split_by]}: {sentence}", markup=False)
    console.print(summary(name, comparison), markup=False, style="bold")
