"""Broken and hostile members stand out; honest ones do not."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wash_fl.protocol import distances, outliers
from wash_fl.protocol.distances import FLOOR, ratios
from wash_fl.protocol.outliers import EXACT, SAMPLE, find_outliers, suspicious
from wash_fl.protocol.parts import FEW, Parts, signs_of

FACTOR = 10.0
LARGEST = float(np.finfo(np.float32).max)


def honest(members=5, slots=1, count=200, *, apart=0.3, seed=1):
    """Offers as trained members make them: a common part, and so much of its size of their own."""
    draw = np.random.Generator(np.random.Philox(seed))
    common = draw.normal(0, 0.1, (slots, count))
    return {
        member: (common + draw.normal(0, 0.1 * apart, (slots, count))).astype(np.float32)
        for member in range(members)
    }


BROKEN = {
    "scaled by 100": lambda values, draw: values * 100,
    "scaled by -100": lambda values, draw: values * -100,
    "noise of 1000 sigma": lambda values, draw: draw.normal(0, 1000 * values.std(), values.shape),
    "one value of 1e30": lambda values, draw: np.where(np.arange(values.shape[1]) == 7, 1e30, values),
    "one value of -1e30 in the last slot": lambda values, draw: np.where(
        np.arange(values.size).reshape(values.shape) == values.size - 1, -1e30, values
    ),
    "all at the end of float32": lambda values, draw: np.full(values.shape, LARGEST),
    "both ends of float32": lambda values, draw: np.where(values > 0, LARGEST, -LARGEST),
    "shifted by 100": lambda values, draw: values + 100,
}


def break_(offers, member, how):
    draw = np.random.Generator(np.random.Philox(100 + member))
    return offers | {member: np.asarray(BROKEN[how](offers[member], draw), dtype=np.float32)}


# Who is caught


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("apart", [0.0, 0.01, 0.3, 3.0])
@pytest.mark.parametrize(("members", "slots", "count"), [(3, 1, 200), (4, 2, 20), (5, 1, 3000), (9, 3, 50)])
def test_one_broken_member_is_caught_and_nobody_else(how, apart, members, slots, count):
    for broken in (0, members // 2, members - 1):
        offers = break_(honest(members, slots, count, apart=apart), broken, how)
        assert list(find_outliers(offers, FACTOR)) == [broken]


@pytest.mark.parametrize("first", BROKEN)
@pytest.mark.parametrize("second", BROKEN)
def test_two_of_five_are_caught_however_they_are_broken(first, second):
    offers = break_(break_(honest(), 1, first), 4, second)
    assert sorted(find_outliers(offers, FACTOR)) == [1, 4]


@pytest.mark.parametrize("how", BROKEN)
def test_two_that_send_the_same_are_caught_among_five(how):
    offers = break_(honest(), 1, how)
    offers[4] = offers[1].copy()
    assert sorted(find_outliers(offers, FACTOR)) == [1, 4]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_coordinates_are_enough_for_what_is_far_beyond_all(count):
    offers = honest(count=count)
    offers[2] = offers[2] + np.float32(1e5)
    assert list(find_outliers(offers, FACTOR)) == [2]


def test_one_value_among_a_million_is_enough():
    """Looked at piece by piece, also in the last, shorter one."""
    offers = honest(3, 1, 1_000_003)
    for place in (0, 32_768, 1_000_002):
        offers[1][0, place], kept = 1e30, offers[1][0, place]
        assert list(find_outliers(offers, FACTOR)) == [1]
        offers[1][0, place] = kept
    assert find_outliers(offers, FACTOR) == {}


def test_the_worst_goes_first():
    offers = break_(break_(honest(), 3, "scaled by 100"), 0, "one value of 1e30")
    assert list(find_outliers(offers, FACTOR)) == [0, 3]


def test_the_reason_gives_the_figure_and_the_limit_on_one_line():
    reason = find_outliers(break_(honest(), 3, "shifted by 100"), FACTOR)[3]
    assert len(reason.splitlines()) == 1
    ratio = ratios(list(break_(honest(), 3, "shifted by 100").values()))[3, 0, 0]
    for part in (
        f"{ratio:.3g} times",
        "outlier-factor = 10",
        f"{FACTOR * FEW ** (1 / 200):.3g}",
        "200 coord",
    ):
        assert part in reason, reason


LAYERS = Parts(
    ("features", "bias", "head"), np.array([0, 4_000, 4_010, 4_100]), signs_of([(40, 100), (10,), (9, 10)])
)


def test_a_layer_that_is_broken_is_seen_among_all_that_is_not():
    offers = honest(5, 1, 4_100)
    turned = offers[2].copy()
    turned[:, 4_010:] *= -20
    assert find_outliers(offers | {2: turned}, 3.0) == {}
    found = find_outliers(offers | {2: turned}, 3.0, parts=LAYERS)
    assert list(found) == [2] and "at these 90 coordinates of head;" in found[2]
    assert find_outliers(offers, 1.5, parts=LAYERS) == {}


def test_a_part_has_the_ratio_that_it_has_alone_and_all_together_that_of_all():
    offers = list(honest(4, 2, 4_100, apart=0.7).values())
    found = ratios(offers, LAYERS)
    bounds = LAYERS.bounds
    for part, (begin, end) in enumerate(itertools.pairwise(bounds)):
        alone = ratios([offer[:, begin:end] for offer in offers])
        assert found[..., part] == pytest.approx(alone[..., 0], rel=1e-12)
    assert found[..., -1] == pytest.approx(ratios(offers)[..., -1], rel=1e-12)


@pytest.mark.parametrize("piece", [1, 7, 4_005, 10_000])
def test_a_part_that_is_looked_at_piece_by_piece_is_the_same(monkeypatch, piece):
    offers = list(honest(3, 2, 4_100).values())
    whole = ratios(offers, LAYERS)
    monkeypatch.setattr(distances, "_COLUMNS", piece)
    assert ratios(offers, LAYERS) == pytest.approx(whole, rel=1e-12)


# Who is not


@pytest.mark.parametrize("members", [0, 1, 2])
def test_of_two_nobody_can_say_which_is_wrong(members):
    offers = honest(members)
    if members:
        offers[0] = offers[0] * 1e6
    assert find_outliers(offers, FACTOR) == {}


def test_two_are_left_however_many_are_far_from_each_other():
    offers = {member: np.full((1, 50), 1000.0**member, np.float32) for member in range(7)}
    aside = find_outliers(offers, 1.5)
    assert len(aside) == 5 and 6 in aside


def test_a_factor_of_zero_allows_everything():
    assert find_outliers(break_(honest(), 1, "one value of 1e30"), 0.0) == {}


def test_an_exchange_without_coordinates_has_no_outlier():
    assert find_outliers(honest(count=0), FACTOR) == {}


def test_a_ratio_grows_with_the_distance_and_the_limit_is_the_factor():
    offers = honest(5, 1, 10_000, apart=0.1)
    away = np.random.Generator(np.random.Philox(9)).normal(size=(1, 10_000)).astype(np.float32)
    found = [
        ratios([*list(offers.values())[:4], offers[4] + np.float32(distance) * away])[4, 0, 0]
        for distance in (0, 0.1, 1, 2)
    ]
    assert found[0] < 0.2 and found == sorted(found)
    far = offers | {4: offers[4] + np.float32(2) * away}
    limit = FEW ** (1 / 10_000)
    assert list(find_outliers(far, found[3] / limit * 0.999)) == [4]
    assert find_outliers(far, found[3] / limit * 1.001) == {}


def test_members_that_are_still_equal_are_none_of_them_outliers():
    same = honest()[0]
    offers = {member: same.copy() for member in range(4)}
    assert (ratios(list(offers.values())) == 0).all()
    # One has made the smallest possible step, the others none.
    offers[2] = np.nextafter(same, np.float32(1))
    assert find_outliers(offers, FACTOR) == {}


def test_values_that_are_zero_for_all_but_one_are_no_measure():
    """The bias of a unit that only one member's data ever switch on."""
    offers = {member: np.zeros((1, 3), np.float32) for member in range(4)}
    offers[1][0] = [0.0, 0.2, 0.0]
    assert find_outliers(offers, FACTOR) == {}
    offers[1][0] = FLOOR * FACTOR * FEW * 10
    assert list(find_outliers(offers, FACTOR)) == [1]


