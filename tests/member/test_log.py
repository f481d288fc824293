"""Tests of the log of exchanges: what was written is read, what was cut off is not, and nothing behind it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wash_fl.errors import StateError
from wash_fl.member.log import ExchangeLog, Kind, Logs, new_log

RECORDS = [
    (Kind.OFFERED, 1, np.array([[1.0, -0.0, 3.5]], dtype=np.float32)),
    (Kind.APPLIED, 1, np.array([[2.0, 4.0, 1e-42]], dtype=np.float32)),
    (Kind.OFFERED, 2**40, np.empty((2, 0), dtype=np.float32)),
    (Kind.OFFERED, 2**40 + 1, np.array([[1.0], [2.0]], dtype=np.float32)),
]


def written(path, records=RECORDS):
    log = ExchangeLog(path)
    for record in records:
        log.append(*record)
    log.close()
    return log


def read(path):
    return list(ExchangeLog(path).read())


def same(entries, records):
    return len(entries) == len(records) and all(
        (entry.kind, entry.exchange) == (kind, exchange)
        and entry.values.dtype == np.float32
        and entry.values.shape == values.shape
        and entry.values.tobytes() == values.tobytes()
        for entry, (kind, exchange, values) in zip(entries, records, strict=True)
    )


def test_what_was_written_is_read_bit_for_bit(tmp_path):
    log = written(tmp_path / "log")
    assert same(read(tmp_path / "log"), RECORDS)
    assert log.size == (tmp_path / "log").stat().st_size


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert read(tmp_path / "log") == []


@settings(derandomize=True, deadline=None, database=None, max_examples=120)
@given(data=st.data())
def test_a_record_that_is_cut_short_is_none_and_what_is_written_later_is_found(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "log"
    written(path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    whole = len(read(path))
    assert whole < len(RECORDS) and same(read(path), RECORDS[:whole])
    written(path, RECORDS[1:2])
    assert same(read(path), [*RECORDS[:whole], RECORDS[1]])


@settings(derandomize=True, deadline=None, database=None, max_examples=120)
@given(data=st.data())
def test_a_bit_that_flips_ends_the_log_before_it(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "log"
    written(path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    entries = read(path)
    assert len(entries) < len(RECORDS) and same(entries, RECORDS[: len(entries)])


def test_a_full_disk_is_said(tmp_path, refused):
    log = ExchangeLog(tmp_path / "log")
    with Path("/dev/full").open("ab", buffering=0) as log._file, refused(StateError, str(log.path), "space"):
        log.append(*RECORDS[0])


def test_only_the_logs_that_are_needed_stay(tmp_path):
    logs, names = Logs(tmp_path), [new_log() for _ in range(3)]
    assert len(set(names)) == 3
    for name in names:
        log = logs.open(name)
        log.append(*RECORDS[0])
        log.close()
    (tmp_path / "state.safetensors").write_bytes(b"mine")
    logs.forget({names[1]})
    assert [len(list(logs.open(name).read())) for name in names] == [0, 1, 0]
    logs.forget()
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("kind", list(Kind))
def test_slots_stay_apart(tmp_path, kind):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    written(tmp_path / "log", [(kind, 7, values)])
    assert read(tmp_path / "log")[0].values.tolist() == values.tolist()
