"""A random walk through what can happen to a fleet: one example, from a number."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from wash_fl.lab.search.fleet import Fate, Fleet
from wash_fl.lab.search.mutation import Dice
from wash_fl.lab.search.setting import Setting
from wash_fl.lab.search.streams import Call

TURNS: Final = 18
"""Turns of the server in which things go wrong."""

MIXES: Final = (
    *[("shuffle", "float32")] * 4,
    ("average", "float32"),
    ("shuffle", "bfloat16"),
    ("average", "int8"),
    ("shuffle", "int8"),
)
"""How offers are mixed, and as what they travel."""

FEWER: Final = ("int8", "int4", "int3", "int2")
"""What int8 stands for above: one of them, drawn by itself, so that examples are otherwise what they were."""

PLANES: Final = ("round", "round", "stream")
"""How slices travel."""

ANCHORED: Final = 10
"""The last of so many examples in a row is one of differences to an anchor."""

CLOSED: Final = 50
"""One of so many examples in a row is one in which members do not reach the stream port."""

PORTS: Final = ((True,), (True, False), (False, True), (True, True, False))
"""Of which servers' processes."""

DIFFERENCES: Final = ("int8", "int4", "int3", "int2", "bfloat16", "float32")
"""As what they travel."""

LOUD = "flwr.wash_fl"


