"""The journal on disk: a killed server finds every decision whole, and damage is noticed, never believed."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from wash_fl.errors import RunError, StateError, WashError
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Delivery, Enrolment, Standing
from wash_fl.storage import sqlite_store
from wash_fl.storage.sqlite_store import SqliteStore

RUN, LAYOUT = bytes(range(16)), bytes(range(32))
MEMBERS = (0, 1, 2)


@pytest.fixture(autouse=True)
def _no_long_wait_for_a_lock(monkeypatch):
    monkeypatch.setattr(sqlite_store, "LOCK_SECONDS", 0.2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "one" / "journal.sqlite"


@pytest.fixture
def store(path):
    with closing(SqliteStore.open(path, RUN, LAYOUT)) as store:
        yield store


@pytest.fixture
def opened(store):
    return Journal(store)


def delivery(exchange, member):
    """Return what a member is given at an exchange of every run in this file."""
    start = 64 * (exchange * len(MEMBERS) + member)
    return Delivery(exchange, np.arange(start, start + 64, dtype=np.float32).reshape(2, 32))


def settle(journal, exchange, members=MEMBERS):
    offers = {member: delivery(exchange, member).values for member in members}
    journal.settled(exchange, {member: delivery(exchange, member) for member in members}, offers)


def content(journal):
    """Return all that a journal knows, comparable."""
    last, waiting = journal.restore()
    slices = {member: (each.exchange, each.values.tobytes()) for member, each in waiting.items()}
    return last, slices, journal.enrolments(), list(journal.records())


# A server that dies

SERVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sqlite_store import LAYOUT, MEMBERS, RUN, settle
from wash_fl.protocol.journal import Journal
from wash_fl.storage import sqlite_store
from wash_fl.storage.sqlite_store import SqliteStore
sqlite_store.LOCK_SECONDS = 0.2

journal = Journal(SqliteStore.open(Path(sys.argv[1]), RUN, LAYOUT))
last, waiting = journal.restore()
while True:
    for member in MEMBERS:
        journal.acknowledged(member, last)
    last += 1
    settle(journal, last)
    print(last, flush=True)
"""


