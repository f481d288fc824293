"""A page is one file in which text is text: what is given as a string cannot become markup."""

import re
from html.parser import HTMLParser

import pytest

from wash_fl.report.page import (
    Column,
    Html,
    Page,
    Section,
    code,
    figure,
    figures,
    folded,
    paragraph,
    strong,
    table,
)

EVIL = "<script>alert('1')</script><img src=x onerror=\"x\"> & </title></style>"
EMPTY = {"meta", "img", "link", "br", "hr", "input"}


class Outline(HTMLParser):
    """Elements in order, the text, and whether all that is opened is closed."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def everywhere(text: str) -> Page:
    """A page that has a text in every place that takes one."""
    return Page(
        title=text,
        about=text,
        answer=[paragraph(text, kind="lead")],
        sections=[
            Section(text, [paragraph(text, strong(text), code(text))]),
            Section(
                "B",
                [
                    table([Column(text), Column(text, number=True)], [[text, strong(text)]], caption=text),
                    figures([figure(Html("<svg></svg>"), text)]),
                    folded(text, paragraph(text)),
                ],
            ),
        ],
        made_by=text,
    )


def test_text_is_text_wherever_it_is_given():
    plain, evil = Outline(everywhere("plain").html()), Outline(everywhere(EVIL).html())
    assert evil.tags == plain.tags
    assert [each[:2] for each in evil.attributes] == [each[:2] for each in plain.attributes]
    assert plain.text.count("plain") == 17
    assert evil.text == plain.text.replace("plain", EVIL)
    assert "<script" not in everywhere(EVIL).html().casefold()


def test_the_answer_is_before_every_section_and_sections_are_in_order():
    page = Page("T", "about", [paragraph("answer")], [Section("First", []), Section("Second", [])], "by")
    outline = Outline(page.html())
    assert outline.text.split()[-6:] == ["T", "about", "answer", "First", "Second", "by"]
    assert outline.tags.count("h1") == 1 and outline.tags.count("h2") == 2


def test_the_page_forbids_what_it_does_not_need_and_fits_a_phone():
    markup = everywhere("x").html()
    assert markup.startswith("<!DOCTYPE html>\n")
    attributes = Outline(markup).attributes
    assert ("meta", "content", "width=device-width, initial-scale=1") in attributes
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', markup)
    allowed = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert allowed.pop("style-src") == "'unsafe-inline'" and allowed.pop("img-src") == "data:"
    assert allowed.pop("default-src") == "'none'" and set(allowed.values()) <= {"'none'"}
    # A policy holds from where it stands.
    assert markup.index("Content-Security-Policy") < markup.index("<style")


def test_a_row_that_does_not_fit_its_columns_is_refused():
    for row in (["1"], ["1", "2", "3"]):
        with pytest.raises(ValueError, match=r"zip\(\)"):
            table([Column("a"), Column("b")], [row])
