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
