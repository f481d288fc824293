"""What a run over a slow link costs: the figures, FedAvg's app, and the command."""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError, RunError
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.lab.bench import fedavg_client, fedavg_server, link, link_runs
from wash_fl.lab.bench.link import Settings
from wash_fl.lab.bench.link_figures import beside_fedavg, row_of, tables
from wash_fl.lab.bench.link_runs import Moment, Timeline, app_bytes, fedavg_app
from wash_fl.lab.bench.lists import numbers
from wash_fl.lab.network import network as networks
from wash_fl.runs.folder import METRICS
from wash_fl.runs.json_lines import json_lines

MEGA = 1_000_000


def moment(
    event: str, seconds: float, megabytes: float, number: int = 0, accuracy: float | None = None
) -> Moment:
    """something seen of a run whose devices send as much as they get."""
    return Moment(event, number, accuracy, seconds, int(megabytes * MEGA), int(megabytes * MEGA))


RECIPE = Timeline(
    [
        moment("begin", 100.0, 1.0),
        moment("start", 110.0, 1.0),
        moment("round", 150.0, 5.0, 1, 0.5),
        moment("round", 160.0, 5.5, 2, 0.8),
        moment("round", 172.0, 6.0, 3, 0.95),
        moment("round", 182.0, 6.6, 4, 0.97),
        moment("member", 190.0, 7.6, accuracy=0.9),
        moment("averaged", 192.0, 8.6, accuracy=0.2),
        moment("recalibrated", 195.0, 8.6, accuracy=0.98),
        moment("finished", 200.0, 9.0),
    ],
    "",
)

FEDAVG = Timeline(
    [
        moment("begin", 0.0, 0.0),
        moment("round", 100.0, 10.0, 1),
        moment("evaluated", 105.0, 10.0, 1, 0.6),
        moment("round", 165.0, 14.0, 2),
        moment("evaluated", 170.0, 14.0, 2, 0.91),
        moment("finished", 171.0, 14.0),
    ],
    "",
)


def test_a_recipe_reaches_an_accuracy_when_one_model_of_it_is_handed_in():
    row = row_of(RECIPE, members=2, target=0.9, app=200_000)
    assert row["rounds"] == 4
    assert row["seconds_per_round"] == 10.0  # of 10, 12 and 10
    assert row["up_per_round"] == row["down_per_round"] == 250_000
    assert (row["first_seconds"], row["last_seconds"], row["seconds"]) == (50.0, 13.0, 100.0)
    assert row["last_bytes"] == pytest.approx(2 * MEGA)
    # Until the third round is over, and then the handing in, without the app.
    assert row["to_accuracy"] == {"round": 3, "seconds": 72.0 + 13.0, "megabytes": pytest.approx(5 + 2 - 0.2)}
    assert row["accuracy"] == 0.98 and row["accuracies"] == [0.5, 0.8, 0.95, 0.97]


def test_under_fedavg_a_round_is_without_what_the_server_takes_to_evaluate_and_nothing_is_handed_in():
    row = row_of(FEDAVG, members=2, target=0.9, app=0)
    assert (row["seconds_per_round"], row["up_per_round"], row["last_seconds"]) == (60.0, 2 * MEGA, 0.0)
    assert row["to_accuracy"] == {"round": 2, "seconds": 165.0, "megabytes": pytest.approx(14.0)}
    assert row["accuracy"] == 0.91


def test_an_accuracy_that_is_not_reached_and_a_run_that_does_not_begin_have_no_figures():
    assert row_of(FEDAVG, members=2, target=0.95, app=0)["to_accuracy"] is None
    cut_short = Timeline(RECIPE.moments[:6], "it failed")
    assert row_of(cut_short, members=2, target=0.5, app=0)["to_accuracy"] is None
    row = row_of(Timeline([moment("begin", 0.0, 0.0)], "not done"), members=2, target=0.5, app=0)
    assert (row["rounds"], row["seconds_per_round"], row["to_accuracy"]) == (0, None, None)
    assert (row["accuracy"], row["failure"]) == (None, "not done")


def test_recipes_are_compared_with_fedavg_over_the_same_link():
    wash = {"kbit": 256, "method": "wash"} | row_of(RECIPE, members=2, target=0.9, app=0)
    fedavg = {"kbit": 256, "method": "fedavg"} | row_of(FEDAVG, members=2, target=0.9, app=0)
    elsewhere = wash | {"kbit": 1000}
    (result,) = beside_fedavg([wash, fedavg, elsewhere])
    assert result == {"kbit": 256, "method": "wash", "sooner": 6.0, "bytes": 0.125}


