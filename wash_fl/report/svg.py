"""A figure as SVG within a page: text stays text, and the page's ink draws it, in the light and the dark."""

import io
import re
from typing import Any
from xml.etree import ElementTree

from wash_fl.report.page import Html
from wash_fl.runs.figures import Figure

INCHES = (4.7, 3.1)
"""On a phone a unit of the drawing is about a pixel, so that its letters are as large as the page's."""

INK = "#0a0b0c"
"""A colour that nothing else has: where it stands, the page's own goes."""

INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")


def inline_svg(figure: Figure) -> Html:
    """Return a figure as an ``svg`` element; the same figure is the same text.

    Parameters
    ----------
    figure : Figure
        Its name must be its own within the page: no identifier may be there twice.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    look: dict[Any, Any] = dict.fromkeys(INKED, INK) | {
        "svg.fonttype": "none",
        "svg.hashsalt": figure.name,
        "font.size": 10,
        "font.sans-serif": ["DejaVu Sans"],
        "text.parse_math": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "legend.frameon": False,
    }
    content = io.StringIO()
    # matplotlib's settings are the process's: they are these while it draws, and no longer.
    with matplotlib.rc_context(look):
        drawing = figure.draw(INCHES, titled=False)
        FigureCanvasSVG(drawing)
        drawing.savefig(content, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Html(_for_a_page(content.getvalue(), figure))


def _for_a_page(content: str, figure: Figure) -> str:
    root = ElementTree.fromstring(content)
    used = set(re.findall(r"(?:url\(|href=\")#([^\")]+)", content))
    for parent in root.iter():
        # A style here would hold for the whole page; metadata only says that matplotlib drew it.
        for child in [each for each in parent if _bare(each.tag) in ("style", "metadata")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _bare(element.tag)
        attributes = {_bare(name): value for name, value in element.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        element.attrib.clear()
        for name, value in attributes.items():
            element.set(name, _attribute(name, value, figure.name))
        # Indentation, except in what is read as text.
        if element.tag != "text":
            element.text = "\n" if len(element) else None
        element.tail = "\n"
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", f"{figure.title}, by {figure.across}")
    return ElementTree.tostring(root, encoding="unicode", method="html").strip()


def _attribute(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return value.replace("#", f"#{prefix}-", 1)
    return value.replace("url(#", f"url(#{prefix}-").replace(INK, "currentColor")


def _bare(name: str) -> str:
    """Return a name without its namespace: within HTML an ``svg`` needs none."""
    return name.rpartition("}")[2]
