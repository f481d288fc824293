"""The paper's claims, one at a time, as far as a comparison can answer them: yes, no, or not at this size."""

from dataclasses import dataclass
from typing import Any, Final

from wash_fl.lab.compare.comparison import Folder, Variant
from wash_fl.lab.compare.difference import Difference, bytes_up, difference, itself, plain, product
from wash_fl.lab.compare.rivals import beside

YES: Final = "yes"
NO: Final = "no"
OPEN: Final = "not at this size"

CLOSE: Final = 0.005
"""Accuracy: half a point is as good."""
FLAT: Final = 0.02
"""Loss: a barrier that is lower is none."""
ERRORS: Final = 2.0
"""A difference of fewer standard errors of its mean is none that these seeds show."""

EQUAL: Final = 0.05
"""Bytes that differ by so small a part are equal."""


@dataclass(frozen=True)
class Answer:
    """What a comparison says to a claim.

    Attributes
    ----------
    claim : str
        In one sentence.
    verdict : str
        ``yes``, ``no``, or ``not at this size``: these seeds do not tell.
    why : str
        The figures it rests on.
    """

    claim: str
    verdict: str
    why: str


def answers(folder: Folder) -> list[Answer]:
    """Return what a comparison says to each claim of which it has the rows."""
    return [answer for claim in CLAIMS if (answer := claim(folder)) is not None]


def judged(found: Difference, *, at_least: float = 0.0) -> str:
    """Return whether a difference is above a value: yes or no if it is far enough from it."""
    if found.mean - ERRORS * found.error > at_least:
        return YES
    return NO if found.mean + ERRORS * found.error < at_least else OPEN


def close_to_ensemble(folder: Folder) -> Answer | None:
    """Whether the averaged model is as good as the ensemble of members that never communicated."""
    wash, isolated = plain(folder, "wash"), plain(folder, "isolated")
    if wash is None or isolated is None:
        return None
    gap = difference(folder, wash, wash, product, _ensemble)
    ceiling = difference(folder, wash, isolated, product, _ensemble)
    if gap is None or ceiling is None:
        return None
    verdict = judged(ceiling, at_least=-CLOSE)
    return Answer(
        "WASH's averaged model is within half a point of the ensemble of isolated members.",
        verdict,
        f"averaged minus the isolated ensemble {ceiling}; minus WASH's own ensemble {gap}",
    )


def one_basin(folder: Folder) -> Answer | None:
    """Whether there is no barrier between members that exchange, and what it is between isolated ones."""
    wash, isolated = plain(folder, "wash"), plain(folder, "isolated")
    found = None if wash is None else itself(folder, wash, _barrier)
    if found is None:
        return None
    alone = None if isolated is None else itself(folder, isolated, _barrier)
    return Answer(
        "WASH's members are in one basin: no barrier of the loss between two of them.",
        {YES: NO, NO: YES, OPEN: OPEN}[judged(found, at_least=FLAT)],
        f"barrier {found}" + ("" if alone is None else f"; between isolated members {alone}"),
    )


def depth(folder: Folder) -> Answer | None:
    """Whether p that falls with depth beats p that is constant or rises, for the same bytes."""
    known: dict[str, Difference] = {}
    for other in ("constant", "increasing"):
        found = _at_equal_bytes(folder, "decreasing", other)
        if found is not None:
            known[other] = found
    if not known:
        return None
    verdicts = [judged(each) for each in known.values()]
    verdict = YES if set(verdicts) == {YES} else NO if NO in verdicts else OPEN
    return Answer(
        "A probability that decreases with depth beats a constant and an increasing one, for equal bytes.",
        verdict,
        "; ".join(f"decreasing minus {schedule} {each}" for schedule, each in known.items()),
    )


def with_optimizer(folder: Folder) -> Answer | None:
    """Whether it helps to exchange the optimizer's state, too."""
    wash, both = plain(folder, "wash"), plain(folder, "wash-opt")
    found = None if wash is None or both is None else difference(folder, both, wash, product)
    if found is None:
        return None
    return Answer("WASH+Opt is better than WASH.", judged(found), f"WASH+Opt minus WASH {found}")


def fewer_bytes_than_papa(folder: Folder) -> Answer | None:
    """Whether WASH needs fewer bytes than PAPA for an averaged model that is as good."""
    wash, papa = plain(folder, "wash"), plain(folder, "papa")
    found = None if wash is None or papa is None else beside(folder, wash, papa)
    if found is None or found.bytes is None:
        return None  # nothing is fewer than no bytes: a comparison so short that PAPA never averaged
    verdict = judged(found.gain, at_least=-CLOSE) if found.bytes < 1 else NO
    return Answer(
        "WASH sends fewer bytes than PAPA for an averaged model within half a point of PAPA's, or better.",
        verdict,
        f"WASH minus PAPA {found.gain}, at {found.bytes:.3f} of its bytes",
    )


CLAIMS: Final = (close_to_ensemble, one_basin, depth, with_optimizer, fewer_bytes_than_papa)


def _at_equal_bytes(folder: Folder, one: str, other: str) -> Difference | None:
    """Return the difference of two of WASH's schedules, equal in bytes and in all but them and p."""
    by_schedule: dict[str, list[tuple[Variant, dict[str, Any], Difference]]] = {one: [], other: []}
    for variant in folder.comparison.variants:
        sent = None if variant.dropout else itself(folder, variant, bytes_up)
        config = folder.comparison.row(variant, 0).config.to_mapping()
        schedule = config.pop("schedule")
        del config["p"]
        if variant.method == "wash" and sent is not None and schedule in by_schedule:
            by_schedule[schedule].append((variant, config, sent))
    for mine, config, sent in by_schedule[one]:
        for theirs, same, as_many in by_schedule[other]:
            if config == same and abs(sent.mean - as_many.mean) <= EQUAL * as_many.mean:
                return difference(folder, mine, theirs, product)
    return None


def _ensemble(figures: dict[str, Any]) -> float:
    return float(figures["accuracy"]["ensemble"])


def _barrier(figures: dict[str, Any]) -> float:
    return float(figures["lines"]["members"]["barrier"])
