"""Names that people read and files carry: of classes, and of columns."""

import unicodedata
from collections.abc import Sequence
from typing import Final

JOINERS: Final = {"\u200c", "\u200d"}
"""Invisible, and part of how words of some scripts, and some emoji, are written."""


def refusal_of_names(names: Sequence[object]) -> str:
    """Return what is wrong with the first name that nobody could read or tell from another; empty if nothing.

    A name has a visible character, no control character and none that turns the direction of writing. Two
    names must differ by more than blanks around them and the way in which an accent is encoded.
    """
    seen: dict[str, str] = {}
    for place, name in enumerate(names):
        if not isinstance(name, str):
            return f"name {place} is {str(name)[:50]!r}, of type {type(name).__name__}, and no text"
        if not name.strip():
            return f"name {place} is {name!r}, which nobody can see"
        hidden = next((each for each in name if not (each.isprintable() or each in JOINERS)), None)
        if hidden is not None:
            return f"name {place} is {name[:50]!r}, with the invisible character {hidden!r}"
        if (key := canonical(name)) in seen:
            other = seen[key]
            alike = "is there twice" if other == name else f"cannot be told from {other[:50]!r}"
            return f"name {place}, {name[:50]!r}, {alike}"
        seen[key] = name
    return ""


def canonical(name: str) -> str:
    """Return a name as it is compared: without blanks around it, and accents in one way (NFC)."""
    return unicodedata.normalize("NFC", name).strip()
