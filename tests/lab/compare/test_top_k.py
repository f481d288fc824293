"""Top-k: the largest of each chunk in two bits, counted to the bit, and nothing that is left out is lost."""

import numpy as np
import pytest

from wash_fl.config import RunConfig
from wash_fl.core.layout import layout_of
from wash_fl.core.packet import packet_size
from wash_fl.errors import ConfigError
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.methods.feedback import Sender
from wash_fl.lab.compare.methods.top_k import CHUNK, DECAY, LargestOfChunks, TopK, TopKKnobs, two_bits
from wash_fl.lab.compare.post import Post

OPTIONS = {"members": 3, "rounds": 3, "local-steps": 4, "batch-size": 8}
LAYOUT = layout_of([("weight", (CHUNK + 100,)), ("bias", (10,))])


def drawn(seed):
    return np.random.default_rng(seed).normal(size=LAYOUT.size).astype(np.float32)


def test_of_each_chunk_the_largest_arrive_and_nothing_else():
    values = drawn(1)
    arrived = LargestOfChunks(LAYOUT, 0.05)(values)
    edges = [0, CHUNK, CHUNK + 100, CHUNK + 110]
    for start, end, count in zip(edges[:-1], edges[1:], (205, 5, 1), strict=True):
        chunk, there = np.abs(values[start:end]), arrived[start:end] != 0
        assert there.sum() == count
        assert chunk[there].min() >= chunk[~there].max()
    assert np.array_equal(np.sign(arrived[arrived != 0]), np.sign(values[arrived != 0]))


def test_the_bytes_are_signs_magnitudes_and_places():
    # 205 of 4096 take 12 bits for their place, 5 of 100 take 7, 1 of 10 takes 4.
    bits = 2 * (205 + 5 + 1) + 205 * 12 + 5 * 7 + 4
    assert LargestOfChunks(LAYOUT, 0.05).payload == 3 * 4 + -(-bits // 8)
    # All of them need no places but one bit each.
    assert LargestOfChunks(LAYOUT, 1.0).payload == 3 * 4 + -(-3 * LAYOUT.size // 8)


def test_two_bits_are_a_sign_and_the_nearer_of_two_means():
    values = np.array([1.0, -1.25, 8.0, -0.75, -10.0], dtype=np.float32)
    assert two_bits(values).tolist() == [1.0, -1.0, 9.0, -1.0, -9.0]
    assert two_bits(np.zeros(3, dtype=np.float32)).tolist() == [0.0, 0.0, 0.0]
    assert two_bits(np.array([-3.0], dtype=np.float32)).tolist() == [-3.0]
    many = drawn(2)
    assert len(np.unique(np.abs(two_bits(many)))) == 2
    # A normal distribution's best four levels leave 0.1175 of its variance (Max 1960).
    assert 0.11 < np.mean((many - two_bits(many)) ** 2) / np.mean(many**2) < 0.125


@pytest.mark.parametrize("decay", [1.0, DECAY])
def test_what_was_sent_and_what_is_kept_are_the_differences_and_what_was_kept(decay):
    sender = Sender(LAYOUT.size, LargestOfChunks(LAYOUT, 0.1), decay)
    whole = np.zeros(LAYOUT.size)
    for number in range(10):
        difference, before = drawn(number), sender.kept
        sent = sender.send(difference)
        np.testing.assert_allclose(sent + sender.kept, decay * before + difference, atol=1e-5)
        whole = decay * whole + difference - sent
    np.testing.assert_allclose(sender.kept, whole, atol=1e-4)


def test_members_agree_and_each_packet_is_counted(make_task):
    config, knobs = METHODS["top-k"].settings({**OPTIONS, "top": 0.2})
    post = Post(config)
    cohort = METHODS["top-k"].make(config, make_task(), 0.0, post, knobs)
    assert isinstance(cohort, TopK) and cohort.decay < 1
    start = cohort.agreed.model
    for number in range(1, 4):
        cohort.round(number)
        assert all(np.array_equal(each.parameters(), cohort.agreed.model) for each in cohort.members)
    assert 0 < np.count_nonzero(cohort.agreed.model - start) < cohort.layout.size
    counted = post.per_member(3)
    assert counted["up_values"] == counted["down_values"] == 3 * cohort.payload
    assert counted["up_packets"] == 3 * packet_size(cohort.layout, cohort.payload)


def test_no_part_and_more_than_all_are_refused(refused):
    for top in (0.0, 1.5):
        with refused(ConfigError, f"top = {top}", "above 0 and at most 1"):
            TopKKnobs(top=top)
    assert RunConfig.from_mapping({"recipe": "none", **OPTIONS}) == METHODS["top-k"].config(OPTIONS)
