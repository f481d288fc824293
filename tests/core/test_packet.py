"""Tests of packets: what is encoded comes back bit for bit, and whatever is not exactly that is refused."""

import hashlib
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.packet import Direction, PacketError, Refusal, Slice, decode, encode, value_bytes
from wash_fl.core.schedule import Schedule
from wash_fl.core.wire import exchange_pb2 as wire

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=300)

RUN = bytes(range(16))
LAYOUT = layout_of([("weight", (4, 5)), ("bias", (6,))], ("parameter", "momentum_buffer"))
DRAW = Draw(5, LAYOUT, Schedule(ExchangeConfig(p=0.3, mix="shuffle", schedule="constant")))
EXCHANGE, MEMBER = 12, 3
COUNT = DRAW.count(EXCHANGE)
ODD_VALUES = [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38, -3.4028235e38, 1.0, -0.1]

FINITE = st.one_of(st.sampled_from(ODD_VALUES), st.floats(width=32, allow_nan=False, allow_infinity=False))


def values_of(rows):
    return np.array(rows, dtype=np.float32)


def plain_values(count=COUNT, seed=0):
    return np.random.default_rng(seed).standard_normal((2, count)).astype(np.float32)


def offer_of(values, *, exchange=EXCHANGE, member=MEMBER, direction=Direction.OFFER):
    return Slice(direction, RUN, LAYOUT, exchange, member, values)


def received(packet, **changes):
    """Decode a packet where an offer of member 3 in exchange 12 is expected."""
    expected = {
        "direction": Direction.OFFER,
        "run": RUN,
        "layout": LAYOUT,
        "member": MEMBER,
        "exchange": EXCHANGE,
        "count": DRAW.count,
    }
    return decode(packet, **(expected | changes))


def message_of(packet):
    return wire.Slice.FromString(packet)


def packed(message, *, checksum=True):
    """Return a message's bytes, with the checksum of docs/protocol.md done here once more."""
    if checksum:
        hashed = struct.pack(
            "<IiQIi", message.version, message.direction, message.exchange, message.member, message.dtype
        )
        for part in (message.run, message.layout, message.values):
            hashed += struct.pack("<Q", len(part)) + part
        if message.chain:
            hashed += struct.pack("<Q", message.chain)
        message.checksum = int.from_bytes(hashlib.blake2b(hashed, digest_size=8).digest(), "little")
    return message.SerializeToString()


def planted(**fields):
    """Return a packet that is right, checksum and all, but for the given fields."""
    message = message_of(encode(offer_of(plain_values())))
    for name, value in fields.items():
        setattr(message, name, value)
    return packed(message)


def refusal_of(packet, **changes):
    with pytest.raises(PacketError) as caught:
        received(packet, **changes)
    assert str(caught.value.refusal) in str(caught.value)
    return caught.value.refusal


# What is encoded comes back


@ALWAYS_THE_SAME
@given(
    rows=st.integers(0, 40).flatmap(
        lambda n: st.lists(st.lists(FINITE, min_size=n, max_size=n), min_size=1, max_size=3)
    ),
    exchange=st.integers(1, 2**64 - 1),
    member=st.integers(0, 2**32 - 1),
    direction=st.sampled_from(Direction),
    run=st.binary(min_size=16, max_size=16),
)
def test_a_slice_comes_back_bit_for_bit(rows, exchange, member, direction, run):
    slots = ("parameter", "a", "b")[: len(rows)]
    values = values_of(rows).reshape(len(rows), -1)
    layout = layout_of([("weight", (50,))], slots)
    packet = encode(Slice(direction, run, layout, exchange, member, values))
    for known in (exchange, None):
        back = decode(
            packet,
            direction=direction,
            run=run,
            layout=layout,
            member=member,
            exchange=known,
            count=lambda each: values.shape[1] if each == exchange else -1,
        )
        assert back.values.tobytes() == values.tobytes()
        assert back.values.shape == values.shape
        assert (back.direction, back.run, back.layout) == (direction, run, layout)
        assert (back.exchange, back.member) == (exchange, member)
    assert value_bytes(packet) == values.nbytes


