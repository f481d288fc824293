"""Bytes of the round plane by member and exchange: what was really sent, and the formula as a test of it."""

from wash_fl.core.draw import Draw
from wash_fl.core.schedule import Schedule
from wash_fl.member.parameters import model_layout

from fleet import Fleet, make_model


def test_each_exchange_has_its_bytes_by_member(tmp_path):
    rows = []
    fleet = Fleet(tmp_path, rounds=4, on_round=lambda report: rows.append(strategy.traffic.row()))
    strategy = fleet.strategy()
    fleet.start(strategy)
    schedule = Schedule.between(fleet.exchange, fleet.rounds, 1)
    draw = Draw(3, model_layout(make_model()), schedule)
    for number, row in enumerate(rows, start=1):
        assert sorted(row) == ["0", "1", "2", "3"]
        for values_up, rest_up, values_down, rest_down in row.values():
            assert values_up == 4 * draw.count(number)
            assert values_down == (4 * draw.count(number - 1) if number > 1 else 0)
            assert min(rest_up, rest_down) > 0
    total = strategy.traffic.total()
    assert total["up_values"] == sum(each[0] for row in rows for each in row.values())
    # The last delivery goes out with the collection.
    last = 4 * 4 * draw.count(4)
    assert total["down_values"] == sum(each[2] for row in rows for each in row.values()) + last
