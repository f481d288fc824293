"""The mean of the members is exact: a function of what they hold, not of who holds it or came first."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wash_fl.consensus.averaging import Accumulator, ModelAverage, constants_of
from wash_fl.core.rules import Rule, SpectralNorm, StateRules
from wash_fl.errors import LayoutError

# Within 2**80 of each other, as the class says; 24 bits of mantissa included.
magnitudes = st.floats(2.0**-25, 2.0**25, width=32)
values = st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda value: -value))


@st.composite
def vectors(draw: st.DrawFn) -> np.ndarray:
    """Members' vectors, shape (members, size), float32."""
    members, size = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    flat = draw(st.lists(values, min_size=members * size, max_size=members * size))
    return np.array(flat, dtype=np.float32).reshape(members, size)


def mean_of(rows: np.ndarray) -> np.ndarray:
    accumulator = Accumulator(rows.shape[1])
    for row in rows:
        accumulator.add(row)
    return accumulator.mean()


@given(vectors())
def test_the_sum_is_the_exact_sum_rounded_once(rows):
    exact = [sum(Fraction(float(value)) for value in column) for column in rows.T]
    assert mean_of(rows).tolist() == [float(total) / len(rows) for total in exact]


@given(vectors(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_change_a_bit(rows, random):
    expected = mean_of(rows).tobytes()
    for _ in range(5):
        order = list(range(len(rows)))
        random.shuffle(order)
        assert mean_of(rows[order]).tobytes() == expected


@given(vectors(), st.randoms(use_true_random=False))
def test_a_shuffle_of_values_among_members_does_not_change_a_bit(rows, random):
    expected = mean_of(rows).tobytes()
    for column in rows.T:
        values = column.tolist()
        random.shuffle(values)
        column[:] = values
    assert mean_of(rows).tobytes() == expected


def test_a_plain_sum_would_not_do():
    rows = np.array([[1e8], [1.0], [-1e8], [3e-9]], dtype=np.float32)
    plain = {np.sum(rows[list(order)], dtype=np.float32).item() for order in itertools.permutations(range(4))}
    exact = {mean_of(rows[list(order)]).tobytes() for order in itertools.permutations(range(4))}
    assert len(plain) > 1 and len(exact) == 1


def test_the_vectors_may_be_reused_by_their_owner():
    accumulator = Accumulator(2)
    row = np.array([1.0, 2.0], dtype=np.float32)
    accumulator.add(row)
    row[:] = 99.0
    assert accumulator.mean().tolist() == [1.0, 2.0]
    accumulator.add(np.array([3.0, 6.0], dtype=np.float32))
    assert accumulator.mean().tolist() == [2.0, 4.0], "asking for the mean does not end the sum"
    assert accumulator.count == 2


def test_a_vector_of_another_length_is_refused_and_not_counted():
    accumulator = Accumulator(2)
    with pytest.raises(ValueError, match=r"shape \(3,\).*\(2,\)"):
        accumulator.add(np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="at least one"):
        accumulator.mean()


# Models


def model(value: float, batches: int = 0) -> dict[str, np.ndarray]:
    return {
        "weight": np.full((2, 3), value, dtype=np.float32),
        "scale": np.array(value, dtype=np.float32),
        "half": np.full(2, value, dtype=np.float16),
        "batches": np.array(batches),
    }


RULES = StateRules.of(dict.fromkeys(model(0.0), Rule.TRAINED) | {"batches": Rule.COUNTER})


def average_of(members: dict[int, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    average = ModelAverage(RULES)
    for member, arrays in members.items():
        average.add(member, arrays)
    return average.mean()


def test_floats_are_averaged_in_their_own_dtype_order_and_shape():
    mean = average_of({0: model(1.0), 1: model(2.0)})
    assert list(mean) == ["weight", "scale", "half", "batches"]
    for name, array in model(1.5).items():
        assert mean[name].dtype == array.dtype and mean[name].shape == array.shape
    assert {float(each) for name in ("weight", "scale", "half") for each in mean[name].flat} == {1.5}


@pytest.mark.parametrize("order", list(itertools.permutations((2, 5, 7))))
def test_integers_are_the_lowest_members_whatever_the_order_of_arrival(order):
    mean = average_of({member: model(float(member), batches=10 * member) for member in order})
    assert mean["batches"] == 20
    assert mean["weight"].tobytes() == np.full((2, 3), 14 / 3, dtype=np.float32).tobytes()


def test_the_mean_does_not_follow_the_members_arrays():
    first = model(1.0, batches=3)
    average = ModelAverage(RULES)
    average.add(0, first)
    first["weight"][:] = 9.0
    first["batches"][...] = 9
    mean = average.mean()
    assert mean["weight"].max() == 1.0 and mean["batches"] == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [False, True])
def test_a_value_that_is_not_finite_is_refused_by_member_and_name(bad, first, refused):
    average = ModelAverage(RULES)
    if not first:
        average.add(0, model(1.0))
    broken = model(2.0)
    broken["weight"][1, 2] = bad
    with refused(LayoutError, "member 4's weight", "infinite or not numbers"):
        average.add(4, broken)
    average.add(5, model(3.0))
    assert average.mean()["weight"].max() == (3.0 if first else 2.0), "the refused one does not count"
    assert average.members == ([5] if first else [0, 5])


def without(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key: array for key, array in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        (without(model(1.0), "scale"), ["differs from the others' in scale"]),
        (model(1.0) | {"extra": np.zeros(1)}, ["differs from the others' in extra"]),
        (model(1.0) | {"weight": np.zeros((3, 2), np.float32)}, ["weight is float32[3, 2]", "float32[2, 3]"]),
        (model(1.0) | {"weight": np.zeros((2, 3))}, ["weight is float64[2, 3]", "float32[2, 3]"]),
        (model(1.0) | {"batches": np.array(1, np.int32)}, ["batches is int32[]", "int64[]"]),
    ],
    ids=["missing", "extra", "shape", "dtype", "integer dtype"],
)
def test_a_model_unlike_the_others_is_refused_by_member_and_changes_nothing(other, parts, refused):
    average = ModelAverage(RULES)
    average.add(0, model(1.0))
    with refused(LayoutError, "member 3's", *parts):
        average.add(3, other)
    average.add(1, model(2.0))
    assert average.mean()["weight"].max() == 1.5 and average.members == [0, 1]


# What has no mean

KINDS = StateRules.of(
    {
        "weight": Rule.TRAINED,
        "ema": Rule.AVERAGED,
        "quantile": Rule.MEMBER,
        "mask": Rule.MEMBER,
        "batches": Rule.COUNTER,
        "statistic": Rule.BATCHNORM,
    }
)
MASK = np.array([0.0, -np.inf], dtype=np.float32)


def strange(value: float, **others: np.ndarray) -> dict[str, np.ndarray]:
    numbers = {name: np.full(2, value, np.float32) for name in ("weight", "ema", "quantile", "statistic")}
    return {**numbers, "mask": MASK.copy(), "batches": np.array(int(value)), **others}


def kinds_of(members: dict[int, dict[str, np.ndarray]], rules: StateRules = KINDS) -> ModelAverage:
    average = ModelAverage(rules, constants_of(strange(0.0), rules))
    for member, arrays in members.items():
        average.add(member, arrays)
    return average


@pytest.mark.parametrize("order", list(itertools.permutations((2, 5, 7))))
def test_what_has_no_mean_is_the_lowest_members_and_the_treatment_says_so(order):
    average = kinds_of({member: strange(float(member)) for member in order})
    mean = average.mean()
    assert mean["quantile"].tolist() == [2.0, 2.0] and mean["batches"] == 2
    assert mean["ema"].tolist() == mean["statistic"].tolist() == mean["weight"].tolist()
    assert mean["weight"][0] == np.float32(14 / 3)
    assert mean["mask"].tobytes() == MASK.tobytes()
    assert average.treatment() == {
        "averaged": ["ema", "statistic"],
        "from member 2": ["quantile", "batches"],
        "constant": ["mask"],
    }


def test_what_is_equal_in_all_members_keeps_every_bit():
    zero = {name: np.full(2, -0.0, np.float32) for name in ("ema", "quantile", "statistic")}
    average = kinds_of({member: strange(1.0, **zero) for member in (4, 1)})
    mean = average.mean()
    assert all(np.signbit(mean[name]).all() for name in zero)
    assert average.treatment() == {"constant": ["ema", "quantile", "mask", "batches", "statistic"]}


@pytest.mark.parametrize("name", ["weight", "ema", "quantile", "statistic"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_became_infinite_is_refused_whatever_its_rule(name, value, refused):
    average = kinds_of({0: strange(1.0)})
    with refused(LayoutError, f"member 1's {name}", "infinite or not numbers"):
        average.add(1, strange(2.0, **{name: np.array([0.0, value], np.float32)}))


def test_a_mask_may_be_infinite_only_where_it_was(refused):
    average = kinds_of({0: strange(1.0)})
    with refused(LayoutError, "member 1's mask"):
        average.add(1, strange(2.0, mask=MASK[::-1].copy()))


def test_a_marked_entry_that_was_infinite_is_one_members_if_it_differs():
    rules = KINDS.marked(["mask"])
    finite = strange(2.0, mask=np.zeros(2, np.float32))
    with np.errstate(all="raise"):
        average = kinds_of({0: strange(1.0), 1: finite}, rules)
        assert average.mean()["mask"].tobytes() == MASK.tobytes()
    assert average.treatment()["from member 0"] == ["quantile", "mask", "batches"]


def test_weights_and_statistics_that_were_infinite_from_the_beginning_are_refused(refused):
    infinite = {"weight": MASK.copy()}
    average = ModelAverage(KINDS, constants_of(strange(0.0, **infinite), KINDS))
    with refused(LayoutError, "member 0's weight"):
        average.add(0, strange(1.0, **infinite))


def test_an_entry_of_two_names_is_averaged_once_and_written_twice():
    rules = StateRules(
        {"weight": Rule.TRAINED, "batches": Rule.COUNTER},
        {"weight": "weight", "batches": "batches", "tied": "weight", "also": "batches"},
    )
    average = ModelAverage(rules)
    for member, value in ((3, 1.0), (0, 2.0)):
        own = {"weight": np.full(2, value, np.float32), "batches": np.array(member)}
        # Whatever a device says that does not know of its aliases.
        average.add(member, {**own, "tied": np.full(2, 9.0, np.float32), "also": np.array(7)})
    mean = average.mean()
    assert list(mean) == ["weight", "batches", "tied", "also"]
    assert mean["tied"].tolist() == mean["weight"].tolist() == [1.5, 1.5]
    assert mean["also"] == mean["batches"] == 0


@pytest.mark.parametrize("frozen", [True, False])
def test_a_spectral_norm_is_recomputed_unless_nothing_of_it_changed(frozen):
    def layer(turn: float) -> dict[str, np.ndarray]:
        u = np.array([np.cos(turn), np.sin(turn)], np.float32)
        return {"weight": np.diag([3.0, 1.0]).astype(np.float32), "u": u, "v": u.copy()}

    rules = StateRules(
        {"weight": Rule.FROZEN if frozen else Rule.TRAINED, "u": Rule.SPECTRAL, "v": Rule.SPECTRAL},
        {name: name for name in ("weight", "u", "v")},
        (SpectralNorm("weight", "u", "v", 0, 1e-12),),
    )
    average = ModelAverage(rules)
    average.add(1, layer(0.7))
    average.add(0, layer(0.7 if frozen else -0.7))
    mean = average.mean()
    if frozen:
        assert mean["u"].tobytes() == layer(0.7)["u"].tobytes()
        assert average.treatment() == {"constant": ["u", "v"]}
    else:
        assert abs(mean["u"][0]) == pytest.approx(1.0, abs=1e-6)
        assert average.treatment() == {"recomputed": ["u", "v"]}
