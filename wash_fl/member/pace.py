"""How much a member trains in a round: by steps, or by seconds.

By seconds a round takes as many steps as fit, judging by the rounds before, so that a slow device and a fast
one finish together. How long a step takes is measured by the device's own clock; what becomes of the
measurement is arithmetic, and here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wash_fl.core.plane import plane_of
from wash_fl.errors import ExchangeError
from wash_fl.member.snapshot import Progress
from wash_fl.protocol.terms import Terms

GROWTH = 4
"""A round has at most so many times the steps of the one before: one odd measurement does no harm."""

_SHORTEST = 1e-9
"""Seconds; what a clock that did not move stands for."""


@dataclass(frozen=True)
class Round:
    """What a member is asked to do in a round.

    Attributes
    ----------
    number : int
        From 1.
    first_step : int
        The number of its first optimizer step, from 0. By steps it is the same for all members, also for one
        that missed rounds; by seconds it is how many steps this member has taken.
    steps : int
        How many optimizer steps to take.
    terms : Terms
        The terms of the run.
    seconds : float
        About how long they should take; 0 if rounds are measured in steps.
    """

    number: int
    first_step: int
    steps: int
    terms: Terms
    seconds: float = 0.0

    def progress(self, step: int = 0) -> float:
        """Return which part of the whole run is over before the given step of this round, 0 to 1.

        Parameters
        ----------
        step : int
            From 0; ``steps`` stands for the end of the round.

        Examples
        --------
        A learning rate that falls linearly, however many steps the device takes::

            rate = 0.1 * (1.0 - now.progress(step))
        """
        if self.seconds:
            return (self.number - 1 + step / self.steps) / self.terms.rounds
        return (self.first_step + step) / (self.terms.rounds * self.terms.local_steps)


Work = Callable[[Round], Mapping[str, float] | None]
"""Takes a round's optimizer steps and returns metrics by name."""


def plan(number: int, seconds: float, progress: Progress, terms: Terms) -> Round:
    """Return what a member is to do in a round.

    Parameters
    ----------
    number : int
        Number of the round.
    seconds : float
        About how long it is to take; 0 if it is measured in steps.
    progress : Progress
        How far the member is.
    terms : Terms
        The terms of the run.
    """
    if not seconds:
        first, last = (number - 1) * terms.local_steps, number * terms.local_steps
        if plane_of(terms.exchange).logged:
            # Saved in the middle of a round, which now goes on.
            first = min(max(first, progress.step), last - 1)
        return Round(number, first, last - first, terms)
    steps = steps_within(
        seconds,
        seconds_per_step=progress.seconds_per_step,
        last_steps=progress.last_steps,
        first=terms.local_steps,
    )
    return Round(number, progress.step, steps, terms, seconds)


def steps_within(seconds: float, *, seconds_per_step: float, last_steps: int, first: int) -> int:
    """Return how many optimizer steps to take in a round of so many seconds.

    Parameters
    ----------
    seconds : float
        Above 0.
    seconds_per_step : float
        As measured before; 0 if nothing was.
    last_steps : int
        Steps in the round before; 0 if it is not known.
    first : int
        Steps in the first round, in which nothing is known.

    Returns
    -------
    int
        At least 1.
    """
    if not (seconds_per_step and last_steps):
        return first
    return min(max(1, round(seconds / seconds_per_step)), GROWTH * last_steps)


def smoothed(seconds_per_step: float, *, seconds: float, steps: int) -> float:
    """Return a new estimate of the seconds per step, after ``steps`` took ``seconds``.

    It is the geometric mean of the old estimate and the measurement: of one that is 100 times too long,
    10 times are left, and 1.8 times two rounds later.

    Parameters
    ----------
    seconds_per_step : float
        The estimate so far; 0 if there is none.
    seconds : float
        What the steps took.
    steps : int
        At least 1.
    """
    measured = max(seconds, _SHORTEST) / steps
    return math.sqrt(seconds_per_step * measured) if seconds_per_step else measured


def checked_seconds(seconds: float) -> float:
    """Return the seconds of a request if they are possible.

    Raises
    ------
    ExchangeError
        If they are not finite, or below 0.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ExchangeError(
            f"a round of {seconds:g} seconds: it must be 0 (by steps) or more; the ServerApp must use "
            "WashStrategy of the same version."
        )
    return seconds
