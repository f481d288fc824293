"""Draw docs/architecture.svg, and the table of rooms in docs/architecture.md, from the imports as they are.

    python -m tools.architecture            # write both
    python -m tools.architecture --check    # fail if one is out of date

Each room stands on a floor above all that it imports. An arrow that others imply is left out: who needs
``member`` and through it ``core`` has an arrow to ``member`` alone.
"""

import argparse
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Final

from tools.rooms import GROUND, ROOMS, ROOT, edges, imports_of
from wash_fl.files import write_text

PICTURE: Final = ROOT / "docs" / "architecture.svg"
PAGE: Final = ROOT / "docs" / "architecture.md"
BEGIN: Final = "<!-- what stands from here on is written by tools/architecture.py -->\n"
END: Final = "<!-- up to here -->\n"

WIDTH, BOX, HEIGHT, STEP, MARGIN = 820, 220, 44, 84, 20
"""Of the drawing; of a room; from floor to floor; around all. In pixels."""

Edge = tuple[str, str]


def main() -> None:
    """Write the picture and the table, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one is out of date")
    check = parser.parse_args().check
    needs = edges(imports_of())
    page = PAGE.read_text(encoding="utf-8")
    for path, content in ((PICTURE, picture(needs)), (PAGE, with_table(page))):
        if not check:
            write_text(path, content)
        elif not path.is_file() or path.read_text(encoding="utf-8") != content:
            sys.exit(
                f"{path.name} is out of date: run python -m tools.architecture, and commit what it writes."
            )


def with_table(page: str) -> str:
    """Return the page with the table of rooms between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [f"| `{name}.py` | {text} |" for name, text in GROUND.items()]
    rows += [f"| `{name}/` | {text} |" for name, text in ROOMS.items()]
    return "\n".join([before + BEGIN, "| room | what lives there |", "|---|---|", *rows, "", END + after])


def picture(needs: Collection[Edge]) -> str:
    """Return the drawing as SVG, the same for the same imports.

    Parameters
    ----------
    needs : collection of (str, str)
        Which room imports from which.
    """
    own = {(upper, lower) for upper, lower in needs if {upper, lower} <= ROOMS.keys()}
    arrows = not_implied(own)
    floors = in_order(floors_of(own), arrows)
    bottom = MARGIN + STEP * len(floors)
    places = {
        name: (WIDTH * (2 * column + 1) / (2 * len(floor)), bottom - STEP * (number + 1))
        for number, floor in enumerate(floors)
        for column, name in enumerate(floor)
    }
    lines = [_arrow(arrow, arrows, places, floors) for arrow in sorted(arrows)]
    boxes = [_box(*places[name], BOX, name, _short(ROOMS[name])) for floor in floors for name in floor]
    ground = _box(WIDTH / 2, bottom, WIDTH - 2 * MARGIN, ", ".join(GROUND), "one file each, for every room")
    return "\n".join([_head(bottom + HEIGHT + MARGIN), *lines, *boxes, ground, "</svg>", ""])


def floors_of(needs: Collection[Edge]) -> list[list[str]]:
    """Return the rooms by floor: each above all that it needs; one that needs none below its first user."""
    heights: dict[str, int] = {}
    for name in ROOMS:  # from the ground up
        heights[name] = 1 + max((heights[lower] for upper, lower in needs if upper == name), default=-1)
    for name in ROOMS:
        users = [heights[upper] for upper, lower in needs if lower == name]
        if not heights[name] and users:
            heights[name] = min(users) - 1
    return [[name for name in ROOMS if heights[name] == floor] for floor in range(max(heights.values()) + 1)]


def not_implied(needs: Collection[Edge]) -> set[Edge]:
    """Return the needs that do not follow from others."""
    below: dict[str, set[str]] = {}
    for name in ROOMS:
        direct = {lower for upper, lower in needs if upper == name}
        below[name] = direct.union(*(below[lower] for lower in direct))
    return {
        (upper, lower)
        for upper, lower in needs
        if not any(lower in below[between] for start, between in needs if start == upper)
    }


