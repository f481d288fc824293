"""The whole fleet, and every single thing that can happen to it; who decides what happens is elsewhere."""

import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from wash_fl.core.draw import Draw
from wash_fl.lab.search.device import Copy, Device, Held
from wash_fl.lab.search.journal import WatchedStore
from wash_fl.lab.search.ledger import keeps_every_value
from wash_fl.lab.search.letters import Letter, Reply
from wash_fl.lab.search.moments import Fuse, Killed
from wash_fl.lab.search.oracle import Oracle
from wash_fl.lab.search.server_process import ROUND, ServerProcess
from wash_fl.lab.search.setting import INITIAL, Setting, Training
from wash_fl.lab.search.streams import Call, SimulatedLine, Streams, hello_of
from wash_fl.lab.search.violation import Violation
from wash_fl.member.exchanging import Line
from wash_fl.member.log import Kind as Record
from wash_fl.member.parameters import Values
from wash_fl.member.snapshot import Progress
from wash_fl.protocol.commands import Tell
from wash_fl.protocol.coordinator import Coordinator
from wash_fl.protocol.events import Hello, Nodes, Offered, Replied, TimeUp
from wash_fl.protocol.journal_rows import Standing
from wash_fl.protocol.messages import Answer, Failure, Kind, Lost, Status

DONORS: Final = 2
"""Members whose disks do not fail while another's does: somebody must have what it is to start from."""

HOPELESS: Final = 20
"""Servers in a row that end for want of members, and get nothing done, after which nobody starts another."""

STEPS: Final = 400
"""Turns of a server within which a run that nothing disturbs any more is at its end."""


class Fate(StrEnum):
    """What becomes of a message."""

    ARRIVES = "arrives"
    DROPPED = "dropped"
    DUPLICATED = "duplicated"  # it arrives, and once more later
    CORRUPTED = "corrupted"  # it arrives with a bit of its packet flipped


