"""Plans of faults: their text, what they hit, how often, and what is counted."""

import multiprocessing
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wash_fl.errors import ConfigError
from wash_fl.faults.fault import (
    MEMBER_POINTS,
    NETWORK,
    REQUESTS,
    ROUND_POINTS,
    SERVER_POINTS,
    STREAM_POINTS,
    Fault,
    Kind,
    Way,
)
from wash_fl.faults.ledger import FolderLedger, Ledger, MemoryLedger
from wash_fl.faults.plan import FaultPlan

EXAMPLE = (
    "drop reply member=1 exchange=3; kill member=2 exchange=2 at=trained; "
    "delay reply member=0 exchange=4 by=2; corrupt request member=1 exchange=5; "
    "kill server exchange=3 at=settled; drop request member=2 times=always; "
    "duplicate reply member=3 of=collect times=2"
)


def test_a_plan_is_printed_as_it_was_written() -> None:
    plan = FaultPlan.parse(EXAMPLE)
    assert str(plan) == EXAMPLE
    assert plan.faults[2] == Fault(Kind.DELAY, 0, 4, Way.REPLY, by=2)
    assert plan.faults[4] == Fault(Kind.KILL, None, 3, at="settled")


def test_the_order_of_words_and_empty_parts_do_not_matter() -> None:
    assert (
        FaultPlan.parse(" drop  exchange=3 member=1 reply ;; ").faults == FaultPlan.parse(EXAMPLE).faults[:1]
    )
    assert FaultPlan.parse("").faults == ()


messages = st.builds(
    Fault,
    st.sampled_from(NETWORK),
    st.integers(0, 99),
    st.none() | st.integers(1, 999),
    st.sampled_from(Way),
    times=st.integers(0, 9),
)
delays = st.builds(
    Fault,
    st.just(Kind.DELAY),
    st.integers(0, 99),
    st.none() | st.integers(1, 999),
    st.sampled_from(Way),
    by=st.integers(1, 9),
)
others = st.builds(
    Fault,
    st.sampled_from([Kind.DROP, Kind.DUPLICATE, Kind.CORRUPT]),
    st.integers(0, 99),
    way=st.sampled_from(Way),
    of=st.sampled_from(REQUESTS),
)
kills = st.builds(
    lambda member, exchange, point: Fault(
        Kind.KILL,
        member,
        exchange,
        at=(SERVER_POINTS if member is None else MEMBER_POINTS)[
            point % (len(SERVER_POINTS if member is None else MEMBER_POINTS))
        ],
    ),
    st.none() | st.integers(0, 99),
    st.none() | st.integers(1, 999),
    st.integers(0, 60),
)


