"""Tests of the coordinates of an exchange: what they are, how probable each is, and what drawing costs."""

import functools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wash_fl.config import ExchangeConfig
from wash_fl.core import philox
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.schedule import Schedule

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=150)

SEEDS = st.integers(0, 2**63 - 1)
EXCHANGES = st.integers(1, 10_000)
SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=6)
P = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-9, 1.0 - 1e-9]), st.floats(0, 1))
SCHEDULES = st.sampled_from(["decreasing", "constant", "increasing", "size-aware"])


def layout_with(sizes):
    return layout_of([(f"tensor{number}", (size,)) for number, size in enumerate(sizes)])


def draw_of(sizes, p, *, seed=0, schedule="constant", length=1):
    config = ExchangeConfig(p=p, mix="shuffle", schedule=schedule, run_length=length)
    return Draw(seed, layout_with(sizes), Schedule(config))


def counts_of(draw, coordinates):
    return np.diff(draw.layout.boundaries(coordinates))


# What they are


@ALWAYS_THE_SAME
@given(seed=SEEDS, exchange=EXCHANGES, sizes=SIZES, p=P, schedule=SCHEDULES)
def test_coordinates_are_distinct_sorted_in_range_and_as_many_as_count_says(
    seed, exchange, sizes, p, schedule
):
    draw = draw_of(sizes, p, seed=seed, schedule=schedule)
    coordinates = draw.coordinates(exchange)
    assert coordinates.dtype == np.int64
    assert coordinates.shape == (draw.count(exchange),)
    assert (np.diff(coordinates) > 0).all()
    assert ((coordinates >= 0) & (coordinates < sum(sizes))).all()


@ALWAYS_THE_SAME
@given(seed=SEEDS, exchange=EXCHANGES, sizes=SIZES, p=P, schedule=SCHEDULES)
def test_each_tensor_has_floor_or_floor_plus_one_of_its_expected_count(seed, exchange, sizes, p, schedule):
    draw = draw_of(sizes, p, seed=seed, schedule=schedule)
    fixed_point = draw.schedule.fixed_point(draw.layout, exchange).tolist()
    counts = counts_of(draw, draw.coordinates(exchange)).tolist()
    for count, probability, size in zip(counts, fixed_point, sizes, strict=True):
        whole, part = divmod(probability * size, 2**32)
        assert count in ({whole, whole + 1} if part else {whole})


@ALWAYS_THE_SAME
@given(seed=SEEDS, exchange=EXCHANGES, sizes=SIZES)
def test_p_zero_selects_nothing_and_p_one_everything(seed, exchange, sizes):
    nothing, everything = draw_of(sizes, 0.0, seed=seed), draw_of(sizes, 1.0, seed=seed)
    assert nothing.coordinates(exchange).tolist() == []
    assert nothing.count(exchange) == 0
    assert everything.coordinates(exchange).tolist() == list(range(sum(sizes)))


def test_a_single_tensor_of_one_element_is_in_or_out():
    draw = draw_of([1], 0.25)
    drawn = [draw.coordinates(exchange).tolist() for exchange in range(1, 401)]
    assert {tuple(each) for each in drawn} == {(), (0,)}
    assert 60 < drawn.count([0]) < 140


def test_the_count_is_rounded_up_as_often_as_its_fraction_says():
    # 0.3 * 9 = 2.7: three in 70 of 100 exchanges. 4000 tensors of 10 exchanges, 5 standard errors.
    draw = draw_of([9] * 4000, 0.3)
    counts = np.concatenate([counts_of(draw, draw.coordinates(exchange)) for exchange in range(1, 11)])
    assert set(counts.tolist()) == {2, 3}
    assert abs((counts == 3).mean() - 0.7) < 5 * np.sqrt(0.7 * 0.3 / counts.size)


