"""The style of figures: told apart without colour, deterministic, without a display."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import rcParams
from PIL import Image

from tumorbatch.labels import HEALTHY, TUMOR
from tumorbatch.report import style


@style.style()
def _drawn(title: str = "a title") -> bytes:
    figure, axes = style.subplots(4, 3)
    for label in (HEALTHY, TUMOR):
        look = style.CLASS_STYLES[label]
        axes.plot([0, 1], [label, 1 - label], color=look.color, linestyle=look.line, label=str(label))
    axes.set_title(title)
    axes.legend()
    return style.png(figure)


def test_a_figure_has_the_size_that_was_asked_for() -> None:
    with Image.open(io.BytesIO(_drawn())) as image:
        assert image.size == (4 * style.DPI, 3 * style.DPI)
        assert set(image.info) <= {"Software", "dpi"}
        assert image.info["Software"] == "tumorbatch"
        assert np.asarray(image.convert("L"))[0, 0] == 255  # white, not transparent


@pytest.fixture
def odd_settings() -> Iterator[None]:
    """A user's own matplotlib settings, put back afterwards."""
    odd = {"font.size": 24.0, "axes.facecolor": "black", "savefig.dpi": 30, "lines.linewidth": 9.0}
    before = {key: rcParams[key] for key in odd}
    rcParams.update(odd)
    yield
    assert {key: rcParams[key] for key in odd} == odd  # they stay the user's
    rcParams.update(before)


def test_the_same_figure_is_the_same_bytes_whatever_the_users_settings(
    request: pytest.FixtureRequest,
) -> None:
    first = _drawn()
    assert _drawn() == first
    request.getfixturevalue("odd_settings")
    assert _drawn() == first


def test_no_window_and_no_pyplot() -> None:
    source = (
        "import sys\nfrom tumorbatch.report import style\nassert 'matplotlib' not in sys.modules\n"
        "with style.style():\n    figure, axes = style.subplots(2, 2)\n"
        "assert style.png(figure)[:4] == b'\\x89PNG'\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        env=environment | {"MPLBACKEND": "tkagg"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_classes_differ_in_more_than_their_colour() -> None:
    healthy, tumor = style.CLASS_STYLES[HEALTHY], style.CLASS_STYLES[TUMOR]
    for name in ("color", "marker", "line", "hatch"):
        assert getattr(healthy, name) != getattr(tumor, name), name


@pytest.mark.parametrize("name", ["a $ b $", r"\alpha$^", "脳 \u05d0", "\U0001f9e0"])
def test_any_file_name_can_be_a_title(name: str) -> None:
    assert _drawn(style.plain(name))[:4] == b"\x89PNG"


def test_a_dollar_is_no_formula() -> None:
    assert _drawn(style.plain("5 $x$")) != _drawn("5 $x$")
    assert style.plain(r"a\b") == r"a\b"