class Fleet:
    """Members, a server, and what is on its way between them.

    Everything that happens is a method, deterministic, and checked by an oracle before it returns. The
    server is the coordinator that Flower's strategy carries, and the members are those that its clients run.

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
    in_flight, late : list of Letter or Reply
        What is on its way, and what is on its way for longer.
    present : set of int
        The members whose devices are on.
    streams : Streams
        The members' calls, on the stream plane.
    """

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting = setting
        self._run = setting.run()
        self._draw = Draw(setting.seed, self._run.layout, self._run.terms.schedule)
        self._training = Training(far=not keeps_every_value(self._run))
        self._chances = itertools.count(1)
        self._now = self._ahead = 0.0
        self._undone = 0  # the number of the last server's process before an older journal was put in place
        self._copies: dict[int, Copy] = {}
        self._offers: list[Reply] = []
        self._letters: dict[int, Letter] = {}
        self.streams = Streams()
        self.devices = [
            Device(self._run, index, folder / f"member-{index}", self) for index in range(setting.members)
        ]
        self.fuse = Fuse()
        self.journal = WatchedStore(
            folder / "journal.sqlite",
            self._run.identity,
            self._run.layout.fingerprint,
            fuse=self.fuse,
            committed=lambda: self.oracle.check("the server has written to its journal"),
            anchored=self._run.terms.exchange.anchored,
        )
        self.oracle = Oracle(
            self._run,
            self._draw,
            self.devices,
            self.journal,
            offered=lambda: self._process.offered,
            adrift=self._adrift,
        )
        self.oracle.starting(INITIAL)
        self.faults: Counter[str] = Counter()
        self.in_flight: list[Letter | Reply] = []
        self._process = ServerProcess(
            self._run,
            setting.give_up_after,
            self.journal,
            self.fuse,
            streams=self.streams,
            send=self.in_flight.append,
            faults=self.faults,
            checked=lambda: self.oracle.check("the server has done something"),
        )
        self.late: list[Letter | Reply] = []
        self.present = set(range(setting.members - setting.late))

    # The server

    @property
    def server(self) -> Coordinator | None:
        """What decides in the server's process; None if that is dead."""
        return self._process.coordinator

    def start_server(self) -> None:
        """Begin a server's process; one that lives is killed."""
        if self.server is not None:
            self.faults["server killed between two steps"] += 1
            self._process.die()
        self._process.start(self._server_now)

    def jump(self, seconds: float) -> None:
        """Let the server's clock jump: it was suspended, or is another machine's by now."""
        if seconds > 0 or self.server is None:
            self._ahead += seconds
            self.faults["clock jumped"] += 1

    def copy_journal(self) -> None:
        """Keep a copy of the journal, as it is."""
        self.journal.copy()

    def restore_journal(self) -> None:
        """Kill the server, and put the copy of its journal in its place, if there is one."""
        if not self.journal.has_copy:
            return
        if self.server is not None:
            self._process.die()
        self.faults["older journal restored"] += 1
        self.journal.restore_copy()
        self._undone = self._process.number
        self.oracle.journal_restored()

    def proceed(self) -> None:
        """Let the server go on with its job, as far as it goes by itself."""
        nodes, now = Nodes(frozenset(self.present)), self._server_now
        self._process.does(
            lambda coordinator: [*coordinator.handle(nodes, now=now), *coordinator.proceed(now=now)]
        )

    def wait(self, seconds: float | None = None) -> None:
        """Let time pass: by default until the server does something though nothing comes."""
        if seconds is None:
            until = self._now + ROUND
            if self.server is not None:
                due = self.server.exchanges.due()
                deadlines = [self.server.next_deadline(), *([] if due is None else [due])]
                until = min(until, min(deadlines) - self._ahead)
            waiting = [each.waits_for for each in self.devices if isinstance(each.waits_for, float)]
            seconds = max(0.0 if waiting else 1.0, min([until, *waiting]) - self._now)
        self._now += seconds
        for member, device in enumerate(self.devices):
            if isinstance(device.waits_for, float) and device.waits_for <= self._now:
                self._goes_on(member, None)
        self._settle_if_due()

    def _adrift(self, member: int) -> Callable[[], bool]:
        """Return what tells whether an offer that is on a member's way to the server now may still arrive."""
        on_stream = self.streams.adrift(member)
        # Once per round a member that trains again offers the same again.
        replies = [
            each
            for each in (*self.in_flight, *self.late)
            if isinstance(each, Reply) and each.member == member and each.answer.offer
            if self._setting.plane == "stream"
        ]

        def arrives() -> bool:
            on_its_way = (*self.in_flight, *self.late)
            return on_stream() or any(each is reply for each in on_its_way for reply in replies)

        return arrives

    @property
    def _port_is_closed(self) -> bool:
        closed = self._setting.closed
        return closed[self._process.number % len(closed)]

    @property
    def _server_now(self) -> float:
        return self._now + self._ahead

    def _settle_if_due(self) -> None:
        """Let the server settle the exchange on streams that is due by the clock."""
        due = None if self.server is None else self.server.exchanges.due()
        if due is not None and due <= self._server_now:
            self._process.hears(TimeUp(), self._server_now)

    # The network

    def can_arrive(self) -> list[int]:
        """Return the places of the messages whose receivers are free: a device does one thing at a time."""
        return [
            place
            for place, each in enumerate(self.in_flight)
            if isinstance(each, Reply) or not self.devices[each.member].busy
        ]

    def can_hear(self) -> list[int]:
        """Return the members who stand still for something on a call that has come."""
        return [
            member
            for member, each in enumerate(self.devices)
            if isinstance(each.waits_for, Call) and each.waits_for.down
        ]

    def hear(self, member: int) -> None:
        """Let a member hear the next on the call that it waits for."""
        call = self.devices[member].waits_for
        assert isinstance(call, Call), "it waits for nothing on a call"
        self._goes_on(member, call.down.popleft())

    def arrive_at_server(self, call: Call, *, flipped: bool = False) -> None:
        """Let the next on a call reach the server; if it is an offer, with a bit flipped."""
        event = self.streams.arrives(call, flip=next(self._chances) if flipped else None)
        if event is None or self.server is None:
            return
        if flipped and isinstance(event, Offered):
            self.faults["offer on a stream corrupted"] += 1

        def greet(coordinator: Coordinator) -> tuple[()]:
            (command,) = coordinator.handle(event, now=self._server_now)
            assert isinstance(command, Tell), "a hello is answered at once"
            self.streams.greeted(call, command.reply)
            return ()

        if isinstance(event, Hello):
            self._process.does(greet)
        else:
            self._process.hears(event, self._server_now)
        self._settle_if_due()

    def lose_call(self, call: Call) -> None:
        """Break a call, with all that is on its way to the server."""
        self.faults["call broken"] += 1
        self.streams.lose(call)

    def deliver(self, place: int, fate: Fate = Fate.ARRIVES) -> None:
        """Let a message that is on its way meet its fate."""
        message = self.in_flight.pop(place)
        kind = "request" if isinstance(message, Letter) else "reply"
        if place:
            self.faults["reordered"] += 1
        if fate is not Fate.ARRIVES:
            if fate is Fate.CORRUPTED:
                damaged = message.corrupted(next(self._chances))
                # What has no packet has no bit to flip that TCP would not have noticed.
                fate, message = (fate, damaged) if damaged else (Fate.DROPPED, message)
            self.faults[f"{kind} {fate}"] += 1
        if fate is Fate.DROPPED:
            return
        if fate is Fate.DUPLICATED:
            self.in_flight.append(message)
        if isinstance(message, Letter):
            self._handle(message)
        else:
            self._process.takes(message, self._server_now)

    def delay(self, place: int) -> None:
        """Let a message be on its way for longer."""
        message = self.in_flight.pop(place)
        self.late.append(message)
        self.faults["request delayed" if isinstance(message, Letter) else "reply delayed"] += 1

    def come_late(self, place: int) -> None:
        """Let what was delayed be on its way again."""
        self.in_flight.append(self.late.pop(place))

    def replay(self, pick: int, *, of_another: bool) -> None:
        """Send an old offer once more: in answer to what its member is asked now, or another member is."""
        if self.server is None:
            return
        asked = [request for request in self.server.outstanding() if request.kind is Kind.TRAIN]
        if not asked or not self._offers:
            return
        request = asked[pick % len(asked)]
        old = [each for each in self._offers if (each.member != request.member) == of_another]
        if not old:
            return
        if self._is_of_nobody(old[pick % len(old)]):
            return
        reply = replace(old[pick % len(old)], number=request.number, server=self._process.number)
        if of_another and pick % 2:
            # Sent by the member that was asked, in its own name.
            applied = self.server.state.membership[request.member].applied
            answer = replace(reply.answer, member=request.member, applied=applied)
            reply = replace(reply, member=request.member, answer=answer)
        self.in_flight.insert(0, reply)
        self.faults["offer of another member" if of_another else "old offer replayed"] += 1

    def _is_of_nobody(self, offer: Reply) -> bool:
        """Return whether an offer is of a history that an older journal undid, and its member lost it since.

        What all hold when the journal is put in place is what is conserved from then on: that was not among
        it. Only who keeps others' messages could still send it.
        """
        state = self.devices[offer.member].state()
        holds = state is not None and state.progress.offered == offer.answer.round
        return offer.server <= self._undone and not holds

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
            self._stop(member)
            for messages in (self.in_flight, self.late):
                messages[:] = [each for each in messages if isinstance(each, Reply) or each.member != member]
            self.faults["member away"] += 1

    def kill(self, member: int) -> None:
        """Kill a member's process where it stands still."""
        if self.devices[member].busy:
            self._goes_on(member, Killed("while it waits"))

    def cut_power(self, member: int, keep: float) -> None:
        """Let a device lose its power, and what was not synced: the end of its log, but for this part."""
        self._stop(member)
        device = self.devices[member]
        snapshot = device.disk.whole()
        if snapshot is None or not snapshot.progress.log or len(self.oracle.sound - {member}) < DONORS:
            return
        self.oracle.losing(member)
        if device.logs.cut(snapshot.progress.log, keep):
            self.faults["power cut"] += 1
        self.oracle.lost(member)

    def copy(self, member: int) -> None:
        """Keep a copy of what a member's disk holds."""
        copy = self.devices[member].copy()
        if copy is not None:
            self._copies[member] = copy

    def restore(self, member: int) -> None:
        """Put an older copy in place of what a member's disk holds, as who clones a memory card does."""
        if member in self._copies:
            self._damage(
                member,
                "older copy of a member restored",
                lambda: self.devices[member].restore(self._copies[member]),
            )

    def second_process(self, place: int) -> None:
        """Let a request reach a device whose process is at work: the second one finds the lock taken."""
        letter = self.in_flight.pop(place)
        assert isinstance(letter, Letter) and self.devices[letter.member].busy, "the first is not at work"
        self.faults["two processes of one member"] += 1
        answer = Answer(Status.REFUSED, letter.member, "another process uses the member's state.")
        self.in_flight.append(Reply(letter.request.number, letter.server, letter.member, answer))

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
        """Let all members be there, and the run come to its end; nothing goes wrong any more but one thing.

        Parameters
        ----------
        dies_after : int, optional
            The moments after which the server dies once more.
        """
        self.start_server()
        self.fuse.light(dies_after)
        self.present = set(range(len(self.devices)))
        for device in self.devices:
            device.fuse.light(None)
        for _ in range(STEPS):
            if self._process.in_vain >= HOPELESS:
                break
            if self.server is None:
                self.start_server()
            while self.late:
                self.come_late(0)
            self.proceed()
            arrived = self._let_all_arrive()
            if self.server is not None and self.server.done:
                break
            # A slow server acts too late on what came; where nothing comes of that, as soon as the loop.
            if not arrived or self._process.in_vain < HOPELESS // 2:
                self.wait(0.0 if self.server is None else None)
        self._check_the_end()

    def _check_the_end(self) -> None:
        self.fuse.light(None)
        server = self.server
        if server is None or not server.done:
            nobody_joined = not self.journal.known.members and not self.oracle.journal_is_older
            if (len(self.oracle.sound) >= DONORS and self._can_end()) or nobody_joined:
                raise Violation("the run has not come to its end, though nothing disturbs it any more")
            return
        for member in set(server.state.membership.active()) - self._process.collected.keys():
            # Unless it has lost what it had, or was found in the last round to have fallen back, and there is
            # none in which it could start anew; or has started, and there was none to train in.
            state = self.devices[member].state()
            trained = state is not None and state.progress.round > 0
            if trained and member in self.oracle.sound and member not in server.joining.newcomers:
                raise Violation(f"member {member} is there, and could not be collected")
            server.state.membership.drop(member, Standing.GIVEN_UP, "it could not be collected")
        self.oracle.collected(self._process.collected)

    def _can_end(self) -> bool:
        """Return whether there are rounds left, or a member that has trained is still what it was.

        Those who trained may all have lost their disks after the last round, and those who started anew from
        them never train: then there is nothing to average.
        """
        rounds = self.journal.known.last if self._setting.plane == "round" else self.journal.known.rounds
        states = [self.devices[member].state() for member in self.oracle.sound]
        trained = any(state is not None and state.progress.round > 0 for state in states)
        return trained or rounds < self._run.terms.rounds

    def close(self) -> None:
        """End all processes, and close the journal."""
        for device in self.devices:
            with suppress(Killed):
                if device.busy:
                    device.go_on(Killed("at the end"))
        self.journal.close()

    def _let_all_arrive(self) -> bool:
        """Let everything arrive that is on its way, and return whether there was anything."""
        arrived = False
        while True:
            if places := self.can_arrive():
                self.deliver(places[0])
            elif calls := [each for each in self.streams.calls if each.up]:
                self.arrive_at_server(calls[0])
            elif members := self.can_hear():
                self.hear(members[0])
            else:
                return arrived
            arrived = True

    # What the devices ask and tell: a Watch

    def learn(self, member: int, number: int, held: Held, *, goes_on: bool) -> Held:
        """Return what training makes of a member."""
        self.oracle.training(member, held, goes_on=goes_on)
        after = self._training.learn(member, number, held)
        if self._setting.plane == "stream":
            self.oracle.learned(member, after)
        return after

    def recorded(self, member: int, kind: Record, exchange: int, values: Values) -> None:
        """Check what a member has written into its log."""
        self.oracle.recorded(member, kind, exchange, values)

    def saved(self, member: int) -> None:
        """Check what a member is saved as."""
        self.oracle.saved(member)

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._now

    def line(self, device: Device, progress: Progress, number: int) -> Line:
        """Return a member's line to the server, for a round."""
        hello = hello_of(
            progress,
            run=self._run.identity,
            layout=self._run.layout.fingerprint,
            token=self._letters[progress.member].token,
            number=number,
        )
        return SimulatedLine(
            self.streams,
            device.fuse,
            hello,
            reachable=lambda: self.server is not None and not self._port_is_closed,
            said=partial(self.oracle.said, progress.member),
            pause=device.pause,
        )

    def _handle(self, letter: Letter) -> None:
        self.oracle.begins(letter.member, undone=letter.server <= self._undone)
        self._letters[letter.member] = letter
        self._member_does(letter.member, lambda device: device.handle(letter))

    def _goes_on(self, member: int, value: object) -> None:
        self._member_does(member, lambda device: device.go_on(value))

    def _stop(self, member: int) -> None:
        """End a member's process with its device: nobody tells the server."""
        if self.devices[member].busy:
            self._member_does(member, lambda device: device.go_on(Killed("with its device")), told=False)

    def _member_does(self, member: int, step: Callable[[Device], Reply | None], *, told: bool = True) -> None:
        reply, died = None, False
        try:
            reply = step(self.devices[member])
        except Killed as death:
            self.faults[f"member killed {death.moment}"] += 1
            died = True
        letter = self._letters[member]
        if reply is not None:
            if reply.weights is not None and reply.answer.status is Status.DONE:
                self.oracle.starting(reply.weights)
            self.in_flight.append(reply)
            if reply.answer.offer:
                self._offers.append(reply)
        self.oracle.handled(member, letter, reply)
        if died and told and next(self._chances) % 2:
            self._tell_of_death(letter)

    def _tell_of_death(self, letter: Letter) -> None:
        """Let the server know that a member's process died over a request, as Flower does at times."""
        if letter.server == self._process.number:
            failure = Failure(str(Lost.APP), its_own=False, lost=Lost.APP, code=8)
            self._process.hears(Replied(letter.request.number, failure), self._server_now)

    def _damage(self, member: int, kind: str, damage: Callable[[], None]) -> None:
        self._stop(member)
        if self.devices[member].disk.whole() is None or len(self.oracle.sound - {member}) < DONORS:
            return
        self.faults[kind] += 1
        self.oracle.losing(member)
        damage()
        self.oracle.lost(member)
