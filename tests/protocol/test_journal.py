"""What every journal does, in memory and on disk alike; restarted, the one on disk knows all of it."""

from dataclasses import replace

import numpy as np
import pytest

from wash_fl.protocol import journal_rows
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import (
    DELIVERIES,
    ENROLMENTS,
    HEAD,
    RECORDS,
    Delivery,
    Enrolment,
    Record,
    Standing,
    values_hash,
)
from wash_fl.protocol.store import MemoryStore
from wash_fl.storage.sqlite_store import SqliteStore

RUN, LAYOUT = bytes(range(16)), bytes(range(32))
KINDS = ("in memory", "on disk", "on disk, opened anew before every look")


class Reopened:
    """Writes to a journal, and looks at another that was opened after the first was closed."""

    def __init__(self, path):
        self._path = path
        self._journal = Journal(SqliteStore.open(path, RUN, LAYOUT))

    def __getattr__(self, name):
        if name in ("restore", "enrolments", "records"):
            self._journal.close()
            self._journal = Journal(SqliteStore.open(self._path, RUN, LAYOUT))
        return getattr(self._journal, name)


@pytest.fixture(params=KINDS)
def journal(request, tmp_path):
    path = tmp_path / "run" / "journal.sqlite"
    if request.param == "in memory":
        made = Journal(MemoryStore())
    elif request.param == "on disk":
        made = Journal(SqliteStore.open(path, RUN, LAYOUT))
    else:
        made = Reopened(path)
    yield made
    made.close()


def values(exchange, member, slots=2, count=3):
    """Return values that are those of one exchange and member only."""
    start = 1000 * exchange + 10 * member
    return np.arange(start, start + slots * count, dtype=np.float32).reshape(slots, count)


def settle(journal, exchange, *members):
    deliveries = {member: Delivery(exchange, values(exchange, member)) for member in members}
    journal.settled(exchange, deliveries, {member: -values(exchange, member) for member in members})


def waiting(journal):
    """Return what waits, comparable: exchange, shape and bytes by member."""
    return {
        member: (each.exchange, each.values.shape, each.values.tobytes())
        for member, each in journal.restore()[1].items()
    }


def expected(exchange, *members):
    return {
        member: (exchange, (2, 3), values(exchange, member).astype("<f4").tobytes()) for member in members
    }


def test_nothing_is_known_at_the_beginning(journal):
    assert journal.restore() == (0, {})
    assert journal.enrolments() == {}
    assert list(journal.records()) == []


def test_a_settled_exchange_and_its_deliveries_are_remembered(journal):
    settle(journal, 1, 0, 1, 2)
    assert journal.restore()[0] == 1
    assert waiting(journal) == expected(1, 0, 1, 2)


def test_values_keep_every_bit(journal):
    strange = np.array([[0.0, -0.0, 1e-45, 3.4028235e38, -1e-38]], dtype=np.float32)
    journal.settled(1, {0: Delivery(1, strange)}, {})
    found = journal.restore()[1][0].values
    assert found.dtype == np.float32 and found.tobytes() == strange.tobytes()


def test_a_slice_without_coordinates_is_one(journal):
    journal.settled(1, {0: Delivery(1, np.empty((2, 0), np.float32))}, {})
    assert journal.restore()[1][0].values.shape == (2, 0)


def test_an_acknowledged_delivery_is_forgotten_and_one_of_a_later_exchange_is_not(journal):
    settle(journal, 1, 0, 1)
    journal.acknowledged(0, 1)
    assert waiting(journal) == expected(1, 1)
    settle(journal, 2, 0)
    journal.acknowledged(0, 1)
    assert waiting(journal) == expected(1, 1) | expected(2, 0)
    journal.acknowledged(1, 7)
    assert waiting(journal) == expected(2, 0)


def test_what_a_member_acknowledged_never_goes_back(journal):
    journal.enrolled(0, Enrolment("weights"))
    settle(journal, 1, 0)
    journal.acknowledged(0, 1)
    assert journal.enrolments()[0].applied == 1
    journal.acknowledged(0, 5)
    journal.acknowledged(0, 3)
    assert journal.enrolments()[0] == Enrolment("weights", seen=1, applied=5)


def test_who_offered_was_seen_also_without_a_delivery(journal):
    for member in (0, 1, 2):
        journal.enrolled(member, Enrolment("weights"))
    settle(journal, 1, 0, 1)
    journal.settled(2, {}, {1: values(2, 1)})
    assert [journal.enrolments()[member].seen for member in (0, 1, 2)] == [1, 2, 0]
    assert journal.restore()[0] == 2


def test_a_member_that_is_not_enrolled_is_not_made_one(journal):
    settle(journal, 1, 0, 1)
    journal.acknowledged(0, 1)
    assert journal.enrolments() == {}


def test_an_enrolment_is_kept_whole_and_replaced_whole(journal):
    first = Enrolment("a" * 64, incarnation=2, joined=3, seen=4, applied=3)
    second = Enrolment("b" * 64, joined=9, applied=9, standing=Standing.GIVEN_UP, reason="away: é, 'x', ?")
    journal.enrolled(7, first)
    journal.enrolled(2, second)
    assert journal.enrolments() == {7: first, 2: second}
    journal.enrolled(7, second)
    assert journal.enrolments() == {7: second, 2: second}
    assert type(journal.enrolments()[7].standing) is Standing


