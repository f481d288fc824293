"""What a server keeps of its anchor, what it sends to whom, and that it all comes back after its death."""

from dataclasses import replace

import numpy as np
import pytest

from wash_fl.config import ExchangeConfig
from wash_fl.core.anchor import Anchor, taken_part
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.packet import Direction, PacketError, Refusal, join, split, value_bytes
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ExchangeError, NotJoinedError
from wash_fl.protocol import anchored as room
from wash_fl.protocol.escrow import Escrow
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import MOVES, VECTORS, Enrolment
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.session import MemberSession, Offer
from wash_fl.protocol.store import MemoryStore
from wash_fl.storage.sqlite_store import WITH_ANCHOR, SqliteStore

RUN = bytes(range(16))
SIZE = 40
MEMBERS = 3
F = np.float32


class Holding:
    """A member in memory."""

    def __init__(self, draw, index, slots):
        self.index, self.applied, self._draw = index, 0, draw
        self.held = np.random.default_rng(index).standard_normal((slots, SIZE)).astype(F)
        self.anchor = Anchor(np.zeros((slots, SIZE), F))

    def offer(self, exchange):
        return self.held[:, self._draw.coordinates(exchange)]

    def deliver(self, exchange, values):
        self.held[:, self._draw.coordinates(exchange)] = values
        self.applied = exchange
        return True


class Fleet:
    """An escrow, and members that exchange by packets."""

    def __init__(self, journal=None, *, p=0.5, dtype="int8", momentum=0.5, slots=1, enrol=True):
        self.config = ExchangeConfig(
            p=p,
            mix="average",
            schedule="constant",
            dtype=dtype,
            reference="anchor",
            outer_learning_rate=0.75 if momentum else 1.0,
            outer_momentum=momentum,
        )
        names = ("parameter", "momentum_buffer")[:slots]
        self.draw = Draw(3, layout_of([("a", (SIZE,))], names), Schedule(self.config))
        self.packets = RunPackets(RUN, self.draw)
        self.first = np.zeros((slots, SIZE), F)
        self.journal = Journal(MemoryStore()) if journal is None else journal
        if enrol:
            for member in range(MEMBERS):
                self.journal.enrolled(member, Enrolment("weights"))
        self.escrow = self.open()
        self.members = [Holding(self.draw, index, slots) for index in range(MEMBERS)]
        self.sessions = [MemberSession(each, self.packets, Offer()) for each in self.members]

    def open(self, journal=None):
        return Escrow(self.draw, self.config, journal or self.journal, first=self.first)

    @property
    def anchor(self):
        return self.escrow._anchored.anchor

    def exchange(self, *members, deliver=True):
        """Let these exchange; by default everybody who took part then has what came of it."""
        number = self.escrow.settled + 1
        self.escrow.open(number, range(MEMBERS))
        for member in members:
            packet = self.sessions[member].make_offer(number, 0)
            assert self.offer(packet, member, number) is None
        self.escrow.settle()
        if deliver:
            for member in members:
                self.deliver(member)

    def offer(self, packet, member, number):
        """Hand the packet of an offer to the escrow."""
        offer = self.packets.read_offer(packet, member, number)
        return self.escrow.offer(member, number, offer.values, offer.chain)

    def deliver(self, member, packet=None):
        packet = self.escrow.packet(self.packets, member) if packet is None else packet
        self.sessions[member].apply(packet)
        self.escrow.acknowledge(member, self.members[member].applied, sync=False)
        return packet

    def parts(self, member):
        read = self.packets.read_deliveries(self.escrow.packet(self.packets, member), member)
        return [(each.direction.name, each.exchange) for each in read.parts]

    def total(self):
        return np.sum([each.held for each in self.members], axis=0, dtype=np.float64) + self.anchor.error

    def up_to_date(self, member):
        held = self.members[member].anchor
        return held.values.tobytes() == self.anchor.values.tobytes() and held.chain == self.anchor.chain


@pytest.mark.parametrize("slots", [1, 2])
def test_who_takes_part_and_who_does_not_have_one_anchor_and_the_sum_stays(slots):
    fleet = Fleet(momentum=0.0, slots=slots)
    before = fleet.total()
    fleet.exchange(0, 1, 2)
    fleet.exchange(0, 1)
    held = fleet.members[2].held.copy()
    assert fleet.parts(2) == [("MISSED", 2)]
    fleet.deliver(2)
    assert np.array_equal(fleet.members[2].held, held), "a witness keeps its values"
    fleet.exchange(0, 2)
    fleet.deliver(1)
    assert [fleet.up_to_date(member) for member in range(3)] == [True] * 3
    assert np.abs(fleet.total() - before).max() < 1e-5
    assert np.abs(fleet.anchor.error).max() > 1e-4, "the server has left something out"


