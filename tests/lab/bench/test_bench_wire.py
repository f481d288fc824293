"""Flower's share of the bytes, on real messages: the acceptance limits hold."""

import pytest

from wash_fl.core.dtypes import DTYPES
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


@pytest.mark.parametrize(
    ("dtype", "bytes_each", "most_10000"),
    [
        ("float32", 4, 1.01),
        ("int8", 1 + 4 / 256, 0.26),
        ("int4", 0.5 + 2 / 64, 0.15),
        ("int2", 0.25 + 2 / 64, 0.08),
    ],
)
def test_a_packet_is_as_small_as_its_dtype_says(figures, dtype, bytes_each, most_10000):
    found = figures["packets"][dtype]
    assert found["ratio_10000"] <= most_10000
    assert bytes_each / 4 < found["ratio_1000000"] < bytes_each / 4 * 1.001
    assert found["encode_ms"] > 0 and found["decode_ms"] > 0


def test_every_dtype_is_measured(figures):
    assert list(figures["packets"]) == list(DTYPES)
    assert figures["packets"]["int4"]["ratio_1000000"] <= 0.14


def test_the_message_is_a_members_reply_with_all_the_values_in_it():
    reply = wire._reply(1000)
    assert records.value_bytes(reply, "offer") == 4000
    assert records.message_bytes(reply) > 4000
