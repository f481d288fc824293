"""What a check of a task or of a device found, and what to do about it."""

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "warning", "problem"]

MEGABYTE: Final = 1_000_000


@dataclass(frozen=True)
class Finding:
    """The answer of one check.

    Attributes
    ----------
    name : str
        What was checked.
    level : str
        ``"ok"``; ``"warning"``, with which the device may work; or ``"problem"``, with which it does not.
    detail : str
        What was found.
    advice : str
        What to do; empty only if all is well.
    """

    name: str
    level: Level
    detail: str
    advice: str = ""

    def __post_init__(self) -> None:
        assert bool(self.advice) == (self.level != "ok"), self

    def as_json(self) -> dict[str, str]:
        """Return the finding as JSON, in which the detail is called ``found``."""
        return {"name": self.name, "level": self.level, "found": self.detail, "advice": self.advice}


def megabytes(size: int) -> str:
    """Return a size for people."""
    return f"{size / MEGABYTE:,.0f} MB"