@pytest.mark.parametrize("standing", [Standing.GIVEN_UP, Standing.SET_ASIDE])
def test_a_member_that_does_not_count_any_more_has_nothing_waiting(journal, standing):
    journal.enrolled(0, Enrolment("weights"))
    settle(journal, 1, 0, 1)
    journal.enrolled(0, Enrolment("weights", standing=standing, reason="away"))
    assert waiting(journal) == expected(1, 1)


def test_a_member_that_joins_anew_needs_no_delivery_from_before(journal):
    journal.enrolled(0, Enrolment("weights"))
    settle(journal, 1, 0, 1)
    known = journal.enrolments()[0]
    journal.enrolled(0, replace(known, reason="seen"))
    assert waiting(journal) == expected(1, 0, 1)
    journal.enrolled(0, Enrolment("weights", joined=1, applied=1))
    assert waiting(journal) == expected(1, 1)


def test_a_released_member_has_nothing_waiting(journal):
    settle(journal, 1, 0, 1)
    journal.released(0)
    journal.released(0)
    journal.released(5)
    assert waiting(journal) == expected(1, 1)


def test_a_second_delivery_for_a_member_is_refused_whole(journal):
    journal.enrolled(1, Enrolment("weights"))
    settle(journal, 1, 0)
    with pytest.raises(AssertionError, match="one that waits"):
        settle(journal, 2, 1, 0)
    assert journal.restore()[0] == 1
    assert waiting(journal) == expected(1, 0)
    assert journal.enrolments() == {1: Enrolment("weights")}
    assert [record.exchange for record in journal.records()] == [1]
    settle(journal, 2, 1)
    assert waiting(journal) == expected(1, 0) | expected(2, 1)


def test_records_say_in_order_who_gave_and_who_got_what(journal):
    settle(journal, 1, 2, 0)
    journal.acknowledged(0, 1)
    journal.acknowledged(2, 1)
    journal.settled(2, {}, {0: values(2, 0)})
    assert list(journal.records()) == [
        Record(
            1,
            {member: values_hash(-values(1, member)) for member in (0, 2)},
            {member: values_hash(values(1, member)) for member in (0, 2)},
        ),
        Record(2, {0: values_hash(values(2, 0))}, {}),
    ]


def test_exchanges_at_the_end_of_all_numbers_are_kept(journal):
    journal.settled(2**62, {0: Delivery(2**62, values(1, 0))}, {})
    assert journal.restore()[0] == journal.restore()[1][0].exchange == 2**62


def test_the_hash_of_values_is_of_their_bits():
    one = values(1, 0)
    assert values_hash(one) == values_hash(one.copy()) == values_hash(np.asfortranarray(one))
    assert len(values_hash(one)) == 16 and int(values_hash(one), 16) >= 0
    assert values_hash(np.float32([[0.0]])) != values_hash(np.float32([[-0.0]]))


def test_the_hash_of_values_is_the_protocols_checksum_function():
    # BLAKE2b with a digest of 8 bytes over 00 00 80 3f; computed with `b2sum -l 64`.
    assert values_hash(np.float32([[1.0]])) == "06e0f1055650bd76"


def test_a_journal_in_memory_does_not_grow_with_the_exchanges():
    store = MemoryStore()
    journal = Journal(store, records=False)
    for exchange in range(1, 26):
        settle(journal, exchange, 0, 1)
        for member in (0, 1):
            journal.acknowledged(member, exchange)
    assert journal.restore() == (25, {})
    assert [len(store.table(each)) for each in (HEAD, DELIVERIES, ENROLMENTS, RECORDS)] == [1, 0, 0, 0]


def test_a_journal_in_memory_hashes_nothing_unless_it_is_to_keep_it(monkeypatch):
    def refuse(values):
        raise AssertionError("nobody reads this")

    monkeypatch.setattr(journal_rows, "values_hash", refuse)
    journal = Journal.in_memory()
    settle(journal, 1, 0, 1)
    assert list(journal.records()) == [] and waiting(journal) == expected(1, 0, 1)
    with pytest.raises(AssertionError, match="nobody reads this"):
        settle(Journal(MemoryStore()), 1, 0, 1)


def test_an_array_that_is_offered_and_delivered_is_hashed_once(monkeypatch):
    hashed: list[int] = []

    def counted(array):
        hashed.append(id(array))
        return values_hash(array)

    offers = {member: values(1, member) for member in range(4)}
    monkeypatch.setattr(journal_rows, "values_hash", counted)
    swapped = {member: Delivery(1, offers[member ^ 1]) for member in range(4)}
    record = Record.of(1, swapped, offers)
    assert sorted(hashed) == sorted(id(each) for each in offers.values())
    assert record.offers == {member: values_hash(each) for member, each in offers.items()}
    assert record.deliveries == {member: record.offers[member ^ 1] for member in range(4)}
