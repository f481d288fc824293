"""What a member makes of the server's word on a stream."""

import numpy as np
import pytest

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ExchangeError, NotJoinedError
from wash_fl.protocol.journal_rows import Delivery
from wash_fl.protocol.messages import ServerReply, ServerStatus
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.session import MemberSession, Offer

RUN = bytes(32)


class Member:
    def __init__(self) -> None:
        self.index, self.applied, self.held = 0, 0, {}

    def offer(self, exchange):
        return np.full((1, 4), float(exchange), np.float32)

    def deliver(self, exchange, values):
        self.applied, self.held[exchange] = exchange, values


@pytest.fixture
def packets():
    schedule = Schedule(ExchangeConfig(p=1.0, schedule="constant", mix="shuffle"))
    return RunPackets(RUN, Draw(0, layout_of([("a", (4,))]), schedule))


@pytest.fixture
def session(packets):
    return MemberSession(Member(), packets, Offer())


@pytest.mark.parametrize("hear", ["welcomed", "replied"])
def test_a_member_that_is_to_start_anew_does(session, hear):
    with pytest.raises(NotJoinedError, match="fell back") as raised:
        getattr(session, hear)(ServerReply(ServerStatus.ANEW, 3, reason="it fell back"))
    assert raised.value.fell_back


@pytest.mark.parametrize("hear", ["welcomed", "replied"])
def test_a_member_that_is_not_let_in_says_why(session, hear, refused):
    with refused(ExchangeError, "does not let this member in: it is of another run"):
        getattr(session, hear)(ServerReply(ServerStatus.DENIED, 3, reason="it is of another run."))


@pytest.mark.parametrize("status", sorted(set(ServerStatus) - {"welcome", "anew", "denied"}))
def test_nothing_but_a_welcome_answers_a_hello(session, status, refused):
    with refused(ExchangeError, f"answered a hello with {status}"):
        session.welcomed(ServerReply(status, 3))


def test_a_reply_is_applied_once_and_says_what_is_next(session, packets):
    session.make_offer(1, 5)
    assert session.out and session.offer.step == 5
    delivery = packets.delivery(0, Delivery(1, np.full((1, 4), 7, np.float32)))
    assert session.replied(ServerReply(ServerStatus.DELIVERED, 1, delivery))
    assert (session.out, session.next, session.exchanges) == (False, 2, 1)
    assert not session.apply(delivery)
    assert session.exchanges == 1


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        (ServerStatus.REFUSED, 0),
        (ServerStatus.EARLY, 0),
        (ServerStatus.UNDELIVERED, 0),
        (ServerStatus.LATE, 1),
        (ServerStatus.ALONE, 1),
    ],
)
def test_an_offer_of_which_nothing_came_is_not_out_after_a_restart(session, packets, status, settled):
    """What the member has learned since is not in it, and its exchange may still be open."""
    session.make_offer(1, 5)
    session.replied(ServerReply(status, settled))
    again = MemberSession(Member(), packets, session.offer)
    assert not again.out
    assert not again.welcomed(ServerReply(ServerStatus.WELCOME, settled))
    assert again.next == settled + 1


def test_an_offer_that_was_too_late_before_a_crash_is_not_out_either(packets):
    session = MemberSession(Member(), packets, Offer(1, np.ones((1, 4), np.float32), 5))
    assert session.out
    assert not session.welcomed(ServerReply(ServerStatus.WELCOME, 1))
    assert not MemberSession(Member(), packets, session.offer).out


def test_an_offer_that_is_out_is_the_same_after_a_restart(session, packets):
    packet = session.make_offer(1, 5)
    again = MemberSession(Member(), packets, session.offer)
    assert again.out and again.welcomed(ServerReply(ServerStatus.WELCOME, 0))
    assert again.packet() == packet


# Averages in pairs, and shuffles that end in them


def session_of(**options):
    exchange = ExchangeConfig(p=1.0, schedule="constant", **options)
    packets = RunPackets(RUN, Draw(0, layout_of([("a", (4,))]), Schedule(exchange, exchanges=4)))
    return MemberSession(Member(), packets, Offer()), packets


def got(session, packets, exchange, value=9.0):
    """Return what a member holds once an exchange has given it a value; what it offers is the number."""
    delivery = packets.delivery(0, Delivery(exchange, np.full((1, 4), value, np.float32)))
    assert session.apply(delivery)
    return session._member.held[exchange][0].tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_member_takes_the_mean_of_its_own_offer_and_its_partners(dtype):
    session, packets = session_of(mix="average", topology="pairs", dtype=dtype)
    session.make_offer(1, 0)
    assert got(session, packets, 1) == pytest.approx([5.0] * 4, rel=0 if dtype != "int8" else 1e-5)


def test_an_average_over_all_is_taken_over_as_it_came():
    session, packets = session_of(mix="average", topology="all")
    session.make_offer(1, 0)
    assert got(session, packets, 1) == [9.0] * 4


def test_the_rule_is_that_of_the_exchange():
    session, packets = session_of(mix="shuffle", average_from=0.5)
    values = []
    for exchange in range(1, 5):
        session.make_offer(exchange, 0)
        values.append(got(session, packets, exchange))
    assert values == [[9.0] * 4, [9.0] * 4, [6.0] * 4, [6.5] * 4]


@pytest.mark.parametrize("exchange", [2, 3])
def test_a_delivery_has_the_dtype_of_its_exchange_whenever_it_comes(exchange):
    """In bfloat16 a permutation's deliveries have 2 bytes per value, and a mean's 4."""
    options = {"mix": "shuffle", "topology": "permutation", "average_from": 0.5}
    session, packets = session_of(**options, dtype="bfloat16")
    session.make_offer(exchange, 0)
    packet = packets.delivery(0, Delivery(exchange, np.full((1, 4), 9, np.float32)))
    as_float32 = session_of(**options)[1].delivery(0, Delivery(exchange, np.full((1, 4), 9, np.float32)))
    assert (len(packet) == len(as_float32)) == (exchange > 2)
    # Read by a member that is in a later exchange by now.
    assert packets.read_delivery(packet, 0).exchange == exchange


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_mean_with_an_offer_that_is_not_known_any_more_is_refused(dtype, refused):
    _, packets = session_of(mix="average", topology="pairs", dtype=dtype)
    session = MemberSession(Member(), packets, Offer(2, np.ones((1, 4), np.float32), 0))
    delivery = packets.delivery(0, Delivery(1, np.full((1, 4), 9, np.float32)))
    with refused(ExchangeError, "what it offered then is not known any more"):
        session.apply(delivery)
    assert session._member.held == {}


def test_without_its_residual_a_member_takes_the_mean_all_the_same():
    session, packets = session_of(mix="average", topology="pairs", dtype="int8")
    session._keep_residual = False
    session.make_offer(1, 0)
    assert got(session, packets, 1) == pytest.approx([5.0] * 4, rel=1e-5)
