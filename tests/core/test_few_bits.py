"""Tests of 4, 3 and 2 bits: each bit, the scale that is chosen, its limits, and what no encoder gives."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_golden import encoded
from wash_fl.core.codec import decode_values, encode_values, encoded_size, rounded
from wash_fl.core.dtypes import DTYPES
from wash_fl.core.few_bits import BLOCK, INT2, INT3, INT4, FewBits
from wash_fl.core.layout import layout_of
from wash_fl.core.packet import Direction, PacketError, Refusal, Slice, decode, encode
from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.lab.search.mutation import seal

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=150)
FEW = {each.name: each for each in (INT4, INT3, INT2)}
EACH = pytest.mark.parametrize("dtype", list(FEW))
SMALLEST = 2.0**-21
LARGEST = 65504.0


def row(*values):
    return np.array([values], dtype=np.float32)


def scales_of(data, count):
    scales = data[: encoded_size("float16", 1, -(-count // BLOCK))]
    return np.frombuffer(scales, dtype="<f2").astype(np.float64)


@st.composite
def blocks(draw):
    """Blocks of all sizes of values, some with a few much larger ones, zeros among them, some cut short."""
    dice = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 3 * BLOCK))
    apart, exponent = draw(st.booleans()), draw(st.integers(-24, 18))
    exponents = dice.integers(-160, 128, 3) if apart else np.full(3, exponent)
    sizes = np.repeat(np.ldexp(1.0, exponents), BLOCK)[:count]
    values = dice.standard_normal(count) ** draw(st.sampled_from([1, 3, 5])) * sizes
    small = dice.random(count) < draw(st.sampled_from([0.0, 0.5, 0.95]))
    values[small] *= draw(st.sampled_from([0.0, -0.0, 1e-3]))
    limit = np.finfo(np.float32).max
    return np.clip(values, -limit, limit).astype(np.float32)[np.newaxis]


@EACH
@ALWAYS_THE_SAME
@given(values=blocks())
def test_what_bytes_stand_for_is_encoded_to_the_same_bytes_again(dtype, values):
    data = encode_values(values, dtype)
    assert encode_values(rounded(values, dtype), dtype) == data
    # Zeros have one sign, and a block with a scale has a value at the highest level.
    decoded = decode_values(data, dtype, *values.shape)
    assert not np.signbit(decoded[decoded == 0]).any()
    for number, scale in enumerate(scales_of(data, values.shape[1])):
        highest = np.abs(decoded[0, BLOCK * number : BLOCK * (number + 1)]).max()
        assert highest == FEW[dtype].highest * scale and (scale == 0 or SMALLEST <= scale <= LARGEST)


@EACH
@ALWAYS_THE_SAME
@given(values=blocks())
def test_the_bytes_are_those_of_plain_python(dtype, values):
    assert encode_values(values, dtype) == encoded(values[0].tolist(), dtype)


@EACH
@ALWAYS_THE_SAME
@given(values=blocks())
def test_a_value_is_rounded_to_the_nearest_level_of_its_block(dtype, values):
    count, highest = values.shape[1], FEW[dtype].highest
    scales = np.repeat(scales_of(encode_values(values, dtype), count), BLOCK)[:count]
    nearest = np.clip(np.abs(values[0]), 0, highest * scales)
    error = np.abs(np.abs(rounded(values, dtype)[0].astype(np.float64)) - nearest)
    assert (error <= scales / 2 * (1 + 1e-6)).all()


@EACH
@ALWAYS_THE_SAME
@given(values=blocks())
def test_the_scale_is_the_best_of_those_tried_but_for_how_finely_it_counts(dtype, values):
    values = np.clip(values[:, :BLOCK], -65504, 65504)
    unit, highest = FEW[dtype].candidates[0], FEW[dtype].highest
    magnitudes = np.abs(values[0].astype(np.float64))
    whole = float(np.float16(np.float32(magnitudes.max()) / np.float32(highest)))
    if whole < 2.0**-10:
        return  # where scales have few bits, or none
    error = np.sqrt(np.sum((rounded(values, dtype)[0] - values[0].astype(np.float64)) ** 2))
    for candidate in FEW[dtype].candidates:
        scale = whole * candidate / unit
        levels = np.minimum(np.rint(magnitudes / scale), highest)
        other = np.sqrt(np.sum((levels * scale - magnitudes) ** 2))
        # Counting moves each value by half a fraction of the first scale at most, in both of the sums.
        assert error <= other + 2 * np.sqrt(BLOCK) * whole * (0.5 / unit + highest * 2.0**-10)


@pytest.mark.parametrize(
    ("dtype", "limit", "without_clips"),
    [("int4", 0.0104, 0.0118), ("int3", 0.044, 0.063), ("int2", 0.19, 0.51)],
)
def test_smaller_scales_are_worth_it(dtype, limit, without_clips):
    values = np.random.default_rng(1).standard_normal((1, 200 * BLOCK)).astype(np.float32)

    def error(encoding):
        back = encoding.decode(encoding.encode(values), *values.shape)
        return float(np.mean((back - values) ** 2))

    encoding = FEW[dtype]
    assert error(encoding) < limit
    only = FewBits("only", encoding.number, encoding.bits, encoding.candidates[:1])
    assert error(only) > 0.97 * without_clips


@pytest.mark.parametrize(
    ("dtype", "values", "data"),
    [
        # The first value has the low bits: 1 and 7, -7 and 0, 3.
        ("int4", row(1.0, 7.0, -7.0, 0.0, 3.0), "003c" + "71" + "09" + "03"),
        # From bit 0 on 011, 001, 110, 000, 000, 111, 010, 101, which are three bytes; then 111.
        ("int3", row(3, 1, -2, 0, 0, -1, 2, -3, -1), "003c" + "8b81ab" + "07"),
        ("int2", row(1, -1, 0, 1, -1), "003c" + "4d" + "03"),
        ("int4", row(0.0, -0.0, 1e-7), "0000" + "0000"),
        ("int2", row(), ""),
    ],
)
def test_the_bytes_are_these(dtype, values, data):
    assert encode_values(values.reshape(1, -1), dtype).hex() == data


def test_ties_go_to_the_even_level():
    # With one scale, for other levels would be nearer with others.
    only = FewBits("only", INT4.number, INT4.bits, (16,))
    levels = only.decode(only.encode(row(7.0, 0.5, 1.5, 2.5, -3.5, -6.5)), 1, 6)
    assert levels.tolist() == [[7.0, 0.0, 2.0, 2.0, -4.0, -6.0]]


def test_a_slot_has_its_scales_first_and_the_last_block_is_short():
    values = np.concatenate([np.full(BLOCK, 7.0), np.full(BLOCK, -14.0), [21.0]]).astype(np.float32)
    data = encode_values(np.stack([values, 2 * values]), "int4")
    levels = b"\x77" * 32 + b"\x99" * 32 + b"\x07"
    scales = [np.array(each, dtype="<f2").tobytes() for each in ([1, 2, 3], [2, 4, 6])]
    assert data == scales[0] + levels + scales[1] + levels


@pytest.mark.parametrize(
    ("dtype", "counted", "candidate"),
    [
        # 16 and 15 leave the same squares: 49.
        ("int4", [112, 105], 16),
        # 32 and 30: 100.
        ("int3", [96, 0, 22], 32),
        # 64 leaves more, 52 and 44 the same: 544.
        ("int2", [64, 0, 32], 52),
        # One more, and it is the other.
        ("int4", [112, 105, 105], 15),
    ],
)
def test_of_scales_that_are_as_good_the_first_is_chosen(dtype, counted, candidate):
    unit = FEW[dtype].candidates[0]
    data = encode_values(row(*counted) / np.float32(unit), dtype)
    assert scales_of(data, len(counted)).tolist() == [candidate / unit]


@EACH
def test_a_block_that_is_too_small_for_a_scale_is_zero(dtype):
    highest = FEW[dtype].highest
    just = np.float32(highest * SMALLEST)
    assert rounded(row(just, -just), dtype).tolist() == [[just, -just]]
    # Half a step of binary16 below is rounded up (ties to even); anything below that is not.
    half = np.float32(highest * (SMALLEST - 2.0**-25))
    assert scales_of(encode_values(row(half), dtype), 1) == [SMALLEST]
    below = np.nextafter(half, np.float32(0))
    assert encode_values(row(below, -below), dtype) == bytes(encoded_size(dtype, 1, 2))
    assert not np.signbit(rounded(row(below, -below), dtype)).any()
    # A smaller scale that a block would choose stops there, too.
    many = row(just, *[just * np.float32(0.2)] * 60)
    assert scales_of(encode_values(many, dtype), 61) == [SMALLEST]


@EACH
def test_what_is_larger_than_the_largest_scale_can_hold_becomes_its_largest(dtype):
    limit = np.float32(FEW[dtype].highest * LARGEST)
    values = row(3.4028235e38, -3.4028235e38, limit, -limit, np.nextafter(limit, np.float32(np.inf)))
    with np.errstate(all="raise"):
        assert rounded(values, dtype).tolist() == [[limit, -limit, limit, -limit, limit]]


@EACH
@pytest.mark.parametrize("count", [1, 63, 64, 65, 1499 * 64 + 5, 1500 * 64, 1501 * 64 + 1])
def test_a_block_does_not_depend_on_what_is_beside_it(dtype, count):
    values = np.random.default_rng(count).standard_normal((2, count)).astype(np.float32)
    together = rounded(values, dtype)
    places = {0, count // 2 // BLOCK * BLOCK, (count - 1) // BLOCK * BLOCK}
    for slot in range(2):
        for place in places:
            alone = rounded(np.ascontiguousarray(values[slot : slot + 1, place : place + BLOCK]), dtype)
            assert np.array_equal(together[slot, place : place + BLOCK], alone[0])


@pytest.mark.parametrize(
    ("dtype", "digest"),
    [("int4", "1c4cb1b34b3e6407"), ("int3", "762659cc812c7ea2"), ("int2", "ad5ea718dfd4b582")],
)
def test_many_values_give_the_same_bytes_everywhere(dtype, digest):
    # Integers of 16 bits, cubed exactly and scaled by powers of two: nothing here is rounded.
    words = (np.arange(200_000, dtype=np.int64) * 40_503 % 65_536 - 32_768) // 256
    values = (words**3).astype(np.float32) * np.float32(2.0**-24)
    data = encode_values(values.reshape(2, -1), dtype)
    assert hashlib.sha256(data).hexdigest()[:16] == digest


# Packets

RUN, LAYOUT, COUNT = bytes(16), layout_of([("weight", (90,))]), 67


def packet_with(dtype, place=None, byte=None):
    """Return a packet of 67 values, whose second block has the scale 1; one byte of them may be another."""
    values = np.random.default_rng(3).standard_normal((1, COUNT)).astype(np.float32)
    values[0, 64:] = FEW[dtype].highest * np.array([1.0, -1.0, 0.0]) if dtype in FEW else 1.0
    message = wire.Slice.FromString(encode(Slice(Direction.OFFER, RUN, LAYOUT, 1, 0, values, dtype)))
    if place is not None:
        changed = bytearray(message.values)
        changed[place] = byte(changed[place])
        message.values = bytes(changed)
    return seal(message)


def refusal_of(packet, dtype):
    try:
        decode(
            packet,
            direction=Direction.OFFER,
            run=RUN,
            layout=LAYOUT,
            member=0,
            count=lambda exchange: COUNT,
            dtype=dtype,
        )
    except PacketError as error:
        return error.refusal
    return None


@EACH
@pytest.mark.parametrize(
    ("place", "byte", "refusal"),
    [
        (None, None, None),
        (1, lambda byte: 0x7C, Refusal.NON_FINITE),  # a scale that is infinite or no number
        (3, lambda byte: 0x7E, Refusal.NON_FINITE),
        (1, lambda byte: byte | 0x80, Refusal.ENCODING),  # negative
        (3, lambda byte: 0, Refusal.ENCODING),  # too small
        (-1, lambda byte: byte | 0x80, Refusal.ENCODING),  # a bit behind the last value
    ],
)
def test_what_no_encoder_gives_is_refused(dtype, place, byte, refusal):
    assert refusal_of(packet_with(dtype, place, byte), dtype) is refusal


@EACH
def test_a_scale_without_a_level_that_needs_it_is_refused(dtype):
    message = wire.Slice.FromString(packet_with(dtype))
    levels = 4 + FEW[dtype].bits * BLOCK // 8
    message.values = message.values[:levels] + bytes(len(message.values) - levels)
    assert refusal_of(seal(message), dtype) is Refusal.ENCODING


@EACH
def test_a_level_below_the_lowest_is_refused(dtype):
    bits = FEW[dtype].bits
    lowest = 1 << bits - 1
    packet = packet_with(dtype, 4, lambda byte: byte & ~(2**bits - 1) | lowest)
    assert refusal_of(packet, dtype) is Refusal.ENCODING


@EACH
@pytest.mark.parametrize("change", [slice(0, -1), slice(1, None), slice(0, 0)])
def test_another_number_of_bytes_is_refused(dtype, change):
    message = wire.Slice.FromString(packet_with(dtype))
    message.values = message.values[change]
    assert refusal_of(seal(message), dtype) is Refusal.LENGTH


@EACH
def test_every_change_of_one_bit_is_refused_or_is_what_encoding_gives(dtype):
    packet = packet_with(dtype)
    size = len(wire.Slice.FromString(packet).values)
    outcomes = set()
    for bit in range(8 * size):
        changed = packet_with(dtype, bit // 8, lambda byte, bit=bit: byte ^ 1 << bit % 8)
        outcome = refusal_of(changed, dtype)
        outcomes.add(outcome)
        if outcome is None:
            values = decode_values(wire.Slice.FromString(changed).values, dtype, 1, COUNT)
            assert encode_values(values, dtype) == wire.Slice.FromString(changed).values
    assert outcomes == {None, Refusal.ENCODING} | ({Refusal.NON_FINITE} & outcomes)


@EACH
@pytest.mark.parametrize("other", list(DTYPES))
def test_a_packet_of_another_dtype_is_refused(dtype, other):
    expected = None if other == dtype else Refusal.DTYPE
    assert refusal_of(packet_with(other), dtype) is expected
