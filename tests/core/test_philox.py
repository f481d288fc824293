"""Tests of stateless randomness: words are a function of what they are for. Golden vectors say which."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from wash_fl.core.philox import below, order, seed_of, stream, words

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=200)

WORDS = st.integers(0, 2**64 - 1)


@ALWAYS_THE_SAME
@example(word=2**33 - 1, bound=2**32 - 1)  # a carry from the product's lower half
@example(word=2**64 - 1, bound=2**32 - 1)
@given(word=WORDS, bound=st.integers(1, 2**32 - 1))
def test_below_is_the_high_word_of_the_product(word, bound):
    found = below(np.array([word], np.uint64), np.uint64(bound))
    assert found.dtype == np.uint64
    assert found.tolist() == [word * bound >> 64]


@ALWAYS_THE_SAME
@given(seed=WORDS, index=WORDS, count=st.integers(0, 40), more=st.integers(0, 40))
def test_fewer_words_are_the_beginning_of_more(seed, index, count, more):
    assert (
        words(seed, "test", count + more, index=index)[:count].tolist()
        == words(seed, "test", count, index=index).tolist()
    )


def test_a_stream_gives_its_words_piece_by_piece():
    pieces = stream(3, "test", index=2, member=1)
    drawn = [*pieces.random_raw(3), *pieces.random_raw(1), *pieces.random_raw(7)]
    assert [int(each) for each in drawn] == words(3, "test", 11, index=2, member=1).tolist()


def test_streams_of_another_seed_purpose_index_or_member_share_no_word():
    streams = [
        words(seed, purpose, 50, index=index, member=member).tolist()
        for seed in (0, 1, 2**64 - 1)
        for purpose in ("a", "b", "ab", "coords", "matching")
        for index in (0, 1, 2, 2**63)
        for member in (0, 1, 2)
    ]
    assert len({word for each in streams for word in each}) == 50 * len(streams)


@pytest.mark.parametrize("purpose", ["", "ninechars"])
def test_a_purpose_has_one_to_eight_characters(purpose):
    with pytest.raises(AssertionError):
        words(0, purpose, 1)


def test_an_order_is_a_permutation_and_every_one_is_equally_frequent():
    found = [tuple(order(4, "test", 4, index=index).tolist()) for index in range(12_000)]
    counts = np.unique([int("".join(map(str, each))) for each in found], return_counts=True)[1]
    assert all(sorted(each) == [0, 1, 2, 3] for each in set(found))
    assert counts.size == 24
    assert stats.chisquare(counts).pvalue > 1e-4


def test_integers_below_a_bound_are_equally_frequent():
    counts = np.bincount(below(words(1, "test", 700_000), np.uint64(7)).astype(np.int64))
    assert counts.size == 7
    assert stats.chisquare(counts).pvalue > 1e-4


def test_seeds_for_libraries_fit_in_63_bits_and_differ():
    seeds = [seed_of(1, "init", index=index) for index in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 1000
    assert max(seeds) > 2**62
