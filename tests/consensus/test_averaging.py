"""The mean of the members is exact: a function of what they hold, not of who holds it or came first."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wash_fl.consensus.averaging import Accumulator, ModelAverage
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
        held = column.tolist()
        random.shuffle(held)
        column[:] = held
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


def average_of(members: dict[int, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    average = ModelAverage()
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
    average = ModelAverage()
    average.add(0, first)
    first["weight"][:] = 9.0
    first["batches"][...] = 9
    mean = average.mean()
    assert mean["weight"].max() == 1.0 and mean["batches"] == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [False, True])
def test_a_value_that_is_not_finite_is_refused_by_member_and_name(bad, first, refused):
    average = ModelAverage()
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
        (dict(reversed(model(1.0).items())), ["their order"]),
        (model(1.0) | {"weight": np.zeros((3, 2), np.float32)}, ["weight is float32[3, 2]", "float32[2, 3]"]),
        (model(1.0) | {"weight": np.zeros((2, 3))}, ["weight is float64[2, 3]", "float32[2, 3]"]),
        (model(1.0) | {"batches": np.array(1, np.int32)}, ["batches is int32[]", "int64[]"]),
    ],
    ids=["missing", "extra", "order", "shape", "dtype", "integer dtype"],
)
def test_a_model_unlike_the_others_is_refused_by_member_and_changes_nothing(other, parts, refused):
    average = ModelAverage()
    average.add(0, model(1.0))
    with refused(LayoutError, "member 3's", *parts):
        average.add(3, other)
    average.add(1, model(2.0))
    assert average.mean()["weight"].max() == 1.5 and average.members == [0, 1]
