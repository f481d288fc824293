"""What a fleet is like, and what its members learn."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.bench.fault_fleet.device import Held, Run, Tiny
from wash_fl.config import ExchangeConfig
from wash_fl.core.identity import run_identity
from wash_fl.core.terms import Terms
from wash_fl.member.parameters import model_layout

ROUNDS: Final = 1000
"""Of the run's terms: more than any example gets to."""

INITIAL: Final[Mapping[str, NDArray[np.float32]]] = {
    "a": np.full(4, 64, np.float32),
    "b": np.full(2, 64, np.float32),
}
"""The weights that all start from."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a fleet is like.

    Attributes
    ----------
    seed : int
        The run seed.
    members : int
        How many members there are at most; they are there from the beginning but for ``late``.
    late : int
        How many of them are not there at the beginning.
    topology : str
        ``pairs`` or ``permutation``.
    p : float
        Probability of a coordinate.
    optimizer : bool
        Whether optimizer state travels along.
    """

    seed: int
    members: int
    late: int = 0
    topology: str = "pairs"
    p: float = 0.5
    optimizer: bool = False

    def run(self) -> Run:
        """Return what server and members agree on."""
        exchange = ExchangeConfig(
            p=self.p,
            schedule="constant",
            mix="shuffle",
            topology=self.topology,
            exchange_optimizer=self.optimizer,
        )
        terms = Terms(
            run_name="faults",
            seed=self.seed,
            members=self.members,
            rounds=ROUNDS,
            local_steps=1,
            exchange=exchange,
        )
        layout = model_layout(Tiny(), ("momentum_buffer",) if self.optimizer else ())
        return Run(run_identity(terms), terms, layout)


class Training:
    """What becomes of a member's values in a round: new ones that nobody ever held, or at times the same.

    As on a real device it depends on nothing but where the member starts, and on the round: who trains it
    again learns the same.
    """

    def __init__(self) -> None:
        self._learned: dict[tuple[int, int, bytes], Held] = {}
        self._numbers = itertools.count()

    def learn(self, member: int, number: int, held: Held) -> Held:
        """Return what a member holds after a round, from what it held before, shape (slots, size)."""
        key = member, number, held.tobytes()
        if key not in self._learned:
            first = number == 1 or bool((held[0] == INITIAL["a"][0]).all())
            still = not first and next(self._numbers) % 3 == 0
            numbers = np.array([[next(self._numbers) for _ in row] for row in held])
            # Between 64 and 128, so that nobody is an outlier.
            self._learned[key] = held if still else (64 + (1 + numbers) / 2**17).astype(np.float32)
        return self._learned[key].copy()
