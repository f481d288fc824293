"""Arrays from the wire: read when they are what is expected, and one named error for all else."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from wash_fl.core.rules import Rule, StateRules
from wash_fl.errors import ExchangeError
from wash_fl.flower import records
from wash_fl.flower.arrays import read_arrays, read_statistics, spec_of

MODEL = {
    "first.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "norm.running_mean": np.array([0.5, -1.0, 2.0], dtype=np.float32),
    "norm.running_var": np.array([1.0, 0.0, 3.0], dtype=np.float32),
    "norm.num_batches_tracked": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float32),
}
RULES = StateRules.of(
    {name: Rule.BATCHNORM if "running" in name else Rule.TRAINED for name in MODEL}
    | {"norm.num_batches_tracked": Rule.COUNTER}
)
SPEC = spec_of(MODEL, RULES)
STATISTICS = {
    "norm.running_mean": MODEL["norm.running_mean"],
    "norm.running_var": MODEL["norm.running_var"],
    records.EXAMPLES: np.array([24], dtype=np.int64),
}


def npy(array: np.ndarray, **options: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def raw(data: bytes, stype: str = "numpy.ndarray") -> Array:
    """Make an array that says of itself what is expected, whatever its bytes are."""
    return Array(dtype="float32", shape=(3,), stype=stype, data=data)


def claimed(shape: tuple[int, ...], values: bytes) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + values


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3, dtype=np.float32))
    return stream.getvalue()


GOOD = npy(np.zeros(3, dtype=np.float32))
HEADER = GOOD[:-12]

ALTERED: dict[str, bytes] = {
    "no bytes": b"",
    "cut short": GOOD[:-1],
    "only values": bytes(12),
    "more behind": GOOD + bytes(4),
    "much more behind": GOOD + bytes(1 << 20),
    "noise": b"\xff" * len(GOOD),
    "a header that claims terabytes": claimed((10**13,), bytes(12)),
    "a header that claims less": claimed((2,), bytes(12)),
    "a header of parentheses": HEADER[:10] + b"(" * (len(HEADER) - 10) + bytes(12),
    "a header with a zero": HEADER[:20] + b"\x00" + HEADER[21:] + bytes(12),
    "a header that is no dict": HEADER[:10] + b"[1]".ljust(len(HEADER) - 10) + bytes(12),
    "an archive": archive(),
    "the beginning of an archive": b"PK\x03\x04" + bytes(len(GOOD) - 4),
    "a pickle": npy(np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True),
    "a later version of the format": GOOD[:6] + b"\x09" + GOOD[7:],
    "other precision": npy(np.zeros(3)),
    "other byte order": npy(np.zeros(3, dtype=">f4")),
    "integers": npy(np.zeros(3, dtype=np.int32)),
    "records": npy(np.zeros(3, dtype=[("a", "<f4")])),
    "other shape": npy(np.zeros((3, 1), dtype=np.float32)),
    "not a number": npy(np.array([0, np.nan, 0], dtype=np.float32)),
    "infinite": npy(np.array([0, np.inf, 0], dtype=np.float32)),
}


def test_what_was_sent_is_read_in_the_expected_order_and_can_be_written_to() -> None:
    backwards = dict(reversed(MODEL.items()))
    found = read_arrays(records.array_record(backwards), SPEC)
    assert list(found) == list(MODEL)
    for name, expected in MODEL.items():
        assert found[name].dtype == expected.dtype and found[name].shape == expected.shape
        assert np.array_equal(found[name], expected)
    found["first.weight"][0, 0] = 9.0


@pytest.mark.parametrize("what", ALTERED)
def test_an_array_that_is_not_what_is_expected_is_refused(refused, what: str) -> None:  # type: ignore[no-untyped-def]
    record = records.array_record(MODEL)
    record["norm.running_mean"] = raw(ALTERED[what])
    with refused(ExchangeError, "'norm.running_mean'"):
        read_arrays(record, SPEC)
    record = records.array_record(STATISTICS)
    record["norm.running_var"] = raw(ALTERED[what])
    with refused(ExchangeError, "'norm.running_var'"):
        read_statistics(record, MODEL, RULES)


def test_the_altered_arrays_are_refused_for_what_was_altered() -> None:
    record = records.array_record(MODEL)
    record["norm.running_mean"] = raw(GOOD)
    assert np.array_equal(read_arrays(record, SPEC)["norm.running_mean"], np.zeros(3))


def test_another_way_to_serialize_is_refused(refused) -> None:  # type: ignore[no-untyped-def]
    record = records.array_record(MODEL)
    record["norm.running_mean"] = raw(GOOD, stype="torch")
    with refused(ExchangeError, "of 'torch'"):
        read_arrays(record, SPEC)


def test_a_matrix_in_another_order_of_memory_is_refused(refused) -> None:  # type: ignore[no-untyped-def]
    record = records.array_record(MODEL)
    swapped = npy(np.asfortranarray(MODEL["first.weight"]))
    record["first.weight"] = Array(dtype="float32", shape=(3, 4), stype="numpy.ndarray", data=swapped)
    with refused(ExchangeError, "'first.weight'", "[3, 4]"):
        read_arrays(record, SPEC)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.clear(),
        lambda record: record.pop("empty"),
        lambda record: record.update({"one\nmore" + "x" * 500: record["empty"]}),
    ],
)
def test_missing_and_additional_arrays_are_refused(refused, change: Callable[[ArrayRecord], object]) -> None:  # type: ignore[no-untyped-def]
    record = records.array_record(MODEL)
    change(record)
    with refused(ExchangeError, f"{len(record)} arrays, not the 5 expected"):
        read_arrays(record, SPEC)


def test_no_record_at_all_is_refused(refused) -> None:  # type: ignore[no-untyped-def]
    with refused(ExchangeError, "0 arrays"):
        read_arrays(None, SPEC)
    with refused(ExchangeError, "0 arrays"):
        read_statistics(None, MODEL, RULES)


def test_statistics_are_read_with_their_number_of_examples() -> None:
    found = read_statistics(records.array_record(STATISTICS), MODEL, RULES)
    assert found.examples == 24
    assert np.array_equal(found.mean["norm"], STATISTICS["norm.running_mean"])
    assert np.array_equal(found.variance["norm"], STATISTICS["norm.running_var"])


WRONG_STATISTICS: dict[str, dict[str, np.ndarray | None]] = {
    "no variance": {"norm.running_var": None},
    "no mean": {"norm.running_mean": None},
    "nothing": dict.fromkeys(STATISTICS),
    "no examples": {records.EXAMPLES: None},
    "zero examples": {records.EXAMPLES: np.array([0], dtype=np.int64)},
    "fewer than none": {records.EXAMPLES: np.array([-24], dtype=np.int64)},
    "infinitely many": {records.EXAMPLES: np.array([np.inf])},
    "a text for a number": {records.EXAMPLES: np.array(["24"])},
    "a number without a shape": {records.EXAMPLES: np.array(24, dtype=np.int64)},
    "a weight": {"first.weight": MODEL["first.weight"]},
    "a layer that the model has not": {
        "other.running_mean": np.zeros(3, dtype=np.float32),
        "other.running_var": np.zeros(3, dtype=np.float32),
    },
    "a negative variance": {"norm.running_var": np.array([1, -1e-9, 1], dtype=np.float32)},
    "a mean whose square is too large": {"norm.running_mean": np.array([0, 3e38, 0], dtype=np.float32)},
    "a variance that is too large": {"norm.running_var": np.array([0, 3e38, 0], dtype=np.float32)},
}


@pytest.mark.parametrize("what", WRONG_STATISTICS)
def test_statistics_that_cannot_be_are_refused(refused, what: str) -> None:  # type: ignore[no-untyped-def]
    arrays = {**STATISTICS, **WRONG_STATISTICS[what]}
    record = records.array_record({name: each for name, each in arrays.items() if each is not None})
    with refused(ExchangeError):
        read_statistics(record, MODEL, RULES)


MASKED = {**MODEL, "mask": np.array([0.0, -np.inf], dtype=np.float32), "same": MODEL["first.weight"]}
MASKED["also"] = MASKED["mask"]
MASKED_SPEC = spec_of(
    MASKED,
    StateRules(
        {**RULES.rules, "mask": Rule.MEMBER},
        {**RULES.first, "mask": "mask", "also": "mask", "same": "first.weight"},
    ),
)


def test_what_was_infinite_from_the_beginning_may_be_so_and_nothing_else(refused) -> None:  # type: ignore[no-untyped-def]
    found = read_arrays(records.array_record(MASKED), MASKED_SPEC)
    assert found["mask"].tolist() == [0.0, -np.inf]
    for mask in ([-np.inf, 0.0], [0.0, np.nan], [0.0, np.inf]):
        other = {**MASKED, "mask": np.array(mask, dtype=np.float32), "also": MASKED["mask"]}
        with refused(ExchangeError, "'mask'", "infinite or not numbers"):
            read_arrays(records.array_record(other), MASKED_SPEC)
    # That it does not hold any more is no harm.
    finite = {**MASKED, "mask": np.zeros(2, dtype=np.float32)}
    assert read_arrays(records.array_record(finite), MASKED_SPEC)["mask"].tolist() == [0.0, 0.0]


def test_an_entry_of_two_names_is_read_from_the_first() -> None:
    record = records.array_record({**MASKED, "same": np.zeros((3, 4), dtype=np.float32)})
    found = read_arrays(record, MASKED_SPEC)
    assert found["same"] is found["first.weight"]
    assert np.array_equal(found["same"], MODEL["first.weight"])


def test_statistics_are_applied_under_the_other_names_of_their_layer() -> None:
    first = {**RULES.first, "trunk.0.running_mean": "norm.running_mean", "also": "norm.running_var"}
    model = {**MODEL, "trunk.0.running_mean": np.zeros(3, np.float32), "also": np.zeros(3, np.float32)}
    found = read_statistics(records.array_record(STATISTICS), model, StateRules(RULES.rules, first))
    applied = found.applied_to(model)
    assert np.array_equal(applied["trunk.0.running_mean"], STATISTICS["norm.running_mean"])
    assert np.array_equal(applied["also"], STATISTICS["norm.running_var"])