def test_who_lacks_a_move_cannot_offer():
    fleet = Fleet()
    fleet.exchange(0, 1)
    fleet.escrow.open(2, range(MEMBERS))
    packet = fleet.sessions[2].make_offer(2, 0)
    assert fleet.offer(packet, 2, 2) is ServerStatus.UNDELIVERED
    fleet.deliver(2)
    assert fleet.offer(packet, 2, 2) is ServerStatus.ANEW, "they are differences to the anchor before"
    assert fleet.offer(fleet.sessions[2].make_offer(2, 0), 2, 2) is None


@pytest.mark.parametrize("taking_part", [(), (1,)])
def test_an_exchange_of_fewer_than_two_moves_nothing(taking_part):
    fleet = Fleet()
    fleet.exchange(*taking_part)
    assert fleet.escrow.settled == 1 and not fleet.anchor.values.any()
    assert [fleet.parts(member) for member in range(3)] == [[], [], []]
    fleet.exchange(0, 1, 2)
    assert fleet.parts(0) == [] and all(fleet.up_to_date(each) for each in range(3))


def test_an_exchange_that_is_not_finite_moves_nothing_and_nobody_is_given_anything():
    fleet = Fleet(dtype="float32", momentum=0.5)
    for member in fleet.members[:2]:
        member.held[:] = 3e38
    fleet.exchange(0, 1)
    assert fleet.escrow.settled == 1
    assert fleet.escrow.delivery(0) is None and not fleet.anchor.values.any()


def test_what_a_member_missed_is_told_in_order_and_a_participant_apart():
    fleet = Fleet(p=0.2)
    fleet.exchange(0, 1, 2, deliver=False)
    for member in (0, 1):
        fleet.deliver(member)
    fleet.exchange(0, 1)
    fleet.exchange(0)
    fleet.exchange(0, 1)
    assert fleet.parts(2) == [("DELIVERY", 1), ("MISSED", 2), ("MISSED", 4)]
    fleet.deliver(2)
    assert fleet.parts(2) == [] and fleet.up_to_date(2)


def test_one_too_far_behind_gets_the_whole_anchor_and_before_it_what_is_in_escrow():
    fleet = Fleet(p=1.0)
    # Each D is 40 bytes and a scale, and the anchor 160.
    fleet.exchange(0, 1, 2, deliver=False)
    for member in (0, 1):
        fleet.deliver(member)
    for _ in range(2):
        fleet.exchange(0, 1)
    assert [name for name, _ in fleet.parts(2)] == ["DELIVERY", "MISSED", "MISSED"]
    for _ in range(4):
        fleet.exchange(0, 1)
    assert fleet.parts(2) == [("DELIVERY", 1), ("ANCHOR", 7)]
    member, places = fleet.members[2], fleet.draw.coordinates(1)
    offered, at = member.held[:, places], member.anchor.at(places)
    delta = fleet.packets.read_deliveries(fleet.escrow.packet(fleet.packets, 2), 2).parts[0].values
    fleet.deliver(2)
    assert fleet.up_to_date(2) and member.applied == 7
    expected = taken_part(offered, offered=offered, anchor=at, delta=delta, dtype="int8")
    assert np.array_equal(member.held[:, places], expected)
    for _ in range(5):
        fleet.exchange(0, 1)
    assert fleet.parts(2) == [("ANCHOR", 12)]
    held = fleet.members[2].held.copy()
    fleet.deliver(2)
    assert fleet.up_to_date(2) and np.array_equal(fleet.members[2].held, held)


def test_too_many_moves_are_replaced_by_the_anchor_however_small(monkeypatch):
    monkeypatch.setattr(room, "MOST_MISSED", 3)
    fleet = Fleet(p=0.05)
    for _ in range(3):
        fleet.exchange(0, 1)
    assert len(fleet.parts(2)) == 3
    fleet.exchange(0, 1)
    assert fleet.parts(2) == [("ANCHOR", 4)]


def test_moves_are_kept_until_the_slowest_active_member_has_them():
    fleet = Fleet(p=0.1)
    kept = lambda: sorted(fleet.escrow._anchored._moves)  # noqa: E731
    for _ in range(12):
        fleet.exchange(0, 1)
    assert kept() == list(range(1, 13))
    fleet.deliver(2)
    fleet.exchange(0, 1)
    # Since the whole anchor was written down, the rows are needed to restore it.
    written = fleet.escrow._anchored._written
    assert kept() == [each for each in range(1, 14) if each > min(written, 11)]
    assert sorted(each for each, _ in fleet.journal._store.rows(MOVES)) == kept()


