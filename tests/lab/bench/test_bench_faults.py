"""The bench of faults, by its own dice: no value is lost or made, whatever goes wrong."""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from wash_fl.cli.main import app
from wash_fl.errors import ConfigError
from wash_fl.lab.bench import faults
from wash_fl.lab.search.fleet import Fleet
from wash_fl.lab.search.moments import Fuse, Killed
from wash_fl.lab.search.setting import Setting
from wash_fl.lab.search.violation import Violation

KINDS = {
    *(f"{what} {fate}" for what in ("request", "reply") for fate in ("dropped", "delayed", "duplicated")),
    *("request corrupted", "reply corrupted", "reordered", "request repeated"),
    *("old offer replayed", "offer of another member", "offer on a stream corrupted", "call broken"),
    *("disk lost", "state fell back", "power cut", "clock jumped"),
    *("older copy of a member restored", "older journal restored", "two processes of one member"),
    *("member away", "member returned", "member joined late", "run ended for want of members"),
    *(f"member killed {when} training" for when in ("before", "while", "after")),
    *(f"member killed {when} writing its state" for when in ("before", "while", "after")),
    *("member killed before looking at a request", "member killed before replying"),
    *("member killed between two renames", "member killed while it waits", "member killed with its device"),
    *("member killed before calling", "member killed before sending an offer"),
    "member killed after sending an offer",
    *(
        f"member killed {when} recording what it {what}"
        for when in ("before", "while", "after")
        for what in ("offered", "applied")
    ),
    *(
        f"server killed {when} recording {what}"
        for when in ("before", "after")
        for what in (
            *("a settled exchange", "an acknowledgement", "an enrolment", "a release"),
            "the end of a round",
        )
    ),
    *("server killed before sending a request", "server killed after taking a reply"),
    *("server killed between two steps", "server killed before answering on a stream"),
}


RARE = {
    "server killed while collecting",
    *(f"server killed {when} recording an anchor" for when in ("before", "after")),
    *(
        f"member killed {when} recording what it {what}"
        for when in ("before", "while", "after")
        for what in ("missed", "settled", "anchored")
    ),
}
"""What few examples have, as a tenth of them are of differences to an anchor."""


@pytest.fixture(scope="module")
def figures():
    return faults.run(400, workers=1)


def test_no_value_is_lost_or_made_whatever_goes_wrong(figures):
    assert figures["violations"] == 0, figures.get("violated")
    assert "violated" not in figures
    assert figures["examples"] == 400


@pytest.mark.long
def test_nor_is_one_in_the_examples_after_these():
    figures = faults.run(400, first=400)
    assert figures["violations"] == 0, figures.get("violated")


def test_everything_that_can_go_wrong_did(figures):
    assert set(figures["faults"]) - RARE == KINDS
    assert any("settled" in kind for kind in set(figures["faults"]) & RARE)
    assert min(figures["faults"][kind] for kind in KINDS) >= 1, figures["faults"]
    json.dumps(figures)


def test_an_example_is_a_number_of_a_seed():
    def counts(**options):
        return faults.run(4, **options)["faults"]

    assert counts(seed=5) == counts(seed=5) != counts(seed=6)
    parts = [Counter(faults.run(2, seed=5, first=first)["faults"]) for first in (0, 2)]
    assert sum(parts, Counter()) == counts(seed=5)


@pytest.mark.long
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
    result = CliRunner().invoke(app, ["bench", "faults", "--examples", "3", "--json"])
    content = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (content["bench"], content["examples"], content["violations"]) == ("faults", 3, 0)
    assert sum(content["faults"].values()) > 10


def test_a_violation_is_a_status_other_than_0_and_says_how_to_see_it_again(monkeypatch):
    def broken(seed, example, folder, faults, settings):
        if example in (8, 17):
            raise Violation("a value is gone\nfor good")

    monkeypatch.setattr(faults, "walk", broken)
    result = CliRunner().invoke(app, ["bench", "faults", "--examples", "20", "--seed", "3", "--json"])
    content = json.loads(result.stdout)
    assert result.exit_code == 1 and content["violations"] == 2
    assert content["violated"] == [
        f"example {example} of seed 3: Violation: a value is gone for good "
        f"(again: wash-fl bench faults --examples 1 --first {example} --seed 3)"
        for example in (8, 17)
    ]


@pytest.mark.parametrize("error", [RuntimeError("x"), Killed("somewhere"), ValueError()])
def test_whatever_ends_an_example_is_a_violation(monkeypatch, error):
    def broken(seed, example, folder, faults, settings):
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
    while fleet.server.state.escrow.settled < 3:
        fleet.proceed()
        while fleet.in_flight:
            fleet.deliver(0)
    assert sorted(fleet.journal.known.pending) == [0, 1, 2, 3]
    assert fleet.oracle.sound == {0, 1, 2, 3}
    assert sum(fleet.faults.values()) == 0
    fleet.finish()
    assert fleet.server.done and sorted(fleet.server.collection.members) == [0, 1, 2, 3]
    assert not fleet.journal.known.pending
    fleet.close()


def test_the_search_drives_the_coordinator_and_the_session_themselves(figures):
    code = set(figures["code"])
    assert {
        "wash_fl.protocol.coordinator",
        "wash_fl.protocol.session",
        "wash_fl.protocol.joining",
        "wash_fl.protocol.rounds",
        "wash_fl.protocol.escrow",
        "wash_fl.member.durable",
        "wash_fl.protocol.journal",
        "wash_fl.storage.sqlite_store",
    } <= code
    assert figures["mixes"].keys() == {
        "shuffle",
        "average",
        "average in pairs",
        "average of differences",
        "shuffle, then average",
    }
    assert figures["dtypes"].keys() == {"float32", "bfloat16", "int8", "int4", "int3", "int2"}
    assert sum(figures["planes"].values()) == figures["examples"]
