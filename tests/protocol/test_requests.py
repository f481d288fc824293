"""Requests that are out: who is busy, what came back, what nobody will answer any more."""

import math

import pytest

from wash_fl.protocol.commands import Ask, Remind
from wash_fl.protocol.messages import Failure, Kind, Lost
from wash_fl.protocol.requests import LATE, MOST_KILLS, REMINDER_TTL, Requests
from wash_fl.protocol.turn import Turn

NODE, APP = (Failure(str(each), its_own=False, lost=each) for each in (Lost.NODE, Lost.APP))


@pytest.fixture
def turn():
    return Turn(connected=frozenset({10, 20, 30}))


@pytest.fixture
def requests(turn):
    return Requests(turn, patience=60.0)


def train(requests, node=10, ttl=100.0, number=1):
    return requests.ask(Kind.TRAIN, node, ttl, member=node // 10, round=number)


def asked(turn):
    return [(each.request.number, each.again, each.left) for each in turn.take_commands()]


def test_a_node_is_busy_from_the_request_to_the_reply(turn, requests):
    one = train(requests)
    assert asked(turn) == [(one.number, False, 100.0)]
    assert requests.busy(10) and not requests.busy(20)
    assert requests.waiting(Kind.TRAIN, 1) == [one] and not requests.waiting(Kind.TRAIN, 2)
    assert requests.replied(one.number, None) is one
    assert not requests.busy(10) and not requests.outstanding()


def test_a_reply_that_comes_twice_finds_its_request_as_long_as_the_round_lasts(requests):
    one = train(requests)
    assert requests.replied(one.number, None) is requests.replied(one.number, None) is one
    requests.begin_round()
    assert requests.replied(one.number, None) is None
    assert requests.replied(99, None) is None


def test_a_request_expires_and_its_node_is_free_again(turn, requests):
    one = train(requests, ttl=5.0)
    turn.now = 4.9
    assert not requests.expired() and requests.busy(10)
    turn.now = 5.0
    assert requests.expired() == [one] and not requests.busy(10)


def test_what_a_killed_process_leaves_is_asked_again_a_few_times(turn, requests):
    one = train(requests)
    for _ in range(1, MOST_KILLS):
        turn.take_commands()
        assert requests.replied(one.number, APP) is None
        assert requests.busy(10) and requests.waiting(Kind.TRAIN, 1)
        requests.send_again()
        assert asked(turn) == [(one.number, True, 100.0)]
    assert requests.replied(one.number, APP).kills == MOST_KILLS - 1
    assert not requests.outstanding()


def test_who_is_gone_is_asked_again_when_it_is_back_for_as_long_as_there_was_left(turn, requests):
    one = train(requests)
    turn.take_commands()
    turn.connected = frozenset({20})
    assert requests.replied(one.number, NODE) is None
    turn.now = 30.0
    requests.send_again()
    assert not turn.take_commands(), "it is not there"
    turn.connected = frozenset({10})
    requests.send_again()
    assert asked(turn) == [(one.number, True, 70.0)]
    assert requests.replied(one.number, None) is not None


def test_who_stays_away_is_given_up_after_a_while_with_why(turn, requests):
    one = train(requests)
    turn.connected = frozenset()
    requests.replied(one.number, NODE)
    turn.now = 59.0
    assert not requests.given_up()
    turn.now = 60.0
    ((request, failure),) = requests.given_up()
    assert (request.number, failure) == (one.number, NODE)
    assert not requests.outstanding()


def test_without_patience_nobody_who_is_gone_is_waited_for(turn):
    requests = Requests(turn)
    one = train(requests)
    assert requests.replied(one.number, NODE) is one


def test_what_is_lost_is_not_repeated_once_its_round_is_over(turn, requests):
    one, other = train(requests, 10), train(requests, 20, number=2)
    requests.replied(one.number, APP)
    requests.abandon(1)
    assert requests.outstanding() == [other]
    late = train(requests, 30)
    assert requests.replied(late.number, APP) is late
    assert requests.replied(other.number, APP) is None


def test_what_belongs_to_no_round_is_repeated_whichever_is_over(requests):
    requests.abandon(7)
    one = requests.ask(Kind.COLLECT, 10, 100.0, member=1)
    assert requests.replied(one.number, APP) is None


def test_who_is_late_is_reminded_now_and_then_and_one_at_a_time(turn, requests):
    first, second = train(requests, 10, ttl=1000.0), train(requests, 20, ttl=1000.0)

    def reminded(at):
        turn.take_commands()
        turn.now = at
        requests.remind(lambda request: 50.0 if request is first else 50.5)
        return [each.request.node for each in turn.take_commands() if isinstance(each, Remind)]

    assert reminded(49.0) == []
    assert reminded(50.6) == [10]
    assert reminded(51.0) == [], "one at a time"
    assert reminded(51.7) == [20]
    assert requests.reminded(10) and not requests.reminded(30)
    assert reminded(50.6 + REMINDER_TTL + 1) == [] and not requests.reminded(10)
    assert reminded(50.6 + LATE) == [10]
    requests.replied(second.number, None)
    turn.now = 999.0
    requests.remind(lambda request: math.inf)
    assert not [each for each in turn.take_commands() if isinstance(each, Ask)]


def test_what_may_be_asked_twice_is_asked_once_more_of_who_is_there_and_says_nothing(turn, requests):
    one = requests.ask(Kind.COLLECT, 10, 5.0, member=1, tries=1)
    other = requests.ask(Kind.COLLECT, 20, 5.0, member=2, tries=1)
    turn.take_commands()
    turn.connected, turn.now = frozenset({10}), 5.0
    assert requests.expired() == [other], "nobody is there to be asked"
    assert asked(turn) == [(one.number, True, 5.0)]
    assert requests.busy(10) and not requests.busy(20)
    turn.now = 9.9
    assert not requests.expired()
    turn.now = 10.0
    (gone,) = requests.expired()
    assert gone.number == one.number and not requests.outstanding() and not asked(turn)
