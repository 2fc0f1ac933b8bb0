"""Tables on the terminal: the results of `compare` and `evaluate --protocols`."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tumorbatch.cli.console import output
from tumorbatch.evaluation.compare import AT_HALF, MEASURES, Comparison, Pair, Row
from tumorbatch.evaluation.compare_page import (
    by_shard_set,
    denominators,
    p_value,
    signed,
    warnings,
)
from tumorbatch.evaluation.protocol_drops import SideBySide, protocols_of
from tumorbatch.evaluation.protocols import PROTOCOLS
from tumorbatch.evaluation.protocols_page import SIDE_BY_SIDE, by_name, estimate_of, summary
from tumorbatch.statistics.intervals import Estimate

_WIDTH = 140  # columns, where there is no terminal
_ROOM = 125  # columns that a row a model takes
_HEADS = {**MEASURES, AT_HALF: "accuracy at 0.5"}
_COUNTED = {True: "each group of copies counted once", False: "per image"}


def _two_lines(estimate: Estimate, published: float | None = None) -> str:
    """Format a value with its interval below and the report's value next to it."""
    if estimate.value is None:
        return "undefined"
    published_text = "" if published is None else f" | {published:.2f}"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}{published_text}\nno interval"
    return f"{estimate.value:.3f}{published_text}\n{estimate.low:.3f}-{estimate.high:.3f}"


def _estimates(row: Row, per_group: bool) -> dict[str, Estimate]:
    """Return what a table shows of a row, always with the interval over groups."""
    estimates = row.per_group if per_group else row.per_image
    return {name: estimates[name].over_groups for name in _HEADS}


def comparison_table(comparison: Comparison) -> None:
    """Print the tables of each shard set, and its pairs of models, to standard output.

    A row a model where there is room for it; on narrow terminals a row a measure, so that no interval
    is cut off.
    """
    console = output(_WIDTH)
    for rows in by_shard_set(comparison):
        console.print(escape(_title(rows)), style="bold")
        for per_group in (True, False):
            show = _models if console.width >= _ROOM else _narrow_models
            show(console, rows, per_group)
        dataset = rows[0].answers.images.dataset
        _pairs(console, [pair for pair in comparison.pairs if pair.first.images.dataset == dataset])
        for sentence in warnings(rows, comparison):
            console.print(sentence, markup=False, style="bold")
    beside = (
        "; after |, the report's own, which has neither n nor interval and is of a random split"
        if comparison.has_reference
        else ""
    )
    console.print(
        f"With each measure its 95 % interval, from a bootstrap over groups of copies{beside}.",
        markup=False,
    )
    for name, why in comparison.missing.items():
        console.print(f"NOT COMPARED: {name}: {why}", markup=False)
    for names, why in comparison.alone.items():
        console.print(f"WITHOUT BASELINES: {names}: {why}", markup=False)


def _title(rows: list[Row]) -> str:
    answers = rows[0].answers
    return (
        f"{answers.protocol.name}: {answers.images.n:,} test images in "
        f"{answers.images.group_count:,} groups of copies. {denominators(rows)}"
    )


def _name(row: Row, gap: str) -> str:
    return f"{row.answers.name}{gap}(baseline)" if row.answers.is_baseline else row.answers.name


def _models(console: Console, rows: list[Row], per_group: bool) -> None:
    table = Table("", title=_COUNTED[per_group], title_justify="left")
    for head in _HEADS.values():
        table.add_column(head, justify="right")
    for row in rows:
        published = row.published or {}
        estimates = _estimates(row, per_group)
        cells = [_two_lines(estimate, published.get(key)) for key, estimate in estimates.items()]
        table.add_row(escape(_name(row, "\n")), *cells)
    console.print(table)


def _narrow_models(console: Console, rows: list[Row], per_group: bool) -> None:
    table = Table("", "measure", title=_COUNTED[per_group], title_justify="left")
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    for row in rows:
        published = {key: f" | {value:.2f}" for key, value in (row.published or {}).items()}
        for number, (key, estimate) in enumerate(_estimates(row, per_group).items()):
            who = "" if number else escape(_name(row, " "))
            text = f"{estimate.text()}{published.get(key, '')}"
            table.add_row(who, _HEADS[key], text, f"{estimate.n:,}")
        table.add_section()
    console.print(table)


def _pairs(console: Console, pairs: list[Pair]) -> None:
    if not pairs:
        return
    if console.width < _ROOM:
        for pair in pairs:
            console.print(
                f"{pair.first.name} - {pair.second.name}: AUC {signed(pair.per_group.auc)}, accuracy "
                f"{signed(pair.per_group.accuracy)}; McNemar p {p_value(pair.test.p)} (Holm "
                f"{p_value(pair.p_adjusted)})",
                markup=False,
            )
        return
    title = "pairs on the same images, each group of copies counted once; McNemar's test per image"
    table = Table("first", "second", title=title, title_justify="left")
    for head in ("AUC, first - second", "accuracy, first - second", "McNemar p", "p (Holm)"):
        table.add_column(head, justify="right")
    for pair in pairs:
        table.add_row(
            escape(pair.first.name), escape(pair.second.name), signed(pair.per_group.auc),
            signed(pair.per_group.accuracy), p_value(pair.test.p), p_value(pair.p_adjusted),
        )  # fmt: skip
    console.print(table)


def protocols_table(name: str, result: SideBySide) -> None:
    """Print the model `name` and the baselines under every protocol, side by side."""
    comparison = result.comparison
    console = output(_WIDTH)
    for rows in by_shard_set(comparison):
        console.print(_title(rows), markup=False)
    for per_group in (True, False):
        _side_by_side(console, name, comparison, per_group)
    for drop in result.drops:
        if drop.name == name:
            console.print(
                f"{PROTOCOLS[drop.first].name} less {PROTOCOLS[drop.second].name}: AUC "
                f"{signed(drop.per_group.auc)}, accuracy at 0.5 {signed(drop.per_group.accuracy)}",
                markup=False,
            )
    for rows in by_shard_set(comparison):
        for sentence in warnings(rows, comparison):
            console.print(f"{rows[0].answers.protocol.name}: {sentence}", markup=False)
    console.print(summary(name, comparison), markup=False, style="bold")


def _side_by_side(console: Console, name: str, comparison: Comparison, per_group: bool) -> None:
    keys = protocols_of(comparison)
    title = f"{escape(name)}, {_COUNTED[per_group]} (95 % interval over groups)"
    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    table.add_column("")
    wide = console.width >= _ROOM
    if wide:
        for key in keys:
            table.add_column(PROTOCOLS[key].name, justify="right")
    else:
        table.add_column("protocol")
        table.add_column("value", justify="right")
    for measure, head in SIDE_BY_SIDE.items():
        for number, (who, rows) in enumerate(by_name(comparison).items()):
            cells = {key: estimate_of(rows.get(key), measure, per_group) for key in keys}
            texts = {
                key: "" if cell is None else cell.over_groups.text() for key, cell in cells.items()
            }
            first = "" if number else head
            if wide:
                table.add_row(first, escape(who), *texts.values())
                continue
            for at, (key, text) in enumerate(texts.items()):
                table.add_row("" if at else first, "" if at else escape(who), PROTOCOLS[key].name, text)
        table.add_section()
    console.print(table)
