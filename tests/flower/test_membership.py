"""Members that leave, return, join late or lose their state, and a server that dies, in one process."""

import gc
import logging
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from torch import nn

from wash_fl.core import philox
from wash_fl.core.identity import weights_sha256
from wash_fl.errors import RunError, StateError
from wash_fl.faults import points
from wash_fl.faults.fault import SERVER_POINTS
from wash_fl.faults.plan import FaultPlan
from wash_fl.faults.points import Killed
from wash_fl.flower import records
from wash_fl.flower.client import Round
from wash_fl.flower.failures import GONE, KILLED
from wash_fl.flower.in_process import Deliver
from wash_fl.protocol.commands import RoundEnded
from wash_fl.protocol.journal import Journal
from wash_fl.storage.sqlite_store import SqliteStore

from fleet import FastClock, Fleet, is_train, round_of

Replies = list[Message]


pytestmark = pytest.mark.usefixtures("flower_log")


def sorted_values(values: np.ndarray) -> np.ndarray:
    return np.sort(values, axis=0)


def arrays_of(result: Any) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in result.arrays.items()}


def run_again_and_again(fleet: Fleet, plan: FaultPlan, **options: Any) -> tuple[Any, int]:
    """Run a fleet whose server is killed as planned, and restart it until it is through."""
    for attempt in range(40):
        try:
            with points.installed(plan):
                return fleet.run(journal=fleet.folder / "journal.sqlite", **options), attempt
        except Killed:
            gc.collect()  # the journal's lock goes with the process that had it
    raise AssertionError("the server died forty times")


# A server that dies


@pytest.mark.parametrize("exchange", [1, 3, 6])
@pytest.mark.parametrize("at", SERVER_POINTS)
def test_a_server_killed_anywhere_goes_on_and_gives_the_undisturbed_weights(
    tmp_path: Path, at: str, exchange: int
) -> None:
    undisturbed = weights_sha256(arrays_of(Fleet(tmp_path / "undisturbed").run()))
    where = "" if at in ("collected", "averaged") else f" exchange={exchange}"
    fleet = Fleet(tmp_path / "disturbed")

    result, attempts = run_again_and_again(fleet, FaultPlan.parse(f"kill server{where} at={at}"))

    assert attempts == 1
    assert weights_sha256(arrays_of(result)) == undisturbed
    assert sorted(set(fleet.trained)) == sorted(fleet.trained), "a round was trained twice"
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_a_server_killed_at_every_point_of_every_round_gives_the_undisturbed_weights(tmp_path: Path) -> None:
    undisturbed = weights_sha256(arrays_of(Fleet(tmp_path / "undisturbed").run()))
    kills = [
        f"kill server exchange={n} at={at}" for n in range(1, 7) for at in ("sent", "offered", "settled")
    ]
    plan = FaultPlan.parse("; ".join([*kills, "kill server at=collected", "kill server at=averaged"]))
    result, attempts = run_again_and_again(Fleet(tmp_path / "disturbed"), plan)
    assert attempts == 20
    assert weights_sha256(arrays_of(result)) == undisturbed


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.run(journal=tmp_path / "journal.sqlite")
    with pytest.raises(StateError, match="journal of run"):
        Fleet(tmp_path).run(journal=tmp_path / "journal.sqlite", seed=4)


def test_a_journal_that_is_behind_its_members_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    fleet = Fleet(tmp_path)

    def copy(report: RoundEnded) -> None:
        # As a backup would: the file and its log.
        if report.round == 2:
            for each in tmp_path.glob("journal.sqlite*"):
                shutil.copy(each, tmp_path / f"copy-of-{each.name}")

    fleet.on_round = copy
    with pytest.raises(Killed), points.installed(FaultPlan.parse("kill server exchange=5 at=settled")):
        fleet.run(journal=path)
    gc.collect()
    for each in tmp_path.glob("copy-of-*"):
        shutil.copy(each, tmp_path / each.name.removeprefix("copy-of-"))
    with pytest.raises(RunError, match="the journal is an older copy"):
        fleet.run(journal=path)


# Members that leave and return


def absent_between(first: int, last: int, member: int) -> Any:
    """Take a member off the network after round ``first - 1`` and bring it back after round ``last``."""

    def on_round(fleet: Fleet, report: RoundEnded) -> None:
        if report.round == first - 1:
            fleet.grid.offline.add(member)
        if report.round == last:
            fleet.grid.offline.discard(member)

    return on_round