def test_subnormal_and_extreme_values_and_the_sign_of_zero_survive():
    values = values_of([ODD_VALUES, ODD_VALUES[::-1]])
    back = received(encode(offer_of(values)), count=lambda _: len(ODD_VALUES))
    assert back.values.view(np.uint32).tolist() == values.view(np.uint32).tolist()


def test_a_packet_is_its_values_and_at_most_100_bytes():
    values = plain_values(5000)
    assert 0 < len(encode(offer_of(values))) - values.nbytes <= 100


def test_values_that_do_not_lie_in_order_in_memory_are_sent_in_order():
    values = plain_values()
    shuffled_in_memory = np.asfortranarray(values)
    assert encode(offer_of(shuffled_in_memory)) == encode(offer_of(values))
    assert encode(offer_of(values.astype(">f4"))) == encode(offer_of(values))


def test_decoded_values_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        received(encode(offer_of(plain_values()))).values[0, 0] = 1.0


# Each refusal, by the one fault it is named after


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_encoding_refuses_a_diverged_member_and_says_which(bad):
    values = plain_values()
    values[1, 2] = bad
    with pytest.raises(PacketError, match=r"member 3 has 1 values.*exchange 12") as caught:
        encode(offer_of(values))
    assert caught.value.refusal is Refusal.NON_FINITE


FAULTS = {
    Refusal.VERSION: [planted(version=0), planted(version=2), planted(version=2**32 - 1)],
    Refusal.DIRECTION: [planted(direction=2), planted(direction=0), planted(direction=-7)],
    Refusal.RUN: [planted(run=b""), planted(run=RUN[:-1]), planted(run=RUN + b"\0")],
    Refusal.LAYOUT: [planted(layout=b""), planted(layout=bytes(32))],
    Refusal.EXCHANGE: [planted(exchange=0), planted(exchange=11), planted(exchange=2**64 - 1)],
    Refusal.MEMBER: [planted(member=0), planted(member=4), planted(member=2**32 - 1)],
    Refusal.DTYPE: [planted(dtype=0), planted(dtype=2), planted(dtype=-1)],
    Refusal.CHAIN: [planted(chain=1), planted(chain=2**64 - 1)],
    Refusal.LENGTH: [
        planted(values=b""),
        planted(values=bytes(8 * COUNT - 1)),
        planted(values=bytes(8 * COUNT + 4)),
        planted(values=bytes(4 * COUNT)),
    ],
    Refusal.NON_FINITE: [
        planted(values=struct.pack("<f", float("nan")) + bytes(8 * COUNT - 4)),
        planted(values=bytes(8 * COUNT - 4) + struct.pack("<f", float("inf"))),
    ],
}


@pytest.mark.parametrize(
    ("refusal", "packet"),
    [(refusal, packet) for refusal, packets in FAULTS.items() for packet in packets],
    ids=lambda each: str(each) if isinstance(each, Refusal) else "",
)
def test_a_packet_with_one_fault_is_refused_for_that_fault(refusal, packet):
    assert refusal_of(packet) is refusal


