"""The whole fleet, and every single thing that can happen to it; who decides what happens is elsewhere."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from wash_fl.bench.fault_fleet.device import Device, Held
from wash_fl.bench.fault_fleet.journal import WatchedJournal
from wash_fl.bench.fault_fleet.messages import Kind, Reply, Request, Status
from wash_fl.bench.fault_fleet.moments import Fuse, Killed
from wash_fl.bench.fault_fleet.oracle import Oracle, Violation
from wash_fl.bench.fault_fleet.server import Server
from wash_fl.bench.fault_fleet.setting import INITIAL, Setting, Training
from wash_fl.core.draw import Draw

DONORS = 2
"""Members whose disks do not fail while another's does: somebody must have what it is to start from."""


class Fate(StrEnum):
    """What becomes of a message."""

    ARRIVES = "arrives"
    DROPPED = "dropped"
    DUPLICATED = "duplicated"  # it arrives, and once more later
    CORRUPTED = "corrupted"  # it arrives with a bit of its packet flipped


class Fleet:
    """Members, a server, and what is on its way between them.

    Everything that happens is a method, deterministic, and checked by an oracle before it returns.

    Parameters
    ----------
    setting : Setting
        What it is like.
    folder : Path
        Where the journal goes; empty.

    Attributes
    ----------
    faults : Counter of str
        What went wrong so far.
    in_flight, late : list of Request or Reply
        What is on its way, and what is on its way for longer.
    present : set of int
        The members whose devices are on.
    server : Server or None
        The server's process, if it lives.
    asked : Fate
        What becomes of the next request for a model, and of its reply.
    """

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._run = setting.run()
        self._draw = Draw(setting.seed, self._run.layout, self._run.terms.schedule)
        self._training = Training()
        self._numbers = itertools.count(1)
        self._offers: list[Reply] = []
        self.devices = [Device(self._run, index, self._learn) for index in range(setting.members)]
        self.fuse = Fuse()
        self.journal = WatchedJournal(
            folder / "journal.sqlite",
            self._run.identity,
            self._run.layout.fingerprint,
            fuse=self.fuse,
            committed=lambda: self.oracle.check("the server has written to its journal"),
        )
        self.oracle = Oracle(self._run, self._draw, self.devices, self.journal, self._offered)
        self.oracle.starting(INITIAL)
        self.faults: Counter[str] = Counter()
        self.in_flight: list[Request | Reply] = []
        self.late: list[Request | Reply] = []
        self.present = set(range(setting.members - setting.late))
        self.server: Server | None = None
        self.asked = Fate.ARRIVES

    # The server

    def start_server(self) -> None:
        """Begin a server's process; one that lives is killed."""
        if self.server is not None:
            self.faults["server killed between two steps"] += 1
            self._server_dies()
        self.fuse.light(None)
        self.journal.reopen()
        self.server = Server(
            self._run,
            self._draw,
            INITIAL,
            self.journal,
            fuse=self.fuse,
            numbers=self._numbers,
            post=self.in_flight.append,
            ask=self._ask,
        )

    def greet(self) -> None:
        """Let the server ask the members that it has not met who they are."""
        self._server_does(lambda server: server.greet(self.present))

    def admit(self) -> None:
        """Let the server give weights to the members that wait for some."""
        self._server_does(lambda server: server.admit(self.present))

    def open(self) -> None:
        """Let the server begin a round."""
        self._server_does(lambda server: server.open(self.present))

    def settle(self) -> None:
        """Let the server end the round."""
        self._server_does(lambda server: server.settle())

    def repeat(self, member: int) -> None:
        """Let the server ask a member once more."""
        if self._server_does(lambda server: server.repeat(member)):
            self.faults["request repeated"] += 1

    def expire(self, *, all_: bool) -> None:
        """Let the server forget the requests that are lost, or all that are out."""
        keep = set() if all_ else {message.number for message in self.in_flight + self.late}
        self._server_does(lambda server: server.expire(keep))

    def give_up(self, member: int) -> None:
        """Let the server go on without a member."""
        if self._server_does(lambda server: server.give_up(member)):
            self.faults["member given up"] += 1

    # The network

    def deliver(self, place: int, fate: Fate = Fate.ARRIVES) -> None:
        """Let a message that is on its way meet its fate."""
        message = self.in_flight.pop(place)
        kind = "request" if isinstance(message, Request) else "reply"
        if place:
            self.faults["reordered"] += 1
        if fate is not Fate.ARRIVES:
            if fate is Fate.CORRUPTED:
                damaged = message.corrupted(next(self._numbers))
                # What has no packet has no bit to flip that TCP would not have noticed.
                fate, message = (fate, damaged) if damaged else (Fate.DROPPED, message)
            self.faults[f"{kind} {fate}"] += 1
        if fate is Fate.DROPPED:
            return
        if fate is Fate.DUPLICATED:
            self.in_flight.append(message)
        if isinstance(message, Request):
            reply = self._handle(message)
            if reply is not None:
                self.in_flight.append(reply)
                if reply.offer:
                    self._offers.append(reply)
        else:
            arrived = message
            self._server_does(lambda server: server.take(arrived))

    def delay(self, place: int) -> None:
        """Let a message be on its way for longer."""
        message = self.in_flight.pop(place)
        self.late.append(message)
        self.faults["request delayed" if isinstance(message, Request) else "reply delayed"] += 1

    def come_late(self, place: int) -> None:
        """Let what was delayed be on its way again."""
        self.in_flight.append(self.late.pop(place))

    def replay(self, pick: int, *, of_another: bool) -> None:
        """Send an old offer once more: in answer to what its member is asked now, or another member is."""
        asked = (
            []
            if self.server is None
            else [request for request in self.server.out.values() if request.kind is Kind.TRAIN]
        )
        if not asked or not self._offers or self.server is None:
            return
        request = asked[pick % len(asked)]
        old = [each for each in self._offers if (each.member != request.member) == of_another]
        if not old:
            return
        reply = replace(old[pick % len(old)], number=request.number)
        if of_another and pick % 2:
            # Sent by the member that was asked, in its own name.
            applied = self.server.roster[request.member].applied
            reply = replace(reply, member=request.member, applied=applied)
        self.in_flight.insert(0, reply)
        self.faults["offer of another member" if of_another else "old offer replayed"] += 1

    # The members

    def arrive(self, member: int) -> None:
        """Let a device be switched on that was not there, or was away."""
        if member not in self.present:
            self.present.add(member)
            known = self.journal.known.members.get(member)
            self.faults["member returned" if known else "member joined late"] += 1

    def leave(self, member: int) -> None:
        """Let a device be switched off; what was sent to it is lost."""
        if member in self.present:
            self.present.discard(member)
            for messages in (self.in_flight, self.late):
                messages[:] = [each for each in messages if isinstance(each, Reply) or each.member != member]
            self.faults["member away"] += 1

    def lose_disk(self, member: int) -> None:
        """Let a member lose all it has."""
        self._damage(member, "disk lost", self.devices[member].disk.remove)

    def rot_disk(self, member: int) -> None:
        """Let the newest state of a member be damaged, though it had been written."""
        self._damage(member, "state fell back", self.devices[member].disk.rot)

    def light(self, member: int | None, moments: int | None) -> None:
        """Let a member's process (or the server's, for None) die after so many moments; None lets it live."""
        (self.fuse if member is None else self.devices[member].fuse).light(moments)

    # The end

    def finish(self, dies_after: int | None = None) -> None:
        """Let all members be there, and collect them; nothing goes wrong any more but one thing.

        Parameters
        ----------
        dies_after : int, optional
            The moments after which the server dies once more while it collects.
        """
        self.start_server()
        self.asked = Fate.ARRIVES
        self.present = set(range(len(self.devices)))
        for device in self.devices:
            device.fuse.light(None)
        self._go_on(
            self.greet, self.admit, self.greet, self.open, self.settle, self.greet, self.admit, self.greet
        )
        sound = self.oracle.sound
        if dies_after is not None:
            self.fuse.light(dies_after)
            self._server_does(lambda server: server.collect(self.present))
            self.start_server()
            self._go_on(self.greet)
        server = self.server
        assert server is not None
        weights = server.collect(self.present)
        for member in set(server.roster.active()) - weights.keys():
            # Unless its state cannot be read at all, or all disks have failed and nobody can help it.
            if sound and self.devices[member].disk.readable:
                raise Violation(f"member {member} is there, and could not be collected")
            server.give_up(member)
        self.oracle.collected(weights)

    def _go_on(self, *steps: Callable[[], None]) -> None:
        while self.late:
            self.come_late(0)
        for step in steps:
            step()
            while self.in_flight:
                self.deliver(0)
            self.expire(all_=True)

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def _server_does(self, step: Callable[[Server], object]) -> object:
        if self.server is None:
            return None
        try:
            return step(self.server)
        except Killed as death:
            self.faults[f"server killed {death.moment}"] += 1
            self._server_dies()
            return None
        finally:
            self.oracle.check("the server has done something")

    def _offered(self) -> frozenset[int]:
        return frozenset() if self.server is None else self.server.escrow.offered

    def _server_dies(self) -> None:
        self.server = None
        self.journal.crash()

    def _ask(self, request: Request) -> Reply | None:
        """Let the server wait for a member; the message and its answer may meet their fate, too."""
        fate, self.asked = self.asked, Fate.ARRIVES
        chance = next(self._numbers)
        kind = "reply" if fate is Fate.DROPPED and chance % 2 else "request"
        if fate is Fate.CORRUPTED:
            damaged = request.corrupted(chance)
            fate, request = (fate, damaged) if damaged else (Fate.ARRIVES, request)
        if fate is not Fate.ARRIVES:
            self.faults[f"{kind} {fate}"] += 1
        if fate is Fate.DROPPED and kind == "request":
            return None
        if fate is Fate.DUPLICATED:
            self.in_flight.append(request)
        reply = self._handle(request)
        return None if fate is Fate.DROPPED else reply

    def _handle(self, request: Request) -> Reply | None:
        device = self.devices[request.member]
        reply = None
        try:
            reply = device.handle(request)
        except Killed as death:
            self.faults[f"member killed {death.moment}"] += 1
        if reply is not None and reply.weights is not None and reply.status is Status.DONE:
            self.oracle.starting(reply.weights)
        self.oracle.handled(request.member, request, reply)
        return reply

    def _damage(self, member: int, kind: str, damage: Callable[[], None]) -> None:
        if self.devices[member].disk.whole() is None or len(self.oracle.sound - {member}) < DONORS:
            return
        self.faults[kind] += 1
        self.oracle.losing(member)
        damage()
        self.oracle.lost(member)

    def _learn(self, member: int, number: int, held: Held) -> Held:
        self.oracle.training(member, held)
        return self._training.learn(member, number, held)
