"""Tests of the encodings: what bytes are which values, and that what is left out is not lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wash_fl.config import ExchangeConfig, fields
from wash_fl.core.codec import (
    decode_values,
    delivery_dtype,
    encode_values,
    encoded_size,
    rounded,
    taken_over,
)
from wash_fl.core.dtypes import DTYPES, Int8
from wash_fl.core.mix import mix
from wash_fl.core.wire import exchange_pb2 as wire

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=150)
# Random values are as good as random seeds: 600 of them for each member.
SEEDS_ALONE = settings(ALWAYS_THE_SAME, max_examples=25)

BLOCK = Int8.block
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SHAPES = st.tuples(st.integers(1, 3), st.integers(0, 2 * BLOCK + 3))
VALUES = SHAPES.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=FLOATS))
CONFIGS = pytest.mark.parametrize(
    "config",
    [
        {"mix": "shuffle"},
        {"mix": "shuffle", "topology": "permutation"},
        {"mix": "average"},
        {"mix": "average", "topology": "pairs"},
    ],
)
EVERY = pytest.mark.parametrize("dtype", list(DTYPES))


def test_the_dtypes_are_those_of_the_option_and_of_the_wire():
    assert list(DTYPES) == list(fields()["dtype"].metadata["choices"])
    assert [each.number for each in DTYPES.values()] == wire.DType.values()[1:]
    assert [wire.DType.Name(each.number) for each in DTYPES.values()] == [
        f"DTYPE_{name.upper()}" for name in DTYPES
    ]


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float32", 520),
        ("bfloat16", 260),
        ("float16", 260),
        ("int8", 134),
        ("int4", 71),
        ("int3", 55),
        ("int2", 39),
    ],
)
def test_130_values_are_so_many_bytes(dtype, size):
    assert encoded_size(dtype, 3, 130) == 3 * size
    assert encoded_size(dtype, 3, 0) == 0


@EVERY
def test_deliveries_have_the_dtype_of_offers_only_where_they_carry_it_exactly(dtype):
    shared = dtype in ("int8", "int4", "int3", "int2")
    assert delivery_dtype(ExchangeConfig(dtype=dtype, mix="shuffle")) == dtype
    assert delivery_dtype(ExchangeConfig(dtype=dtype, mix="average")) == "float32"
    apart = ExchangeConfig(dtype=dtype, mix="shuffle", topology="permutation")
    assert delivery_dtype(apart) == ("float32" if shared else dtype)


def same_bits(one, other):
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


def row(*values):
    return np.array([values], dtype=np.float32)


@EVERY
@ALWAYS_THE_SAME
@given(values=VALUES)
def test_what_is_decoded_is_encoded_to_the_same_bytes_again(dtype, values):
    data = encode_values(values, dtype)
    assert len(data) == encoded_size(dtype, *values.shape)
    decoded = decode_values(data, dtype, *values.shape)
    assert decoded.dtype == np.float32 and decoded.shape == values.shape
    assert np.isfinite(decoded).all() and not decoded.flags.writeable
    assert encode_values(decoded, dtype) == data
    assert same_bits(rounded(decoded, dtype), decoded)


@ALWAYS_THE_SAME
@given(values=VALUES)
def test_float32_is_bit_for_bit(values):
    assert same_bits(rounded(values, "float32"), values)


@pytest.mark.parametrize(
    ("dtype", "values", "data"),
    [
        ("float32", row(1.0, -2.5), "0000803f000020c0"),
        # 1 + 2^-8 lies between two: the even one; a little more is the upper one.
        ("bfloat16", row(1.0, 1.00390625, 1.004, -0.0), "803f803f813f0080"),
        ("bfloat16", row(3.4028235e38, -3.4028235e38), "7f7f7fff"),
        ("float16", row(1.0, 1.00048828125, 65504.0, 1e6, -1e6), "003c003cff7bff7bfffb"),
        ("int8", row(127.0, -127.0, 0.5, 1.5, -63.6), "0000803f" + "7f810002c0"),
        ("int8", row(0.0, -0.0), "00000000" + "0000"),
        # Too small for a scale: all of it stays with the sender.
        ("int8", row(1e-37, -1e-40), "00000000" + "0000"),
    ],
)
def test_the_bytes_are_these(dtype, values, data):
    assert encode_values(values, dtype).hex() == data


def test_each_block_of_int8_has_a_scale_of_its_own():
    values = np.concatenate([np.full(BLOCK, 127.0), np.full(3, 254.0)]).astype(np.float32)[np.newaxis]
    data = encode_values(values, "int8")
    assert data[:8] == np.array([1.0, 2.0], dtype="<f4").tobytes()
    assert data[8:] == b"\x7f" * (BLOCK + 3)


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11), ("int8", 7)])
def test_values_are_rounded_to_the_nearest(dtype, bits):
    values = np.random.default_rng(1).uniform(0.5, 1.0, (1, 5000)).astype(np.float32)
    error = np.abs(rounded(values, dtype) - values)
    # Half a step, and what rounding the scale of int8 to 17 bits adds.
    assert 0.45 * 2.0**-bits < error.max() < 0.52 * 2.0**-bits


@EVERY
@CONFIGS
@SEEDS_ALONE
@given(seed=st.integers(0, 2**32), members=st.integers(2, 7), trained=st.booleans())
def test_the_sum_over_the_members_is_conserved(dtype, config, *, seed, members, trained):
    exchange = ExchangeConfig(dtype=dtype, **config)
    draw = np.random.default_rng(seed)
    held = draw.standard_normal((members, 2, 300)).astype(np.float32)
    now = held + (0.01 * trained * draw.standard_normal(held.shape)).astype(np.float32)
    received = mix([rounded(each, dtype) for each in held], seed=seed, exchange=1, config=exchange)
    received = [rounded(np.ascontiguousarray(each), delivery_dtype(exchange)) for each in received]
    after = [
        taken_over(got, offered=mine, dtype=dtype, now=later, mean=exchange.members_average)
        for got, mine, later in zip(received, held, now, strict=True)
    ]
    drift = np.abs(np.sum(after, axis=0, dtype=np.float64) - np.sum(now, axis=0, dtype=np.float64))
    # Each member rounds to float32 up to three times; no value is beyond 8.
    assert drift.max() <= 3 * members * 2.0**-24 * 8
    if dtype != "float32":
        lost = np.abs(np.sum(received, axis=0, dtype=np.float64) - np.sum(held, axis=0, dtype=np.float64))
        assert lost.max() > 3 * drift.max()


@EVERY
@ALWAYS_THE_SAME
@given(values=VALUES)
def test_a_member_that_gets_its_own_offer_back_holds_what_it_held_up_to_a_rounding(dtype, values):
    back = taken_over(rounded(values, dtype), offered=values, dtype=dtype)
    assert np.allclose(back, values, rtol=2.0**-22, atol=1e-44)


@EVERY
@ALWAYS_THE_SAME
@given(seed=st.integers(0, 2**32), trained=st.booleans())
def test_two_that_take_the_mean_agree_on_it_and_keep_what_they_did_not_give_away(dtype, *, seed, trained):
    draw = np.random.default_rng(seed)
    held = draw.standard_normal((2, 2, 300)).astype(np.float32)
    given = [rounded(each, dtype) for each in held]
    mean = (given[0] + given[1]) * np.float32(0.5)
    for mine, other in ((0, 1), (1, 0)):
        as_it_travelled = taken_over(given[other], offered=given[mine], dtype=dtype, mean=True)
        assert same_bits(as_it_travelled, mean)
        now = held[mine] + np.float32(0.01) * trained
        new = taken_over(given[other], offered=held[mine], dtype=dtype, now=now, mean=True)
        kept = now - given[mine]
        assert same_bits(new, np.where(kept == 0, mean, mean + kept))


def test_float32_without_training_is_exactly_what_was_received():
    received, offered = row(-0.0, 1e30, 3.0), row(1.0, 2.0, -0.0)
    assert same_bits(taken_over(received, offered=offered, dtype="float32"), received)


@EVERY
@CONFIGS
def test_a_delivery_loses_nothing(dtype, config):
    exchange = ExchangeConfig(dtype=dtype, **config)
    draw = np.random.default_rng(3)
    offers = [rounded(draw.standard_normal((2, 300)).astype(np.float32), dtype) for _ in range(5)]
    for mixed in map(np.ascontiguousarray, mix(offers, seed=1, exchange=4, config=exchange)):
        assert same_bits(rounded(mixed, delivery_dtype(exchange)), mixed)


@EVERY
@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_number_of_bytes_is_refused(dtype, change):
    data = encode_values(np.ones((2, 5), dtype=np.float32), dtype)
    with pytest.raises(ValueError, match="are not 2 x 5 values"):
        decode_values(data[:change] if change < 0 else data + b"x", dtype, 2, 5)