def test_one_more_is_drawn_if_the_word_is_below_the_fraction_and_not_if_it_is_equal(monkeypatch):
    # 0.25 * 3 is 0 and a fraction of 3 * 2**30; the lower half of the word does not count.
    fraction = 3 * 2**30
    for word, expected in [
        (fraction << 32, 0),
        (((fraction - 1) << 32) + 2**32 - 1, 1),
        (2**64 - 1, 0),
        (0, 1),
    ]:
        header = np.array([word, 0, 0], dtype=np.uint64)
        monkeypatch.setattr(philox, "words", lambda seed, purpose, count, index, at=header: at[:count])
        draw = draw_of([3], 0.25)
        assert draw.count(1) == draw.coordinates(1).size == expected
    # A fraction of 0 is never exceeded by a word of 0.
    assert draw_of([3], 0.0).count(1) == 0
    assert draw_of([3], 1.0).count(1) == 3


# In runs

LENGTHS = (16, 64)
AROUND = (15, 16, 17, 255, 256, 257, 260, 700, 4095, 4096, 4097, 4100, 9000)
"""Sizes around those from which on tensors are drawn in runs of 16 and 64 values."""


def cut(size, length):
    """Return the runs of a tensor as lists of its elements."""
    length = length if size >= length * length else 1
    return [range(first, min(first + length, size)) for first in range(0, size, length)]


@pytest.mark.parametrize("length", LENGTHS)
@ALWAYS_THE_SAME
@given(
    seed=SEEDS,
    exchange=EXCHANGES,
    sizes=st.lists(st.sampled_from(AROUND) | st.integers(1, 9000), min_size=1, max_size=5),
    p=P,
)
def test_runs_are_drawn_whole_distinct_sorted_and_as_many_as_count_says(length, seed, exchange, sizes, p):
    schedule = ("decreasing", "constant", "increasing", "size-aware")[seed % 4]
    draw = draw_of(sizes, p, seed=seed, schedule=schedule, length=length)
    # Another one has drawn nothing when it is asked.
    assert draw_of(sizes, p, seed=seed, schedule=schedule, length=length).count(exchange) == draw.count(
        exchange
    )
    coordinates = draw.coordinates(exchange)
    assert coordinates.dtype == np.int64 and not coordinates.flags.writeable
    assert coordinates.shape == (draw.count(exchange),)
    assert (np.diff(coordinates) > 0).all()
    probabilities = draw.schedule.fixed_point(draw.layout, exchange).tolist()
    for offset, size, probability in zip(draw.layout.offsets.tolist(), sizes, probabilities, strict=True):
        here = set(coordinates[(coordinates >= offset) & (coordinates < offset + size)].tolist())
        runs = cut(size, length)
        hit = [run for run in runs if offset + run[0] in here]
        assert here == {offset + element for run in hit for element in run}
        whole, part = divmod(probability * len(runs), 2**32)
        assert len(hit) in ({whole, whole + 1} if part else {whole})


@pytest.mark.parametrize("length", LENGTHS)
def test_a_tensor_that_is_too_small_for_runs_is_drawn_as_without(length):
    sizes = [length * length - 1, 5, length * length]
    without = draw_of(sizes, 0.3, seed=4).selection(1)
    within = draw_of(sizes, 0.3, seed=4, length=length).selection(1)
    small = without.parts[1].end
    assert within.coordinates[:small].tolist() == without.coordinates[:small].tolist()
    assert [part.length for part in within.parts] == [1, 1, length]


