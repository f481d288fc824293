"""Tests of what becomes of the offers: who receives from whom, and that no value is lost or made."""

from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wash_fl.config import ExchangeConfig
from wash_fl.core import mix as room
from wash_fl.core import philox
from wash_fl.core.mix import average, matching, mix, permute

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=150)

SEEDS = st.integers(0, 2**63 - 1)
SHUFFLES = [
    ExchangeConfig(mix="shuffle", topology="pairs"),
    ExchangeConfig(mix="shuffle", topology="permutation"),
]
RARELY = 1e-4
"""A chi-square so large is no chance."""


def bits(offers):
    return np.stack(offers).view(np.uint32)


def random_offers(members, slots, count, seed=0):
    """Return offers of random bits: every kind of float32, NaNs with payloads as well."""
    drawn = np.random.default_rng(seed).integers(0, 2**32, (members, slots, count), dtype=np.uint32)
    return list(drawn.view(np.float32))


def tagged_offers(members, slots, count):
    """Return offers whose values say where they are from: member, slot and coordinate."""
    place = np.arange(slots * count).reshape(slots, count)
    return [(place * members + member).astype(np.float32) for member in range(members)]


def same_multisets(before, after):
    """Return whether each coordinate holds the same values, slots together, over all members."""
    columns = [np.moveaxis(bits(offers), 2, 0) for offers in (before, after)]  # coordinate, member, slot
    return all(
        Counter(map(bytes, mine)) == Counter(map(bytes, theirs))
        for mine, theirs in zip(*columns, strict=True)
    )


# Matchings


@ALWAYS_THE_SAME
@given(members=st.integers(2, 41), seed=SEEDS, exchange=st.integers(1, 2**64 - 1))
def test_a_matching_is_pairs_and_at_most_one_three_cycle_and_nobody_keeps_its_own(members, seed, exchange):
    source = matching(members, seed=seed, exchange=exchange)
    assert sorted(source) == list(range(members))
    assert all(mine != member for member, mine in enumerate(source))
    in_pairs = [member for member in range(members) if source[source[member]] == member]
    others = [member for member in range(members) if member not in in_pairs]
    assert len(others) == (3 if members % 2 else 0)
    assert all(source[source[source[member]]] == member for member in others)


def test_a_lone_member_keeps_its_own():
    assert matching(1, seed=0, exchange=1) == [0]


@pytest.mark.parametrize(
    ("members", "possible", "visible"), [(3, 2, 0.06), (4, 3, 0.08), (5, 20, 0.3), (6, 15, 0.25)]
)
def test_every_matching_is_equally_frequent(members, possible, visible):
    found = Counter(tuple(matching(members, seed=8, exchange=exchange)) for exchange in range(1, 12_001))
    counts = np.array(list(found.values()))
    assert counts.size == possible
    assert stats.chisquare(counts).pvalue > RARELY
    # The power of this: one matching that comes so much too seldom would be seen.
    counts = np.full(possible, 12_000 / possible)
    counts[1:] += counts[0] * visible / (possible - 1)
    counts[0] *= 1 - visible
    assert stats.chisquare(counts).pvalue < RARELY


def test_a_matching_is_a_function_of_seed_exchange_and_number_of_members():
    first = [matching(9, seed=4, exchange=exchange) for exchange in range(1, 20)]
    assert first == [matching(9, seed=4, exchange=exchange) for exchange in range(1, 20)]
    assert len({tuple(each) for each in first}) > 15
    assert first != [matching(9, seed=5, exchange=exchange) for exchange in range(1, 20)]


def test_pairs_gives_each_member_the_whole_slice_of_its_source():
    offers = random_offers(5, 2, 9)
    received = mix(offers, seed=3, exchange=2, config=ExchangeConfig(mix="shuffle", topology="pairs"))
    source = matching(5, seed=3, exchange=2)
    assert [bits([each]).tobytes() for each in received] == [
        bits([offers[other]]).tobytes() for other in source
    ]


