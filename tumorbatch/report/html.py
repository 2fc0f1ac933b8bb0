"""One self-contained HTML page: text, tables and figures, readable offline, in print and in the dark.

The markup is in `page.html.jinja`, the style in `page.css`; this module holds what goes into them. No
script, nothing loaded from anywhere (the page itself forbids it). Jinja2 escapes all text, and before
that characters are written out that would reorder the text around them, or that no file may hold.
"""

import base64
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from tumorbatch.files import visible

MISSING = "\N{EN DASH}"
_LONG_CELL = 50  # characters; a sentence must not become a column of single words on a narrow screen
_NARROW = 0.62  # of a figure's pixels, on narrow screens: letters of 9 points are 9 pixels high then
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Strong:
    """Text that stands out."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A command, a file or another literal."""

    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        head: Its heading, with the unit.
        numeric: Whether its cells are numbers, aligned to the right.
    """

    head: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file, its text alternative, and its caption.

    Attributes:
        png: The file.
        alt: What it shows.
        caption: Below it.
        photo: It holds images, whose tones stay; a chart's are turned over in a dark page.
    """

    png: bytes
    alt: str
    caption: str
    photo: bool = True

    @property
    def base64(self) -> str:
        """Return the file as text, for the template."""
        return base64.b64encode(self.png).decode()

    @property
    def size(self) -> tuple[int, int] | None:
        """Return width and height in pixels, so that the page does not jump; None if not a PNG."""
        if self.png[:8] != _PNG:
            return None
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    @property
    def narrow_width(self) -> str:
        """Return the width on narrow screens in pixels: the picture scrolls and keeps its letters."""
        return f"{(self.size or (0, 0))[0] * _NARROW:.0f}"


Text = str | Strong | Code
Cell = Text | int | None
Block = dict[str, Any]  # `kind`, and what the template shows of that kind


@dataclass(frozen=True, slots=True)
class _Section:
    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def _unbroken_percent(text: str) -> str:
    """Return `text` with each number joined to its percent sign."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)


def _unbroken_number(text: str) -> str:
    """Return a number with its interval so that only the two may stand below each other."""
    return text.replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}(", " (")


def _visible_text(value: Any) -> Any:
    """Return a value as the template prints it, with deceptive characters of text visible."""
    return visible(value) if type(value) is str else value


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible_text,
    )
    environment.filters |= {
        "unbroken_percent": _unbroken_percent,
        "unbroken_number": _unbroken_number,
    }
    environment.tests |= {
        "strong": lambda part: isinstance(part, Strong),
        "code": lambda part: isinstance(part, Code),
        "long": lambda cell: isinstance(cell, str) and len(cell) > _LONG_CELL,
    }
    environment.globals["missing"] = MISSING
    return environment.get_template("page.html.jinja")


def _anchor(title: str, anchors: set[str]) -> str:
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    base = re.sub(r"[^a-z0-9]+", "-", ascii_title.lower()).strip("-") or "section"
    anchor, number = base, 1
    while anchor in anchors:
        number += 1
        anchor = f"{base}-{number}"
    return anchor


class Page:
    """A page that grows from top to bottom; `html` returns the file's text.

    The same calls give the same bytes: no time, no random name.

    Args:
        title: Heading, and the browser's title.
        lead: What the page is and its main result, in a few sentences.
    """

    def __init__(self, title: str, *lead: Text) -> None:
        self._title = title
        self._lead = lead
        self._before: list[Block] = []  # between the lead and the table of contents
        self._sections: list[_Section] = []

    def _add(self, kind: str, **content: Any) -> None:
        blocks = self._sections[-1].blocks if self._sections else self._before
        blocks.append({"kind": kind, **content})

    def section(self, title: str) -> str:
        """Begin a section and return its anchor, which is made of the title."""
        anchor = _anchor(title, {section.anchor for section in self._sections})
        self._sections.append(_Section(anchor, title))
        return anchor

    def heading(self, title: str) -> None:
        """Add a heading inside a section."""
        self._add("heading", title=title)

    def paragraph(self, *parts: Text) -> None:
        """Add plain text, with `Strong` and `Code` parts."""
        self._add("paragraph", parts=parts)

    def listing(self, items: Iterable[str | Sequence[Text]]) -> None:
        """Add a list with bullets."""
        self._add("listing", lines=[[item] if isinstance(item, str) else item for item in items])

    def note(self, *parts: Text) -> None:
        """Add a remark in a box."""
        self._add("note", parts=parts)

    def warning(self, *parts: Text) -> None:
        """Add what must not be overlooked, in a box."""
        self._add("warning", parts=parts)

    def table(
        self, columns: Sequence[Column | str], rows: Iterable[Sequence[Cell]], caption: str = ""
    ) -> None:
        """Add a table, which scrolls sideways where the screen is narrower.

        Args:
            columns: Heads; a plain string is a column of text.
            rows: A cell for each column: text, an integer (with thousands separators), or None for a
                missing value. Other numbers come as text, so that their digits are chosen. The first
                cell names its row, for those who hear a table rather than see it.
            caption: Above, with what the figures are and their units.

        Raises:
            ValueError: A row has more or fewer cells than there are columns.
        """
        heads = [Column(column) if isinstance(column, str) else column for column in columns]
        cells = [list(row) for row in rows]
        for row in cells:
            if len(row) != len(heads):
                raise ValueError(f"a row has {len(row)} cells, and the table {len(heads)} columns")
        # The caption is not a <caption>: that is as wide as the table, and would scroll with it.
        self._add("table", columns=heads, rows=cells, caption=caption)

    def figure(self, png: bytes, alt: str, caption: str = "", photo: bool = False) -> None:
        """Embed a PNG file, as wide as the text at most.

        Args:
            png: The file.
            alt: Text alternative: what the picture shows.
            caption: Below.
            photo: As in `Picture`.
        """
        self._add("figure", picture=Picture(png, alt, caption, photo))

    def gallery(self, pictures: Iterable[Picture]) -> None:
        """Add small pictures side by side, as many in a row as there is room for."""
        self._add("gallery", pictures=list(pictures))

    def html(self) -> str:
        """Return the whole page."""
        text = _template().render(
            title=self._title, lead=self._lead, before=self._before, sections=self._sections
        )
        return f"{text}\n"