@pytest.mark.parametrize("size", [256, 257, 271, 272, 300])
@pytest.mark.parametrize("p", [0.13, 0.3, 0.77])
def test_over_all_rotations_every_coordinate_is_selected_exactly_as_often(monkeypatch, size, p):
    runs = len(cut(size, 16))
    drawn = philox.words(3, "strata", runs)
    selected = np.zeros(size, dtype=int)
    counts = set()
    for rotation in range(runs):
        # The least word that is rotated by so many runs; the first decides that there is not one more.
        header = [2**64 - 1, -(-rotation * 2**64 // runs)]
        stream = np.array([*header, *drawn.tolist()], dtype=np.uint64)
        monkeypatch.setattr(philox, "words", lambda *args, index, at=stream: at[: args[2]])
        selection = draw_of([size], p, length=16).selection(1)
        selected[selection.coordinates] += 1
        counts.add(selection.parts[0].runs.size)
    assert len(counts) == 1
    assert set(selected.tolist()) == counts


@pytest.mark.parametrize(("size", "p"), [(16 * 17, 0.3), (16 * 16 + 5, 0.25), (16 * 20 + 1, 0.05)])
def test_every_run_is_selected_with_exactly_its_probability(size, p):
    # A column is a run; what a run has is selected with it, as is shown above.
    runs = len(cut(size, 16))
    draw = draw_of([size] * 100, p, seed=12, length=16)
    chosen = np.zeros((2000, 100 * runs), dtype=bool)
    for exchange, row in enumerate(chosen, start=1):
        selection = draw.selection(exchange)
        for part in selection.parts:
            row[part.tensor * runs + part.runs] = True
    assert suspicions(chosen.reshape(-1, runs), p) == []


@pytest.mark.parametrize("length", LENGTHS)
def test_of_each_run_only_one_word_is_needed(monkeypatch, length):
    used = []
    original = philox.words

    def counting(seed, purpose, count, *, index=0, member=0):
        used.append(count)
        return original(seed, purpose, count, index=index, member=member)

    monkeypatch.setattr(philox, "words", counting)
    selection = draw_of([1_000_000], 0.01, length=length).selection(1)
    assert 9_000 < selection.count < 11_000
    assert max(used) <= 2 + 10_000 / length + 1


def test_any_number_of_an_exchange_that_fits_in_a_packet_can_be_drawn():
    draw = draw_of([5003], 0.3, length=16)
    alone = draw.selection(2**64 - 1).coordinates.tolist()
    assert alone and draw.count(2**64 - 1) == len(alone)


def test_exchanges_that_are_drawn_together_are_drawn_as_alone():
    together = draw_of([5003, 300, 7, 4096], 0.1, seed=9, length=16, schedule="size-aware")
    forward = [together.coordinates(number).tolist() for number in range(1, 60)]
    for number in (58, 3, 17, 1, 16):
        alone = draw_of([5003, 300, 7, 4096], 0.1, seed=9, length=16, schedule="size-aware")
        assert alone.coordinates(number).tolist() == forward[number - 1]
        assert alone.count(number + 1) == len(forward[number])


# A pure function


def test_coordinates_depend_on_nothing_that_was_drawn_before():
    first, second = draw_of([50, 3], 0.3, seed=5), draw_of([50, 3], 0.3, seed=5)
    forward = [first.coordinates(exchange).tolist() for exchange in range(1, 6)]
    np.random.seed(1)  # noqa: NPY002 (numpy's global state must not matter either)
    backward = [second.coordinates(exchange).tolist() for exchange in range(5, 0, -1)]
    assert forward == backward[::-1]
    assert forward == [first.coordinates(exchange).tolist() for exchange in range(1, 6)]


def test_another_exchange_or_seed_draws_other_coordinates():
    drawn = [
        tuple(draw_of([1000], 0.1, seed=seed).coordinates(exchange).tolist())
        for seed in (0, 1, 2, 2**32, 2**63 - 1)
        for exchange in (1, 2, 3, 2**32)
    ]
    assert len(set(drawn)) == len(drawn)


def test_names_and_slots_do_not_matter_but_sizes_do():
    config = Schedule(ExchangeConfig(p=0.2, mix="shuffle", schedule="constant"))
    plain = Draw(3, layout_of([("a", (20,)), ("b", (30,))]), config).coordinates(1).tolist()
    renamed = Draw(3, layout_of([("x", (4, 5)), ("y", (30,))], ("parameter", "m")), config)
    assert renamed.coordinates(1).tolist() == plain
    assert Draw(3, layout_of([("a", (21,)), ("b", (29,))]), config).coordinates(1).tolist() != plain


# How probable each is
#
# Which coordinates of one tensor are drawn together is correlated (strata), so that a plain chi-square over
# them would be wrong. Draws of different tensors and exchanges are independent: a row of ``chosen`` is one
# draw of one tensor, a column one place in it, and all that follows is over independent rows.

LIMIT = 4.8  # standard errors: by chance one in 600,000 checks is beyond


@functools.cache
def drawn_rows(size, p, rows):
    """Return what wash_fl draws from ``rows`` tensors of a size, shape (rows, size), True where selected."""
    tensors = min(rows, 2500)
    draw = draw_of([size] * tensors, p, seed=11)
    chosen = np.zeros((rows // tensors, tensors * size), dtype=bool)
    for exchange, row in enumerate(chosen, start=1):
        row[draw.coordinates(exchange)] = True
    chosen.flags.writeable = False
    return chosen.reshape(-1, size)


def suspicions(chosen, p):
    """Return what speaks against every place being selected with probability p, independently by row."""
    rows, size = chosen.shape
    p = int(p * 2**32 + 0.5) / 2**32
    error = np.sqrt(p * (1 - p) / rows)
    frequency = chosen.mean(axis=0)
    found = [
        f"place {place} of {size}: {frequency[place]:.5f} instead of {p:.5f}"
        for place in np.flatnonzero(np.abs(frequency - p) > LIMIT * error)
    ]
    for name, places in classes(size, p).items():
        each = chosen[:, places].sum(axis=1)
        off = each.mean() - p * len(places)
        # A count that never varies, as over a whole tensor with a whole expected count, must be exact.
        if abs(off) > LIMIT * each.std() / np.sqrt(rows) + 1e-6:
            found.append(f"{name}: off by {off / (p * len(places)):+.2%}")
    if size > 100:
        return found
    # Chi-square over all places together, with their covariance as observed.
    off = frequency - p
    covariance = np.cov(chosen, rowvar=False).reshape(size, size)
    freedom = int(np.linalg.matrix_rank(covariance, hermitian=True, tol=1e-6))
    statistic = rows * off @ np.linalg.pinv(covariance, rcond=1e-5, hermitian=True) @ off
    if stats.chi2.sf(statistic, freedom) < 1e-6:
        found.append(f"chi-square {statistic:.0f} with {freedom} degrees of freedom")
    return found


def classes(size, p):
    """Return places that an error in the strata, the rotation or the ends of a tensor would favour."""
    count = max(1, int(p * size))
    start = np.arange(count) * size // count
    end = (np.arange(count) + 1) * size // count
    part = max(1, size // 20)
    return {
        "beginning": np.arange(part),
        "middle": np.arange(part) + (size - part) // 2,
        "end": np.arange(size - part, size),
        "first half": np.arange((size + 1) // 2),
        "even places": np.arange(0, size, 2),
        "starts of strata": np.unique(start),
        "ends of strata": np.unique(end - 1),
        "all": np.arange(size),
    }


# Rows are as many as show 2 % with certainty: a place's bias then is 8 standard errors.
CASES = [(1, 0.3), (2, 0.5), (3, 0.4), (7, 0.3), (10, 0.25), (10, 0.3), (13, 0.77), (16, 0.25)]
ROWS = 400_000


@pytest.mark.parametrize(("size", "p"), CASES)
def test_every_coordinate_is_selected_with_exactly_its_probability(size, p):
    assert suspicions(drawn_rows(size, p, ROWS), p) == []


def test_no_part_of_a_larger_tensor_is_favoured():
    # 997 is prime: no number of strata divides it.
    assert suspicions(drawn_rows(997, 0.0501, 25_000), 0.0501) == []


def test_the_tensors_of_a_layout_are_alike_in_probability_and_independent():
    sizes = [3, 1, 8, 5]
    draw = draw_of(sizes, 0.4, seed=21)
    rows = 8000
    chosen = np.zeros((rows, sum(sizes)), dtype=bool)
    for exchange, row in enumerate(chosen, start=1):
        row[draw.coordinates(exchange)] = True
    assert suspicions(chosen, 0.4) == []
    tensor = np.repeat(np.arange(len(sizes)), sizes)
    apart = tensor[:, None] != tensor[None, :]
    error = 0.4 * 0.6 / np.sqrt(rows)
    within_an_exchange = np.cov(chosen, rowvar=False)[apart]
    assert np.abs(within_an_exchange).max() < LIMIT * error
    one, next_one = chosen[:-1] - 0.4, chosen[1:] - 0.4
    between_exchanges = one.T @ next_one / (rows - 1)
    assert np.abs(between_exchanges).max() < LIMIT * error


def biased_by(chosen, places, share, *, seed=1):
    """Move ``share`` of the selections of some places to others: they are selected that much less often."""
    rng = np.random.default_rng(seed)
    biased = chosen.copy()
    for place in places:
        rows = np.flatnonzero(chosen[:, place] & (rng.random(len(chosen)) < share))
        others = np.delete(np.arange(chosen.shape[1]), places)
        target = rng.choice(others, rows.size)
        free = ~biased[rows, target]
        biased[rows[free], place] = False
        biased[rows[free], target[free]] = True
    return biased


@pytest.mark.parametrize(
    "places",
    [[0], [9], [5], [0, 3, 6], [2, 5, 9]],
    ids=["first", "last", "middle", "starts of strata", "ends of strata"],
)
def test_the_check_would_see_a_bias_of_two_percent(places):
    chosen = drawn_rows(10, 0.3, ROWS)
    # A selection moves only if its target is free, so a little more than 2 % must try.
    biased = biased_by(chosen, places, 0.0285)
    actual = biased[:, places].mean() / chosen[:, places].mean() - 1
    assert -0.023 < actual < -0.017
    assert biased.sum() == chosen.sum()
    assert suspicions(biased, 0.3) != []


def own_sampler(size, p, rows, *, rotation="full", rounding="random"):
    """Draw as wash_fl does, with numpy's own generator and a mistake to choose."""
    rng = np.random.default_rng(3)
    chosen = np.zeros((rows, size), dtype=bool)
    whole = int(p * size)
    count = whole + (rng.random(rows) < p * size - whole)
    if rounding == "nearest":
        count = np.full(rows, int(p * size + 0.5))
    turn = rng.integers(0, {"full": size, "none": 1, "short": size - 1}[rotation], rows)
    for stratum in range(count.max()):
        drawn = np.flatnonzero(stratum < count)
        start, end = stratum * size // count[drawn], (stratum + 1) * size // count[drawn]
        chosen[drawn, (rng.integers(start, end) + turn[drawn]) % size] = True
    return chosen


def test_the_check_accepts_a_sampler_without_a_mistake():
    assert suspicions(own_sampler(10, 0.3, ROWS), 0.3) == []


@pytest.mark.parametrize(
    ("p", "mistake"),
    [
        (0.3, {"rotation": "none"}),
        (0.3, {"rotation": "short"}),
        (0.25, {"rotation": "none"}),
        (0.245, {"rounding": "nearest"}),
    ],
    ids=str,
)
def test_the_check_would_see_a_mistake_in_the_sampler(p, mistake):
    assert suspicions(own_sampler(10, p, ROWS, **mistake), p) != []


# What it costs


def test_the_random_words_used_do_not_depend_on_the_number_of_parameters(monkeypatch):
    original = philox.words
    used = []

    def counting(seed, purpose, count, *, index=0, member=0):
        used.append(count)
        return original(seed, purpose, count, index=index, member=member)

    monkeypatch.setattr(philox, "words", counting)
    per_size = []
    for size in (10_000, 1_000_000, 100_000_000):
        used.clear()
        draw = draw_of([size, size], 500 / size)
        # A header of two words per tensor, once to count; then all, one word per coordinate.
        assert draw.coordinates(1).size <= 1002
        per_size.append(sum(used))
    assert max(per_size) <= 2 * (2 * 2) + 1002
    assert max(per_size) - min(per_size) <= 2


def test_no_array_of_the_size_of_the_layout_is_allocated():
    size = 100_000_000
    draw = draw_of([size // 2, size // 2], 1000 / size)
    draw.coordinates(1)
    tracemalloc.start()
    try:
        assert 998 <= draw.coordinates(2).size <= 1002
        draw.count(3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A hundred words per coordinate would still pass; one bit per parameter, 12.5 MB, would not.
    assert peak < 1_000_000


def test_the_largest_tensor_is_drawn_without_overflow():
    draw = draw_of([2**31 - 1, 2**31 - 1], 3e-6)
    coordinates = draw.coordinates(1)
    assert coordinates.size == draw.count(1)
    assert abs(coordinates.size - 2 * 3e-6 * 2**31) < 3
    assert (np.diff(coordinates) > 0).all()
    assert coordinates[-1] < 2 * (2**31 - 1)
    # One in each stratum: the rotation keeps neighbours less than two strata apart.
    within = coordinates[counts_of(draw, coordinates)[0] :] - (2**31 - 1)
    gaps = np.diff(within)
    assert gaps.max() < 2 * (2**31 - 1) / within.size + 1