def run_and_kill(path, exchanges):
    """Run a server until it said that so many exchanges are settled, kill it; return the last it said."""
    command = [sys.executable, "-c", SERVER, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        for line in server.stdout:
            exchanges -= 1
            if exchanges == 0:
                server.send_signal(signal.SIGKILL)
            last = int(line)
    assert server.returncode == -signal.SIGKILL
    return last


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_server_that_is_killed_again_and_again_finds_every_decision_whole(path):
    kills = random.Random(5)
    for member in MEMBERS:
        with closing(Journal(SqliteStore.open(path, RUN, LAYOUT))) as journal:
            journal.enrolled(member, Enrolment("weights"))
    for _ in range(15):
        last_said = run_and_kill(path, kills.randrange(1, 60))
        with closing(Journal(SqliteStore.open(path, RUN, LAYOUT))) as journal:
            last, waiting, enrolments, records = content(journal)
        # What it said is settled; it may have settled one more and died before saying so.
        assert last in (last_said, last_said + 1)
        # The members acknowledge in order, so those that wait are the last few.
        assert set(waiting) in [set(MEMBERS[first:]) for first in range(4)]
        for member in MEMBERS:
            assert enrolments[member].seen == last
            assert enrolments[member].applied == (last - 1 if member in waiting else last)
            if member in waiting:
                assert waiting[member] == (last, delivery(last, member).values.tobytes())
        assert [record.exchange for record in records] == list(range(1, last + 1))


def work():
    """Return what a server does for some exchanges, decision by decision."""
    steps = [
        lambda journal, member=member: journal.enrolled(member, Enrolment("weights", reason=f"{member}"))
        for member in MEMBERS
    ]
    for exchange in range(1, 9):
        members = MEMBERS if exchange < 4 else MEMBERS[:2]
        steps.append(lambda journal, exchange=exchange, members=members: settle(journal, exchange, members))
        for member in MEMBERS:
            # Member 2 never acknowledges exchange 3: its delivery waits to the end.
            if (exchange, member) != (3, 2):
                steps.append(
                    lambda journal, exchange=exchange, member=member: journal.acknowledged(
                        member, exchange if member < 2 else min(exchange, 2)
                    )
                )
    away = Enrolment("weights", applied=8, standing=Standing.GIVEN_UP, reason="away")
    return [*steps, lambda journal: journal.enrolled(1, away)]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Every state a journal went through, the size of its log after each, and its files as a crash left them.

    The first states lie in the file itself, the others in its log, as they may on a busy server.
    """
    path = tmp_path_factory.mktemp("history") / "journal.sqlite"
    log = path.with_name(path.name + "-wal")
    states, sizes, files = [], [], {}
    steps = work()
    for part in (steps[:12], steps[12:]):
        with closing(Journal(SqliteStore.open(path, RUN, LAYOUT))) as journal:
            if not states:
                states.append(content(journal))
                sizes.append(0)
            for step in part:
                step(journal)
                states.append(content(journal))
                sizes.append(log.stat().st_size)
            files = {each.name: each.read_bytes() for each in (path, log)}
        if part[0] is steps[0]:
            sizes = [0] * len(sizes)
    assert len({repr(state) for state in states}) > 20 and sizes[-1] > 50_000
    return states, sizes, files


def put(folder, files):
    for name, bytes_ in files.items():
        (folder / name).write_bytes(bytes_)
    return folder / "journal.sqlite"


def state_of(path):
    """Return what a journal that a crash left says, or None if it is refused by name."""
    try:
        with closing(Journal(SqliteStore.open(path, RUN, LAYOUT))) as journal:
            return content(journal)
    except StateError as error:
        assert len(str(error).splitlines()) == 1 and str(path) in str(error)
        return None


def test_a_log_that_ends_at_any_byte_gives_the_last_decision_that_is_whole(history, tmp_path):
    states, sizes, files = history
    places = {0, 1, 31, 32, *random.Random(6).sample(range(sizes[-1]), 60)}
    places |= {size + change for size in sizes[-8:] for change in (-1, 0, 1)}
    for end in sorted(places):
        path = put(tmp_path, files | {"journal.sqlite-wal": files["journal.sqlite-wal"][:end]})
        whole = max(index for index, size in enumerate(sizes) if size <= end)
        assert state_of(path) == states[whole], end


def test_a_file_that_is_cut_short_is_refused_unless_the_log_has_all_of_it(history, tmp_path):
    states, _, files = history
    counts = Counter()
    size = len(files["journal.sqlite"])
    for end in [0, 1, 99, 100, *range(512, size, 2048), size - 1]:
        state = state_of(put(tmp_path, files | {"journal.sqlite": files["journal.sqlite"][:end]}))
        assert state in (None, states[-1]), end
        counts["refused" if state is None else "whole"] += 1
    assert counts["refused"] >= 3, counts


@pytest.mark.parametrize("damaged", ["journal.sqlite", "journal.sqlite-wal"])
def test_bytes_that_change_are_noticed_or_do_not_matter_and_never_give_other_values(
    history, tmp_path, damaged
):
    states, _, files = history
    draw = random.Random(7)
    counts = Counter()
    for _ in range(250):
        bytes_ = bytearray(files[damaged])
        for _ in range(draw.choice([1, 1, 1, 2, 40])):
            # Every other time where SQLite keeps its own books, not only in the rows.
            page = draw.randrange(0, len(bytes_), 4096)
            place = page + draw.randrange(120) if draw.random() < 0.5 else draw.randrange(len(bytes_))
            bytes_[min(place, len(bytes_) - 1)] ^= 1 << draw.randrange(8)
        state = state_of(put(tmp_path, files | {damaged: bytes(bytes_)}))
        # Of a log whose middle is damaged, SQLite takes the beginning: decisions, whole, in order.
        assert state is None or state in states
        counts["refused" if state is None else "newest" if state == states[-1] else "older"] += 1
    assert counts["refused" if damaged == "journal.sqlite" else "older"] >= 20, counts


def test_every_bit_of_a_slice_counts_and_no_bit_of_the_file_gives_something_else(history, tmp_path):
    _, _, files = history
    path = put(tmp_path, files)
    SqliteStore.open(path, RUN, LAYOUT).close()  # the log goes into the file, and hides none of it
    whole = state_of(path)
    intact = path.read_bytes()
    (waiting,) = [slice_ for exchange, slice_ in whole[1].values() if exchange == 3]
    assert intact.count(waiting) == 1
    first = intact.index(waiting)
    draw = random.Random(8)
    in_the_slice = draw.sample(range(first, first + len(waiting)), 60)
    anywhere = draw.sample(range(100, len(intact)), 300)
    for place in in_the_slice + anywhere:
        bytes_ = bytearray(intact)
        bytes_[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes_)
        state = state_of(path)
        assert state is None or (state == whole and place not in in_the_slice), place


@pytest.mark.parametrize("table", ["deliveries", "enrolments", "records", "meta"])
@pytest.mark.parametrize("change", ["lost", "altered"])
def test_a_row_that_is_lost_or_altered_is_noticed(path, history, table, change):
    with closing(Journal(SqliteStore.open(path, RUN, LAYOUT))) as journal:
        for step in work()[:20]:
            step(journal)
    with closing(sqlite3.connect(path)) as database:
        key, first = [row[1] for row in database.execute(f"PRAGMA table_info({table})")][:2]
        one = f"WHERE {key} = (SELECT min({key}) FROM {table})"
        if change == "lost":
            changed = database.execute(f"DELETE FROM {table} {one}")
        else:
            changed = database.execute(f"UPDATE {table} SET {first} = {first} || 1 {one}")
        assert changed.rowcount == 1
        database.commit()
    with pytest.raises(StateError):
        SqliteStore.open(path, RUN, LAYOUT)


def test_an_older_row_in_place_of_the_newer_is_noticed(path, store, opened):
    """Each row is as it was written once; together they never were."""
    opened.enrolled(0, Enrolment("weights"))
    opened.enrolled(1, Enrolment("weights"))
    older = store._database.execute("SELECT * FROM enrolments WHERE member = 0").fetchone()
    opened.enrolled(0, Enrolment("weights", applied=5))
    opened.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"REPLACE INTO enrolments VALUES ({', '.join('?' * len(older))})", older)
        database.commit()
    with pytest.raises(StateError, match="rows are missing, or of another time"):
        SqliteStore.open(path, RUN, LAYOUT)


# What is refused


def test_another_server_cannot_use_the_same_run(path, opened, refused):
    with refused(RunError, "another server is using this run", str(path), "run-name"):
        SqliteStore.open(path, RUN, LAYOUT)
    settle(opened, 1)
    opened.close()
    with closing(Journal(SqliteStore.open(path, RUN, LAYOUT))) as journal:
        assert journal.restore()[0] == 1


def test_a_server_in_another_process_cannot_use_the_same_run_either(path, opened):
    command = [sys.executable, "-c", SERVER, str(path), str(Path(__file__).parent)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 1 and "another server is using this run" in process.stderr
    settle(opened, 1)
    assert opened.restore()[0] == 1


def test_a_journal_that_a_server_has_open_cannot_be_read(path, opened, refused):
    with refused(RunError, "another server is using this run", str(path)):
        SqliteStore.read(path)


def test_the_journal_of_another_run_or_model_is_refused(path, opened, refused):
    settle(opened, 1)
    opened.close()
    with refused(StateError, str(path), RUN.hex(), bytes(16).hex(), "run-name"):
        SqliteStore.open(path, bytes(16), LAYOUT)
    with refused(StateError, str(path), LAYOUT.hex()[:16], "0" * 16, "run-name"):
        SqliteStore.open(path, RUN, bytes(32))
    # And they stay as they are, for the run that they are of.
    with closing(Journal(SqliteStore.open(path, RUN, LAYOUT))) as journal:
        assert content(journal)[0] == 1


def test_a_journal_of_another_version_is_refused(path, opened, refused):
    opened.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE meta SET format = 'wash-fl journal 2'")
        database.commit()
    with refused(StateError, str(path), "wash-fl journal 2", "wash-fl journal 3"):
        SqliteStore.open(path, RUN, LAYOUT)


@pytest.mark.parametrize("bytes_", [b"", b"no database", bytes(10_000), b"SQLite format 3\0" + bytes(4080)])
def test_what_is_no_journal_is_refused_and_left_alone(path, bytes_, refused):
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes_)
    with refused(StateError, str(path)):
        SqliteStore.open(path, RUN, LAYOUT)
    assert path.read_bytes() == bytes_


def test_another_programs_database_is_refused(path, refused):
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE notes (text)")
    with refused(StateError, str(path), "no journal of wash-fl"):
        SqliteStore.open(path, RUN, LAYOUT)


def test_a_journal_with_its_log_switched_off_is_refused(path, opened, refused):
    opened.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    with refused(StateError, str(path), "log"):
        SqliteStore.open(path, RUN, LAYOUT)


def test_the_log_of_a_journal_that_was_removed_is_not_taken_for_the_new_ones(path, history):
    _, _, files = history
    path.parent.mkdir(parents=True)
    put(path.parent, {"journal.sqlite-wal": files["journal.sqlite-wal"]})
    with closing(Journal(SqliteStore.open(path, RUN, LAYOUT))) as journal:
        assert content(journal) == (0, {}, {}, [])


def test_a_journal_that_found_no_room_to_begin_leaves_nothing_behind(tmp_path, monkeypatch, refused):
    def full(uri: str) -> sqlite3.Connection:
        scratch = Path(uri.removeprefix("file://"))
        for suffix in ("-wal", "-shm"):  # SQLite leaves them where it cannot write them back
            scratch.with_name(scratch.name + suffix).write_bytes(b"")
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(sqlite_store, "_connect", full)
    with refused(StateError, "cannot be written", "full"):
        SqliteStore.open(tmp_path / "journal.sqlite", RUN, LAYOUT)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_nothing_of_the_decision_is_kept(path, store, opened, refused):
    for member in MEMBERS:
        opened.enrolled(member, Enrolment("weights"))
    settle(opened, 1)
    before = content(opened)
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count={pages}")
    big = Delivery(2, np.zeros((1, 50_000), np.float32))
    with refused(StateError, str(path), "cannot be written", "full", "run again"):
        opened.settled(2, {7: big}, {7: big.values})
    assert content(opened) == before
    store._database.execute("PRAGMA max_page_count=1000000")
    opened.settled(2, {7: big}, {7: big.values})
    after = content(opened)
    assert after[0] == 2
    opened.close()
    assert state_of(path) == after


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises((WashError, OSError)) as caught:
        SqliteStore.open(tmp_path / "file" / "journal.sqlite", RUN, LAYOUT)
    assert "file" in str(caught.value)


# How it is used


def test_an_audit_reads_what_a_dead_server_left_and_changes_nothing(history, tmp_path):
    states, _, files = history
    path = put(tmp_path, files)
    with closing(SqliteStore.read(path)) as store:
        journal = Journal(store)
        assert (store.run, store.layout) == (RUN, LAYOUT)
        assert content(journal) == states[-1]
        with pytest.raises(StateError, match="cannot be written"):
            journal.released(2)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    # What reading left beside it does not disturb the server that goes on.
    assert state_of(path) == states[-1]


def test_an_audit_reads_what_a_server_closed(path, opened):
    settle(opened, 1)
    before = content(opened)
    opened.close()
    with closing(Journal(SqliteStore.read(path))) as journal:
        assert content(journal) == before


def test_reading_a_journal_that_does_not_exist_makes_none(path, refused):
    with refused(RunError, str(path), "does not exist"):
        SqliteStore.read(path)
    assert not path.exists()


def test_any_thread_may_use_it(opened):
    failed = []

    def use():
        try:
            settle(opened, 1)
            opened.acknowledged(0, 1)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not failed
    assert sorted(opened.restore()[1]) == [1, 2]


def test_it_holds_at_most_one_slice_per_member_however_long_the_run_is(path, store, opened):
    for exchange in range(1, 200):
        settle(opened, exchange)
        for member in MEMBERS:
            opened.acknowledged(member, exchange)
    slices = store._database.execute("SELECT count(*) FROM deliveries").fetchone()[0]
    assert slices == 0
    settle(opened, 200)
    assert store._database.execute("SELECT count(*) FROM deliveries").fetchone()[0] == len(MEMBERS)
    opened.close()
    assert path.stat().st_size < 200_000


def test_closing_twice_does_no_harm_and_leaves_one_file(path, opened):
    opened.close()
    opened.close()
    assert list(path.parent.iterdir()) == [path]