def fleet_with(folder: Path, on_round: Any, **options: Any) -> Fleet:
    fleet = Fleet(folder, **options)
    fleet.on_round = lambda report: on_round(fleet, report)
    return fleet


def test_a_member_that_returns_gets_what_waited_for_it(tmp_path: Path) -> None:
    fleet = fleet_with(tmp_path, absent_between(3, 6, member=2), rounds=9)
    fleet.run()
    assert [report.absent for report in fleet.reports] == [()] * 2 + [(2,)] * 4 + [()] * 3
    assert (2, 6) not in fleet.trained and (2, 7) in fleet.trained
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_a_member_that_is_away_too_long_is_given_up_and_the_average_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = fleet_with(tmp_path, absent_between(3, 99, member=2), rounds=9)
    strategy = fleet.strategy(give_up_after=3)
    fleet.start(strategy)
    assert [report.absent for report in fleet.reports] == [()] * 2 + [(2,)] * 3 + [()] * 4
    assert strategy.collected == [0, 1, 3]
    reason = "it did not take part in 3 rounds in a row: it is not connected"
    assert strategy.left_out == {2: f"given-up: {reason}"}
    assert "member 2 is given-up: it did not take part in 3 rounds in a row" in caplog.text
    assert "member 2 is not in the average" in caplog.text


def test_a_member_that_returns_after_it_was_given_up_starts_from_a_donors_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = fleet_with(tmp_path, absent_between(3, 7, member=2), rounds=10)
    strategy = fleet.strategy(give_up_after=2)
    fleet.start(strategy)
    assert "member 2 starts anew: it is back after it was given up" in caplog.text
    assert "member 2 joins after exchange 8 with the weights of member 0" in caplog.text
    assert strategy.collected == [0, 1, 2, 3]
    assert strategy.left_out == {}
    assert fleet.reports[-1].settlement.members == (0, 1, 2, 3)


def test_a_late_joiner_starts_from_what_a_donor_holds_and_not_from_the_initial_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[dict[str, np.ndarray]] = []
    donated: list[dict[str, np.ndarray]] = []

    def watch(member: int, request: Message, deliver: Deliver) -> Replies:
        replies = deliver(request)
        kind = request.metadata.message_type
        if kind == records.JOIN and member == 3 and records.ARRAYS in request.content:
            given.append(records.named_arrays(request.content.array_records[records.ARRAYS]))
        if kind == records.COLLECT and not given:
            donated.append(records.named_arrays(replies[0].content.array_records[records.ARRAYS]))
        return replies

    fleet = fleet_with(tmp_path, absent_between(99, 3, member=3), rounds=8, fault=watch, min_members=3)
    fleet.grid.offline.add(3)
    fleet.run()
    assert "member 3 joins after exchange 4 with the weights of member 0" in caplog.text
    assert [len(report.settlement.members) for report in fleet.reports] == [3] * 5 + [4] * 3
    assert weights_sha256(given[0]) == weights_sha256(donated[0])
    assert not np.array_equal(given[0]["0.weight"], dict(fleet.initial())["0.weight"])
    # In its first round it takes on values of its own, as all did in theirs; none is lost or doubled since.
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_a_member_that_lost_its_disk_starts_from_a_donors_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lose(fleet: Fleet, report: RoundEnded) -> None:
        if report.round == 3:
            for path in fleet.state_files():
                if "member-1" in str(path):
                    shutil.rmtree(path.parent)

    fleet = fleet_with(tmp_path, lose, rounds=8)
    fleet.run()
    assert "member 1 starts anew: it has lost its state" in caplog.text
    assert "member 1 joins after exchange 4 with the weights of member 0" in caplog.text
    assert sorted(fleet.collected) == [0, 1, 2, 3]
    assert fleet.reports[-1].settlement.members == (0, 1, 2, 3)


def test_a_member_whose_disk_fell_back_behind_what_it_acknowledged_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept: dict[Path, bytes] = {}

    def fall_back(fleet: Fleet, report: RoundEnded) -> None:
        mine = [path for path in fleet.state_files() if "member-1" in str(path)]
        if report.round == 2:
            kept.update({path: path.read_bytes() for path in mine})
        if report.round == 5:
            for path in mine:
                path.unlink()
            for path, content in kept.items():
                path.write_bytes(content)

    fleet = fleet_with(tmp_path, fall_back, rounds=9)
    fleet.run()
    assert "member 1 starts anew" in caplog.text
    assert "it fell back to a state before what it had offered" in caplog.text
    assert sorted(fleet.collected) == [0, 1, 2, 3]
    assert fleet.reports[-1].settlement.members == (0, 1, 2, 3)


