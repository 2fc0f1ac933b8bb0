"""The one style of all figures: colours, sizes, and figures as PNG bytes without a window.

Colours are those of M. Okabe and K. Ito, "Color Universal Design" (2008), which people with any of the
common colour-vision deficiencies can distinguish. Colour is never alone: the two classes also differ in
marker, line and hatch, so that a black-and-white print can be read.

A drawing function is decorated with `style()`, makes its axes with `subplots`, and returns the figure;
`png` makes the file. Nothing here uses pyplot, which keeps every figure and may want a display.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tumorbatch.files import visible
from tumorbatch.labels import HEALTHY, TUMOR

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
VIEWER = "#16181B"  # behind photographs, whose tones stay in a dark page: its own background
GREY = "#6E6E6E"  # not Okabe and Ito's: for what is not data, such as lines of reference

DPI = 120  # pixels an inch: a figure of 10 inches has 1200


@dataclass(frozen=True, slots=True)
class ClassStyle:
    """How one class looks in every figure.

    Attributes:
        color: For lines, markers and bars.
        marker: For points.
        line: For lines.
        hatch: For bars.
    """

    color: str
    marker: str
    line: str
    hatch: str


CLASS_STYLES = {  # label -> style
    HEALTHY: ClassStyle(BLUE, "o", "-", ""),
    TUMOR: ClassStyle(VERMILLION, "^", "--", "///"),
}

_FONT = "DejaVu Sans"  # comes with matplotlib: the same letters everywhere
# Points are 1/72 inch: 10 points are 17 pixels of the PNG file.
_STYLE = {
    "font.family": ["sans-serif"],
    "font.sans-serif": [_FONT],
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.labelsize": 10.0,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 9.0,
    "figure.titlesize": 12.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.85",
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.6,
    "legend.framealpha": 0.9,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Return a decorator that applies the settings of all figures to a drawing function."""
    import matplotlib

    # Not rc_context of rcParamsDefault: that holds a backend, and setting one may load a toolkit.
    defaults = {
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if not key.startswith(("backend", "interactive", "toolbar"))
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Parameters that matplotlib has deprecated warn when they are set, to their defaults too.
        warnings.simplefilter("ignore", matplotlib.MatplotlibDeprecationWarning)
        matplotlib.rcParams.update({**defaults, **_STYLE})
        yield


def subplots(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Any, Any]:
    """Return a figure and its axes, drawn by Agg: no display is needed and none is used.

    Args:
        width: Inches.
        height: Inches.
        rows: Of axes.
        columns: Of axes.
        options: For `matplotlib.figure.Figure.subplots`.

    Returns:
        The figure; its axes as `Figure.subplots` gives them (one, or an array [rows, columns] without
        the dimensions of length 1).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def png(figure: Any) -> bytes:
    """Return the figure as a PNG file; the same figure gives the same bytes."""
    file = io.BytesIO()
    with style(), warnings.catch_warnings():
        # A file name in a script that the font has not shows boxes; which must not end the run.
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support")
        # Without `metadata`, matplotlib writes its own version into the file.
        figure.savefig(file, format="png", dpi=figure.dpi, metadata={"Software": "tumorbatch"})
    return file.getvalue()


def plain(text: str) -> str:
    """Return `text` for a title or label: invisible characters escaped, no `$` as a formula."""
    text = visible(text)
    return text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text


def fitted(text: str, width: float, size: float) -> str:
    """Return `text`, shortened in its middle to fit the width.

    Args:
        text: One line.
        width: Inches.
        size: Of the letters, points.
    """
    text = visible(text)
    length = _most(len(text), lambda length: _without_middle(text, length), width, size)
    return text if length == len(text) else _without_middle(text, length)


def fitted_length(text: str, width: float, size: float) -> int:
    """Return how many letters of `text` fit the width; at least 1. Arguments as for `fitted`."""
    return max(1, _most(len(text), lambda length: text[:length], width, size))


def _most(longest: int, shown: Callable[[int], str], width: float, size: float) -> int:
    """Return the largest length up to `longest` whose text, `shown(length)`, fits the width."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=_FONT, size=size)

    def wide(text: str) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font has not: see `png`
            return bool(text_to_path.get_text_width_height_descent(text, font, False)[0] > 72 * width)

    fits, too_many = 0, longest + 1
    while too_many - fits > 1:  # letters that are kept
        length = (fits + too_many) // 2
        fits, too_many = (fits, length) if wide(shown(length)) else (length, too_many)
    return fits


def wrapped(text: str, width: float, size: float) -> str:
    """Return `text` in as many lines as it needs to fit the width, whole; see `fitted`.

    A line ends after a space, `_`, `-`, `.` or `/` if there is one in its second half, otherwise
    anywhere. The text's own line ends stay.
    """
    lines = []
    for line in text.split("\n"):
        rest = visible(line)
        while rest:
            kept = fitted_length(rest, width, size)
            if kept < len(rest):
                ends = [at + 1 for at in range(kept // 2, kept) if rest[at] in " _-./"]
                kept = ends[-1] if ends else kept
            lines.append(rest[:kept].strip())
            rest = rest[kept:]
    return "\n".join(lines)


def plain_lines(text: str) -> str:
    """Return `plain` of each line of a text that `wrapped` gave."""
    return "\n".join(map(plain, text.split("\n")))


def _without_middle(text: str, length: int) -> str:
    if length >= len(text):
        return text
    end = (length + 1) // 2
    return f"{text[: length - end]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - end :]}"


def legend_above(figure: Any, axes: Any, columns: int = 2) -> None:
    """Put the legend of `axes` at the figure's upper left, where it hides no data."""
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns, frameon=False
    )
