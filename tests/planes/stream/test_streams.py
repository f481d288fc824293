"""Whole rounds over real streams: what is held at the end is what was held at the beginning."""

import dataclasses
import json
import threading
from collections import Counter

import numpy as np
import pytest
from stream.fleet import StreamFleet

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.packet import DTYPES
from wash_fl.core.schedule import Schedule
from wash_fl.core.sqlite_journal import SqliteJournal
from wash_fl.errors import RunError
from wash_fl.member.parameters import model_layout
from wash_fl.planes.stream.place import Place

from fleet import make_model

STREAM = ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", exchange_plane="stream")


def conserved(fleet):
    """Whether each coordinate holds the same values as at the beginning, over all members."""
    return np.array_equal(np.sort(fleet.values(), axis=0), np.sort(fleet.given(), axis=0))


def moved(fleet):
    return not np.array_equal(fleet.values(), fleet.given())


@pytest.mark.parametrize("topology", ["pairs", "permutation"])
def test_every_step_an_exchange_of_all_members(tmp_path, topology):
    fleet = StreamFleet(tmp_path, exchange=dataclasses.replace(STREAM, topology=topology))
    fleet.run()
    assert [each.settlement.exchange for each in fleet.exchanges] == list(range(1, 13))
    assert {each.settlement.members for each in fleet.exchanges} == {(0, 1, 2, 3)}
    assert conserved(fleet) and moved(fleet)
    assert len(fleet.trained) == 2 * 6 * 4
    assert fleet.reports[-1].metrics[0]["exchanges"] == 6.0


def test_the_interval_runs_on_over_rounds(tmp_path):
    fleet = StreamFleet(tmp_path, exchange=dataclasses.replace(STREAM, every=4), rounds=3, local_steps=6)
    fleet.run()
    assert [report.settlement.exchange for report in fleet.reports] == [1, 3, 4]
    assert conserved(fleet) and moved(fleet)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_sum_over_the_members_is_conserved(tmp_path, dtype, overlap):
    """Also while they learn: what each has learned is known, and nothing else may have changed the sum."""
    exchange = dataclasses.replace(STREAM, dtype=dtype, overlap=overlap, every=2)
    fleet = StreamFleet(tmp_path, exchange=exchange, learn=True)
    fleet.run()
    learned = sum(0.01 / (step + 1) for step in range(12)) * sum(range(1, 5))
    drift = fleet.values().sum(axis=0, dtype=np.float64) - fleet.given().sum(axis=0, dtype=np.float64)
    assert np.abs(drift + learned).max() < 2e-5
    assert moved(fleet)


CUTS = ("offering", "sent", "delivered", "applied")


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("at", CUTS)
def test_a_connection_that_is_cut(tmp_path, at, overlap):
    fleet = StreamFleet(
        tmp_path,
        exchange=dataclasses.replace(STREAM, overlap=overlap),
        plan="; ".join(
            f"cut member={member} exchange={exchange} at={at}"
            for member, exchange in ((1, 2), (3, 5), (0, 9))
        ),
    )
    fleet.run()
    assert fleet.injected == {"cut": 3}
    assert conserved(fleet) and moved(fleet)
    assert len(fleet.trained) == 48


@pytest.mark.parametrize("at", CUTS)
def test_connections_that_are_cut_again_and_again(tmp_path, at):
    fleet = StreamFleet(tmp_path, plan=f"cut member=1 at={at} times=always")
    fleet.run()
    assert fleet.injected["cut"] >= 5
    assert conserved(fleet)
    assert len(fleet.trained) == 48


@pytest.mark.parametrize("at", ["asked", "saved", *CUTS])
def test_a_member_that_is_killed_goes_on_from_its_log(tmp_path, at):
    # In the second round: what the test gives it in the first is on the disk only then.
    where = "" if at in ("asked", "saved") else " exchange=9"
    fleet = StreamFleet(tmp_path, plan=f"kill member=2{where} at={at}")
    fleet.run(exchange_deadline=20.0)
    assert fleet.injected == {"kill": 1}
    assert sorted(fleet.collected) == [0, 1, 2, 3]
    assert conserved(fleet) and moved(fleet)


def test_a_member_that_is_paused_for_longer_than_the_deadline(tmp_path):
    fleet = StreamFleet(tmp_path, plan="pause member=1 exchange=3 at=offering by=3")
    fleet.run(exchange_deadline=0.5)
    members = [each.settlement.members for each in fleet.exchanges]
    assert (0, 2, 3) in members and conserved(fleet)
    assert max(each.seconds for each in fleet.exchanges[1:]) < 2.5
    assert Counter(member for member, _, _ in fleet.trained) == dict.fromkeys(range(4), 12)