def test_what_is_no_message_or_cut_short_is_malformed():
    packet = encode(offer_of(plain_values()))
    assert refusal_of(b"\xff") is Refusal.MALFORMED
    assert refusal_of(packet[:-1]) is Refusal.MALFORMED
    assert refusal_of(packet[: len(packet) // 2]) is Refusal.MALFORMED
    # An empty message is a message, of version 0.
    assert refusal_of(b"") is Refusal.VERSION


def test_an_unknown_field_a_field_twice_and_a_padded_number_are_trailing():
    packet = encode(offer_of(plain_values()))
    unknown = packet + b"\x52\x01x"
    twice = b"\x08\x01" + packet
    default = packet + b"\x30\x03"
    assert packet.startswith(b"\x08\x01")
    padded = b"\x08\x81\x00" + packet[2:]
    for each in (unknown, twice, default, padded):
        assert message_of(each).version == 1
        assert refusal_of(each) is Refusal.TRAILING


def test_an_altered_value_run_or_checksum_that_nothing_else_shows_is_found_by_the_checksum():
    message = message_of(encode(offer_of(plain_values())))
    altered = bytearray(message.values)
    altered[5] ^= 1
    message.values = bytes(altered)
    assert refusal_of(packed(message, checksum=False)) is Refusal.CHECKSUM
    assert refusal_of(packed(message)[:-8] + b"wash_fl!") is Refusal.CHECKSUM


def test_every_refusal_has_a_test_here():
    elsewhere = {Refusal.MALFORMED, Refusal.TRAILING, Refusal.CHECKSUM, Refusal.ENCODING}
    assert set(FAULTS) | elsewhere == set(Refusal)


def test_faults_are_looked_for_in_the_order_of_the_page():
    order = [
        ("version", 9, Refusal.VERSION),
        ("direction", 2, Refusal.DIRECTION),
        ("run", b"x", Refusal.RUN),
        ("layout", b"x", Refusal.LAYOUT),
        ("exchange", 77, Refusal.EXCHANGE),
        ("member", 9, Refusal.MEMBER),
        ("dtype", 5, Refusal.DTYPE),
        ("chain", 5, Refusal.CHAIN),
        ("values", b"odd", Refusal.LENGTH),
    ]
    for first, (_, _, refusal) in enumerate(order):
        message = message_of(planted(**{name: value for name, value, _ in order[first:]}))
        assert refusal_of(packed(message, checksum=False)) is refusal
    not_finite = struct.pack("<f", float("nan")) * 2 * COUNT
    message = message_of(planted())
    message.values = not_finite
    assert refusal_of(packed(message, checksum=False)) is Refusal.CHECKSUM
    assert refusal_of(packed(message)) is Refusal.NON_FINITE


def test_a_receiver_that_waits_for_any_exchange_checks_the_length_against_the_one_named():
    other = next(each for each in range(1, 99) if DRAW.count(each) != COUNT)
    assert received(encode(offer_of(plain_values())), exchange=None).exchange == EXCHANGE
    assert refusal_of(planted(exchange=other), exchange=None) is Refusal.LENGTH
    assert refusal_of(planted(exchange=0), exchange=None) is Refusal.EXCHANGE


def test_a_delivery_is_refused_where_an_offer_is_expected_and_the_reverse():
    delivery = encode(offer_of(plain_values(), direction=Direction.DELIVERY))
    assert refusal_of(delivery) is Refusal.DIRECTION
    assert received(delivery, direction=Direction.DELIVERY).direction is Direction.DELIVERY
    assert refusal_of(planted(), direction=Direction.DELIVERY) is Refusal.DIRECTION


def test_a_message_for_people_has_what_was_given_and_what_is_expected():
    with pytest.raises(PacketError, match=r"packet refused \(member\): it names member 4, expected 3\."):
        received(planted(member=4))
    with pytest.raises(PacketError, match="same model and the same exchange-optimizer"):
        received(planted(layout=bytes(32)))


# Whatever arrives


def survives(packet, original, **changes):
    """Decode; return the slice or None if it is refused. Anything but PacketError is an error here."""
    try:
        slice_ = received(packet, **changes)
    except PacketError:
        return None
    finally:
        assert value_bytes(packet) >= 0
    assert original is not None, "bytes from nowhere were accepted"
    assert slice_.values.tobytes() == original.values.tobytes()
    assert slice_.values.shape == original.values.shape
    assert (slice_.direction, slice_.run, slice_.layout) == (
        original.direction,
        original.run,
        original.layout,
    )
    assert (slice_.exchange, slice_.member) == (original.exchange, original.member)
    return slice_


@ALWAYS_THE_SAME
@given(packet=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_and_raise_nothing_else(packet):
    assert survives(packet, None, exchange=None) is None


@ALWAYS_THE_SAME
@given(
    packet=st.builds(
        wire.Slice,
        version=st.sampled_from([0, 1, 2**32 - 1]),
        direction=st.sampled_from([0, 1, 2, -(2**31), 2**31 - 1]),
        run=st.sampled_from([RUN, b"", bytes(16)]),
        layout=st.sampled_from([LAYOUT.fingerprint, b"", b"\xff" * 40]),
        exchange=st.sampled_from([0, 1, EXCHANGE, 2**63, 2**64 - 1]),
        member=st.sampled_from([0, MEMBER, 2**32 - 1]),
        dtype=st.sampled_from([0, 1, 2**31 - 1, -1]),
        values=st.one_of(st.binary(max_size=20), st.just(bytes(8 * COUNT))),
        checksum=st.integers(0, 2**64 - 1),
    ).map(lambda message: message.SerializeToString())
)
def test_well_formed_messages_of_arbitrary_contents_are_refused_and_raise_nothing_else(packet):
    assert survives(packet, None, exchange=None) is None


@pytest.mark.parametrize(
    "packet",
    [
        b"\x53" * 5000,  # groups in groups that never end
        b"\x53" * 100 + b"\x54" * 100,
        b"\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # values of 2**64 - 1 bytes
        b"\x42\xff\xff\xff\xff\x07",
        b"\x08" + b"\xff" * 20,
        b"\x00\x00",
        b"\x0f" * 50,
    ],
    ids=["groups", "closed groups", "huge length", "2 GB", "endless number", "field 0", "bad wire type"],
)
def test_bytes_made_to_upset_a_parser_are_refused(packet):
    assert refusal_of(packet) in {Refusal.MALFORMED, Refusal.TRAILING, Refusal.VERSION}


def mutations(rng, packet, other):
    """Yield one mutation of each kind of a packet; ``other`` is a packet to splice with."""
    flipped = bytearray(packet)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    yield bytes(flipped)
    replaced = bytearray(packet)
    # Most of the structure is in the first 70 bytes and the last 9.
    replaced[rng.choice([rng.randrange(70), len(packet) - 1 - rng.randrange(12)])] = rng.randrange(256)
    yield bytes(replaced)
    yield packet[: rng.randrange(len(packet))]
    yield packet[rng.randrange(1, len(packet)) :]
    yield packet + rng.randbytes(rng.randrange(1, 12))
    yield rng.randbytes(rng.randrange(1, 4)) + packet
    begin = rng.randrange(len(packet))
    end = min(len(packet), begin + rng.randrange(1, 40))
    yield packet[:begin] + packet[end:]
    yield packet[:end] + packet[begin:]
    yield packet[:begin] + bytes(end - begin) + packet[end:]
    yield packet[:begin] + rng.randbytes(rng.randrange(1, 9)) + packet[begin:]
    yield packet[:begin] + other[begin:]
    yield other[: rng.randrange(len(other))] + packet[begin:]
    # Swap two spans: fields in another order are the same message.
    middle = rng.randrange(begin, len(packet))
    yield packet[begin:middle] + packet[:begin] + packet[middle:]
    yield packet + other


def test_of_20000_mutated_packets_none_is_taken_for_another():
    rng = random.Random(20240517)
    accepted = made = 0
    for round_ in range(1500):
        original = offer_of(plain_values(seed=round_))
        packet = encode(original)
        other = encode(
            offer_of(
                plain_values(seed=round_ + 10_000),
                exchange=rng.choice([EXCHANGE, EXCHANGE + 1]),
                member=rng.choice([MEMBER, 1]),
            )
        )
        for mutated in mutations(rng, packet, other):
            if mutated in {packet, other}:
                continue
            made += 1
            slice_ = survives(
                mutated,
                original,
                exchange=rng.choice([EXCHANGE, None]),
                count=lambda _: COUNT,
            )
            accepted += slice_ is not None
    assert made > 19_500
    # Only fields in another order can be accepted, and those are the same message.
    assert accepted < made / 1000


def test_fields_in_another_order_are_the_same_message():
    original = offer_of(plain_values())
    packet = encode(original)
    assert survives(packet[2:] + packet[:2], original) is not None


def test_the_check_of_mutations_would_see_a_packet_taken_for_another():
    one, other = offer_of(plain_values(seed=1)), offer_of(plain_values(seed=2))
    with pytest.raises(AssertionError):
        survives(encode(other), one)


def test_value_bytes_of_no_packet_are_none():
    assert value_bytes(b"\xff\xff") == 0
    assert value_bytes(b"") == 0
