"""BatchNorm statistics of members who may claim anything."""

import numpy as np
import pytest

from wash_fl.consensus.batchnorm import BatchNormStatistics, pool
from wash_fl.consensus.pooling import MOST_SHARE, pooled


def estimate(member, examples=100, mean=None):
    draw = np.random.Generator(np.random.Philox(member))
    result = draw.normal(0, 1, 6).astype(np.float32) if mean is None else np.full(6, mean, np.float32)
    return BatchNormStatistics({"norm": result}, {"norm": np.ones(6, np.float32)}, examples)


def test_honest_statistics_are_pooled_as_they_are():
    estimates = {member: estimate(member, 100 - member) for member in (2, 0, 1)}
    result, left_out = pooled(estimates, factor=3.0, most_examples=2048)
    estimates[0] = estimate(0, 99)  # the median one's
    expected = pool([estimates[member] for member in (0, 1, 2)])
    assert left_out == {} and result.examples == expected.examples == 99 + 99 + 98
    for name, each in result.buffers().items():
        assert each.tobytes() == expected.buffers()[name].tobytes()


def test_statistics_far_from_the_others_are_left_out():
    estimates = {member: estimate(member) for member in range(4)} | {3: estimate(3, 2**60, 1e6)}
    result, left_out = pooled(estimates, factor=3.0, most_examples=2048)
    assert list(left_out) == [3] and "times as far" in left_out[3]
    assert result.examples == 300


@pytest.mark.parametrize("claim", [2**60, 2049, 101])
def test_nobody_counts_for_more_than_what_is_plausible(claim):
    estimates = {member: estimate(member) for member in range(3)} | {3: estimate(3, claim)}
    result, _ = pooled(estimates, factor=0.0, most_examples=2048)
    assert result.examples == 300 + MOST_SHARE * 100
    result, _ = pooled(estimates, factor=0.0, most_examples=50)
    assert result.examples == 4 * 50


def test_one_alone_counts_for_what_it_has():
    result, left_out = pooled({5: estimate(5, 7)}, factor=3.0, most_examples=2048)
    assert (result.examples, left_out) == (7, {})


@pytest.mark.parametrize("members", [3, 4, 8])
def test_means_of_zero_are_no_estimate_where_the_others_agree(members):
    """Honest ones lie within twice what their spread makes usual, also where each has its own classes."""
    common = np.random.Generator(np.random.Philox(1)).normal(0, 0.5, 200)
    estimates = {}
    for member in range(members):
        own = np.random.Generator(np.random.Philox(member + 5)).normal(0, 0.02, 200)
        mean = (common + own).astype(np.float32)
        estimates[member] = BatchNormStatistics({"norm": mean}, {"norm": np.ones(200, np.float32)}, 100)
    assert pooled(estimates, factor=3.0, most_examples=2048)[1] == {}
    liar = estimates[1]
    estimates[1] = BatchNormStatistics({"norm": 0 * liar.mean["norm"]}, liar.variance, 2**60)
    assert list(pooled(estimates, factor=3.0, most_examples=2048)[1]) == [1]