def test_an_average_in_pairs_passes_on_the_offers_themselves():
    offers = random_offers(5, 2, 9)
    received = mix(offers, seed=3, exchange=2, config=ExchangeConfig(mix="average", topology="pairs"))
    source = matching(5, seed=3, exchange=2)
    assert all(each is offers[other] for each, other in zip(received, source, strict=True))


# Permutations per coordinate


@ALWAYS_THE_SAME
@given(
    members=st.integers(2, 9),
    slots=st.integers(1, 3),
    count=st.integers(1, 30),
    seed=SEEDS,
    config=st.sampled_from(SHUFFLES),
)
def test_a_shuffle_conserves_each_coordinates_values_bit_for_bit_with_their_slots(
    members, slots, count, seed, config
):
    offers = random_offers(members, slots, count, seed % 1000)
    received = mix(offers, seed=seed, exchange=1, config=config)
    assert len(received) == members
    assert all(each.shape == (slots, count) and each.dtype == np.float32 for each in received)
    assert same_multisets(offers, received)


def test_the_conservation_check_would_see_slots_that_part():
    offers = tagged_offers(3, 2, 4)
    torn = [each.copy() for each in offers]
    torn[0][1], torn[1][1] = offers[1][1], offers[0][1]
    assert not same_multisets(offers, torn)


def test_equal_values_of_different_bits_are_told_apart():
    offers = [np.array([[0.0]], np.float32), np.array([[-0.0]], np.float32)]
    received = permute(offers, seed=1, exchange=1)
    assert sorted(bits(received).ravel().tolist()) == [0, 0x80000000]


def permutation_counts(members, count, seed):
    """Count how often each permutation of members occurs among the coordinates of one exchange."""
    tags = [np.full((1, count), member, dtype=np.float32) for member in range(members)]
    received = np.stack(permute(tags, seed=seed, exchange=1))[:, 0].astype(np.int64)
    code = np.zeros(count, dtype=np.int64)
    for row in received:
        code = code * members + row
    return np.unique(code, return_counts=True)[1]


def test_every_permutation_of_three_members_is_equally_frequent():
    counts = permutation_counts(3, 2_000_000, seed=17)
    assert counts.size == 6
    assert stats.chisquare(counts).pvalue > RARELY
    # The power of this: one permutation of the six that comes 1 % too seldom would be seen.
    moved = counts[0] // 100
    counts[0] -= moved
    counts[1:] += moved // 5
    assert stats.chisquare(counts).pvalue < RARELY


def test_every_permutation_of_four_members_is_equally_frequent():
    counts = permutation_counts(4, 500_000, seed=18)
    assert counts.size == 24
    assert stats.chisquare(counts).pvalue > RARELY


@ALWAYS_THE_SAME
@given(
    members=st.integers(2, 9),
    slots=st.integers(1, 2),
    count=st.integers(1, 90),
    block=st.integers(4, 900),
    table=st.integers(2, 900),
    together=st.integers(1, 200),
)
def test_a_permutation_taken_in_pieces_is_that_of_the_definition(  # type: ignore[no-untyped-def]
    *, members, slots, count, block, table, together
):
    """Whatever the pieces: those of memory, of the cache, and the rows that are taken together."""
    offers = random_offers(members, slots, count)
    sizes = {"_BLOCK_BYTES": block, "_TABLE_BYTES": table, "_TOGETHER": together}
    with mock.patch.multiple(room, **sizes):
        found = bits(permute(offers, seed=5, exchange=3))
    drawn = philox.words(5, "permute", (members - 1) * count, index=3).reshape(members - 1, count)
    for last, words in zip(range(members - 1, 0, -1), drawn.tolist(), strict=True):
        for place, word in enumerate(words):
            partner = word * (last + 1) >> 64
            for slot in range(slots):
                one, other = offers[last][slot, place], offers[partner][slot, place]
                offers[last][slot, place], offers[partner][slot, place] = other, one
    assert np.array_equal(found, bits(offers))


