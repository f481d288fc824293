"""A page of HTML that is one file: it asks for nothing, runs nothing, and reads well on a phone.

What is a :class:`str` is text and gets escaped; only :class:`Html` goes into the page as it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Even if something slipped through the escaping, a browser would neither load nor run it."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5c646c; --paper: #fff; --line: #d9dde1;
  --tint: #f3f5f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #a0a8b0; --paper: #14171a;
  --line: #363c42; --tint: #1e2226; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 56rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; -webkit-text-size-adjust: 100%; }
h1 { margin: 0; font-size: 1.3rem; line-height: 1.25; }
h2 { margin: 2rem 0 .75rem; font-size: 1.1rem; }
p { margin: .5rem 0; }
.soft, footer, figcaption, th { color: var(--soft); }
.answer { margin-top: 1rem; padding: .75rem 1rem; background: var(--tint); border-radius: .5rem; }
.lead { margin-top: 0; font-size: 1.25rem; line-height: 1.35; }
.answer p:last-child { margin-bottom: 0; }
code { font: .85em/1.4 ui-monospace, monospace; }
.figures { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; max-width: 34rem; }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { font-family: inherit !important; }
figcaption { margin-bottom: .25rem; font-size: .9rem; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: normal; }
th { font-weight: 600; white-space: nowrap; }
td { max-width: 24rem; min-width: 2rem; }
.number { text-align: right; white-space: nowrap; }
.number:first-child { position: sticky; left: 0; background: var(--paper); }
details { margin: .5rem 0; }
summary { cursor: pointer; padding: .25rem 0; }
footer { margin-top: 2.5rem; font-size: .85rem; }
""".strip()


@dataclass(frozen=True)
class Html:
    """Markup that may go into a page as it is."""

    markup: str


Content = str | Html


@dataclass(frozen=True)
class Column:
    """A table's column.

    Attributes
    ----------
    title : str
        What stands above it.
    number : bool
        Whether it is aligned at the right.
    """

    title: str
    number: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own."""

    title: str
    content: Sequence[Html]


@dataclass(frozen=True)
class Page:
    """A page: what it is about, its answer, and then what the answer rests on.

    Attributes
    ----------
    title : str
        Also the name of the browser's tab.
    about : str
        A line under the title.
    answer : sequence of Html
        What a reader came for; on a phone it is within the first screen.
    sections : sequence of Section
        The rest, in order.
    made_by : str
        The last line.
    """

    title: str
    about: str
    answer: Sequence[Html]
    sections: Sequence[Section]
    made_by: str = ""

    def html(self) -> str:
        """Return the file's content: the same page is the same text."""
        sections = "".join(
            f"<section>\n<h2>{escape(each.title)}</h2>\n{_lines(each.content)}</section>\n"
            for each in self.sections
        )
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
            f'<header>\n<h1>{escape(self.title)}</h1>\n<p class="soft">{escape(self.about)}</p>\n</header>\n'
            f'<main>\n<div class="answer">\n{_lines(self.answer)}</div>\n{sections}</main>\n'
            f"<footer>{escape(self.made_by)}</footer>\n</body>\n</html>\n"
        )


def paragraph(*parts: Content, kind: str = "") -> Html:
    """Return a paragraph; its kind is ``lead``, ``soft`` or none."""
    opening = f'<p class="{escape(kind)}">' if kind else "<p>"
    return Html(f"{opening}{_joined(parts)}</p>")


def strong(text: str) -> Html:
    """Return text that stands out."""
    return Html(f"<strong>{escape(text)}</strong>")


def code(text: str) -> Html:
    """Return a name, a path or a hash."""
    return Html(f"<code>{escape(text)}</code>")


def table(columns: Sequence[Column], rows: Iterable[Sequence[Content]], caption: str = "") -> Html:
    """Return a table; where the screen is too narrow, the table scrolls and not the page."""
    kinds = [' class="number"' if column.number else "" for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(column.title)}</th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{_joined([cell])}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>\n"
        for row in rows
    )
    label = f' aria-label="{escape(caption)}"' if caption else ""
    # The caption stays where it is when the table scrolls; and only what can have the focus scrolls by keys.
    return Html(
        (f'<p class="soft">{escape(caption)}</p>\n' if caption else "")
        + f'<div class="wide" role="region" tabindex="0"{label}>\n<table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>\n</div>"
    )


def figure(picture: Html, caption: Content) -> Html:
    """Return a picture, such as an inline SVG, with what it shows above it."""
    return Html(f"<figure>\n<figcaption>{_joined([caption])}</figcaption>\n{picture.markup}\n</figure>")


def figures(each: Sequence[Html]) -> Html:
    """Return figures side by side where there is room, else below each other."""
    return Html(f'<div class="figures">\n{_lines(each)}</div>')


def folded(title: str, *content: Html) -> Html:
    """Return what only some readers want: it shows its title and opens at a touch."""
    return Html(f"<details>\n<summary>{escape(title)}</summary>\n{_lines(content)}</details>")


def _joined(parts: Iterable[Content]) -> str:
    return "".join(each.markup if isinstance(each, Html) else escape(each) for each in parts)


def _lines(content: Iterable[Html]) -> str:
    return "".join(f"{each.markup}\n" for each in content)