def test_the_whole_anchor_is_written_as_often_as_its_rows_are_as_large():
    fleet = Fleet(p=0.25)
    written = []
    for _ in range(12):
        fleet.exchange(0, 1, 2)
        written.append(next(vector.exchange for _, vector in fleet.journal._store.rows(VECTORS)))
    assert written == [0] * 4 + [4] * 4 + [8] * 4
    assert len(list(fleet.journal.moves())) <= 5


def test_in_memory_alone_nothing_is_kept_to_be_restored():
    fleet = Fleet(Journal.in_memory())
    for _ in range(9):
        fleet.exchange(0, 1, 2)
    assert not list(fleet.journal.vectors()) and not list(fleet.journal.moves())
    assert len(fleet.escrow._anchored._moves) <= 2
    assert all(not each.error and not each.momentum for each in fleet.escrow._anchored._moves.values())


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_server_that_dies_after_any_exchange_has_every_bit_again(tmp_path, momentum, slots):
    path = tmp_path / "journal.sqlite"

    def opened():
        return Journal(SqliteStore.open(path, RUN, bytes(32), anchored=True))

    fleet = Fleet(opened(), momentum=momentum, slots=slots, p=0.3)
    undisturbed = Fleet(momentum=momentum, slots=slots, p=0.3)
    for exchange in range(1, 12):
        members = [each for each in range(3) if (exchange + each) % 4]
        for each in (fleet, undisturbed):
            for member in members:
                each.deliver(member)
            each.exchange(*members, deliver=False)
        fleet.journal.close()
        fleet.journal = opened()
        fleet.escrow = fleet.open()
        for name in ("values", "error", "momentum"):
            one, other = getattr(fleet.anchor, name), getattr(undisturbed.anchor, name)
            assert (one is None and other is None) or one.tobytes() == other.tobytes(), (exchange, name)
        assert fleet.anchor.chain == undisturbed.anchor.chain
        assert [fleet.parts(each) for each in range(3)] == [undisturbed.parts(each) for each in range(3)]
    fleet.journal.close()


def test_an_exchange_and_its_move_are_written_in_one_transaction(tmp_path, monkeypatch):
    """Killed between any two writes of it, the server has settled nothing."""
    path = tmp_path / "journal.sqlite"
    for failing in range(1, 30):
        path.unlink(missing_ok=True)
        store = SqliteStore.open(path, RUN, bytes(32), anchored=True)
        fleet = Fleet(Journal(store), p=1.0)
        fleet.exchange(0, 1, 2)
        before = [each.tobytes() for each in (fleet.anchor.values, fleet.anchor.error, fleet.anchor.momentum)]
        writes = [0]
        real = store.put, store.delete

        def counted(write, writes=writes, failing=failing):
            def put(*arguments):
                writes[0] += 1
                if writes[0] == failing:
                    raise KeyboardInterrupt
                write(*arguments)

            return put

        monkeypatch.setattr(store, "put", counted(real[0]))
        monkeypatch.setattr(store, "delete", counted(real[1]))
        try:
            fleet.exchange(0, 1, 2, deliver=False)
        except KeyboardInterrupt:
            fleet.journal.close()
            fleet.journal = Journal(SqliteStore.open(path, RUN, bytes(32), anchored=True))
            escrow = fleet.open()
            assert escrow.settled == 1
            anchor = escrow._anchored.anchor
            found = [each.tobytes() for each in (anchor.values, anchor.error, anchor.momentum)]
            assert found == before
            fleet.journal.close()
            continue
        assert failing > 6, "an exchange is several rows"
        fleet.journal.close()
        return
    raise AssertionError("an exchange never came to its end")


def test_a_journal_of_a_run_without_an_anchor_has_the_format_and_tables_that_it_had(tmp_path, refused):
    plain, anchored = tmp_path / "plain.sqlite", tmp_path / "anchored.sqlite"
    for path in (plain, anchored):
        SqliteStore.open(path, RUN, bytes(32), anchored=path is anchored).close()
        store = SqliteStore.read(path)
        tables = {name for (name,) in store._database.execute("SELECT name FROM sqlite_master")}
        assert ({"moves", "vectors"} <= tables) is (path is anchored)
        assert (store._meta["format"] == WITH_ANCHOR) is (path is anchored)
        assert list(Journal(store).moves()) == list(Journal(store).vectors()) == []
        store.close()


