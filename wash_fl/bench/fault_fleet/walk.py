"""A random walk through what can happen to a fleet: one example, from a number."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wash_fl.bench.fault_fleet.fleet import Fate, Fleet
from wash_fl.bench.fault_fleet.setting import Setting
from wash_fl.bench.mutation import Dice

ROUNDS = 6
LOUD = "flwr.wash_fl"


def walk(seed: int, example: int, folder: Path, faults: Counter[str]) -> None:
    """Run one example.

    Parameters
    ----------
    seed, example : int
        Which one.
    folder : Path
        For the journal; empty.
    faults : Counter of str
        The faults in it are added to this.

    Raises
    ------
    AssertionError
        If something does not hold that must.
    """
    dice = Dice(seed, "faults", member=example)
    members = 3 + dice.below(3)
    setting = Setting(
        seed=dice.below(2**63),
        members=members,
        late=dice.below(2) if members > 3 else 0,
        topology=("pairs", "permutation")[dice.below(2)],
        p=(0.3, 0.5, 1.0)[dice.below(3)],
        optimizer=dice.below(5) == 0,
    )
    fleet = Fleet(setting, folder)
    try:
        with quiet():
            _Walker(fleet, dice).go()
    finally:
        faults.update(fleet.faults)
        fleet.close()


class _Walker:
    def __init__(self, fleet: Fleet, dice: Dice) -> None:
        self._fleet = fleet
        self._dice = dice

    def go(self) -> None:
        fleet = self._fleet
        fleet.start_server()
        for _ in range(ROUNDS):
            self._disturb()
            if fleet.server is None:
                fleet.start_server()
            if self._one_in(5):
                fleet.light(None, self._dice.below(25))
            fleet.expire(all_=self._one_in(2))
            fleet.greet()
            self._pump()
            if self._one_in(4):
                fleet.asked = self._fate()
            fleet.admit()
            self._pump()
            fleet.open()
            self._pump()
            fleet.settle()
        fleet.finish(self._dice.below(10) if self._one_in(4) else None)

    def _disturb(self) -> None:
        """Let something happen between two rounds."""
        fleet, members = self._fleet, len(self._fleet.devices)
        member = self._dice.below(members)
        happening = self._dice.below(24)
        if happening == 0:
            fleet.lose_disk(member)
        elif happening in (1, 2):
            fleet.rot_disk(member)
        elif happening in (3, 4):
            fleet.leave(member)
        elif happening == 5:
            fleet.give_up(member)
        elif happening == 6:
            fleet.start_server()
        for absent in sorted(set(range(members)) - fleet.present):
            if self._one_in(2):
                fleet.arrive(absent)

    def _pump(self) -> None:
        """Let what is on its way arrive, or not, until only what is late is left; that may come now, too."""
        fleet = self._fleet
        for place in range(len(fleet.late) - 1, -1, -1):
            if self._one_in(2):
                fleet.come_late(place)
        while fleet.in_flight:
            place = self._dice.below(len(fleet.in_flight)) if self._one_in(3) else 0
            message = fleet.in_flight[place]
            if self._one_in(12):
                fleet.delay(place)
                continue
            if self._one_in(8):
                fleet.light(message.member, self._dice.below(9))
            fleet.deliver(place, self._fate())
            fleet.light(message.member, None)
            if self._one_in(40):
                fleet.replay(self._dice.below(2**16), of_another=self._one_in(2))
            if self._one_in(60):
                fleet.repeat(message.member)
            if self._one_in(120):
                fleet.rot_disk(message.member)
            if self._one_in(200):
                fleet.give_up(message.member)

    def _fate(self) -> Fate:
        if not self._one_in(8):
            return Fate.ARRIVES
        return (Fate.DROPPED, Fate.DUPLICATED, Fate.CORRUPTED)[self._dice.below(3)]

    def _one_in(self, number: int) -> bool:
        return self._dice.below(number) == 0


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the roster and the members say about each fault: there are too many."""
    logger = logging.getLogger(LOUD)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