def test_a_slow_member_does_not_hold_the_others_back(tmp_path):
    pace = threading.Event()

    def before_step(member, step):
        pace.wait(0.5 if member == 0 else 0.02)

    fleet = StreamFleet(tmp_path, rounds=1, local_steps=8, before_step=before_step)
    fleet.run(exchange_deadline=0.1)
    together = [each.settlement.members for each in fleet.exchanges if len(each.settlement.members) > 1]
    assert len(together) >= 6 and conserved(fleet)
    # All but the first one, in which nobody's speed is known.
    assert np.median([each.seconds for each in fleet.exchanges]) < 0.2


def test_a_member_that_dies_for_good(tmp_path):
    fleet = StreamFleet(tmp_path, timeout=8.0, plan="kill member=2 at=sent exchange=3")

    def gone_after_its_death(member, request, deliver):
        if member != 2 or not fleet.injected:
            return deliver(request)
        fleet.grid.offline.add(2)
        return []

    fleet.grid.fault = gone_after_its_death
    fleet.run(exchange_deadline=0.5, start_timeout=1.0, deadline_spread=1.0)
    assert sorted(fleet.collected) == [0, 1, 3]
    assert len([step for member, _, step in fleet.trained if member == 0]) == 12


@pytest.mark.parametrize("point", ["sent", "offered", "settled"])
def test_a_server_that_is_killed_and_started_again(tmp_path, point):
    """The members are still in the old round: they find the new server, and go on where they were."""
    fleet = StreamFleet(
        tmp_path, local_steps=8, plan=f"kill server at={point}" + ("" if point == "sent" else " exchange=3")
    )
    place = Place(listen=f"127.0.0.1:{free_port()}")
    journal = tmp_path / "journal.sqlite"
    for _ in range(2):
        try:
            fleet.run(journal=journal, place=place)
            break
        except BaseException as error:
            assert type(error).__name__ == "Killed", error
    assert sorted(fleet.collected) == [0, 1, 2, 3] and conserved(fleet)


def test_a_port_that_is_taken_is_said(tmp_path, refused):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        fleet = StreamFleet(tmp_path)
        with refused(RunError, "cannot listen on 127.0.0.1", "WASH_FL_STREAM_LISTEN"):
            fleet.run(place=Place(listen=f"127.0.0.1:{taken.getsockname()[1]}"))


def free_port():
    from wash_fl import processes

    return processes.free_port()


def test_bytes_are_those_of_the_formula(tmp_path):
    """Counted where they are sent, they are what the draw says that they must be."""
    fleet = StreamFleet(tmp_path, rounds=1)
    strategy = fleet.strategy()
    fleet.strategy = lambda **options: strategy
    fleet.run()
    draw = Draw(3, model_layout(make_model()), Schedule.between(fleet.exchange, 1, fleet.local_steps))
    for report in fleet.exchanges:
        for up, _, down, _ in report.bytes.values():
            before = report.settlement.exchange - 1
            assert up == 4 * draw.count(before + 1)
            assert down == (4 * draw.count(before) if before else 0)
    total = strategy.traffic.total()
    assert total["up_values"] == 4 * 4 * sum(draw.count(exchange) for exchange in range(1, 7))
    assert total["down_values"] == total["up_values"]
    assert total["up_framing"] > 0 and total["down_framing"] > 0


def test_an_exchange_without_coordinates_is_passed(tmp_path):
    exchange = dataclasses.replace(STREAM, stop_after=3)
    fleet = StreamFleet(tmp_path, exchange=exchange)
    fleet.run()
    assert [report.settlement.exchange for report in fleet.reports] == [6, 12]
    assert conserved(fleet)


def test_the_journal_has_every_exchange_and_no_delivery_waits_for_ever(tmp_path):
    fleet = StreamFleet(tmp_path)
    fleet.run(journal=tmp_path / "journal.sqlite", keep_members=True)
    journal = SqliteJournal.read(tmp_path / "journal.sqlite")
    assert journal.restore()[0] == 12 and journal.rounds == 2
    assert [record.exchange for record in journal.records()] == list(range(1, 13))
    assert not journal.restore()[1]
    journal.close()


def test_a_small_log_is_kept_small(tmp_path, monkeypatch):
    monkeypatch.setattr("wash_fl.member.durable.LOG_BYTES", 1)
    fleet = StreamFleet(tmp_path, local_steps=20)
    fleet.run(keep_members=True)
    assert conserved(fleet)
    folders = list((tmp_path / "state").glob("*/member-*"))
    assert len(folders) == 4
    for folder in folders:
        sizes = [path.stat().st_size for path in folder.glob("exchanges.*")]
        assert len(sizes) <= 2 and max(sizes, default=0) < 2000


def test_reports_are_plain_numbers(tmp_path):
    fleet = StreamFleet(tmp_path, rounds=1, local_steps=2)
    fleet.run()
    assert json.dumps([each.bytes for each in fleet.exchanges])