def walk(
    seed: int,
    example: int,
    folder: Path,
    faults: Counter[str],
    settings: Counter[tuple[str, str, str]] | None = None,
) -> None:
    """Run one example.

    Parameters
    ----------
    seed, example : int
        Which one.
    folder : Path
        For the journal; empty.
    faults : Counter of str
        The faults in it are added to this.
    settings : Counter of (str, str, str), optional
        Its plane, mix and dtype are added to this.

    Raises
    ------
    AssertionError
        If something does not hold that must.
    """
    dice = Dice(seed, "faults", member=example)
    members = 3 + dice.below(3)
    mix, dtype = MIXES[dice.below(len(MIXES))]
    if dtype == "int8":
        dtype = FEWER[Dice(seed, "bits", member=example).below(len(FEWER))]
    # By dice of their own: what else happens in an example is what happened before there were these options.
    more = Dice(seed, "average", member=example)
    among = ("all", "pairs")[more.below(2)]
    average_from = (0.0, 0.0, 0.0, 0.25, 0.5, 0.75)[more.below(6)]
    plane = PLANES[dice.below(len(PLANES))]
    setting = Setting(
        seed=dice.below(2**63),
        members=members,
        late=dice.below(2) if members > 3 else 0,
        topology=("pairs", "permutation")[dice.below(2)] if mix == "shuffle" else among,
        average_from=average_from if mix == "shuffle" else 0.0,
        p=(0.3, 0.5, 1.0)[dice.below(3)],
        optimizer=dice.below(5) == 0,
        mix=mix,
        dtype=dtype,
        give_up_after=1 + dice.below(3),
        plane=plane,
        steps=2 + dice.below(2) if plane == "stream" else 1,
        every=1 + dice.below(2) if plane == "stream" else 1,
        overlap=plane == "stream" and dice.below(3) == 0,
        # From dice of its own: the others fall as they did before there was this option.
        run_length=(1, 16, 64)[Dice(seed, "runs", member=example).below(3)],
    )
    if example % ANCHORED == ANCHORED - 1:
        more = Dice(seed, "anchor", member=example)
        setting = replace(
            setting,
            topology="all",
            average_from=0.0,
            mix="average",
            dtype=DIFFERENCES[more.below(len(DIFFERENCES))],
            reference="anchor",
            outer=more.below(2) == 1,
        )
    if example % CLOSED == CLOSED // 2:
        more = Dice(seed, "port", member=example)
        setting = replace(setting, plane="stream", steps=2, closed=PORTS[more.below(len(PORTS))])
    if settings is not None:
        settings[setting.plane, setting.mixing, setting.dtype] += 1
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
        for _ in range(TURNS):
            if self._one_in(2):
                self._disturb()
            if fleet.server is None:
                if self._one_in(4):
                    fleet.jump(self._dice.below(2000) - 1000)
                fleet.start_server()
            if self._one_in(12):
                fleet.light(None, self._dice.below(25))
            fleet.proceed()
            self._pump()
            fleet.wait(0.0 if self._one_in(2) else None)
        fleet.finish(self._dice.below(30) if self._one_in(4) else None)

    def _disturb(self) -> None:
        """Let something happen between two rounds."""
        fleet, members = self._fleet, len(self._fleet.devices)
        member = self._dice.below(members)
        happening = self._dice.below(24)
        if happening == 0:
            fleet.lose_disk(member)
        elif happening in {1, 2}:
            fleet.rot_disk(member)
        elif happening in {3, 4, 5, 6}:
            fleet.leave(member)
        elif happening == 7:
            fleet.start_server()
        elif happening in {8, 9}:
            fleet.cut_power(member, self._dice.below(100) / 100)
        elif happening in {10, 11, 12}:
            fleet.copy(member)
        elif happening in {13, 14}:
            fleet.restore(member)
        elif happening in {15, 16}:
            fleet.copy_journal()
        elif happening == 17 and self._one_in(2):
            fleet.restore_journal()
        elif happening == 18:
            fleet.jump((1.0, 30.0, 10_000.0)[self._dice.below(3)])
        for absent in sorted(set(range(members)) - fleet.present):
            if self._one_in(2):
                fleet.arrive(absent)

    def _pump(self) -> None:
        """Let what is on its way arrive, or not, until only what is late is left; that may come now, too."""
        fleet = self._fleet
        for place in range(len(fleet.late) - 1, -1, -1):
            if self._one_in(2):
                fleet.come_late(place)
        while True:
            places = fleet.can_arrive()
            if len(places) < len(fleet.in_flight) and self._one_in(30):
                busy = next(place for place in range(len(fleet.in_flight)) if place not in places)
                fleet.second_process(busy)
                continue
            calls = [each for each in fleet.streams.calls if each.up]
            hearers = fleet.can_hear()
            ways = [way for way, what in enumerate((places, calls, hearers)) if what]
            if not ways:
                return
            way = ways[self._dice.below(len(ways))] if len(ways) > 1 else ways[0]
            if way == 0:
                self._message(places)
            elif way == 1:
                self._on_a_call(calls)
            else:
                self._heard(hearers)

    def _message(self, places: list[int]) -> None:
        """Let one of the messages that go by Flower meet its fate."""
        fleet = self._fleet
        place = places[self._dice.below(len(places)) if self._one_in(3) else 0]
        message = fleet.in_flight[place]
        if self._one_in(12):
            fleet.delay(place)
            return
        if self._one_in(8):
            fleet.light(message.member, self._dice.below(9))
        fleet.deliver(place, self._fate())
        if not fleet.devices[message.member].busy:
            fleet.light(message.member, None)
        if self._one_in(40):
            fleet.replay(self._dice.below(2**16), of_another=self._one_in(2))
        if self._one_in(120):
            fleet.rot_disk(message.member)

    def _on_a_call(self, calls: list[Call]) -> None:
        """Let the next on a call reach the server, or break the call."""
        fleet = self._fleet
        call = calls[self._dice.below(len(calls))]
        if self._one_in(30):
            fleet.lose_call(call)
        else:
            fleet.arrive_at_server(call, flipped=self._one_in(60))

    def _heard(self, members: list[int]) -> None:
        """Let a member hear what has come, or die."""
        fleet = self._fleet
        member = members[self._dice.below(len(members))]
        if self._one_in(60):
            fleet.kill(member)
            return
        if self._one_in(20):
            fleet.light(member, self._dice.below(9))
        fleet.hear(member)
        if not fleet.devices[member].busy:
            fleet.light(member, None)

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
