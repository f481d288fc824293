"""A stream port that members do not reach: the run says so at once, and finds another way or ends."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from stream_fleet import StreamFleet

from wash_fl.deploy.processes import free_port
from wash_fl.errors import RunError
from wash_fl.stream.place import Place
from wash_fl.stream.service import Service

pytestmark = pytest.mark.usefixtures("flower_log")


def closed_for(monkeypatch, *members, after=0):
    """Send these members, after so many rounds, to a port at which nobody listens, as a firewall would."""
    fields, nobody = Service.fields, f"127.0.0.1:{free_port()}"
    asked = Counter()

    def changed(self, member):
        asked[member] += 1
        away = member in members and asked[member] > after
        return fields(self, member) | ({"stream-address": nobody} if away else {})

    monkeypatch.setattr(Service, "fields", changed)


@pytest.mark.parametrize(("rounds", "after"), [(1, 1), (5, 3)])
def test_a_run_whose_members_only_train_for_themselves_is_ended(tmp_path, caplog, rounds, after):
    fleet = StreamFleet(tmp_path, rounds=rounds)
    with pytest.raises(RunError) as ended:
        fleet.run(place=Place(address=f"127.0.0.1:{free_port()}"), fallback=False)
    assert f"nobody has exchanged for {after} rounds" in str(ended.value)
    assert "a firewall?" in str(ended.value) and "exchange-plane = round" in str(ended.value)
    said = [line for line in caplog.messages if "for themselves" in line]
    assert len(said) == after - 1, "at the end of each round before"
    assert fleet.exchanges == []


def test_nor_is_it_a_success_if_one_alone_reaches_it(tmp_path, monkeypatch):
    closed_for(monkeypatch, 0, 1, 3)
    with pytest.raises(RunError) as ended:
        StreamFleet(tmp_path, rounds=2).run(exchange_deadline=1.0, fallback=False)
    assert "members [0, 1, 3] trained round 2 for themselves" in str(ended.value)


def test_nor_is_the_last_round_one_to_fall_back_in(tmp_path):
    with pytest.raises(RunError, match="nobody has exchanged for 1 rounds"):
        StreamFleet(tmp_path, rounds=1).run(place=Place(address=f"127.0.0.1:{free_port()}"))


def held_by(fleet):
    """Return the members' values at each coordinate, in order of size."""
    rows = [
        np.concatenate([each.ravel() for each in weights.values()]) for weights in fleet.collected.values()
    ]
    return np.sort(np.stack(rows), axis=0)


def test_where_nobody_reaches_it_slices_travel_once_per_round(tmp_path, caplog, monkeypatch):
    fleet = StreamFleet(tmp_path / "closed", rounds=5)
    fleet.run(place=Place(address=f"127.0.0.1:{free_port()}"))
    (said,) = [line for line in caplog.messages if "for themselves" in line]
    assert "members [0, 1, 2, 3] trained round 1" in said and "once per round" in said
    assert [each.settlement.exchange for each in fleet.exchanges] == [1, 2, 3, 4]
    assert {each.settlement.members for each in fleet.exchanges} == {(0, 1, 2, 3)}
    # They step without a gradient: each value that was there is there, at another member.
    alone = StreamFleet(tmp_path / "alone", rounds=5, exchange=replace(fleet.exchange, p=0.0))
    alone.run()
    assert np.array_equal(held_by(fleet), held_by(alone))
    weights = zip(fleet.collected[0].values(), alone.collected[0].values(), strict=True)
    assert any(not np.array_equal(*pair) for pair in weights)


def test_exchanges_are_numbered_on_where_the_port_closes_in_the_middle(tmp_path, monkeypatch):
    closed_for(monkeypatch, 0, 1, 2, 3, after=2)
    fleet = StreamFleet(tmp_path, rounds=5)
    fleet.run(exchange_deadline=1.0)
    numbers = [each.settlement.exchange for each in fleet.exchanges]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 12 + 2
    assert [each.round for each in fleet.reports] == [1, 2, 3, 4, 5]


def test_the_others_exchange_without_those_that_do_not_reach_it(tmp_path, caplog, monkeypatch):
    closed_for(monkeypatch, 2)
    fleet = StreamFleet(tmp_path)
    fleet.run(exchange_deadline=1.0)
    said = [line for line in caplog.messages if "for themselves" in line]
    assert [line.split(":")[0] for line in said] == [
        f"members [2] trained round {number} for themselves" for number in (1, 2)
    ]
    assert {each.settlement.members for each in fleet.exchanges} == {(0, 1, 3)}
    assert sorted(fleet.collected) == [0, 1, 2, 3]


def test_who_reached_it_in_the_round_before_is_named_all_the_same(tmp_path, caplog, monkeypatch):
    closed_for(monkeypatch, 2, after=1)
    StreamFleet(tmp_path).run(exchange_deadline=1.0)
    said = [line.split(":")[0] for line in caplog.messages if "for themselves" in line]
    assert said == ["members [2] trained round 2 for themselves"]


def test_of_members_that_exchange_nothing_is_said(tmp_path, caplog):
    StreamFleet(tmp_path).run()
    assert "for themselves" not in caplog.text
