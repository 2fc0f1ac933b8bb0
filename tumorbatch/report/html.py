"""One self-contained HTML page: text, tables and figures, readable offline, in print and in the dark.

No script, nothing loaded from anywhere (the page itself forbids it), and all that comes from data is
escaped: also characters that would turn the text around them, or that no file may hold.
"""

import base64
import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tumorbatch.files import visible

MISSING = "\N{EN DASH}"
_LONG_CELL = 50  # characters
_NARROW = 0.62  # of a figure's pixels, on narrow screens: letters of 9 points are 9 pixels high then


def escaped(text: str) -> str:
    """`text` as HTML, for element content and quoted attributes alike."""
    return html.escape(visible(text), quote=True)


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
        head: What stands above, with the unit.
        numeric: Whether its cells are numbers, aligned to the right.
    """

    head: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file with what it shows, for those who do not see it, and what is to be said of it."""

    png: bytes
    alt: str
    caption: str


Text = str | Strong | Code
Cell = Text | int | None


def _inline(part: Text) -> str:
    match part:
        case Strong(text):
            return f"<strong>{escaped(text)}</strong>"
        case Code(text):
            return f"<code>{escaped(text)}</code>"
        case text:
            return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", escaped(text))


def _cell(cell: Cell, numeric: bool) -> str:
    if cell is None:
        return MISSING
    if isinstance(cell, int):
        return f"{cell:,}"
    if numeric and isinstance(cell, str):
        # A number and its interval may stand below each other, but neither is torn apart.
        return escaped(cell).replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}(", " (")
    return _inline(cell)


def _long(cell: Cell) -> str:
    """A sentence in a cell must not become a column of single words on a narrow screen."""
    return ' class="long"' if isinstance(cell, str) and len(cell) > _LONG_CELL else ""


def _anchor(title: str, taken: set[str]) -> str:
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    base = re.sub(r"[^a-z0-9]+", "-", ascii_title.lower()).strip("-") or "section"
    anchor, number = base, 1
    while anchor in taken:
        number += 1
        anchor = f"{base}-{number}"
    return anchor


class Page:
    """A page that grows from top to bottom; `html` gives the file's text.

    The same calls give the same bytes: no time, no random name.

    Args:
        title: Heading, and the browser's title.
        lead: What the page is and its main result, in a few sentences.
    """

    def __init__(self, title: str, *lead: Text) -> None:
        self._title = title
        self._lead = "".join(map(_inline, lead))
        self._sections: list[tuple[str, str]] = []  # anchor, title
        self._before: list[str] = []  # stands between the lead and the table of contents
        self._body: list[str] = []

    def _add(self, markup: str) -> None:
        (self._body if self._sections else self._before).append(markup)

    def section(self, title: str) -> str:
        """Begin a section; gives its anchor, made of the title."""
        anchor = _anchor(title, {anchor for anchor, _ in self._sections})
        if self._sections:
            self._body.append("</section>")
        self._sections.append((anchor, title))
        self._body.append(f'<section id="{anchor}">\n<h2>{escaped(title)}</h2>')
        return anchor

    def heading(self, title: str) -> None:
        """A heading inside a section."""
        self._add(f"<h3>{escaped(title)}</h3>")

    def paragraph(self, *parts: Text) -> None:
        """Plain text, with `Strong` and `Code` parts."""
        self._add(f"<p>{''.join(map(_inline, parts))}</p>")

    def listing(self, items: Iterable[str | Sequence[Text]]) -> None:
        """A list with bullets."""
        rows = []
        for item in items:
            parts = [item] if isinstance(item, str) else item
            rows.append(f"<li>{''.join(map(_inline, parts))}</li>")
        self._add(f"<ul>\n{chr(10).join(rows)}\n</ul>")

    def note(self, *parts: Text) -> None:
        """A remark in a box."""
        self._add(f'<p class="note">{"".join(map(_inline, parts))}</p>')

    def warning(self, *parts: Text) -> None:
        """What must not be overlooked, in a box."""
        text = "".join(map(_inline, parts))
        self._add(f'<p class="warning" role="note"><strong>Warning.</strong> {text}</p>')

    def table(
        self, columns: Sequence[Column | str], rows: Iterable[Sequence[Cell]], caption: str = ""
    ) -> None:
        """A table, which scrolls sideways where the screen is narrower.

        Args:
            columns: Heads; a plain string is a column of text.
            rows: A cell for each column: text, an integer (with thousands separators), or None for
                what there is not. Other numbers come as text, so that their digits are chosen.
            caption: Above, with what the figures are and their units.

        Raises:
            ValueError: A row has more or fewer cells than there are columns.
        """
        heads = [Column(column) if isinstance(column, str) else column for column in columns]
        kinds = [' class="number"' if head.numeric else "" for head in heads]
        # The first cell names its row, for those who hear a table rather than see it.
        tags = ['th scope="row"', *["td"] * (len(heads) - 1)]
        # Not <caption>: that is as wide as the table, and would scroll out of sight with it.
        lines = [f'<p class="caption">{_inline(caption)}</p>'] if caption else []
        label = escaped(caption or f"Table: {heads[0].head}")
        lines.append(f'<div class="table" role="region" tabindex="0" aria-label="{label}"><table>')
        cells = (
            f'<th scope="col"{kind}>{escaped(head.head)}</th>'
            for head, kind in zip(heads, kinds, strict=True)
        )
        lines.append(f"<thead><tr>{''.join(cells)}</tr></thead>\n<tbody>")
        for row in rows:
            cells = (
                f"<{tag}{kind or _long(cell)}>{_cell(cell, kind != '')}</{tag[:2]}>"
                for tag, cell, kind in zip(tags, row, kinds, strict=True)
            )
            lines.append(f"<tr>{''.join(cells)}</tr>")
        lines.append("</tbody></table></div>")
        self._add("\n".join(lines))

    def figure(self, png: bytes, alt: str, caption: str = "") -> None:
        """A PNG file, embedded, as wide as the text at most.

        Args:
            png: The file.
            alt: What it shows, in words that stand in for it.
            caption: Below.
        """
        self._add(_figure(Picture(png, alt, caption), scrolls=True))

    def gallery(self, pictures: Iterable[Picture]) -> None:
        """Small pictures side by side, as many in a row as there is room for."""
        self._add('<div class="gallery">\n' + "\n".join(map(_figure, pictures)) + "\n</div>")

    def html(self) -> str:
        """The whole page."""
        title = escaped(self._title)
        head = [f"<header>\n<h1>{title}</h1>"]
        if self._lead:
            head.append(f'<p class="lead">{self._lead}</p>')
        head += [*self._before, "</header>"]
        if len(self._sections) > 1:
            links = "\n".join(
                f'<li><a href="#{anchor}">{escaped(text)}</a></li>' for anchor, text in self._sections
            )
            head.append(f'<nav aria-label="Contents">\n<ul>\n{links}\n</ul>\n</nav>')
        end = ["</section>"] if self._sections else []
        body = "\n".join([*head, "<main>", *self._body, *end, "</main>"])
        return _FRAME.format(title=title, style=_CSS, body=body)


def _figure(picture: Picture, scrolls: bool = False) -> str:
    data = base64.b64encode(picture.png).decode()
    size = ""
    if picture.png[:8] == b"\x89PNG\r\n\x1a\n":  # its size, so that the page does not jump about
        width, height = (int.from_bytes(picture.png[at : at + 4], "big") for at in (16, 20))
        # The custom property is for narrow screens, where the picture scrolls and keeps its letters.
        size = f' width="{width}" height="{height}" style="--wide: {width * _NARROW:.0f}px"'
    caption = f"\n<figcaption>{escaped(picture.caption)}</figcaption>" if picture.caption else ""
    image = f'<img src="data:image/png;base64,{data}" alt="{escaped(picture.alt)}"{size}>'
    if scrolls:
        image = f'<div class="scroll" tabindex="0">{image}</div>'
    return f"<figure>\n{image}{caption}\n</figure>"


_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="tumorbatch">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""

_CSS = """:root {
  color-scheme: light dark;
  --back: #ffffff; --text: #1b1b1b; --dim: #555555; --line: #d0d0d0; --soft: #f4f5f7;
  --link: #005a8e; --warn-back: #fdf0e6; --warn-line: #d55e00; --note-line: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #16181b; --text: #e6e6e6; --dim: #a8a8a8; --line: #3d4248; --soft: #202327;
    --link: #7cc4ef; --warn-back: #2f2118; --warn-line: #e8813a; --note-line: #56b4e9;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 68rem;
  background: var(--back); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; padding-top: .4rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p, ul { margin: .6rem 0; max-width: 50rem; }
.lead { font-size: 1.1rem; }
a { color: var(--link); }
/* Names may hold several spaces in a row: as many are shown, or a copied name would be another one. */
code, td, tbody th, figcaption { white-space: pre-wrap; }
code { font: .92em/1.4 ui-monospace, "DejaVu Sans Mono", Consolas, monospace;
  background: var(--soft); padding: .05em .3em; border-radius: 3px; }
nav { margin: 1.4rem 0 0; padding: .5rem .9rem; background: var(--soft); border-radius: 6px; }
nav ul { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: 0; padding: 0; max-width: none;
  list-style: none; }
.note, .warning { padding: .6rem .9rem; border-left: 4px solid var(--note-line);
  background: var(--soft); border-radius: 0 6px 6px 0; }
.warning { border-left-color: var(--warn-line); background: var(--warn-back); }
.table { overflow-x: auto; margin: 1rem 0; }
.table:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
.caption { color: var(--dim); font-size: .93rem; margin: 1.2rem 0 -.6rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: normal; }
thead th { border-bottom: 2px solid var(--dim); vertical-align: bottom; }
th.number, td.number { text-align: right; }
tbody th { min-width: 6.5rem; font-weight: 400; }
.long { min-width: 13rem; }
figure { margin: 1.2rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--dim); font-size: .92rem; margin-top: .4rem; max-width: 50rem; }
.gallery { display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.gallery figure { margin: 0; }
.gallery img { width: 100%; }
@media (prefers-color-scheme: dark) { figure img { padding: 8px; } }
@media (max-width: 40rem) {
  body { padding: 1rem .8rem 3rem; } h1 { font-size: 1.4rem; } th, td { padding: .3rem .45rem; }
  /* A figure's letters stay readable: it scrolls rather than shrinks. */
  section > figure .scroll { overflow-x: auto; }
  section > figure img { max-width: none; width: max(100%, var(--wide)); }
  /* A table scrolls as well: cells that wrap off screen would only make its rows tall. */
  td code, th code { white-space: pre; } td:not(.number):not(.long) { min-width: 7rem; }
}
@media print {
  :root { --back: #fff; --text: #000; --dim: #333; --line: #bbb; --soft: #f4f4f4; --link: #000;
    --warn-back: #fff; --warn-line: #000; --note-line: #666; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  h2, h3, .caption { break-after: avoid; }
  figure, tr, .note, .warning { break-inside: avoid; }
  .table { overflow: visible; }
}"""