def in_order(floors: Sequence[Sequence[str]], arrows: Collection[Edge]) -> list[list[str]]:
    """Return the floors, their rooms from left to right, each near those that it needs or that need it."""
    ordered = [list(floor) for floor in floors]
    for _ in range(8):
        for floor in ordered:
            across = {name: (column + 0.5) / len(row) for row in ordered for column, name in enumerate(row)}
            near = {
                name: [across[({*arrow} - {name}).pop()] for arrow in arrows if name in arrow]
                for name in floor
            }
            floor.sort(key=lambda name: sum(near[name]) / len(near[name]) if near[name] else across[name])
    return ordered


def _arrow(
    arrow: Edge,
    arrows: Iterable[Edge],
    places: Mapping[str, tuple[float, float]],
    floors: Sequence[Sequence[str]],
) -> str:
    """Return an arrow down; on its way it passes between the rooms of a floor, never behind one."""
    upper, lower = arrow
    from_above = sorted((places[start][0], start) for start, end in arrows if end == lower)
    from_below = sorted((places[end][0], end) for start, end in arrows if start == upper)
    (x, top), (end, below) = places[upper], places[lower]
    x += _shift(from_below.index((end, lower)), len(from_below))
    end += _shift(from_above.index((places[upper][0], upper)), len(from_above))
    points = [(x, top + HEIGHT)]
    for floor in reversed(floors):
        y = places[floor[0]][1]
        if top < y < below:
            start, height = points[-1]
            aim = start + (end - start) * (y + HEIGHT / 2 - height) / (below - height)
            x = _gap(aim, [places[name][0] for name in floor])
            points += [(x, y - 6), (x, y + HEIGHT + 6)]
    points.append((end, below - 3))
    path = " L ".join(f"{x:.0f} {y:.0f}" for x, y in points)
    return f'<path class="arrow" d="M {path}" marker-end="url(#tip)"/>'


def _shift(number: int, of: int) -> float:
    return BOX * 0.7 * ((number + 0.5) / of - 0.5)


def _gap(aim: float, centres: Sequence[float]) -> float:
    """Return where a line passes a floor: as near to where it comes as is clear of the rooms on it."""
    clear = BOX / 2 + 12
    free = [each for centre in centres for each in (centre - clear, centre + clear)] + [aim]
    return min(
        (each for each in free if all(abs(each - centre) >= clear for centre in centres)),
        key=lambda each: abs(each - aim),
    )


def _box(x: float, y: float, width: float, name: str, text: str) -> str:
    return (
        f'<rect x="{x - width / 2:.0f}" y="{y:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5"/>\n'
        f'<text x="{x:.0f}" y="{y + 18:.0f}" class="name">{escape(name)}</text>\n'
        f'<text x="{x:.0f}" y="{y + 34:.0f}">{escape(text)}</text>'
    )


def _short(text: str) -> str:
    return re.split("[:;(]", text)[0].strip()


def _head(height: float) -> str:
    # Colours of its own, the background among them: a page in the dark shows it in a frame without any.
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"
  aria-label="The rooms of wash_fl on floors: each imports from those below it">
<style>
rect {{ fill: #f4f6f8; stroke: #57606a; }}
text {{ font: 11px sans-serif; text-anchor: middle; fill: #424a53; }}
.name {{ font: bold 14px sans-serif; fill: #1f2328; }}
.arrow {{ fill: none; stroke: #57606a; stroke-width: 1.2; stroke-linejoin: round; }}
.ground {{ fill: #ffffff; stroke: none; }}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M 0 0 L 8 4 L 0 8 z" fill="#57606a"/></marker></defs>
<rect class="ground" width="100%" height="100%"/>"""


if __name__ == "__main__":
    main()
