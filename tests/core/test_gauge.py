"""Tests of the gauge: the distance between members, from the slices that pass through the escrow."""

import math

import numpy as np
import pytest

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.gauge import SEEN, Gauge, measure
from wash_fl.core.layout import layout_of
from wash_fl.core.schedule import Schedule

LAYOUT = layout_of([("early", (40,)), ("middle", (3, 5)), ("late", (7,))])
EXCHANGES = 3000


def draw_with(**options):
    return Draw(3, LAYOUT, Schedule(ExchangeConfig(**({"schedule": "decreasing"} | options))))


def random_members(count, seed=1):
    """Return members whose distance differs from place to place, so that a biased sample would show."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(0.1, 4.0, LAYOUT.size)
    members = rng.standard_normal((count, LAYOUT.size)) * scale + np.linspace(-3, 3, LAYOUT.size)
    return members.astype(np.float32)


def parts(vector):
    return {
        tensor.name: vector[..., offset : offset + tensor.size].astype(np.float64)
        for tensor, offset in zip(LAYOUT.tensors, LAYOUT.offsets, strict=True)
    }


def exact_squared_distance(members):
    """Return the mean over pairs of members of the squared distance, per tensor."""
    return {
        name: np.mean(
            [
                np.square(part[one] - part[two]).sum()
                for one in range(len(members))
                for two in range(one + 1, len(members))
            ]
        )
        for name, part in parts(members).items()
    }


def estimates(members, draw, exchanges=EXCHANGES):
    """Return the gauge of each exchange; the members do not move."""
    found = []
    for exchange in range(1, exchanges + 1):
        coordinates = draw.coordinates(exchange)
        found.append(measure(LAYOUT, coordinates, [member[None, coordinates] for member in members]))
    return found


def standard_errors_off(sample, exact):
    return abs(np.mean(sample) - exact) / (np.std(sample) / math.sqrt(len(sample)))


@pytest.mark.parametrize("members", [2, 5])
def test_the_distance_is_unbiased_in_every_tensor(members):
    fleet = random_members(members)
    found = estimates(fleet, draw_with(p=0.3, schedule="constant"))
    for name, exact in exact_squared_distance(fleet).items():
        sample = [each.squared_distance[name] for each in found if name in each.squared_distance]
        assert len(sample) > 0.9 * EXCHANGES
        assert standard_errors_off(sample, exact) < 4
        # The power of this: the biased variance, over N instead of N - 1, would be seen.
        assert standard_errors_off(np.array(sample) * (members - 1) / members, exact) > 6


def test_the_norm_of_the_members_mean_is_unbiased_in_every_tensor():
    fleet = random_members(4)
    found = estimates(fleet, draw_with(p=0.3, schedule="constant"))
    for name, part in parts(fleet.astype(np.float64).mean(axis=0)).items():
        sample = [each.squared_norm[name] for each in found if name in each.squared_norm]
        assert standard_errors_off(sample, np.square(part).sum()) < 4


def test_with_all_coordinates_the_distance_is_exact():
    fleet = random_members(3)
    gauge = estimates(fleet, draw_with(p=1.0, schedule="constant"), exchanges=1)[0]
    exact = exact_squared_distance(fleet)
    assert gauge.squared_distance == pytest.approx(exact)
    assert gauge.distance == pytest.approx(math.sqrt(sum(exact.values())))
    assert gauge.by_tensor() == pytest.approx({name: math.sqrt(each) for name, each in exact.items()})
    norm = np.linalg.norm(fleet.astype(np.float64).mean(axis=0))
    assert gauge.relative == pytest.approx(gauge.distance / norm)


def test_tensors_are_in_depth_order_and_those_without_a_sample_are_left_out():
    fleet = random_members(3)
    # The paper's schedule has probability 0 in the last tensor.
    gauge = estimates(fleet, draw_with(p=1.0, schedule="decreasing"), exchanges=1)[0]
    assert list(gauge.by_tensor()) == ["early", "middle"]
    assert list(gauge.squared_norm) == ["early", "middle"]
    none = measure(LAYOUT, np.empty(0, np.int64), [np.empty((1, 0), np.float32)] * 3)
    assert none == Gauge({}, {})
    assert (none.distance, none.relative) == (0.0, 0.0)


def test_equal_members_are_at_distance_zero_and_members_of_zeros_do_not_divide_by_zero():
    same = np.repeat(random_members(1), 3, axis=0)
    assert estimates(same, draw_with(p=0.5), exchanges=1)[0].distance == 0.0
    zeros = np.zeros((3, LAYOUT.size), np.float32)
    assert estimates(zeros, draw_with(p=0.5), exchanges=1)[0].relative == 0.0


def test_only_the_first_slot_is_looked_at():
    fleet = random_members(2)
    coordinates = draw_with(p=0.5).coordinates(1)
    plain = [member[None, coordinates] for member in fleet]
    more = [np.stack([offer[0], np.full_like(offer[0], 99.0 * n)]) for n, offer in enumerate(plain)]
    assert measure(LAYOUT, coordinates, more) == measure(LAYOUT, coordinates, plain)


def test_large_values_do_not_overflow():
    fleet = np.full((2, LAYOUT.size), 3e38, np.float32)
    fleet[1] *= -1
    gauge = estimates(fleet, draw_with(p=1.0, schedule="constant"), exchanges=1)[0]
    assert gauge.distance == pytest.approx(6e38 * math.sqrt(LAYOUT.size), rel=1e-6)


def test_of_a_large_ensemble_some_evenly_spread_are_looked_at():
    fleet = random_members(3 * SEEN + 5)
    draw = draw_with(p=1.0, schedule="constant")
    found = estimates(fleet, draw, exchanges=1)[0]
    places = [len(fleet) * number // SEEN for number in range(SEEN)]
    assert np.diff(places).min() >= 3 and places[-1] >= len(fleet) - 4
    assert found == estimates(fleet[places], draw, exchanges=1)[0]
    assert found.squared_distance == pytest.approx(exact_squared_distance(fleet), rel=0.3)
    fewer = fleet[:SEEN]
    assert estimates(fewer, draw, exchanges=1)[0].squared_distance == pytest.approx(
        exact_squared_distance(fewer)
    )
