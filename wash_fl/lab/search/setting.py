"""What a fleet is like, and what its members learn."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig
from wash_fl.lab.search.device import Held, Run, Tiny
from wash_fl.member.parameters import model_layout
from wash_fl.protocol.terms import Terms, run_identity

ROUNDS: Final[Mapping[str, int]] = {"round": 7, "stream": 4}
"""Of a run, by its plane."""

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
        ``pairs``, ``permutation`` or ``all``; ``auto`` is the mix's usual one.
    average_from : float
        Part of the exchanges after which a shuffle's average instead; 0 never.
    p : float
        Probability of a coordinate.
    optimizer : bool
        Whether optimizer state travels along.
    mix, dtype : str
        How offers are mixed, and as what values travel.
    give_up_after : int
        Rounds in a row that a member may be away.
    plane : str
        ``round`` or ``stream``.
    steps, every : int
        Optimizer steps per round, and between two exchanges on streams.
    overlap : bool
        Whether members train on while a slice is on its way.
    run_length : int
        Consecutive values that are drawn together.
    reference : str
        ``values`` or ``anchor``.
    outer : bool
        Whether there is an outer step.
    closed : tuple of bool
        Whether members do not reach the stream port of the first server's process, of the second, and so on
        in turns.
    """

    seed: int
    members: int
    late: int = 0
    topology: str = "auto"
    average_from: float = 0.0
    p: float = 0.5
    optimizer: bool = False
    mix: str = "shuffle"
    dtype: str = "float32"
    give_up_after: int = 3
    plane: str = "round"
    steps: int = 1
    every: int = 1
    overlap: bool = False
    run_length: int = 1
    reference: str = "values"
    outer: bool = False
    closed: tuple[bool, ...] = (False,)

    @property
    def mixing(self) -> str:
        """How offers are mixed, in words."""
        if self.average_from:
            return "shuffle, then average"
        if self.reference == "anchor":
            return "average of differences"
        return "average in pairs" if (self.mix, self.topology) == ("average", "pairs") else self.mix

    def run(self) -> Run:
        """Return what server and members agree on."""
        exchange = ExchangeConfig(
            p=self.p,
            schedule="constant",
            mix=self.mix,
            dtype=self.dtype,
            topology=self.topology,
            average_from=self.average_from,
            exchange_optimizer=self.optimizer,
            exchange_plane=self.plane,
            every=self.every,
            overlap=self.overlap,
            run_length=self.run_length,
            reference=self.reference,
            outer_learning_rate=0.75 if self.outer else 1.0,
            outer_momentum=0.5 if self.outer else 0.0,
        )
        terms = Terms(
            run_name="faults",
            seed=self.seed,
            members=self.members,
            rounds=ROUNDS[self.plane],
            local_steps=self.steps,
            exchange=exchange,
        )
        layout = model_layout(Tiny(), ("momentum_buffer",) if self.optimizer else ())
        return Run(run_identity(terms), terms, layout)


class Training:
    """What becomes of a member's values in a round or step: new ones that nobody held, or at times the same.

    Parameters
    ----------
    far : bool
        Values lie far apart, and need not be different.

    As on a real device it depends on nothing but where the member starts, and on the round or step: who
    trains it again learns the same.
    """

    def __init__(self, *, far: bool = False) -> None:
        self._far = far
        self._learned: dict[tuple[int, int, bytes], Held] = {}
        self._numbers = itertools.count()

    def learn(self, member: int, number: int, held: Held) -> Held:
        """Return what a member holds after a round or step, from what it held before."""
        key = member, number, held.tobytes()
        if key not in self._learned:
            first = number == 1 or bool((held[0] == INITIAL["a"][0]).all())
            still = not first and next(self._numbers) % 3 == 0
            numbers = np.array([[next(self._numbers) for _ in row] for row in held])
            # Between 64 and 128, so that nobody is an outlier; far apart where sums are compared.
            new = 64 + (numbers * 37 % 61) + numbers % 7 / 8 if self._far else 64 + (1 + numbers) / 2**17
            self._learned[key] = held if still else new.astype(np.float32)
        return self._learned[key].copy()
