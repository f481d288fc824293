"""The bench of faults, by its own dice: no value is lost or made, whatever goes wrong."""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from wash_fl.bench import faults
from wash_fl.bench.fault_fleet import server
from wash_fl.bench.fault_fleet.fleet import Fleet
from wash_fl.bench.fault_fleet.moments import Fuse, Killed
from wash_fl.bench.fault_fleet.oracle import Violation
from wash_fl.bench.fault_fleet.setting import Setting
from wash_fl.cli import app
from wash_fl.core import run_packets
from wash_fl.core.escrow import Escrow
from wash_fl.core.packet import decode
from wash_fl.core.run_packets import RunPackets
from wash_fl.errors import ConfigError
from wash_fl.member import durable
from wash_fl.planes.roster import Roster

KINDS = {
    *(f"{what} {fate}" for what in ("request", "reply") for fate in ("dropped", "delayed", "duplicated")),
    *("request corrupted", "reply corrupted", "reordered", "request repeated"),
    *("old offer replayed", "offer of another member"),
    *("disk lost", "state fell back"),
    *("member away", "member returned", "member joined late", "member given up"),
    *(f"member killed {when} training" for when in ("before", "while", "after")),
    *(f"member killed {when} writing its state" for when in ("before", "while", "after")),
    *("member killed before looking at a request", "member killed before replying"),
    "member killed between two renames",
    *(
        f"server killed {when} recording {what}"
        for when in ("before", "after")
        for what in ("a settled exchange", "an acknowledgement", "an enrolment", "a release")
    ),
    *("server killed before sending a request", "server killed after taking a reply"),
    *("server killed while collecting", "server killed between two steps"),
}


@pytest.fixture(scope="module")
def figures():
    return faults.run(300, workers=1)


def test_no_value_is_lost_or_made_whatever_goes_wrong(figures):
    assert figures["violations"] == 0, figures.get("violated")
    assert "violated" not in figures
    assert figures["examples"] == 300


def test_everything_that_can_go_wrong_did(figures):
    assert set(figures["faults"]) == KINDS
    assert min(figures["faults"].values()) >= 3, figures["faults"]
    json.dumps(figures)


def test_an_example_is_a_number_of_a_seed():
    def counts(**options):
        return faults.run(4, **options)["faults"]

    assert counts(seed=5) == counts(seed=5) != counts(seed=6)
    parts = [Counter(faults.run(2, seed=5, first=first)["faults"]) for first in (0, 2)]
    assert sum(parts, Counter()) == counts(seed=5)


@pytest.mark.slow
def test_several_processes_find_what_one_does(monkeypatch):
    alone = faults.run(24, seed=2)
    monkeypatch.setattr(faults, "FEW", 0)
    monkeypatch.setattr(faults, "PORTION", 12)
    together = faults.run(24, seed=2, workers=2)
    assert (alone["workers"], together["workers"]) == (1, 2)
    assert alone["faults"] == together["faults"]


@pytest.mark.parametrize(
    "options", [{"examples": -1}, {"examples": 1, "first": -1}, {"examples": 1, "workers": 0}]
)
def test_what_cannot_be_run_is_refused(options, refused):
    with refused(ConfigError, "examples"):
        faults.run(**options)


# On the command line


def test_the_command_prints_the_figures_as_json():
    said = CliRunner().invoke(app, ["bench", "faults", "--examples", "3", "--json"])
    found = json.loads(said.stdout)
    assert said.exit_code == 0
    assert (found["bench"], found["examples"], found["violations"]) == ("faults", 3, 0)
    assert sum(found["faults"].values()) > 10


def test_a_violation_is_a_status_other_than_0_and_says_how_to_see_it_again(monkeypatch):
    def broken(seed, example, folder, faults):
        if example in (8, 17):
            raise Violation("a value is gone\nfor good")

    monkeypatch.setattr(faults, "walk", broken)
    said = CliRunner().invoke(app, ["bench", "faults", "--examples", "20", "--seed", "3", "--json"])
    found = json.loads(said.stdout)
    assert said.exit_code == 1 and found["violations"] == 2
    assert found["violated"] == [
        f"example {example} of seed 3: Violation: a value is gone for good "
        f"(again: wash-fl bench faults --examples 1 --first {example} --seed 3)"
        for example in (8, 17)
    ]


@pytest.mark.parametrize("error", [RuntimeError("x"), Killed("somewhere"), ValueError()])
def test_whatever_ends_an_example_is_a_violation(monkeypatch, error):
    def broken(seed, example, folder, faults):
        raise error

    monkeypatch.setattr(faults, "walk", broken)
    figures = faults.run(2)
    assert figures["violations"] == 2
    assert all(type(error).__name__ in each for each in figures["violated"])


def test_a_fuse_kills_at_its_moment_and_only_once():
    fuse = Fuse()
    fuse.burn("a")
    fuse.light(1)
    fuse.burn("b")
    with pytest.raises(Killed, match="c"):
        fuse.burn("c")
    fuse.burn("d")
    fuse.light(0)
    fuse.light(None)
    fuse.burn("e")


def test_without_faults_everybody_exchanges_and_is_collected(tmp_path):
    fleet = Fleet(Setting(seed=1, members=4, p=1.0), tmp_path)
    fleet.start_server()
    for _ in range(3):
        for step in (fleet.greet, fleet.admit, fleet.open):
            step()
            while fleet.in_flight:
                fleet.deliver(0)
        fleet.settle()
    assert fleet.server.escrow.settled == 3
    assert sorted(fleet.journal.known.pending) == [0, 1, 2, 3]
    assert fleet.oracle.sound == {0, 1, 2, 3}
    assert sum(fleet.faults.values()) == 0
    fleet.finish()
    assert fleet.server.escrow.settled >= 3 and not fleet.journal.known.pending
    fleet.close()


def test_the_real_modules_are_under_test():
    assert server.Escrow is Escrow and server.Roster is Roster
    assert durable.RunPackets is RunPackets and server.RunPackets is RunPackets
    assert run_packets.decode is decode
