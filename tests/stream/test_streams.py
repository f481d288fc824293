"""Whole rounds over real streams: what is held at the end is what was held at the beginning."""

import dataclasses
import json
import os
import re
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from stream_fleet import StreamFleet

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.dtypes import DTYPES
from wash_fl.core.schedule import Schedule
from wash_fl.errors import RunError
from wash_fl.member.log import HEADER_BYTES, SUM_BYTES, ExchangeLog
from wash_fl.member.parameters import model_layout
from wash_fl.protocol.journal import Journal
from wash_fl.storage.sqlite_store import SqliteStore
from wash_fl.stream.place import Place

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


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("options", [{"mix": "average", "topology": "pairs"}, {"average_from": 0.5}], ids=str)
def test_the_sum_is_conserved_where_members_take_the_mean(tmp_path, dtype, overlap, options):
    exchange = dataclasses.replace(STREAM, dtype=dtype, overlap=overlap, every=2, **options)
    fleet = StreamFleet(tmp_path, exchange=exchange, learn=True)
    fleet.run()
    learned = sum(0.01 / (step + 1) for step in range(12)) * sum(range(1, 5))
    drift = fleet.values().sum(axis=0, dtype=np.float64) - fleet.given().sum(axis=0, dtype=np.float64)
    assert np.abs(drift + learned).max() < 2e-5
    assert moved(fleet) and not conserved(fleet)


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


def lose_records(folder, count):
    """Cut the last records off a member's newest exchange log, as a power cut before a sync does."""
    path = max(folder.glob("*/member-2/exchanges.*"), key=lambda each: each.stat().st_mtime_ns)
    sizes = [0]
    for entry in ExchangeLog(path).read():
        sizes.append(sizes[-1] + HEADER_BYTES + entry.values.nbytes + SUM_BYTES)
    assert sizes[-1] == path.stat().st_size and len(sizes) > count
    os.truncate(path, sizes[-1 - count])


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("at, lost", [("delivered", 1), ("applied", 2)])
def test_a_member_that_lost_its_last_offer_in_a_power_cut_starts_anew(tmp_path, at, lost, overlap, caplog):
    """Its exchange is settled, so its values are another's now; refused, it would lose round after round."""
    exchange = dataclasses.replace(STREAM, overlap=overlap)
    plan = f"kill member=2 exchange=9 at={at}"
    fleet = StreamFleet(tmp_path, exchange=exchange, plan=plan, rounds=5)
    cut = threading.Event()

    def power_cut(member, request, deliver):
        replies = deliver(request)
        if member == 2 and fleet.injected and not cut.is_set():
            cut.set()
            lose_records(tmp_path / "state", lost)
        return replies

    fleet.grid.fault = power_cut
    with caplog.at_level("INFO", logger="flwr.wash_fl"):
        fleet.run(exchange_deadline=5.0)
    assert cut.is_set()
    assert "member 2 starts anew: it fell back to a state before what it had offered" in caplog.text
    assert "refused" not in caplog.text
    assert sorted(fleet.collected) == [0, 1, 2, 3]
    assert fleet.reports[-1].settlement.members == (0, 1, 2, 3)


def test_a_power_cut_that_takes_only_what_was_applied_costs_nothing(tmp_path, caplog):
    fleet = StreamFleet(tmp_path, plan="kill member=2 exchange=9 at=applied", rounds=3)

    def power_cut(member, request, deliver):
        killed = not fleet.injected
        replies = deliver(request)
        if member == 2 and killed and fleet.injected:
            lose_records(tmp_path / "state", 1)
        return replies

    fleet.grid.fault = power_cut
    with caplog.at_level("INFO", logger="flwr.wash_fl"):
        fleet.run(exchange_deadline=20.0)
    assert "anew" not in caplog.text and conserved(fleet)


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
    from wash_fl.deploy import processes

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
    journal = Journal(SqliteStore.read(tmp_path / "journal.sqlite"))
    assert journal.restore()[0] == 12 and journal.rounds == 2
    assert [record.exchange for record in journal.records()] == list(range(1, 13))
    assert not journal.restore()[1]
    journal.close()


def test_a_small_log_is_kept_small(tmp_path, monkeypatch):
    monkeypatch.setattr("wash_fl.member.log.LOG_BYTES", 1)
    fleet = StreamFleet(tmp_path, local_steps=20)
    fleet.run(keep_members=True)
    assert conserved(fleet)
    folders = list((tmp_path / "state").glob("*/member-*"))
    assert len(folders) == 4
    for folder in folders:
        sizes = [path.stat().st_size for path in folder.glob("exchanges.*")]
        assert len(sizes) <= 2 and max(sizes, default=0) < 2000


@pytest.mark.parametrize(
    "plan", ["", "kill member=1 at=offering exchange=9", "kill member=2 at=applied exchange=11"]
)
@pytest.mark.parametrize("log_bytes", [1, 16 << 20])
def test_a_scheduler_goes_on_over_rounds_rests_and_a_crash(tmp_path, monkeypatch, log_bytes, plan):
    """Saved in the middle of a round or not: each step is taken at the rate of one process."""
    monkeypatch.setattr("wash_fl.member.log.LOG_BYTES", log_bytes)
    fleet = StreamFleet(
        tmp_path, plan=plan, schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.1)
    )
    fleet.run()
    assert len({(member, step) for member, step, _ in fleet.rates}) == 4 * 12
    assert (len(fleet.rates) > 4 * 12) == bool(plan), "after a crash some steps are taken again"
    for _, step, rate in fleet.rates:
        assert rate == pytest.approx(0.01 * 0.1 ** (step // 4)), step
    assert sum(fleet.injected.values()) == bool(plan) and conserved(fleet)


def test_what_is_saved_in_the_middle_of_a_round_is_from_before_the_next_forward_pass(tmp_path, monkeypatch):
    """A forward pass moves BatchNorm's statistics: after a crash it is made once, not twice."""
    monkeypatch.setattr("wash_fl.member.log.LOG_BYTES", 1)
    steps = {}

    def run(folder, plan):
        fleet = StreamFleet(folder, plan=plan, rounds=1, forward=True)
        fleet.run()
        steps[folder.name] = len(fleet.trained)
        return {member: weights["1.running_mean"] for member, weights in fleet.collected.items()}

    undisturbed = run(tmp_path / "a", "")
    disturbed = run(tmp_path / "b", "kill member=1 at=offering exchange=5")
    assert steps["b"] >= steps["a"] == 4 * 6
    for member, mean in undisturbed.items():
        np.testing.assert_array_equal(disturbed[member], mean)


def test_what_the_members_code_raises_ends_the_run_with_its_reason(tmp_path):
    def broken(member, step):
        if step == 2:
            raise IndexError("Target 10 is out of bounds.")

    fleet = StreamFleet(tmp_path, before_step=broken)
    with pytest.raises(RunError) as caught:
        fleet.run(exchange_deadline=1.0)
    said = (
        r"round 1: members 0, 1, 2, 3: IndexError: Target 10 is out of bounds \(test_streams\.py:\d+\); see"
    )
    assert re.search(said, str(caught.value)), caught.value


def test_reports_are_plain_numbers(tmp_path):
    fleet = StreamFleet(tmp_path, rounds=1, local_steps=2)
    fleet.run()
    assert json.dumps([each.bytes for each in fleet.exchanges])