def test_words_whose_low_half_matters_are_mapped_as_the_others():
    """Such a word is one in millions, so that no drawn one can be relied on to be one."""
    # 3 * high leaves one less than 2**32, to which the low half adds what is missing.
    word = (0x55555555 << 32) | 0xFFFFFFFF
    assert (word >> 32) * 3 & 0xFFFFFFFF == 0xFFFFFFFF
    drawn = np.array([[word, 5], [word + 1, 2**64 - 1]], dtype=np.uint64)
    bounds = np.array([[3], [2]], dtype=np.uint64)
    assert room._below(drawn, bounds).tolist() == [
        [each * bound >> 64 for each in row] for row, bound in zip(drawn.tolist(), (3, 2), strict=True)
    ]


def test_coordinates_are_permuted_independently_of_each_other():
    tags = tagged_offers(2, 1, 100_000)
    moved = permute(tags, seed=6, exchange=1)[0][0] != tags[0][0]
    together = np.mean(moved[:-1] == moved[1:])
    assert abs(together - 0.5) < 5 * 0.5 / np.sqrt(100_000)


# Averages


@ALWAYS_THE_SAME
@given(
    members=st.integers(2, 9),
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=18, max_size=18),
)
def test_an_average_conserves_the_sum_and_gives_all_the_same(members, values):
    offers = [np.roll(np.array(values, np.float32), member)[:6].reshape(2, 3) for member in range(members)]
    received = mix(offers, seed=0, exchange=1, config=ExchangeConfig(mix="average"))
    assert all(each.tobytes() == received[0].tobytes() for each in received)
    assert all(each.dtype == np.float32 for each in received)
    before = np.sum(np.stack(offers), axis=0, dtype=np.float64)
    after = np.sum(np.stack(received), axis=0, dtype=np.float64)
    # Each mean is off by at most half a unit in its last place; float64 adds a little of its own.
    size = np.abs(np.stack(offers)).max(axis=0).astype(np.float64)
    assert (np.abs(after - before) <= members * (np.spacing(np.abs(received[0])) / 2 + 1e-14 * size)).all()


@pytest.mark.parametrize("robust", ["none", "trimmed", "median"])
def test_a_robust_average_leaves_out_the_largest_and_the_smallest(robust):
    offers = [np.full((2, 3), value, np.float32) for value in (4.0, -1.0, 1003.0, 3.0, 6.0)]
    offers[0][1, 2] = 3.0
    config = ExchangeConfig(mix="average", robust=robust)
    received = mix(offers, seed=0, exchange=1, config=config)
    assert len(received) == 5 and all(each.dtype == np.float32 for each in received)
    expected = {"none": 203.0, "trimmed": 13 / 3, "median": 4.0}[robust]
    assert received[0][0].tolist() == [np.float32(expected)] * 3
    changed = {"none": 202.8, "trimmed": 4.0, "median": 3.0}[robust]
    assert received[0][1, 2] == np.float32(changed)


def test_a_robust_average_of_two_is_their_mean():
    offers = [np.full((1, 1), value, np.float32) for value in (1.0, 4.0)]
    assert average(offers, "median").tolist() == average(offers, "trimmed").tolist() == [[2.5]]


def test_an_average_of_the_largest_floats_does_not_overflow():
    largest = np.finfo(np.float32).max
    assert average([np.full((1, 2), largest, np.float32)] * 4).tolist() == [[float(largest)] * 2]


# All of them


@pytest.mark.parametrize("config", [*SHUFFLES, ExchangeConfig(mix="average")])
def test_the_offers_are_not_modified_and_may_be_read_only(config):
    offers = random_offers(4, 2, 50, seed=2) if config.mix == "shuffle" else tagged_offers(4, 2, 50)
    before = bits(offers).copy()
    for each in offers:
        each.flags.writeable = False
    mix(offers, seed=1, exchange=1, config=config)
    assert (bits(offers) == before).all()


@pytest.mark.parametrize("config", SHUFFLES)
def test_a_shuffle_is_a_function_of_seed_and_exchange(config):
    offers = tagged_offers(4, 1, 40)

    def shuffled(seed, exchange):
        return bits(mix(offers, seed=seed, exchange=exchange, config=config)).tobytes()

    assert shuffled(1, 1) == shuffled(1, 1)
    assert len({shuffled(seed, exchange) for seed in range(4) for exchange in range(1, 5)}) > 2
