"""What Flower's transport adds: each member's messages, the app, and the time that passes are in the sum."""

import zipfile
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.run import Run

from wash_fl.deploy.shipping import app_folder
from wash_fl.flower import outbox, records, transport
from wash_fl.flower.in_process import InProcessGrid, identify_process
from wash_fl.flower.transport import CALL, CONNECTION, Size, Transport, app_bytes, transport_of
from wash_fl.report.amounts import on_links

from fleet import Fleet

APP = 9000


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def request(clock: Clock) -> Message:
    identify_process()
    message = records.request(1, records.TRAIN, {"round": 1}, 60.0)
    message.metadata.created_at = clock()
    return message


def test_the_apps_size_is_what_flower_makes_of_it(tmp_path: Path) -> None:
    bundle = build_fab_from_disk(app_folder())
    (tmp_path / "app.fab").write_bytes(bundle)
    with zipfile.ZipFile(tmp_path / "app.fab") as files:
        files.extractall(
            tmp_path / "app", [name for name in files.namelist() if not name.startswith(".info")]
        )
    cache = tmp_path / "app" / "clients" / "__pycache__" / "client_app.pyc"
    cache.parent.mkdir()
    cache.write_bytes(bytes(99))
    assert app_bytes(tmp_path / "app") == len(bundle)
    assert app_bytes(tmp_path / "nowhere") == 0


def test_a_message_costs_a_call_for_each_of_its_objects_and_a_reply_too() -> None:
    clock = Clock()
    before = Transport(0, clock)
    before.answered(0, request(clock), Size(0, 3), Size(0, 4))
    more = Transport(0, clock)
    more.answered(0, request(clock), Size(0, 4), Size(0, 6))
    first, second = before.total(), more.total()
    assert first["up_transport"] > (2 + 3 + 1 + 4) * CALL.up + 3 * CONNECTION.up
    assert second["up_transport"] - first["up_transport"] > 3 * CALL.up
    assert second["down_transport"] - first["down_transport"] > 3 * CALL.down


def test_each_device_gets_the_app_once() -> None:
    clock = Clock()
    counted = Transport(APP, clock)
    for member in (0, 1, 0, 1, 1):
        counted.answered(member, request(clock), Size(100, 3), Size(100, 3))
    assert counted.total()["down_app"] == 2 * APP


def test_a_device_that_waits_asks_again_and_again_and_one_at_work_does_not() -> None:
    clock = Clock()
    idle, busy = Transport(0, clock), Transport(0, clock)
    sent = request(clock)
    idle.answered(0, sent, Size(100, 3), Size(100, 3))
    at_once = idle.total()
    clock.time += 600.0
    busy.answered(0, sent, Size(100, 3), Size(100, 3))
    waited = idle.total()["up_transport"] - at_once["up_transport"]
    assert waited == pytest.approx(CALL.up * (600 / transport.POLL_SECONDS + 600 / 24), rel=0.01)
    assert busy.total()["up_transport"] - at_once["up_transport"] < waited / 2
    clock.time -= 9999.0
    assert min(idle.total().values()) >= 0


def test_it_is_in_a_runs_sum_where_there_is_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path / "one")
    strategy = fleet.strategy()
    fleet.start(strategy)
    without = strategy.traffic.total()
    assert not {"down_app", "down_transport", "up_transport"} & without.keys()
    assert on_links(without, 4) == ""
    monkeypatch.setattr(outbox, "transport_of", lambda grid: Transport(APP))
    fleet = Fleet(tmp_path / "two")
    strategy = fleet.strategy()
    fleet.start(strategy)
    total = strategy.traffic.total()
    assert total["down_app"] == 4 * APP
    # Joining, six rounds, collection, BatchNorm, leaving: each of at least ten calls.
    assert total["up_transport"] > 4 * 10 * 10 * CALL.up
    line = on_links(total, 4)
    assert line.startswith("on its link each device received about ") and "(app 9 kB, whole models " in line


def test_farewells_are_counted_as_well(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    strategy = fleet.strategy(keep_members=True)
    fleet.start(strategy)
    before = strategy.traffic.total()
    strategy.dismiss(fleet.grid)
    after = strategy.traffic.total()
    assert after["down_messages"] > before["down_messages"] and after["up_messages"] > before["up_messages"]


class HttpGrid(InProcessGrid):
    """Called as Flower calls its way to nodes behind a network."""


def test_only_a_way_over_a_network_has_a_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Fleet(tmp_path).app
    assert transport_of(InProcessGrid(app, 2)) is None
    monkeypatch.setattr(transport, "get_project_dir", lambda *_: app_folder() / "clients")
    grid = HttpGrid(app, 2)
    grid.set_run(Run.create_empty(run_id=1))
    counted = transport_of(grid)
    assert counted is not None
    counted.answered(0, request(Clock()), Size(1, 1), Size(1, 1))
    assert counted.total()["down_app"] == app_bytes(app_folder() / "clients") > 0
