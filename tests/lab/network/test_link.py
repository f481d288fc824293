"""When packets come out of a link, and which never do; nothing is sent here."""

import random

import pytest

from wash_fl.errors import ConfigError
from wash_fl.lab.network.link import Lane, Link


def lane(**options: float) -> Lane:
    lane = Lane(random.Random(0))
    lane.link = Link(**options)
    return lane


def test_a_packet_takes_as_long_as_its_bits_and_the_delay():
    way = lane(kbit=8.0, delay_ms=250.0)
    assert way.arrival(1000, 10.0) == pytest.approx(11.25)
    # The next one waits until that one is sent.
    assert way.arrival(500, 10.0) == pytest.approx(11.75)
    assert way.arrival(1000, 20.0) == pytest.approx(21.25)
    assert (way.count.bytes, way.count.packets, way.count.losses) == (2500, 3, 0)


def test_without_a_rate_only_the_delay_counts():
    way = lane(delay_ms=30.0)
    assert [way.arrival(10**9, 1.0) for _ in range(3)] == [pytest.approx(1.03)] * 3


def test_what_would_wait_too_long_is_lost_and_the_next_one_has_room_again():
    way = lane(kbit=8.0, queue_ms=1500.0)
    arrivals = [way.arrival(1000, 0.0) for _ in range(4)]
    assert arrivals == [1.0, 2.0, None, None]
    assert way.count.losses == 2 and way.count.bytes == 4000
    assert way.arrival(1000, 1.0) == 3.0


def test_nothing_gets_through_a_link_that_is_cut_and_all_does_when_it_is_whole_again():
    way = lane(is_cut=True)
    assert way.arrival(100, 0.0) is None
    way.link = Link()
    assert way.arrival(100, 1.0) == 1.0


def test_about_as_many_packets_are_lost_as_is_said():
    way = lane(loss=0.2)
    for _ in range(5000):
        way.arrival(100, 0.0)
    assert way.count.losses == pytest.approx(1000, rel=0.1)


def test_a_link_that_gets_better_lets_no_packet_overtake_another():
    way = lane(delay_ms=1000.0)
    first = way.arrival(100, 0.0)
    way.link = Link()
    assert first == 1.0 and way.arrival(100, 0.1) == 1.0 and way.arrival(100, 2.0) == 2.0


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"kbit": -1.0}, ("kbit = -1", "0 or more")),
        ({"delay_ms": float("inf")}, ("delay-ms = inf", "0 or more")),
        ({"queue_ms": float("nan")}, ("queue-ms = nan", "0 or more")),
        ({"loss": 1.0}, ("loss = 1", "below 1")),
        ({"loss": -0.1}, ("loss = -0.1", "at least 0")),
    ],
)
def test_a_link_that_can_be_none_is_refused(refused, options, parts):
    with refused(ConfigError, *parts):
        Link(**options)
