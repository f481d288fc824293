"""The rule of differences to an anchor, operation by operation, and what it conserves."""

import struct
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wash_fl.config import ExchangeConfig
from wash_fl.core.anchor import Anchor, Move, ServerAnchor, chained, difference, first_anchor, taken_part
from wash_fl.core.codec import rounded
from wash_fl.core.dtypes import DTYPES
from wash_fl.core.layout import layout_of

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=150)
F = np.float32


def config(dtype="int8", rate=1.0, momentum=0.0):
    return ExchangeConfig(
        mix="average",
        schedule="constant",
        dtype=dtype,
        reference="anchor",
        outer_learning_rate=rate,
        outer_momentum=momentum,
    )


def values(seed, *shape, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(F)


def test_the_first_anchor_is_the_weights_in_the_layouts_order_and_nothing_in_other_slots():
    layout = layout_of([("b", (2, 2)), ("a", (3,))], ("parameter", "momentum_buffer"))
    weights = {"a": np.arange(3, dtype=F), "b": np.arange(4, dtype=F).reshape(2, 2).T, "other": np.ones(9)}
    assert first_anchor(layout, weights).tolist() == [[0, 2, 1, 3, 0, 1, 2], [0] * 7]


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize(("rate", "momentum"), [(1.0, 0.0), (0.7, 0.0), (1.0, 0.5), (0.7, 0.5)])
def test_three_exchanges_by_hand(dtype, rate, momentum):
    """Every operation of docs/protocol.md in the order in which it stands there."""
    anchor = ServerAnchor(values(0, 2, 9), config(dtype, rate, momentum))
    a, error, m = anchor.values.copy(), np.zeros((2, 9), F), np.zeros((2, 9), F)
    chain = 0
    for exchange, places in enumerate(([0, 3, 4], [1, 3, 8], [0, 3, 7]), start=1):
        offers = [rounded(values(10 * exchange + each, 2, 3), dtype) for each in range(2 + exchange % 2)]
        n = F(len(offers))
        total = np.zeros((2, 3))
        for offer in offers:
            total = total + offer.astype(np.float64)
        d = (total / len(offers)).astype(F)
        if momentum:
            m[:, places] = F(momentum) * m[:, places] + d
            d = d + F(momentum) * m[:, places]
        if rate != 1:
            d = F(rate) * d
        s = d + error[:, places] / n
        delta = rounded(s, dtype)
        error[:, places] = n * (s - delta)
        a[:, places] = a[:, places] + delta
        data = delta.astype("<f4").tobytes()
        digest = blake2b(struct.pack("<QQQ", chain, exchange, len(data)) + data, digest_size=8)
        chain = int.from_bytes(digest.digest(), "little")

        move = anchor.outcome(np.array(places), offers)
        assert move is not None
        anchor.apply(exchange, np.array(places), move)
        assert move.delta.tobytes() == delta.tobytes()
        assert (anchor.values.tobytes(), anchor.error.tobytes()) == (a.tobytes(), error.tobytes())
        assert anchor.chain == chain
        assert (anchor.momentum is None) == (not momentum)
        assert anchor.momentum is None or anchor.momentum.tobytes() == m.tobytes()


def test_an_outcome_changes_nothing_before_it_is_applied():
    anchor = ServerAnchor(values(0, 1, 5), config(momentum=0.5))
    before = [each.tobytes() for each in (anchor.values, anchor.error, anchor.momentum)]
    anchor.outcome(np.arange(3), [values(1, 1, 3), values(2, 1, 3)])
    assert [each.tobytes() for each in (anchor.values, anchor.error, anchor.momentum)] == before


def test_without_an_outer_step_and_rounding_members_meet_at_the_mean():
    anchor = ServerAnchor(np.zeros((1, 4), F), config("float32"))
    held = [F([[1, 2, 3, 4]]), F([[3, 2, 1, 0]])]
    move = anchor.outcome(np.arange(4), [difference(each, anchor.values) for each in held])
    at = {"anchor": anchor.values, "delta": move.delta, "dtype": "float32"}
    assert [taken_part(each, offered=each, **at).tolist() for each in held] == [[[2, 2, 2, 2]]] * 2
    assert not move.error.any()


def test_a_member_keeps_what_its_offer_left_out_and_what_it_learned_since():
    at, delta, offered = F([[8.0, 8.0]]), F([[0.5, 0.25]]), F([[8.3, 9.0]])
    now = offered + F([[0.125, 0.0]])
    new = taken_part(now, offered=offered, anchor=at, delta=delta, dtype="int8")
    expected = (at + delta) + ((now - at) - rounded(offered - at, "int8"))
    assert new.tobytes() == expected.tobytes()


@pytest.mark.parametrize("large", [3e38, np.inf])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_what_would_not_be_finite_moves_nothing(dtype, large):
    anchor = ServerAnchor(np.full((1, 2), 3e38, F), config(dtype, rate=2.0))
    assert anchor.outcome(np.arange(2), [np.full((1, 2), large, F)] * 2) is None
    assert anchor.outcome(np.arange(2), [np.zeros((1, 2), F)] * 2) is not None


def test_two_histories_have_two_chains():
    one, other = Anchor(np.zeros((1, 3), F)), Anchor(np.zeros((1, 3), F))
    for each, deltas in ((one, ([[1.0]], [[2.0]])), (other, ([[2.0]], [[1.0]]))):
        for exchange, delta in enumerate(deltas, start=1):
            each.move(exchange, np.array([0]), F(delta))
    assert np.array_equal(one.values, other.values) and one.chain != other.chain
    assert chained(0, 1, F([[1.0]])) != chained(0, 2, F([[1.0]]))
    assert one.copy().chain == one.chain and one.copy().values is not one.values


@ALWAYS_THE_SAME
@given(
    dtype=st.sampled_from(list(DTYPES)),
    taking_part=st.lists(st.sets(st.integers(0, 4), min_size=2), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    overlap=st.booleans(),
)
def test_members_and_the_servers_error_add_up_to_the_same_whoever_takes_part(
    dtype, taking_part, seed, overlap
):
    count, everywhere = 300, np.arange(300)
    anchor = ServerAnchor(np.zeros((1, count), F), config(dtype))
    held = [values(seed + each, 1, count) for each in range(5)]
    copies = [Anchor(anchor.values.copy()) for _ in held]
    total = np.sum(held, axis=0, dtype=np.float64)
    for exchange, members in enumerate(taking_part, start=1):
        offered = {each: held[each].copy() for each in sorted(members)}
        offers = [
            rounded(difference(values, copies[each].at(everywhere)), dtype)
            for each, values in offered.items()
        ]
        if overlap:
            learned = values(seed + 100 + exchange, 1, count)
            held[min(members)] = held[min(members)] + learned
            total = total + learned
        move = anchor.outcome(everywhere, offers)
        assert isinstance(move, Move)
        anchor.apply(exchange, everywhere, move)
        for each, copy in enumerate(copies):
            if each in offered:
                at = copy.at(everywhere)
                held[each] = taken_part(
                    held[each], offered=offered[each], anchor=at, delta=move.delta, dtype=dtype
                )
            copy.move(exchange, everywhere, move.delta)
        # A handful of float32 roundings of values below 16 each; a step of int8 is thousands of times larger.
        sum_now = np.sum(held, axis=0, dtype=np.float64) + anchor.error
        assert np.abs(sum_now - total).max() < exchange * 40 * 2.0**-24 * 16
    assert all(each.values.tobytes() == anchor.values.tobytes() for each in copies)
    assert {each.chain for each in copies} == {anchor.chain}
