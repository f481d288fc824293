"""Faults to plant in the real code, each a change of one line: a check removed, an order swapped, a lie told.

Each must be found by the search for faults. ``found.json`` has the example that finds it, which the quick
tests replay; ``python -m tests.lab.search.planted`` searches for them anew.
"""

import importlib
import inspect
import json
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from wash_fl.lab.bench import faults

FOUND = Path(__file__).with_name("found.json")
WITHIN = 20_000
"""Examples within which each is found."""


class Fault(NamedTuple):
    """A line that is changed, in a method or a function."""

    where: str
    line: str
    instead: str
    seed: int = 3
    """That of the examples that are searched."""


PROTOCOL = "wash_fl.protocol."
PLANTED = {
    # Membership
    "believes that nobody falls back": Fault(
        PROTOCOL + "membership:Membership.inconsistent",
        "if says.applied < known.applied:",
        "if False:",
    ),
    "believes any start": Fault(
        PROTOCOL + "membership:Membership.inconsistent",
        "if (says.incarnation, says.initial) != (known.incarnation, known.initial):",
        "if False:",
    ),
    "does not write down who is given up": Fault(
        PROTOCOL + "membership:Membership.drop",
        "self._write(member, replace(self._enrolments[member], standing=standing, reason=reason))",
        "self._enrolments[member] = replace(self._enrolments[member], standing=standing, reason=reason)",
    ),
    "takes any reply for an acknowledgement": Fault(
        PROTOCOL + "membership:Membership.acknowledge",
        "self._escrow.acknowledge(member, applied, sync=sync)",
        "self._escrow.acknowledge(member, self._escrow.settled, sync=sync)",
    ),
    "numbers every start alike": Fault(
        PROTOCOL + "membership:Membership.begin", "incarnation = 1 + (", "incarnation = min(1, 1) + 0 * ("
    ),
    "does not write a start down": Fault(
        PROTOCOL + "membership:Membership._write", "self._journal.enrolled(member, enrolment)", "pass"
    ),
    # Escrow
    "takes late offers": Fault(
        PROTOCOL + "escrow:Escrow.offer",
        "if exchange <= self.settled:",
        "if (exchange := self._open or exchange) <= self.settled:",
    ),
    "does not write an exchange down": Fault(
        PROTOCOL + "escrow:Escrow.settle",
        "self._journal.settled(exchange, deliveries, offers, self._acknowledged, change)",
        "self._journal.settled(exchange, {}, offers, self._acknowledged, change)",
    ),
    "writes an exchange down for all but one": Fault(
        PROTOCOL + "escrow:Escrow.settle",
        "self._journal.settled(exchange, deliveries, offers, self._acknowledged, change)",
        "self._journal.settled(exchange, but_one(deliveries), offers, self._acknowledged, change)",
    ),
    "delivers to all but one": Fault(
        PROTOCOL + "escrow:Escrow.settle",
        "self._pending.update(deliveries)",
        "self._pending.update(dict(list(deliveries.items())[1:]))",
    ),
    "acknowledges what was not applied": Fault(
        PROTOCOL + "escrow:Escrow.acknowledge",
        "if waiting is not None and waiting.exchange <= applied <= self.settled:",
        "if waiting is not None and applied <= self.settled:",
    ),
    "does not write an acknowledgement down": Fault(
        PROTOCOL + "escrow:Escrow.acknowledge", "self._journal.acknowledged(member, applied)", "pass"
    ),
    "forgets what waits at a restart": Fault(
        PROTOCOL + "escrow:Escrow.__init__",
        "self._acknowledged: dict[int, int] = {}",
        "self._acknowledged, self._pending = {}, {}",
    ),
    # Rounds, joining, the coordinator
    "does not look whether a member is itself": Fault(
        PROTOCOL + "rounds:Rounds._take",
        "reason = self._membership.inconsistent(member, answer)",
        'reason = ""',
    ),
    "trusts an offer of any exchange": Fault(
        PROTOCOL + "packets:RunPackets.read_offer", "exchange=exchange,", "exchange=None,"
    ),
    "says the wrong exchange to who starts": Fault(
        PROTOCOL + "joining:Joining.donated",
        "start = Start(weights, settled, self._membership.begin(member, weights))",
        "start = Start(weights, 0, self._membership.begin(member, weights))",
    ),
    "acknowledges a donor's delivery twice over": Fault(
        PROTOCOL + "joining:Joining.donated",
        "self._membership.acknowledge(donor, given.applied)",
        "self._membership.acknowledge(donor, settled_now(self))",
    ),
    "trains without what waits": Fault(
        PROTOCOL + "once_per_round:OncePerRound.delivery", "return self._state.delivery(member)", 'return b""'
    ),
    "settles an exchange that a member missed with its old offer": Fault(
        PROTOCOL + "escrow:Escrow.settle",
        "self.settled, self._open, self._expected, self._offers = exchange, 0, frozenset(), {}",
        "self.settled, self._open, self._expected = exchange, 0, frozenset()",
    ),
    # A member
    "applies what it never offered for": Fault(
        PROTOCOL + "delivery:values_after", "if delivery.exchange > max(offered, applied):", "if False:"
    ),
    "forgets what an offer left out": Fault(
        PROTOCOL + "delivery:values_after",
        "return taken_over(delivery.values, offered=offer, dtype=dtype, now=now, mean=mean)",
        "return delivery.values",
    ),
    "acknowledges and does not apply": Fault(
        PROTOCOL + "session:MemberSession.apply",
        "member.deliver(exchange, values)",
        "member.applied = exchange",
    ),
    "reads a delivery of another member": Fault(
        PROTOCOL + "packets:RunPackets.read_delivery", "member=member,", "member=None,"
    ),
    "trains a round twice": Fault(
        "wash_fl.member.durable:DurableMember.train",
        "if number == progress.round:",
        "if False:",
    ),
    "trains before it applies": Fault(
        "wash_fl.member.durable:DurableMember.train", "session.apply(delivery)", "pass"
    ),
    "replies before it saves": Fault(
        "wash_fl.member.durable:DurableMember.train",
        "self._persistence.save(Snapshot.of(member, progress, last.values))",
        "number % 3 and self._persistence.save(Snapshot.of(member, progress, last.values))",
    ),
    "saves without its offer": Fault(
        "wash_fl.member.durable:DurableMember.train",
        "self._persistence.save(Snapshot.of(member, progress, last.values))",
        "self._persistence.save(Snapshot.of(member, progress, None))",
    ),
    "collects and does not save": Fault(
        "wash_fl.member.durable:DurableMember.collect",
        "self._persistence.save(Snapshot.of(member, progress, offer))",
        "pass",
    ),
    "starts anew whenever asked to": Fault(
        "wash_fl.member.durable:DurableMember.start",
        "if snapshot is not None and snapshot.progress.incarnation >= incarnation:",
        "if snapshot is not None and snapshot.progress.incarnation > incarnation:",
    ),
    # Below
    "applies a delivery at other coordinates": Fault(
        "wash_fl.member.member:Member.hold",
        "selection = self.draw.selection(exchange)",
        "selection = self.draw.selection(exchange).of(\n"
        "    self.layout, np.sort((self.draw.coordinates(exchange) + 1) % self.layout.size)\n"
        ")",
    ),
    "offers what another holds": Fault(
        PROTOCOL + "escrow:Escrow.offer",
        "self._offers[member] = values",
        "self._offers[member] = next(iter(self._offers.values()), values)",
    ),
    "swaps one way": Fault(
        "wash_fl.core.mix:matching",
        "source[first], source[second] = second, first",
        "source[first] = second",
    ),
    "averages over one too many": Fault(
        "wash_fl.core.mix:average", "(total / len(offers))", "(total / (len(offers) + 1))"
    ),
    "averages all but the first": Fault(
        "wash_fl.core.mix:average", "for offer in offers:", "for offer in [*offers[1:], offers[-1]]:"
    ),
    "keeps twice what an offer left out": Fault(
        "wash_fl.core.codec:taken_over", "received + kept", "received + 2 * kept"
    ),
    "takes the mean twice": Fault(
        PROTOCOL + "delivery:values_after",
        "return taken_over(delivery.values, offered=offer, dtype=dtype, now=now, mean=mean)",
        "halved = (delivery.values + offer) / 2 if mean else delivery.values\n"
        "    return taken_over(halved, offered=offer, dtype=dtype, now=now, mean=mean)",
    ),
    "takes no mean": Fault(PROTOCOL + "session:MemberSession.apply", "mean=mean,", "mean=False,"),
    "averages one exchange too early": Fault(
        PROTOCOL + "session:MemberSession.apply",
        "mean = self._packets.draw.schedule.options_at(exchange).members_average",
        "mean = self._packets.draw.schedule.options_at(exchange + 1).members_average",
    ),
    "remembers another offer than it made": Fault(
        PROTOCOL + "session:MemberSession.make_offer",
        "self.offer = Offer(exchange, values, step)",
        "self.offer = Offer(exchange, values + 1, step)",
    ),
    "says that it applied more than it did": Fault(
        "wash_fl.member.durable:DurableMember.train",
        "applied=member.applied,",
        "applied=member.applied + 1,",
    ),
    "saves that it applied nothing": Fault(
        "wash_fl.member.durable:DurableMember.train", "applied=member.applied,", "applied=0,"
    ),
    "saves the round before": Fault(
        "wash_fl.member.durable:DurableMember.train", "round=number,", "round=number - 1,"
    ),
    "records no exchange": Fault(
        PROTOCOL + "journal:Journal.settled", "self._put_head(replace(self._head, settled=exchange))", "pass"
    ),
    "records all deliveries but one": Fault(
        PROTOCOL + "journal:Journal.settled",
        "for member, delivery in deliveries.items():",
        "for member, delivery in list(deliveries.items())[1:]:",
    ),
    "records no member": Fault(
        PROTOCOL + "journal:Journal.enrolled",
        "self._put_enrolment(member, enrolment)",
        "pass",
    ),
    "keeps no exchange in the file": Fault(
        "wash_fl.storage.sqlite_store:SqliteStore.put",
        '"settled": row.settled',
        '"settled": self._meta["settled"]',
    ),
    "keeps no acknowledgement in the file": Fault(
        "wash_fl.storage.columns:_enrolment_columns", "enrolment.applied,", "enrolment.joined,"
    ),
    "reads other deliveries from the file": Fault(
        "wash_fl.storage.columns:_delivery", ".reshape(slots, -1)", ".reshape(slots, -1)[:, ::-1]"
    ),
    "names the weights of a start wrongly": Fault(
        PROTOCOL + "joining:Joining.meet", "start=start,", "start=start and Start('0' * 64),"
    ),
    "uses no model that is handed in": Fault(
        PROTOCOL + "final_collection:FinalCollection.answered",
        "self._membership.acknowledge(member, answer.applied)",
        "return",
    ),
    "overlooks a flipped bit": Fault(
        "wash_fl.core.packet:decode", "if message.checksum != _checksum(message, data):", "if False:"
    ),
    "forgets an acknowledgement": Fault(
        PROTOCOL + "journal:Journal.acknowledged",
        "self._drop_delivery(member, applied)",
        "pass",
    ),
    # Streams: the server
    "listens to a member's older call": Fault(
        "wash_fl.stream.calls:Calls.counts", "return self._newest.get(member) is call", "return True"
    ),
    "lets in who is ahead of the journal": Fault(
        PROTOCOL + "membership:Membership.ahead", "if says.applied > settled or", "if False or"
    ),
    "takes a hello for an acknowledgement": Fault(
        PROTOCOL + "over_streams:OverStreams._hello",
        "self._membership.acknowledge(member, hello.applied, sync=False)",
        "self._membership.acknowledge(member, self._escrow.settled, sync=False)",
    ),
    "takes an offer for an acknowledgement": Fault(
        PROTOCOL + "over_streams:OverStreams._acknowledge",
        "self._membership.acknowledge(member, applied, sync=False)",
        "self._membership.acknowledge(member, self._escrow.settled, sync=False)",
    ),
    "forgets an acknowledgement that it would record later": Fault(
        PROTOCOL + "escrow:Escrow.acknowledge", "self._acknowledged[member] = applied", "pass"
    ),
    "records no late acknowledgement at a round's end": Fault(
        PROTOCOL + "escrow:Escrow.record_acknowledged", "self._journal.acknowledged(member, applied)", "pass"
    ),
    "records no late acknowledgement with an exchange": Fault(
        PROTOCOL + "escrow:Escrow.settle",
        "self._journal.settled(exchange, deliveries, offers, self._acknowledged, change)",
        "self._journal.settled(exchange, deliveries, offers, change=change)",
    ),
    "takes the second offer of two": Fault(
        PROTOCOL + "escrow:Escrow.offer", "if member in self._offers:", "if False:"
    ),
    # Streams: a member
    "does not write down what it offers": Fault(
        PROTOCOL + "session:MemberSession.make_offer", "self.record.offered(exchange, values)", "pass"
    ),
    "does not write down what it applies": Fault(
        PROTOCOL + "session:MemberSession.apply", "self.record.applied(exchange, values)", "pass"
    ),
    "writes down what it received, and not what it holds then": Fault(
        PROTOCOL + "session:MemberSession.apply",
        "self.record.applied(exchange, values)",
        "self.record.applied(exchange, delivery.values)",
    ),
    "forgets what it learned while its offer was out": Fault(
        PROTOCOL + "session:MemberSession.apply",
        "now=member.offer(exchange) if self._config.overlap and exchange > member.applied else None,",
        "now=None,",
    ),
    "is not out when it begins again": Fault(
        PROTOCOL + "session:MemberSession.__init__",
        "self.out = offer.exchange > member.applied",
        "self.out = False",
    ),
    "says farewell though it is dead": Fault(
        "wash_fl.member.exchanging:Exchanging._leave",
        "if error is None or isinstance(error, Exception):",
        "if True:",
    ),
    "offers again while an offer is out": Fault(
        "wash_fl.member.exchanging:Exchanging._after_step", "self._conclude()", "pass"
    ),
    "writes into its old log after a rest": Fault(
        "wash_fl.member.exchanging:Exchanging._before_step",
        "self._log = self.session.record = self._options.on_rest(self._steps, buffers)",
        "self._log = self._options.on_rest(self._steps, buffers)",
    ),
    "goes on in its old log after a round": Fault(
        "wash_fl.member.durable:DurableMember.train",
        'log=new_log() if plane_of(terms.exchange).logged else "",',
        "log=progress.log,",
    ),
    "does not read its log": Fault(
        "wash_fl.member.persistence:Persistence.restore", "member.hold(entry.exchange, entry.held)", "pass"
    ),
    "forgets which offer is out": Fault(
        "wash_fl.member.log:caught_up",
        "progress, offer = progress.after(offered=entry.exchange), entry.values",
        "offer = entry.values",
    ),
    "forgets what it has applied": Fault(
        "wash_fl.member.log:caught_up", "progress = progress.after(applied=entry.exchange)", "pass"
    ),
    "writes behind half a record": Fault(
        "wash_fl.member.log:ExchangeLog._opened", "file.truncate(self.size)", "pass"
    ),
    "reads only the first record": Fault(
        "wash_fl.member.log:ExchangeLog.read",
        "begin += HEADER_BYTES + entry.values.nbytes + SUM_BYTES",
        "begin += 1 << 30",
    ),
    # Differences to an anchor
    "forgets a move that a member missed": Fault(
        PROTOCOL + "session:MemberSession._miss",
        "self._anchor.move(part.exchange, self._packets.draw.coordinates(part.exchange), part.values)",
        "self._anchor.chain = chained(self._anchor.chain, part.exchange, part.values)",
    ),
    "moves an anchor twice": Fault(
        PROTOCOL + "session:MemberSession._miss",
        "self.record.missed(part.exchange, part.values)",
        "self._anchor.values[:, self._packets.draw.coordinates(part.exchange)] += part.values",
    ),
    "takes what a member knows for what it missed": Fault(
        PROTOCOL + "session:MemberSession._missed",
        "parts = [each for each in deliveries.parts if each.exchange > applied]",
        "parts = [*deliveries.parts]",
    ),
    "takes who took part for who did not": Fault(
        PROTOCOL + "packets:RunPackets._moves",
        "direction = Direction.DELIVERY if moved.exchange == took_part else Direction.MISSED",
        "direction = Direction.MISSED",
    ),
    "takes who did not take part for who did": Fault(
        PROTOCOL + "packets:RunPackets._moves",
        "direction = Direction.DELIVERY if moved.exchange == took_part else Direction.MISSED",
        "direction = Direction.DELIVERY",
    ),
    "keeps no error": Fault("wash_fl.core.anchor:ServerAnchor.outcome", "error = members *", "error = 0 *"),
    "keeps an error of one member": Fault(
        "wash_fl.core.anchor:ServerAnchor.outcome",
        "error = members * (wanted - delta)",
        "error = wanted - delta",
    ),
    "gives its error to each": Fault(
        "wash_fl.core.anchor:ServerAnchor.outcome",
        "self.error[:, coordinates] / members",
        "self.error[:, coordinates]",
    ),
    "forgets its momentum": Fault(
        "wash_fl.core.anchor:ServerAnchor.apply", "self.momentum[:, coordinates] = move.momentum", "pass"
    ),
    "restores a member without its anchor": Fault(
        "wash_fl.member.snapshot:Snapshot.restore",
        "member.anchor = None if self.anchor is None else self.anchor.copy()",
        "member.anchor = None if self.anchor is None else Anchor(0 * self.anchor.values, self.anchor.chain)",
    ),
    "reads no move from its log": Fault(
        "wash_fl.member.persistence:Persistence.restore",
        "entry.move(member.anchor, member.draw.coordinates(entry.exchange))",
        "pass",
    ),
    "moves its anchor before it has written that down": Fault(
        PROTOCOL + "session:MemberSession._take_part",
        "self.record.settled(exchange, values, part.values)",
        "self.record.applied(exchange, values)",
    ),
    "writes its anchor down without momentum": Fault(
        PROTOCOL + "anchored:Anchored._vectors",
        "for kind, name in enumerate(_KINDS):",
        "for kind, name in enumerate(_KINDS[:2]):",
    ),
    "writes its anchor down as it will be": Fault(
        PROTOCOL + "anchored:Anchored.change",
        "written = exchange - 1 if whole else self._written",
        "written = exchange if whole else self._written",
    ),
    "forgets a move too early": Fault(
        PROTOCOL + "anchored:Anchored._needless",
        "restored = exchange > written and self._journal.lasts",
        "restored = False",
    ),
    "restores no error": Fault(
        PROTOCOL + "anchored:Anchored._restore",
        "move = Move(moved.delta, delta, _values(moved.error, shape), momentum)",
        "move = Move(moved.delta, delta, 0 * delta, momentum)",
    ),
    "starts a member with an anchor of its own": Fault(
        "wash_fl.member.durable:DurableMember._begin_anchor",
        "member.anchor = RunPackets(self._run, member.draw).read_anchor(packet, member.index, exchange)",
        "member.begin_anchor()",
    ),
    "does not write the end of a round without streams down": Fault(
        PROTOCOL + "without_streams:WithoutStreams.end", "self._journal.ended(number)", "pass"
    ),
    "opens an exchange without streams under its round's number": Fault(
        PROTOCOL + "without_streams:WithoutStreams.begin",
        "self._round, self._exchange = number, self.replies_offer_for",
        "self._round, self._exchange = number, max(number, self.replies_offer_for)",
    ),
    "trains without what waits where there are no streams": Fault(
        PROTOCOL + "over_streams:OverStreams.delivery",
        'return b"" if self._without is None else self._without.delivery(member)',
        'return b""',
    ),
    "keeps a delivery of another member's exchange": Fault(
        PROTOCOL + "anchored:Anchored.missed",
        "escrowed = () if took_part is None else (self._moves[took_part],)",
        "escrowed = ()",
    ),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant a fault while the block lasts.

    Raises
    ------
    AssertionError
        If its line is not there any more: plant it anew.
    """
    fault = PLANTED[name]
    module_name, _, path = fault.where.partition(":")
    module = importlib.import_module(module_name)
    *owners, function_name = path.split(".")
    owner = module
    for each in owners:
        owner = getattr(owner, each)
    real = inspect.getattr_static(owner, function_name)
    source = textwrap.dedent(inspect.getsource(real))
    assert source.count(fault.line) >= 1, f"{fault.line!r} is not in {fault.where}: plant it anew"
    found: dict[str, Any] = {}
    changed = source.replace(fault.line, fault.instead, 1)
    exec(
        compile(changed, fault.where, "exec"),
        vars(module) | {"settled_now": _settled, "but_one": _but_one},
        found,
    )
    # Its code, and not the function: other modules have that by name.
    before, real.__code__ = real.__code__, found[function_name].__code__
    try:
        yield
    finally:
        real.__code__ = before


def _settled(joining: object) -> int:
    return joining._escrow.settled  # type: ignore[attr-defined]


def _but_one(deliveries: dict[int, Any]) -> dict[int, Any]:
    return dict(list(deliveries.items())[1:])


def first_found(name: str, *, portion: int = 25, within: int = WITHIN) -> int | None:
    """Return the first example that finds a fault; None if none does."""
    with planted(name):
        for first in range(0, within, portion):
            figures = faults.run(portion, seed=PLANTED[name].seed, first=first, workers=1)
            if figures["violations"]:
                return int(figures["violated"][0].split()[1])
    return None


def main(names: list[str]) -> None:
    """Search for each fault, and write down which example finds it."""
    known = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    for name in names or list(PLANTED):
        began = time.monotonic()
        example = first_found(name)
        print(f"{name}: {example} ({time.monotonic() - began:.0f} s)", flush=True)
        known = json.loads(FOUND.read_text()) if FOUND.exists() else {}
        known[name] = example
        ordered = {each: known[each] for each in PLANTED if each in known}
        FOUND.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
