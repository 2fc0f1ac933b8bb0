"""The HTML page: well-formed, self-contained, deterministic; nothing of the data leaves its place."""

from html.parser import HTMLParser

import pytest

from tumorbatch.files import visible
from tumorbatch.report.html import Code, Column, Page, Picture, Strong

PNG = b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IHDR" + (300).to_bytes(4, "big") + (200).to_bytes(4, "big")
VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """Elements, text and attributes; fails where an end tag does not close what is open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _page(name: str = "a name") -> str:
    page = Page(name, "Lead: ", Strong(name))
    page.warning(name)
    page.section(name)
    page.paragraph("See ", Code(name), ".")
    page.listing([name, ["b ", Strong(name)]])
    page.note(name)
    page.heading(name)
    page.table(["name", Column("n", numeric=True)], [[name, 12345], [Code(name), None]], name)
    page.section(name)
    page.figure(PNG, name, name)
    page.gallery([Picture(PNG, name, name), Picture(PNG, "two", "")])
    return page.html()


def test_it_is_well_formed_and_holds_everything() -> None:
    page = Reader(_page())
    assert page.all("html") == [{"lang": "en"}]
    assert [attributes["id"] for attributes in page.all("section")] == ["a-name", "a-name-2"]
    assert [a["href"] for a in page.all("a")] == ["#a-name", "#a-name-2"]
    assert len(page.all("img")) == 3
    assert {(a["width"], a["height"]) for a in page.all("img")} == {("300", "200")}
    assert all(attributes["alt"] for attributes in page.all("img"))
    text = "".join(page.text)
    assert "12,345" in text
    assert "\N{EN DASH}" in text  # for None
    assert [attributes.get("class") for attributes in page.all("td")] == ["number"] * 2
    scopes = [attributes["scope"] for attributes in page.all("th")]
    assert scopes == ["col", "col", "row", "row"]  # each row is named by its first cell


def test_it_loads_nothing_and_runs_nothing() -> None:
    page = Reader(_page())
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert all((a["src"] or "").startswith("data:image/png;base64,") for a in page.all("img"))
    policy = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='x",
    "</title></section></td>",
    "&amp;&lt;",
    "]]>--><!--",
    "{title} {} %s",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_markup_in_a_name_stays_text(name: str) -> None:
    page, plain = Reader(_page(name)), Reader(_page())
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(of) for _, of in page.tags] == [sorted(of) for _, of in plain.tags]
    assert "".join(page.text).count(name) == "".join(plain.text).count("a name")
    assert page.all("img")[0]["alt"] == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gpj.\u202erumot", r"gpj.\u202erumot"),
        ("a\u2066b\u2069\u200f\u061c", r"a\u2066b\u2069\u200f\u061c"),
        ("lone \udcff\ud800", r"lone \udcff\ud800"),
        ("tab \t line \n end", r"tab \u0009 line \u000a end"),
        ("nul \x00 bell \x07 cr \r del \x7f", r"nul \u0000 bell \u0007 cr \u000d del \u007f"),
        ("שלום 脳 é \U0001f9e0", "שלום 脳 é \U0001f9e0"),  # what is only foreign stays
    ],
)
def test_characters_that_deceive_or_break_are_written_out(name: str, shown: str) -> None:
    assert visible(name) == shown
    text = _page(name)
    text.encode()  # no lone surrogate is left
    assert shown in text
    if name != shown:
        assert name not in text


def test_the_same_page_is_the_same_text() -> None:
    assert _page("x") == _page("x")


def test_a_row_must_have_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="1 cells, and the table 2 columns"):
        Page("t").table(["a", "b"], [["only one"]])


def test_a_short_page_has_no_contents_and_an_empty_one_is_one_too() -> None:
    page = Page("t")
    assert not Reader(page.html()).all("nav")
    page.section("s")
    assert not Reader(page.html()).all("nav")


def test_a_title_of_no_latin_letter_has_an_anchor() -> None:
    page = Page("t")
    assert [page.section("脳"), page.section("脳"), page.section("Größe & Maß")] == [
        "section", "section-2", "groe-ma",
    ]  # fmt: skip


def test_quotes_are_escaped_for_attributes() -> None:
    page = Page("t")
    page.figure(PNG, "\"'<&>")
    assert 'alt="&#34;&#39;&lt;&amp;&gt;"' in page.html()


def test_template_syntax_in_a_name_is_text() -> None:
    page = Page("{{ 7 * 7 }} {% raw %} {# gone #}")
    assert "<h1>{{ 7 * 7 }} {% raw %} {# gone #}</h1>" in page.html()