def test_a_restarted_server_finds_late_joiners_and_those_it_has_given_up(tmp_path: Path) -> None:
    fleet = fleet_with(tmp_path, absent_between(99, 2, member=3), rounds=8, min_members=3)
    fleet.grid.offline.add(3)
    _, attempts = run_again_and_again(fleet, FaultPlan.parse("kill server exchange=6 at=settled"))
    assert attempts == 1
    assert sorted(fleet.collected) == [0, 1, 2, 3]
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


@pytest.mark.parametrize("kind", [records.JOIN, records.TRAIN, records.COLLECT, records.RECALIBRATE])
@pytest.mark.parametrize(
    ("code", "said"),
    [(GONE, "its SuperNode is gone; it is asked again if it is back"), (KILLED, "killed; it is asked again")],
)
def test_who_is_lost_while_it_works_is_asked_again_and_the_weights_are_the_undisturbed_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, code: int, said: str
) -> None:
    lost: list[int] = []

    def lose(member: int, request: Message, deliver: Deliver) -> Replies:
        due = request.metadata.message_type == kind and (not is_train(request) or round_of(request) == 3)
        if not due or member != 2 or lost:
            return deliver(request)
        lost.append(member)
        deliver(request)  # it may have done all of it
        return [Message(Error(code, "planted"), reply_to=request)]

    fleet = Fleet(tmp_path, fault=lose)
    result = fleet.run()
    assert lost and said in caplog.text
    assert fleet.reports[2].settlement.members == (0, 1, 2, 3)
    undisturbed = Fleet(tmp_path / "undisturbed").run()
    assert weights_sha256(arrays_of(result)) == weights_sha256(arrays_of(undisturbed))


def test_a_supernode_that_is_one_answer_behind_is_reminded_and_takes_part_in_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held: dict[str, Replies] = {}

    def behind(member: int, request: Message, deliver: Deliver) -> Replies:
        replies = deliver(request)
        if member != 2:
            return replies
        fleet.grid._replies.update(held)
        held.clear()
        held[request.metadata.message_id] = replies
        return []

    fleet = Fleet(tmp_path, fault=behind)
    result = fleet.start(fleet.strategy(), timeout=200.0)
    assert "member 2: no answer for 30 s; it is reminded" in caplog.text
    assert [report.settlement.members for report in fleet.reports] == [(0, 1, 2, 3)] * fleet.rounds
    undisturbed = Fleet(tmp_path / "undisturbed").run()
    assert weights_sha256(arrays_of(result)) == weights_sha256(arrays_of(undisturbed))


# Rounds


def test_a_round_waits_for_its_quorum_and_says_how_to_go_on_without(tmp_path: Path) -> None:
    def leave(fleet: Fleet, report: RoundEnded) -> None:
        if report.round == 3:
            fleet.grid.offline |= {0, 1}

    fleet = fleet_with(tmp_path, leave, min_members=3)
    journal = tmp_path / "journal.sqlite"
    with pytest.raises(RunError, match=r"round 4: 2 of the 3 members .* lower min-members, and run again"):
        fleet.run(journal=journal)
    fleet.grid.offline.clear()
    fleet.run(journal=journal)
    assert [report.round for report in fleet.reports] == [1, 2, 3, 4, 5, 6]
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_a_straggler_is_not_sent_more_work_and_its_late_reply_counts_as_acknowledgement(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[int, int]] = []

    def slow(member: int, request: Message, deliver: Deliver) -> Replies:
        if is_train(request):
            asked.append((member, round_of(request)))
        return deliver(request)

    from wash_fl.flower.faulty_grid import FaultyGrid

    fleet = Fleet(tmp_path, fault=slow, rounds=9)
    grid = FaultyGrid(fleet.grid, FaultPlan.parse("delay reply member=1 exchange=3 by=3"))
    fleet.start(fleet.strategy(), grid=grid, timeout=1000.0)
    rounds = [number for member, number in asked if member == 1]
    assert rounds == [1, 2, 3, 7, 8, 9]
    assert "member 1: its reply to round 3 came after" in caplog.text
    assert "member 1: its offer in round 3 is late" in caplog.text
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_a_member_far_outside_the_others_is_set_aside_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(model: nn.Module, member: int, now: Round) -> None:
        if member == 2 and now.number >= 3:
            with torch.no_grad():
                for each in model.parameters():
                    each.mul_(1e4)

    fleet = Fleet(tmp_path, after_training=break_down)
    strategy = fleet.strategy()
    fleet.start(strategy)
    assert list(fleet.reports[2].settlement.aside) == [2]
    assert "member 2 is set-aside" in caplog.text
    assert strategy.collected == [0, 1, 3]
    assert strategy.left_out[2].startswith("set-aside")
    assert (2, 4) not in fleet.trained
    assert np.abs(fleet.values()).max() < 1e3
    unchecked = Fleet(tmp_path / "unchecked", after_training=break_down)
    unchecked.run(outlier_factor=0.0)
    assert sorted(unchecked.collected) == [0, 1, 2, 3]


