"""Flower's share of the bytes, on real messages: the acceptance limits hold."""

import pytest

from wash_fl.flower import records
from wash_fl.lab.bench import wire


@pytest.fixture(scope="module")
def figures():
    return wire.run()


def test_a_message_costs_little_more_than_its_values(figures):
    assert figures["ratio_10000"] <= 1.10
    assert figures["ratio_1000000"] <= 1.01


def test_what_is_added_does_not_grow_with_the_values(figures):
    overheads = [figures[f"overhead_bytes_{size}"] for size in wire.SIZES]
    assert min(overheads) > 0 and max(overheads) - min(overheads) < 64
    for size in wire.SIZES:
        assert figures[f"ratio_{size}"] == pytest.approx(1 + figures[f"overhead_bytes_{size}"] / (4 * size))


def test_the_message_is_a_members_reply_with_all_the_values_in_it():
    reply = wire._reply(1000)
    assert records.value_bytes(reply, "offer") == 4000
    assert records.message_bytes(reply) > 4000