def test_optimizer_state_is_measured_against_the_parameters_too():
    """One member's gradients are gone, as with data of one class, and another's are not."""
    offers = honest(slots=2)
    for member in offers:
        offers[member][1] *= 0.0 if member != 3 else 5.0
    assert find_outliers(offers, FACTOR) == {}
    offers[3][1] *= 1000
    assert list(find_outliers(offers, FACTOR)) == [3]


def test_nobody_is_set_aside_by_a_ratio_that_is_no_number():
    """Such values are refused long before; the rule does not make it worse."""
    offers = honest()
    offers[1][0, 3] = np.nan
    with np.errstate(invalid="ignore"):
        assert find_outliers(offers, FACTOR) == {}


# The screen of a large ensemble


LARGE = EXACT + 8


def by_the_rule_alone(offers, factor):
    """Return what the rule says, without the screen before it."""
    return find_outliers(offers, factor, len(offers))


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("apart", [0.0, 0.3, 3.0])
@pytest.mark.parametrize(("slots", "count"), [(1, 20), (3, 50), (2, 3000)])
def test_whoever_the_rule_sets_aside_the_screen_finds(how, apart, slots, count):
    offers = honest(LARGE, slots, count, apart=apart)
    assert not suspicious(list(offers.values()), FACTOR)
    for broken in (0, LARGE - 1):
        damaged = break_(offers, broken, how)
        found = find_outliers(damaged, FACTOR)
        assert list(found) == [broken] and found == by_the_rule_alone(damaged, FACTOR)