@pytest.mark.long
def test_500_rounds_with_a_fifth_of_the_messages_lost_keep_every_value_and_the_servers_memory_flat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="flwr")  # what is captured is kept

    def lose(member: int, request: Message, deliver: Deliver) -> Replies:
        if not is_train(request):
            return deliver(request)
        draw = int(philox.words(1, "loss", 1, index=round_of(request), member=member)[0] % 10)
        if draw == 1:
            deliver(request)
        return [] if draw < 2 else deliver(request)

    held: list[int] = []

    def measure(report: RoundEnded) -> None:
        fleet.reports.clear()
        fleet.trained[:] = [(member, 1) for member in range(5)]
        if report.round == 300:  # watching costs time; what is replaced until 400 is no growth
            tracemalloc.start()
        if report.round in (400, 500):
            gc.collect()
            # The members live in this process, too; reading a safetensors file keeps 28 bytes per tensor.
            ours = tracemalloc.Filter(False, "*/member/encoding.py")
            found = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
            held.append(sum(each.size for each in found))
        if report.round == 500:
            tracemalloc.stop()

    fleet = Fleet(tmp_path, members=5, fault=lose, rounds=500, on_round=measure)
    fleet.run(journal=tmp_path / "journal.sqlite", give_up_after=0)
    grown = held[1] - held[0]
    with capsys.disabled():
        print(f"\n500 rounds, 20 % loss: the server grew by {grown / 1e3:.0f} kB from round 400 to round 500")
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))
    assert grown < 100_000  # of which some 40 kB are Flower's history of metrics
    journal = Journal(SqliteStore.read(tmp_path / "journal.sqlite"))
    assert journal.restore()[0] == 500
    assert len(list(journal.records())) == 500
    journal.close()


def test_a_member_that_is_back_in_time_is_collected(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)

    class Returning(FastClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.time > 0.5:
                fleet.grid.offline.clear()

    fleet.clock = Returning()
    fleet.on_round = lambda report: fleet.grid.offline.add(1) if report.round == 6 else None
    strategy = fleet.strategy()
    fleet.start(strategy)
    assert strategy.collected == [0, 1, 2, 3]


def test_a_member_that_stays_away_is_not_in_the_average_and_the_run_ends(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.on_round = lambda report: fleet.grid.offline.add(1) if report.round == 6 else None
    strategy = fleet.strategy()
    fleet.start(strategy)
    assert strategy.collected == [0, 2, 3]
    assert strategy.left_out == {1: "it was not there when the members were collected"}


def test_a_member_that_says_it_applied_less_than_it_acknowledged_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def forget(member: int, request: Message, deliver: Deliver) -> Replies:
        replies = deliver(request)
        if is_train(request) and (member, round_of(request)) == (1, 5):
            replies[0].content.config_records[records.RECORD]["applied"] = 2
        return replies

    fleet = Fleet(tmp_path, fault=forget, rounds=9)
    fleet.run()
    assert "member 1 starts anew: it fell back to a state before what it had acknowledged" in caplog.text
    assert "member 1 joins after exchange 5 with the weights of member 0" in caplog.text
    assert sorted(fleet.collected) == [0, 1, 2, 3]


def test_a_member_that_has_been_away_for_a_while_is_not_waited_for_at_the_end(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.on_round = lambda report: fleet.grid.offline.add(1) if report.round == 3 else None
    began = fleet.clock.now()
    fleet.start(fleet.strategy(start_timeout=500.0))
    assert sorted(fleet.collected) == [0, 2, 3]
    assert fleet.clock.now() - began < 100.0
