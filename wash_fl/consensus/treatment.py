"""What was done with each buffer of the averaged model: for the summary, and for whoever reads it."""

from collections.abc import Iterable, Mapping
from typing import Final

Treatment = dict[str, list[str]]
"""Names of buffers, by what was done with them."""

AVERAGED: Final = "averaged"
RE_ESTIMATED: Final = "re-estimated"
CONSTANT: Final = "constant"
RECOMPUTED: Final = "recomputed"
FROM_MEMBER: Final = "from member"
"""Followed by the member's index."""

_NAMED = 3
"""How many names of a kind are shown."""


def re_estimated(treatment: Treatment, names: Iterable[str]) -> Treatment:
    """Return a treatment in which some buffers were estimated anew at last."""
    anew = set(names)
    changed = {what: [name for name in each if name not in anew] for what, each in treatment.items()}
    recomputed_names = [name for each in treatment.values() for name in each if name in anew]
    return {what: each for what, each in {**changed, RE_ESTIMATED: recomputed_names}.items() if each}


def in_one_line(treatment: Mapping[str, list[str]]) -> str:
    """Return what was done with all buffers but BatchNorm's; empty if there are no others."""
    parts = []
    batchnorm = _batchnorm(treatment)
    for what, names in treatment.items():
        others = [name for name in names if name.rpartition(".")[0] not in batchnorm]
        if others:
            listing = ", ".join(others[:_NAMED])
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            parts.append(f"{what}: {listing}{more}")
    return "; ".join(parts)


def _batchnorm(treatment: Mapping[str, list[str]]) -> set[str]:
    """Return the names of the layers that have running statistics."""
    return {
        name.rpartition(".")[0]
        for names in treatment.values()
        for name in names
        if name.rpartition(".")[2] == "running_var"
    }