# A member


def test_a_delivery_that_comes_twice_or_late_is_applied_once():
    fleet = Fleet(p=0.2)
    fleet.exchange(0, 1, 2, deliver=False)
    first = fleet.deliver(2)
    fleet.deliver(0), fleet.deliver(1)
    fleet.exchange(0, 1)
    second = fleet.deliver(2)
    held = fleet.members[2].held.copy()
    for packet in (first, second, first):
        assert not fleet.sessions[2].apply(packet)
    assert fleet.up_to_date(2) and np.array_equal(fleet.members[2].held, held)


def test_the_late_packet_of_a_longer_list_gives_only_what_is_new():
    fleet = Fleet(p=0.2)
    fleet.exchange(0, 1)
    one = fleet.escrow.packet(fleet.packets, 2)
    fleet.exchange(0, 1)
    both = fleet.escrow.packet(fleet.packets, 2)
    fleet.sessions[2].apply(one)
    assert fleet.sessions[2].apply(both)
    assert fleet.up_to_date(2) and not fleet.sessions[2].apply(one)


def test_an_offer_that_came_too_late_is_not_out_any_more():
    fleet = Fleet()
    session = fleet.sessions[2]
    session.make_offer(1, 0)
    fleet.exchange(0, 1)
    assert session.out
    held = fleet.members[2].held.copy()
    session.replied(ServerReply(ServerStatus.LATE, 1, fleet.escrow.packet(fleet.packets, 2)))
    assert not session.out and np.array_equal(fleet.members[2].held, held) and fleet.up_to_date(2)


def test_a_member_that_fell_back_behind_what_it_acknowledged_starts_anew():
    fleet = Fleet(p=0.2)
    fleet.exchange(0, 1, 2)
    fleet.exchange(0, 1)
    packet = fleet.escrow.packet(fleet.packets, 2)
    fresh = Holding(fleet.draw, 2, 1)
    with pytest.raises(
        NotJoinedError, match="fell back to a state before what it had acknowledged"
    ) as raised:
        MemberSession(fresh, fleet.packets, Offer()).apply(packet)
    assert raised.value.fell_back and fresh.applied == 0 and not fresh.anchor.values.any()


def test_a_member_that_forgot_an_offer_that_was_taken_starts_anew():
    fleet = Fleet()
    fleet.exchange(0, 1, 2, deliver=False)
    forgot = MemberSession(fleet.members[2], fleet.packets, Offer())
    with pytest.raises(NotJoinedError, match="before what it had offered"):
        forgot.apply(fleet.escrow.packet(fleet.packets, 2))
    later = MemberSession(fleet.members[2], fleet.packets, Offer(3, np.zeros((1, 1), F)))
    with pytest.raises(ExchangeError, match="is not known any more"):
        later.apply(fleet.escrow.packet(fleet.packets, 2))


def test_a_member_whose_anchor_went_another_way_starts_anew():
    """Two histories of one run: the journal was an older copy, and the numbers are the same again."""
    one, other = Fleet(p=0.5), Fleet(p=0.5)
    other.members[0].held[:] += 1
    for fleet in (one, other):
        fleet.exchange(0, 1, 2)
    assert one.members[2].applied == other.members[2].applied == 1
    with pytest.raises(NotJoinedError, match="is not the server's") as raised:
        other.sessions[2].apply(one.escrow.packet(one.packets, 2))
    assert raised.value.fell_back
    one.exchange(0, 1)
    with pytest.raises(NotJoinedError, match="is not the server's"):
        other.sessions[2].apply(one.escrow.packet(one.packets, 2))
    with pytest.raises(NotJoinedError, match="is not the server's"):
        other.sessions[2].check(one.escrow.packet(one.packets, 2))


def test_an_offer_of_differences_to_another_anchor_is_in_no_exchange():
    """Its numbers are right: it has applied what an older journal does not know, and as many since."""
    one, other = Fleet(p=0.5), Fleet(p=0.5)
    other.members[0].held[:] += 1
    for fleet in (one, other):
        fleet.exchange(0, 1, 2)
        fleet.escrow.open(2, range(MEMBERS))
    of_another = other.sessions[2].make_offer(2, 0)
    assert one.offer(of_another, 2, 2) is ServerStatus.ANEW
    assert other.offer(of_another, 2, 2) is None
    assert one.offer(one.sessions[2].make_offer(2, 0), 2, 2) is None, "and the exchange is open to its own"


