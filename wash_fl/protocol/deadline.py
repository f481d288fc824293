"""How long a round waits for its members: as long as they lately took, and then some."""

import math
import statistics
from collections import defaultdict, deque

WINDOW = 5
"""Rounds of each member that are remembered: enough to see a habit, few enough to follow a change."""

SLACK = 60.0
"""Seconds granted on top: Flower needs nearly as long to notice that a client was killed, or to restart."""

OWN_LATE, OTHERS_LATE, LATE_SLACK = 1.5, 2.0, 15.0
"""A member is late after so many times what it usually takes (or the slowest other), and so many seconds."""

LEAST_SPREAD = 0.1
"""Spread of members that all took exactly the same time, as a part of that time."""


MODEL_SECONDS, SLOWEST = 600.0, 8000.0
"""What an answer about a whole model may take: so long, and as long as the model takes at so many bytes per
second, the link of 64 kbit/s."""

MODEL_TRIES = 1
"""How many more times a whole model, or statistics of one, are asked for when nobody answers."""


def model_seconds(values: int, longest: float) -> float:
    """Return how many seconds a member is given to answer about a whole model.

    Parameters
    ----------
    values : int
        Of the model, float32.
    longest : float
        Seconds that a round never waits beyond; nor does this.
    """
    return min(longest, MODEL_SECONDS + 4 * values / SLOWEST)


class Deadline:
    """Adapts to what members really take.

    The median over the members of what each took lately, plus ``spread`` times the median absolute deviation
    (scaled by 1.4826 to estimate a standard deviation, Rousseeuw and Croux 1993), plus a minute.

    Parameters
    ----------
    longest : float
        Seconds that a round never waits beyond.
    spread : float
        How many deviations are granted; 0 always waits for ``longest``.
    """

    def __init__(self, longest: float, spread: float) -> None:
        self._longest = longest
        self._spread = spread
        self._took: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def took(self, member: int, seconds: float) -> None:
        """Take note of how long a member took to answer a round, in time or not."""
        self._took[member].append(seconds)

    def late(self, member: int) -> float:
        """Return after how many seconds a member is late by its own habits, or by those of the slowest."""
        if not self._took:
            return math.inf
        own = self._took.get(member)
        usual = statistics.median(own or max(self._took.values(), key=statistics.median))
        return (OWN_LATE if own else OTHERS_LATE) * usual + LATE_SLACK

    def seconds(self) -> float:
        """Return how long the next round waits; before anything is known, the longest."""
        if not self._spread or not self._took:
            return self._longest
        usual = [statistics.median(each) for each in self._took.values()]
        middle = statistics.median(usual)
        deviation = 1.4826 * statistics.median(abs(each - middle) for each in usual)
        return min(self._longest, middle + self._spread * max(deviation, LEAST_SPREAD * middle) + SLACK)
