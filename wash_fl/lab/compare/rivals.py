"""WASH beside each of its rivals: by how much better, with how many seeds, for how many bytes."""

from dataclasses import dataclass
from typing import Any, Final

from wash_fl.lab.compare.comparison import Folder, Variant
from wash_fl.lab.compare.difference import Difference, bytes_up, difference, itself, plain, product

HEAD: Final = ("WASH beside", "better by", "with", "bytes up")
"""The words over what `Rival.texts` returns."""


@dataclass(frozen=True)
class Rival:
    """WASH's product minus another variant's.

    Attributes
    ----------
    variant : Variant
        The other.
    gain : Difference
        In accuracy, seed by seed; positive where WASH is better.
    bytes : float or None
        What a member uploads in WASH over what it does in the other; None if it uploads nothing there.
    """

    variant: Variant
    gain: Difference
    bytes: float | None

    @property
    def better(self) -> int:
        """With how many seeds WASH is better."""
        return sum(each > 0 for each in self.gain.values)

    def texts(self) -> tuple[str, str, str, str]:
        """Return it as words: the other, points of accuracy with their standard error, seeds, bytes."""
        return (
            self.variant.name,
            self.gain.points(),
            f"{self.better} of {len(self.gain.values)} seeds",
            "it sends none" if self.bytes is None else f"{self.bytes:.3g} of its",
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as numbers, by name; ``error`` is None with one seed."""
        several = len(self.gain.values) > 1
        return {
            "beside": self.variant.name,
            "gain": self.gain.mean,
            "error": self.gain.error if several else None,
            "better": self.better,
            "seeds": len(self.gain.values),
            "bytes": self.bytes,
        }


def rivals(folder: Folder) -> list[Rival]:
    """Return WASH beside all that is compared with it and has a seed in common; nothing if WASH is not there.

    What is trained with dropout is left out: its members do not have what WASH's have.
    """
    wash = plain(folder, "wash")
    if wash is None:
        return []
    others = [each for each in folder.comparison.variants if each != wash and not each.dropout]
    return [found for other in others if (found := beside(folder, wash, other)) is not None]


def beside(folder: Folder, wash: Variant, other: Variant) -> Rival | None:
    """Return one beside another, or None if they have no seed in common."""
    gain = difference(folder, wash, other, product)
    mine, theirs = itself(folder, wash, bytes_up), itself(folder, other, bytes_up)
    if gain is None or mine is None or theirs is None:
        return None
    return Rival(other, gain, mine.mean / theirs.mean if theirs.mean else None)