@pytest.mark.parametrize("how", BROKEN)
def test_a_large_minority_that_acts_together_is_found_behind_the_screen(how):
    offers = honest(LARGE)
    for member in range(0, LARGE, 3):
        offers = break_(offers, member, how)
    assert sorted(find_outliers(offers, FACTOR)) == list(range(0, LARGE, 3))


@given(
    cuts=st.lists(st.integers(1, 2 * SAMPLE - 1), max_size=20, unique=True),
    seed=st.integers(0, 2**32),
    slots=st.integers(1, 3),
    count=st.integers(1, 2 * SAMPLE),
    apart=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    exponents=st.lists(st.floats(-2, 6), max_size=6),
    factor=st.sampled_from([1.5, 5.0, FACTOR, 100.0]),
)
@settings(deadline=None, max_examples=150)
def test_screen_and_rule_together_say_what_the_rule_says(
    *, cuts, seed, slots, count, apart, exponents, factor
):
    """Whatever is added to some members' values, or to one of them."""
    offers = honest(LARGE, slots, count, apart=apart, seed=seed)
    draw = np.random.Generator(np.random.Philox(seed + 1))
    for exponent in exponents:
        member, place = int(draw.integers(LARGE)), int(draw.integers(2 * count))
        change = draw.normal(0, 10.0**exponent, (slots, count))
        if place < count:
            change[:, np.arange(count) != place] = 0.0
        offers[member] = (offers[member] + change).astype(np.float32)
    inner = sorted(each for each in cuts if each < count)
    parts = Parts(
        [str(each) for each in [0, *inner]],
        np.array([0, *inner, count]),
        np.zeros(len(inner) + 2, dtype=bool),
    )
    found = find_outliers(offers, factor, parts=parts)
    assert found == find_outliers(offers, factor, len(offers), parts)