@given(st.lists(messages | delays | others | kills))
def test_any_plan_reads_back_as_it_was(faults: list[Fault]) -> None:
    assert FaultPlan.parse(str(FaultPlan(faults))).faults == tuple(faults)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lose reply member=1", ("lose reply member=1", "drop, delay")),
        ("drop reply member=1; explode", ("'explode'", "drop, delay")),
        ("drop reply", ("either member=<index> or server",)),
        ("drop reply server exchange=1", ("hits the request or the reply of a member",)),
        ("drop member=1 exchange=1", ("hits the request or the reply of a member",)),
        ("drop reply member=1 server", ("either member=<index> or server",)),
        ("drop reply member=one", ("member=one", "whole number")),
        ("drop reply member=-1", ("member=-1", "whole number")),
        ("drop reply member=1 exchange=0", ("exchange=0", "1 or more")),
        ("drop reply member=1 times=0", ("times=0", "'always'")),
        ("drop reply member=1 rounds=3", ("'rounds=3'", "exchange=")),
        ("drop reply member=1 member=2", ("'member=2'", "each once")),
        ("drop reply request member=1", ("'request'", "each once")),
        ("drop reply member=1 at=saved", ("at=saved", "only kill, pause and cut have a point")),
        ("cut server at=sent", ("at=sent", "cut off at one of offering")),
        ("cut member=1 at=saved", ("at=saved", "offering, sent, delivered, applied")),
        ("pause member=1 at=nowhere", ("at=nowhere", "a member is paused at one of")),
        ("drop reply member=1 by=2", ("by=2", "only delay and pause have by")),
        ("drop reply member=1 of=greet", ("of=greet", "recalibrate")),
        ("drop reply member=1 of=collect exchange=2", ("only messages of train have an exchange",)),
        ("delay reply member=1 of=collect", ("only messages of train",)),
        ("kill member=1", ("at=", "asked, trained, saved")),
        ("kill member=1 at=settled", ("at=settled", "asked, trained, saved")),
        ("kill server at=trained", ("at=trained", "sent, offered, settled, collected, averaged")),
        ("kill reply member=1 at=saved", ("kill takes",)),
        ("kill member=1 at=saved by=2", ("kill takes",)),
    ],
)
def test_wrong_text_is_refused_with_what_is_allowed(refused, text: str, parts: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    with refused(ConfigError, *parts, "Write for example"):
        FaultPlan.parse(text)


def test_a_fault_hits_its_member_exchange_and_way_and_nothing_else_once() -> None:
    plan = FaultPlan.parse("drop reply member=1 exchange=3")
    assert plan.take(Way.REPLY, member=1, exchange=2) is None
    assert plan.take(Way.REPLY, member=0, exchange=3) is None
    assert plan.take(Way.REQUEST, member=1, exchange=3) is None
    assert plan.take(Way.REPLY, member=1, exchange=3, of="collect") is None
    assert plan.injected == {}
    assert plan.take(Way.REPLY, member=1, exchange=3) == plan.faults[0]
    assert plan.take(Way.REPLY, member=1, exchange=3) is None
    assert plan.injected == {"drop": 1}


def test_without_an_exchange_the_next_messages_are_hit_as_often_as_said() -> None:
    plan = FaultPlan.parse("drop request member=1 times=2; duplicate request member=1 exchange=2")
    faults = [plan.take(Way.REQUEST, member=1, exchange=number) for number in (1, 2, 2, 3)]
    assert [each and each.kind for each in faults] == [Kind.DROP, Kind.DROP, Kind.DUPLICATE, None]
    forever = FaultPlan.parse("drop request member=1 times=always")
    assert all(forever.take(Way.REQUEST, member=1, exchange=number) for number in range(1, 50))
    assert forever.injected == {"drop": 49}


def test_what_cannot_happen_to_a_message_waits_for_one_to_which_it_can() -> None:
    plan = FaultPlan.parse("corrupt request member=1")
    assert plan.take(Way.REQUEST, member=1, exchange=1, without=(Kind.CORRUPT,)) is None
    assert plan.take(Way.REQUEST, member=1, exchange=2) == plan.faults[0]


def test_a_kill_is_for_its_point_and_its_process() -> None:
    plan = FaultPlan.parse("kill server exchange=2 at=settled; kill member=0 at=saved")
    assert plan.at("settled", member=None, exchange=1) is None
    assert plan.at("sent", member=None, exchange=2) is None
    assert plan.at("saved", member=1, exchange=2) is None
    assert plan.take(Way.REPLY, member=0, exchange=2) is None
    assert plan.at("settled", member=None, exchange=2) == plan.faults[0]
    assert plan.at("saved", member=0, exchange=7) == plan.faults[1]
    assert plan.injected == {"kill": 2}


def test_a_random_plan_is_a_function_of_its_seed_and_hits_as_often_as_asked() -> None:
    plan = FaultPlan.random(3, members=8, exchanges=500, rate=0.2)
    assert plan.faults == FaultPlan.random(3, members=8, exchanges=500, rate=0.2).faults
    assert plan.faults != FaultPlan.random(4, members=8, exchanges=500, rate=0.2).faults
    assert FaultPlan.parse(str(plan)).faults == plan.faults
    assert 0.18 < len(plan.faults) / 4000 < 0.22
    kinds = Counter((each.kind, each.way) for each in plan.faults)
    assert set(kinds) == {(kind, way) for kind in NETWORK for way in Way}
    assert min(kinds.values()) > 40
    assert {each.by for each in plan.faults if each.kind is Kind.DELAY} == {1, 2, 3}
    # More members or more exchanges leave the plan of the others as it is.
    assert set(plan.faults) < set(FaultPlan.random(3, members=9, exchanges=501, rate=0.2).faults)


def test_a_random_plan_has_only_the_kinds_asked_for(refused) -> None:  # type: ignore[no-untyped-def]
    kills = FaultPlan.random(1, 4, 100, 0.5, kinds=[Kind.KILL]).faults
    assert {(each.kind, each.at) for each in kills} == {(Kind.KILL, point) for point in ROUND_POINTS}
    cuts = FaultPlan.random(1, 4, 100, 0.5, kinds=[Kind.CUT]).faults
    assert {(each.kind, each.at) for each in cuts} == {(Kind.CUT, point) for point in STREAM_POINTS}
    assert len(FaultPlan.random(1, 3, 10, 1.0).faults) == 30
    assert FaultPlan.random(1, 3, 10, 0.0).faults == ()
    with refused(ConfigError, "rate=1.5"):
        FaultPlan.random(1, 3, 10, 1.5)
    with refused(ConfigError, "0 kinds"):
        FaultPlan.random(1, 3, 10, 0.5, kinds=[])


@pytest.mark.parametrize("folder", [False, True])
def test_a_ledger_stops_at_the_limit_and_counts_by_kind(tmp_path: Path, folder: bool) -> None:
    ledger: Ledger = FolderLedger(tmp_path / "ledger") if folder else MemoryLedger()
    assert [ledger.claim(0, "drop", 2) for _ in range(4)] == [True, True, False, False]
    assert [ledger.claim(1, "kill", 0) for _ in range(3)] == [True, True, True]
    assert ledger.claim(2, "drop", 1)
    assert ledger.count() == {"drop": 3, "kill": 3}


def test_a_folder_remembers_for_the_next_process(tmp_path: Path) -> None:
    assert FolderLedger(tmp_path).claim(0, "kill", 1)
    assert not FolderLedger(tmp_path).claim(0, "kill", 1)
    assert FolderLedger(tmp_path).count() == {"kill": 1}


def claims(folder: Path, start, won) -> None:  # type: ignore[no-untyped-def]
    ledger = FolderLedger(folder)
    start.wait()
    won.put(sum(ledger.claim(0, "kill", 20) for _ in range(20)))


def test_of_several_processes_only_one_gets_each_claim(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, won = context.Barrier(3), context.Queue()
    racers = [context.Process(target=claims, args=(tmp_path, start, won)) for _ in range(3)]
    for racer in racers:
        racer.start()
    assert sum(won.get(timeout=30) for _ in racers) == 20
    for racer in racers:
        racer.join(30)
