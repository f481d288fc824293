"""Differences to an anchor over real streams: one anchor for all at the end, and nothing lost on the way."""

import dataclasses
import time

import numpy as np
import pytest
from stream_fleet import StreamFleet

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.schedule import Schedule
from wash_fl.faults import points
from wash_fl.member.encoding import read
from wash_fl.member.log import Logs
from wash_fl.member.parameters import model_layout
from wash_fl.protocol.anchored import Anchored
from wash_fl.protocol.journal import Journal
from wash_fl.storage.sqlite_store import SqliteStore

from fleet import make_model

ANCHORED = ExchangeConfig(
    p=0.5, mix="average", schedule="constant", dtype="int8", exchange_plane="stream", reference="anchor"
)


def run(fleet):
    """Run a fleet with a journal; return the server's anchor as it gives it back, and what moved it."""
    path = fleet.folder / "journal.sqlite"
    with points.installed(fleet.faults):
        fleet.run(journal=path, exchange_deadline=20.0, keep_members=True)
    store = SqliteStore.read(path)
    layout = model_layout(make_model())
    draw = Draw(3, layout, Schedule.between(fleet.exchange, fleet.rounds, fleet.local_steps))
    found = Anchored(draw, fleet.exchange, Journal(store), np.zeros((1, layout.size), np.float32))
    store.close()
    return found.anchor, draw


def anchor_on_disk(path, draw):
    snapshot = read(path)
    for entry in Logs(path.parent).open(snapshot.progress.log).read():
        entry.move(snapshot.anchor, draw.coordinates(entry.exchange))
    return snapshot.anchor


def check(fleet, server, draw, learned=0.0):
    states = sorted((fleet.folder / "state").rglob("state.safetensors"))
    assert len(states) == fleet.members == len(fleet.collected)
    for path in states:
        anchor = anchor_on_disk(path, draw)
        assert anchor.values.tobytes() == server.values.tobytes() and anchor.chain == server.chain
    drift = fleet.values().sum(axis=0, dtype=np.float64) + server.error[0]
    drift -= fleet.given().sum(axis=0, dtype=np.float64)
    assert np.abs(drift + learned).max() < 4e-5
    assert not np.array_equal(fleet.values(), fleet.given())


@pytest.mark.parametrize("overlap", [False, True])
def test_members_and_error_add_up_to_what_they_have_learned(tmp_path, overlap):
    exchange = dataclasses.replace(ANCHORED, overlap=overlap, every=2)
    fleet = StreamFleet(tmp_path, exchange=exchange, learn=True)
    server, draw = run(fleet)
    check(fleet, server, draw, sum(0.01 / (step + 1) for step in range(12)) * sum(range(1, 5)))
    assert np.abs(server.error).max() > 1e-4


@pytest.mark.parametrize("at", ["saved", "offering", "sent", "delivered", "applied"])
def test_a_member_that_is_killed_goes_on_from_its_log(tmp_path, at):
    where = "" if at == "saved" else " exchange=9"
    fleet = StreamFleet(tmp_path, exchange=ANCHORED, plan=f"kill member=2{where} at={at}")
    check(fleet, *run(fleet))
    assert fleet.injected == {"kill": 1}


def test_both_directions_have_the_bytes_of_the_dtype(tmp_path):
    fleet = StreamFleet(tmp_path, exchange=ANCHORED)
    _, draw = run(fleet)
    values = sum(4 + draw.count(each.settlement.exchange) for each in fleet.exchanges)
    for member in range(4):
        up, down = (
            sum(each.bytes[str(member)][place] for each in fleet.exchanges if str(member) in each.bytes)
            for place in (0, 2)
        )
        # What the last exchanges delivered is counted after they are reported.
        assert up == values >= down > 0.8 * values


def test_a_member_that_was_away_for_many_exchanges_gets_the_whole_anchor(tmp_path):
    exchange = dataclasses.replace(ANCHORED, p=1.0)

    def dawdle(member, step):
        if member == 3 and step == 7:
            time.sleep(6.0)

    fleet = StreamFleet(tmp_path, exchange=exchange, rounds=2, local_steps=12, before_step=dawdle)
    path = fleet.folder / "journal.sqlite"
    fleet.run(journal=path, exchange_deadline=0.2, keep_members=True)
    alone = [each.settlement.exchange for each in fleet.exchanges if 3 not in each.settlement.members]
    assert len(alone) > 4, "it was away for long enough"
    store = SqliteStore.read(path)
    layout = model_layout(make_model())
    draw = Draw(3, layout, Schedule.between(exchange, 2, 12))
    server = Anchored(draw, exchange, Journal(store), np.zeros((1, layout.size), np.float32)).anchor
    store.close()
    check(fleet, server, draw)
