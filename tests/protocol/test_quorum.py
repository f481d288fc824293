"""Tests of how long an exchange waits, and for whom; the clock is an argument."""

import pytest

from wash_fl.protocol.quorum import Quorum


def gathering(deadline=10.0, patience=100.0, members=(0, 1, 2), called=(0, 1, 2)):
    made = Quorum(deadline, patience)
    made.begin(members, 0.0)
    for member in called:
        made.called(member, 0.0)
    return made


def exchange(made, at, members):
    """Have members offer at these times, settle, and return who was missed."""
    for member in members:
        made.offered(member, at)
    return made.settled(at)


def test_without_an_offer_nothing_is_due():
    assert gathering().due() is None


def test_an_exchange_is_due_when_all_have_offered():
    made = gathering()
    made.offered(0, 1.0)
    assert made.due() == 11.0 and made.awaited() == [1, 2]
    made.offered(1, 2.0)
    made.offered(2, 3.0)
    assert made.due() <= 3.0 and made.awaited() == []


def test_who_misses_a_deadline_is_not_awaited_again_until_it_offers():
    made = gathering()
    made.offered(0, 1.0)
    made.offered(1, 1.0)
    assert made.settled(11.0) == [2]
    made.offered(0, 12.0)
    assert made.awaited() == [1]
    made.told(2, 11.5)  # its offer came too late
    made.offered(2, 12.0)
    made.offered(1, 12.0)
    assert made.settled(12.0) == []
    made.offered(0, 13.0)
    assert made.awaited() == [1, 2]


def test_a_slow_device_does_not_hold_a_fast_one_back():
    made = gathering(deadline=0.5, members=(0, 1), called=(0, 1))
    # The slow one takes 5 s a step, the fast one 0.1 s.
    made.offered(0, 0.1)
    assert made.settled(0.6) == [1]
    made.offered(1, 5.0)
    made.offered(0, 5.05)
    assert made.due() <= 5.05 and made.settled(5.05) == []
    made.offered(0, 5.15)
    assert made.awaited() == [] and made.due() <= 5.15  # the slow one is expected at 10.05
    assert made.settled(5.15) == []
    for step in range(1, 44):
        made.offered(0, 5.15 + 0.1 * step)
        made.settled(5.15 + 0.1 * step)
    made.offered(0, 9.7)
    assert made.awaited() == [1]  # it is expected before 10.2: they meet


def test_a_round_waits_for_those_that_have_not_called_yet():
    made = gathering(deadline=1.0, patience=60.0, called=(0, 1))
    made.offered(0, 1.0)
    made.offered(1, 1.0)
    assert made.due() == 60.0 and made.awaited() == [2]
    made.called(2, 30.0)
    assert made.due() == 2.0


def test_who_has_left_or_lost_its_call():
    made = gathering()
    made.offered(0, 1.0)
    made.left(1)
    assert made.awaited() == [2]
    exchange(made, 2.0, [2])
    made.lost(2)  # it will call again
    made.offered(0, 3.0)
    assert made.awaited() == [2] and made.due() == 13.0
    made.end()
    assert made.awaited() == [] and made.due() <= 13.0


def test_what_is_known_of_a_members_speed_outlives_the_round():
    made = gathering(deadline=1.0)
    exchange(made, 0.5, [0, 1])
    made.offered(2, 9.0)
    made.settled(9.0)
    made.begin([0, 1, 2], 20.0)
    for member in (0, 1, 2):
        made.called(member, 20.0)
    made.offered(0, 20.5)
    made.offered(1, 20.5)
    assert made.awaited() == []


@pytest.mark.parametrize("member", [5, 0])
def test_a_member_that_was_not_asked_may_call(member):
    made = gathering(members=(1, 2), called=(1, 2))
    made.called(member, 1.0)
    made.offered(member, 2.0)
    made.offered(1, 2.0)
    made.offered(2, 2.0)
    assert made.due() <= 2.0


def test_who_offered_before_a_round_began_is_part_of_the_open_exchange():
    """It is late with the round before, and not asked in this one."""
    made = gathering()
    made.offered(2, 1.0)
    made.begin((0, 1), 2.0)
    made.called(0, 2.0)
    made.called(1, 2.0)
    assert made.awaited() == [0, 1]
    made.offered(0, 3.0)
    made.offered(1, 3.0)
    assert made.due() <= 3.0 and made.settled(3.0) == []


def test_who_offered_in_no_exchange_that_is_open_is_not_of_a_round_that_it_is_not_asked_in():
    made = gathering()
    exchange(made, 1.0, (0, 1, 2))
    made.begin((0, 1), 2.0)
    made.offered(0, 3.0)
    assert made.awaited() == [1]