def test_an_offer_says_which_anchor_and_nothing_else_may():
    fleet = Fleet()
    fleet.exchange(0, 1, 2)
    packet = fleet.sessions[0].make_offer(2, 0)
    assert fleet.packets.read_offer(packet, 0, 2).chain == fleet.anchor.chain != 0
    schedule = Schedule(ExchangeConfig(p=0.5, mix="average", schedule="constant", dtype="int8"))
    values = RunPackets(RUN, Draw(3, fleet.draw.layout, schedule))
    with pytest.raises(PacketError) as raised:
        values.read_offer(packet, 0, 2)
    assert raised.value.refusal is Refusal.CHAIN


def test_a_member_that_starts_gets_the_anchor_as_it_is():
    fleet = Fleet()
    for _ in range(3):
        fleet.exchange(0, 1, 2)
    packet = fleet.escrow.start(fleet.packets, 2)
    anchor = fleet.packets.read_anchor(packet, 2, 3)
    assert anchor.values.tobytes() == fleet.anchor.values.tobytes() and anchor.chain == fleet.anchor.chain
    for wrong in (2, 4):
        with pytest.raises(PacketError, match=f"not the anchor after exchange {wrong}"):
            fleet.packets.read_anchor(packet, 2, wrong)
    fleet.exchange(0, 1)
    with pytest.raises(PacketError, match="not the anchor after exchange 4"):
        fleet.packets.read_anchor(fleet.escrow.packet(fleet.packets, 2), 2, 4)


# On the wire


def packets_of_all_kinds():
    fleet = Fleet(p=1.0)
    fleet.exchange(0, 1, 2, deliver=False)
    fleet.deliver(0), fleet.deliver(1)
    some = fleet.escrow.packet(fleet.packets, 2)
    for _ in range(6):
        fleet.exchange(0, 1)
    return fleet, some, fleet.escrow.packet(fleet.packets, 2)


def test_the_bytes_of_what_is_joined_are_counted_as_values():
    fleet, some, whole = packets_of_all_kinds()
    assert value_bytes(some) == 4 + SIZE
    assert value_bytes(whole) == 4 + SIZE + 4 * SIZE
    assert value_bytes(fleet.escrow.packet(fleet.packets, 0)) == 0


def test_every_flipped_bit_is_refused_and_changes_nothing():
    fleet, some, whole = packets_of_all_kinds()
    session, member = fleet.sessions[2], fleet.members[2]
    before = member.held.tobytes(), member.anchor.values.tobytes(), member.applied
    for packet in (some, whole):
        for bit in range(0, 8 * len(packet), 3):
            damaged = bytearray(packet)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(PacketError):
                session.apply(bytes(damaged))
        for end in range(1, len(packet)):
            with pytest.raises(PacketError):
                session.apply(packet[:end])
    assert (member.held.tobytes(), member.anchor.values.tobytes(), member.applied) == before


@pytest.mark.parametrize(
    ("lie", "refusal"),
    [
        (lambda joined, offer: replace(joined, packets=[offer]), Refusal.DIRECTION),
        (lambda joined, offer: replace(joined, packets=[b"no packet"]), Refusal.MALFORMED),
        (
            lambda joined, offer: replace(joined, packets=[joined.packets[0] + b"\xf8\x3f\x01"]),
            Refusal.TRAILING,
        ),
    ],
    ids=["an offer", "no packet", "more than a packet"],
)
def test_what_is_joined_is_looked_at_piece_by_piece(lie, refusal):
    fleet, some, _ = packets_of_all_kinds()
    offer = fleet.packets.offer(2, 1, fleet.members[2].offer(1))
    with pytest.raises(PacketError) as raised:
        fleet.sessions[2].apply(join(lie(split(some), offer)))
    assert raised.value.refusal is refusal


def test_the_rule_in_a_session_is_that_of_the_arithmetic():
    fleet = Fleet(momentum=0.0)
    fleet.exchange(0, 1, 2)
    for member in range(3):
        fleet.members[member].held += F(0.3)
    held = [each.held.copy() for each in fleet.members]
    anchor = fleet.anchor.values.copy()
    fleet.exchange(0, 1, 2, deliver=False)
    places = fleet.draw.coordinates(2)
    read = fleet.packets.read_deliveries(fleet.escrow.packet(fleet.packets, 1), 1)
    (part,) = read.parts
    assert part.direction is Direction.DELIVERY
    fleet.deliver(1)
    at, now = anchor[:, places], held[1][:, places]
    expected = taken_part(now, offered=now, anchor=at, delta=part.values, dtype="int8")
    assert fleet.members[1].offer(2).tobytes() == expected.tobytes()
