"""One bar chart a stage, from its result: how many times as fast, with spread, and on what machine."""

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import rate_text

from tumorbatch.atomic import write_bytes
from tumorbatch.report import style

_COLORS = (style.BLUE, style.ORANGE, style.GREEN)
_HATCHES = ("", "///", "...")
_BAR, _HEADING, _FOOTER = 0.42, 1.3, 0.9  # inches
_LOGARITHMIC = 12.0  # from this ratio between longest and shortest bar on


@style.style()
def bars(result: Mapping[str, Any]) -> Any:
    """Draw the ratios of a stage's result: a group of bars for each peer, a bar for each own command.

    The ends of a bar's line are the least and the greatest ratio of all rounds. The background is
    white, so that the figure can be read on a dark page too.
    """
    ratios = {(ratio["own"], ratio["peer"]): ratio for ratio in result["ratios"]}
    owns = list(dict.fromkeys(own for own, _ in ratios))
    peers = [
        peer for peer in result["contestants"] if any((own, peer["name"]) in ratios for own in owns)
    ]
    # A comparison of the own commands with each other is in the table; the chart is about the others.
    peers = [peer for peer in peers if peer["name"] not in owns]
    height = _HEADING + _FOOTER + _BAR * max(1, len(peers)) * (0.5 + 0.5 * len(owns))
    figure, axes = style.subplots(9, height)
    most = max((ratio["max"] for ratio in ratios.values()), default=1.0)
    least = min((ratio["min"] for ratio in ratios.values()), default=1.0)
    start = 0.0
    if most / least > _LOGARITHMIC:
        start = 1.0  # a logarithmic axis has no 0: bars begin where both are as fast
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    thick = 0.8 / max(1, len(owns))
    for at, own in enumerate(owns):
        places = [place - 0.4 + thick * (at + 0.5) for place in range(len(peers))]
        shown = [ratios[own, peer["name"]] for peer in peers]
        values = [ratio["median"] for ratio in shown]
        errors = [
            [ratio["median"] - ratio["min"] for ratio in shown],
            [ratio["max"] - ratio["median"] for ratio in shown],
        ]
        axes.barh(
            places, [value - start for value in values], thick * 0.9, left=start, xerr=errors,
            color=_COLORS[at % 3], hatch=_HATCHES[at % 3], edgecolor="white", label=own,
            error_kw={"elinewidth": 1.2, "capsize": 3},
        )  # fmt: skip
        for place, ratio in zip(places, shown, strict=True):
            axes.annotate(
                f"{ratio['median']:.2f}x", (ratio["max"], place), (5, 0), va="center", fontsize=9,
                textcoords="offset points",
            )  # fmt: skip
    axes.axvline(1, color=style.GREY, linewidth=1.0, linestyle="--")
    axes.set_yticks(
        range(len(peers)),
        [f"{style.plain(peer['name'])}\n{rate_text(peer)} images/s" for peer in peers],
    )
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.set_xlabel("times as fast as the peer (thin lines: least and most of all rounds)")
    axes.set_title(style.plain(result["title"]), loc="left")
    if owns:
        style.legend_above(figure, axes, len(owns))
    figure.supxlabel(_plain_lines(footer(result)), fontsize=7, color=style.GREY, x=0.01, ha="left")
    return figure


def _plain_lines(text: str) -> str:
    return "\n".join(map(style.plain, text.splitlines()))


def footer(result: Mapping[str, Any]) -> str:
    """Return what the numbers depend on, in a few lines: machine, versions, data, what was skipped."""
    machine, versions = result["hardware"], result["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions["own"].items())
    named += f", commit {versions['commit']}" if versions["commit"] else ""
    others = ", ".join(f"{name} {version}" for name, version in versions["peers"].items())
    data = result["data"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{data['files']:,} files of {data['source']}; {result['rounds']} rounds; {result['date']}",
        named,
        f"Peers: {others or 'not installed'}",
    ]
    skipped = [one["name"] for one in result["contestants"] if one["skipped"]]
    if skipped:
        lines.append(f"Skipped: {', '.join(skipped)}")
    return "\n".join(part for line in lines for part in textwrap.wrap(line, 150))


@style.style()
def curves(result: Mapping[str, Any]) -> Any:
    """Draw the cost curves of `bench_curve.py`: time an image, and peak memory, over the files."""
    figure, (time, memory) = style.subplots(9, 4.4, 1, 2)
    for at, stage in enumerate(dict.fromkeys(point["stage"] for point in result["points"])):
        points = [point for point in result["points"] if point["stage"] == stage]
        files = [point["files"] for point in points]
        color = _COLORS[at % 3]
        time.plot(files, [1e3 * point["seconds"] / point["files"] for point in points], "o-",
                  color=color, label=stage)  # fmt: skip
        memory.plot(files, [point["parent_mib"] for point in points], "o-", color=color,
                    label=f"{stage}, parent")  # fmt: skip
        memory.plot(files, [point["worker_mib"] for point in points], "^--", color=color,
                    label=f"{stage}, largest worker")  # fmt: skip
    for axes, title, unit in ((time, "whole command", "ms an image"), (memory, "peak memory", "MiB")):
        axes.set(xscale="log", xlabel="files", ylabel=unit, ylim=(0, None))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_title(title, loc="left")
        axes.legend()
    figure.supxlabel(_plain_lines(footer(result)), fontsize=7, color=style.GREY, x=0.01, ha="left")
    return figure


def svg(figure: Any) -> bytes:
    """Return the figure as an SVG file; the same figure gives the same bytes."""
    import matplotlib

    file = io.BytesIO()
    with style.style(), matplotlib.rc_context({"svg.hashsalt": "tumorbatch"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "tumorbatch"})
    return file.getvalue()


def write(figure: Any, path: Path) -> None:
    """Write the figure beside each other as PATH.svg and PATH.png."""
    write_bytes(path.with_suffix(".svg"), svg(figure))
    write_bytes(path.with_suffix(".png"), style.png(figure))
