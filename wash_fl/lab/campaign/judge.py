"""Whether a disturbed run came out as it must, by what is documented."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from wash_fl.lab.campaign.plan import MEMBERS, SERVER_FILES, Kind, Plan

_SAYS_DAMAGE: Final = re.compile(
    r"damaged|not valid TOML|no UTF-8|unknown option|not allowed|with other options|older copy|has the format"
)
"""What a run, or its audit, may say after a bit of a file on the server was flipped."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes
    ----------
    seconds : float
        How long it took.
    by_itself : bool
        Whether it ended by itself.
    error : str
        What ``wash-fl serve`` ended with; empty if it finished.
    sha256, undisturbed : str
        Of the averaged weights, and of those of a run in which nothing happens.
    members : collection of int
        Who is in the average.
    absent : collection of int
        Who missed a round or an exchange.
    anew : collection of int
        Who had to start anew from another member's weights.
    happened : sequence of str
        What became of each disturbance: empty if it happened, or else why not.
    problems : sequence of str
        What the audit found, or why there could be none.
    remains : sequence of str
        What was left behind.
    """

    seconds: float
    by_itself: bool
    error: str = ""
    sha256: str = ""
    undisturbed: str = ""
    members: Collection[int] = ()
    absent: Collection[int] = ()
    anew: Collection[int] = ()
    happened: Sequence[str] = ()
    problems: Sequence[str] = ()
    remains: Sequence[str] = ()
    notes: Mapping[str, object] = field(default_factory=dict)

    @property
    def survived(self) -> bool:
        """Whether all members were there all the time, with what they held."""
        return set(self.members) == set(range(MEMBERS)) and not self.absent and not self.anew


def wrongs(plan: Plan, outcome: Outcome) -> list[str]:
    """Return what is wrong with what came of a run, a line each; none if nothing is."""
    lines = [f"left behind: {each}" for each in outcome.remains]
    if not outcome.by_itself:
        return [f"it did not end by itself within {plan.limit:.0f} s", *lines]
    damaged = any(each.kind is Kind.FLIP and each.target in SERVER_FILES for each in plan.disturbances)
    complaints = [f"it ended with an error: {outcome.error}"] if outcome.error else []
    complaints += [f"audit: {each}" for each in outcome.problems]
    lines += [each for each in complaints if not (damaged and _SAYS_DAMAGE.search(each))]
    if must_be_equal(plan, outcome) and outcome.sha256 != outcome.undisturbed:
        lines.append(f"its weights are {outcome.sha256[:12]}, and undisturbed {outcome.undisturbed[:12]}")
    return lines


def must_be_equal(plan: Plan, outcome: Outcome) -> bool:
    """Return whether the averaged weights must be those of a run in which nothing happens.

    On the stream plane a member whose process dies in the middle of a round has lost what it learned since
    its last snapshot; no value that was exchanged is lost.
    """
    died = any(each.kind in (Kind.KILL, Kind.FLIP, Kind.RETURN) for each in plan.disturbances)
    return outcome.survived and not outcome.error and not (plan.plane == "stream" and died)