def test_the_rule_is_not_asked_when_nobody_is_suspicious_nor_the_screen_in_a_small_ensemble(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("not asked")

    monkeypatch.setattr(outliers, "Distances", refuse)
    assert find_outliers(honest(EXACT + 1), FACTOR) == {}
    with pytest.raises(AssertionError, match="not asked"):
        find_outliers(honest(EXACT), FACTOR)
    with pytest.raises(AssertionError, match="not asked"):
        find_outliers(break_(honest(EXACT + 1), 5, "shifted by 100"), FACTOR)
    monkeypatch.undo()
    monkeypatch.setattr(outliers, "suspicious", refuse)
    assert list(find_outliers(break_(honest(EXACT), 5, "shifted by 100"), FACTOR)) == [5]


def test_tensors_of_unlike_size_do_not_mislead_the_screen():
    """A BatchNorm's ones among small weights: a twentieth of the columns hold nearly all there is."""
    ones = np.float32((np.arange(20_000) // 1_000) == 7)
    offers = {member: values * np.float32(0.1) + ones for member, values in honest(LARGE, 1, 20_000).items()}
    size = float(np.sqrt(np.square(offers[0]).mean()))
    limit = FACTOR * FEW ** (1 / 20_000)
    assert not suspicious(list(offers.values()), FACTOR)
    far = offers | {3: offers[3] + np.float32(1.2 * limit * size)}
    assert list(by_the_rule_alone(far, FACTOR)) == list(find_outliers(far, FACTOR)) == [3]


def test_the_sample_is_one_of_each_stratum_and_follows_from_every_members_values():
    offers = list(honest(LARGE, 1, 10_000).values())
    parts = Parts.one(10_000)
    sample, _ = outliers._sample(offers, parts)
    edges = np.arange(SAMPLE + 1) * 10_000 // SAMPLE
    assert ((edges[:-1] <= sample) & (sample < edges[1:])).all()
    assert (sample == outliers._sample(offers, parts)[0]).all()
    for member in (0, LARGE - 1):
        others = [*offers]
        others[member] = others[member] + np.float32(1e-6)
        assert (outliers._sample(others, parts)[0] != sample).mean() > 0.9
    few = [each[:, :SAMPLE] for each in offers]
    assert outliers._sample(few, Parts.one(SAMPLE))[0].tolist() == list(range(SAMPLE))


def test_the_median_is_that_of_numpy_to_the_bit():
    draw = np.random.Generator(np.random.Philox(5))
    for members in (3, 4, 5, 32, 33):
        values = draw.normal(size=(members, 2, 101))
        assert (distances.median_of(values) == np.median(values, axis=0)).all()


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_what_is_no_number_is_suspicious(strange):
    offers = list(honest(LARGE).values())
    offers[7][0, 3] = strange
    assert suspicious(offers, FACTOR)
    huge = [np.full((1, 50), LARGEST * (-1) ** member, np.float32) for member in range(LARGE)]
    assert suspicious(huge, FACTOR)


# Signs


def test_turned_signs_are_seen_though_they_are_near():
    for count in (64, 200, 4_000):
        offers = honest(4, 1, count)
        found = find_outliers(offers | {1: -offers[1]}, 3.0)
        assert list(found) == [1] and "with its signs turned" in found[1] and "0.25 is allowed" in found[1]


def test_a_layer_whose_signs_are_turned_is_seen_by_the_rule_and_behind_the_screen():
    for members in (4, LARGE):
        offers = honest(members, 1, 4_100)
        turned = offers[2].copy()
        turned[:, 4_010:] *= -1
        for exact in (EXACT, 0):
            found = find_outliers(offers | {2: turned}, 3.0, exact, LAYERS)
            assert list(found) == [2] and "coordinates of head" in found[2]


@pytest.mark.parametrize("apart", [0.0, 0.3, 1.0, 3.0])
def test_honest_members_are_not_taken_for_turned(apart):
    for seed in range(20):
        assert find_outliers(honest(4, 1, 64, apart=apart, seed=seed), FACTOR) == {}


def test_few_coordinates_and_what_has_no_signs_in_common_say_nothing_of_them():
    few = honest(4, 1, 63)
    assert find_outliers(few | {1: -few[1]}, 3.0) == {}
    many = honest(4, 1, 500)
    parts = Parts([""], np.array([0, 500]), np.array([False, False]))
    assert find_outliers(many | {1: -many[1]}, 3.0, parts=parts) == {}


def test_a_bias_may_go_where_its_members_data_are():
    """Seen where each of eight members has its own classes: a last BatchNorm's biases."""
    offers = honest(8, 1, 4_200)
    parts = Parts(("kernel", "bias"), np.array([0, 4_100, 4_200]), signs_of([(41, 100), (100,)]))
    turned = offers[3].copy()
    turned[:, 4_100:] *= -1
    assert find_outliers(offers | {3: turned}, 3.0, parts=parts) == {}
    kernel = offers[3].copy()
    kernel[:, :4_100] *= -1
    assert list(find_outliers(offers | {3: kernel}, 3.0, parts=parts)) == [3]