def test_settings_that_can_be_none_are_refused(refused):
    for options, parts in (
        ({"methods": ("fedavg", "wish")}, ("methods = wish", "frugal")),
        ({"methods": ()}, ("methods = none",)),
        ({"rounds": 1}, ("rounds = 1", "at least 2")),
        ({"accuracy": 0.0}, ("accuracy = 0", "above 0")),
        ({"kbit": (-1.0,)}, ("kbit = -1",)),
        ({"members": 1}, ("members = 1",)),
        ({"division": "fair"}, ("division = 'fair'",)),
    ):
        with refused(ConfigError, *parts):
            Settings(**options)
    with refused(ConfigError, "kbit = '256;1000'", "256,1000"):
        numbers("256;1000", "kbit", example="256,1000")
    assert numbers("256,1e3", "kbit", example="256,1000") == (256.0, 1000.0)


def test_fedavg_has_the_options_of_the_recipes_but_for_the_recipe():
    settings = Settings(model="default", rounds=3)
    plain, frugal = (settings.config(each, "run", Path()).to_mapping() for each in ("fedavg", "frugal"))
    assert {key for key in plain if plain[key] != frugal[key]} - {"recipe"} == {
        key for key, value in frugal.items() if value == "auto" and key != "recipe"
    }


def test_the_app_of_fedavg_ships_what_the_package_s_app_ships(tmp_path):
    folder = fedavg_app(tmp_path / "fedavg")
    size = app_bytes(link.app_folder())
    assert app_bytes(folder) == pytest.approx(size, abs=200)
    project = (folder / "pyproject.toml").read_text()
    assert "fedavg_client:app" in project and "clients.client_app" not in project


def test_an_app_that_is_another_is_refused(tmp_path, monkeypatch, refused):
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app]\n")
    monkeypatch.setattr(link_runs, "app_folder", lambda: tmp_path)
    with refused(RunError, "server.server_app:app", "install wash-fl again"):
        fedavg_app(tmp_path / "fedavg")


def test_flower_s_fedavg_learns_and_writes_down_its_rounds(tmp_path):
    options = {"members": 2, "rounds": 3, "local-steps": 30, "run-dir": str(tmp_path), "run-name": "run"}
    config = RunConfig.from_mapping(options).to_mapping()
    (tmp_path / "run").mkdir()
    grid = InProcessGrid(fedavg_client.app, members=2, run_config=config)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    fedavg_server.app(grid, context)
    events: list[Any] = list(json_lines(tmp_path / "run" / METRICS))
    names = [each["event"] for each in events]
    assert names == ["start", *["round", "evaluated"] * 3, "finished"]
    accuracies = [each["accuracy"] for each in events if each["event"] == "evaluated"]
    assert accuracies[-1] > 0.85 and accuracies[-1] >= accuracies[0]


def test_the_command_prints_its_tables_and_everything_as_json(monkeypatch):
    settings: list[Settings] = []

    def run(options: Settings, progress: Any) -> dict[str, Any]:
        settings.append(options)
        rows = [
            {"kbit": 256.0, "method": name} | row_of(timeline, members=2, target=0.9, app=0)
            for name, timeline in (("fedavg", FEDAVG), ("wash", RECIPE))
        ]
        progress("a line")
        return {"model": "resnet20", "members": 2, "delay_ms": 30.0, "accuracy": 0.9, "rows": rows} | {
            "beside_fedavg": beside_fedavg(rows)
        }

    monkeypatch.setattr(link, "run", run)
    result = CliRunner().invoke(app, ["bench", "link", "--kbit", "256", "--methods", "fedavg,wash", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["beside_fedavg"][0]["sooner"] == 6.0
    assert settings[0].kbit == (256.0,) and settings[0].methods == ("fedavg", "wash")
    result = CliRunner().invoke(app, ["bench", "link", "--kbit", "256"])
    assert "6.0 times" in result.stdout and "1/8" in result.stdout
    assert len(tables(run(settings[0], print))) == 2


def test_where_there_are_no_namespaces_it_is_said(monkeypatch, wash):
    monkeypatch.setattr(networks.shutil, "which", lambda name: None)
    result = wash("bench", "link")
    assert result.status == 1
    assert "network namespaces" in result.err and "as root" in result.err
