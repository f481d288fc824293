"""Processes of a real fleet are killed with SIGKILL, at named points or from outside: nothing is lost.

One fleet on loopback, with TLS and node authentication, does a run after the other. The weights that must
come out are those of the in-process trainer, which are those of an undisturbed run
(``tests/end_to_end/test_fleet.py``).
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.end_to_end.rig import MEMBERS, Act, Rig, Served
from wash_fl.deploy.launch import Fleet
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.runs.audit import audit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROUNDS = 3
OPTIONS = {
    "members": MEMBERS,
    "rounds": ROUNDS,
    "local-steps": 2,
    "train-examples": 200,
    "test-examples": 100,
    "p": 0.3,
    "mix": "shuffle",
    # The fewer requests the better: each starts a process, with torch, on every device.
    "evaluate-every": 0,
    "batchnorm": "server",
    "keep-members": True,
    # Rounds wait for whoever is there: on a loaded machine a member's second attempt may take long.
    "deadline-spread": 0.0,
    "round-timeout": 600.0,
    "start-timeout": 300.0,
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("crash"), OPTIONS)
    with Fleet.up(made.root / "fleet", MEMBERS, env=made.environment) as made.fleet:
        yield made
    assert made.fleet.pids() == {}


@pytest.fixture(scope="module")
def undisturbed(rig: Rig) -> str:
    return Trainer(rig.config("trainer")).run().sha256


def after_round(number: int, act: Callable[[], object]) -> Act:
    """Do something once, beside the run, as soon as it has done a round."""
    done = threading.Event()

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == number and not done.is_set():
            done.set()
            threading.Thread(target=act, daemon=True).start()

    return on_event


def check_audit(rig: Rig, served: Served) -> None:
    found = audit(served.folder, rig.states)
    assert found.problems == []
    assert found.settled == ROUNDS
    assert found.values > 0


def test_serverapp_and_members_that_are_killed_end_with_the_weights_of_the_undisturbed_run(
    rig: Rig, undisturbed: str
) -> None:
    served = rig.serve(
        "killed",
        "kill server exchange=2 at=settled; kill member=1 exchange=3 at=trained; "
        "kill member=2 exchange=3 at=saved",
    )
    print(f"\n{served.sha256} after {len(served.restarts)} restarts, undisturbed {undisturbed}")
    assert served.injected == {"kill": 3}
    assert len(served.restarts) == 1
    # Of round 2 nobody is told: the server was killed after it had settled the exchange.
    assert served.participants == [[0, 1, 2]] * (ROUNDS - 1)
    assert served.sha256 == undisturbed
    check_audit(rig, served)


@pytest.mark.long
def test_serverapp_and_members_killed_again_and_again_end_with_the_weights_of_the_undisturbed_run(
    rig: Rig, undisturbed: str
) -> None:
    # Members answer again in the same round, whether they were killed while they train or after they saved.
    served = rig.serve(
        "serverapp",
        "kill server exchange=1 at=sent; kill server exchange=2 at=settled; kill server at=collected; "
        "duplicate reply member=1 exchange=2; reorder reply member=0 exchange=3; "
        "kill member=1 exchange=3 at=trained; kill member=2 exchange=3 at=saved",
    )
    print(f"\n{served.sha256} after {len(served.restarts)} restarts, undisturbed {undisturbed}")
    assert served.injected == {"kill": 5, "duplicate": 1, "reorder": 1}
    assert len(served.restarts) == 3
    # Of round 2 nobody is told: the server was killed after it had settled the exchange.
    assert served.participants == [[0, 1, 2]] * (ROUNDS - 1)
    assert served.sha256 == undisturbed
    check_audit(rig, served)


@pytest.mark.long
def test_a_superlink_killed_in_the_middle_ends_with_the_weights_of_the_undisturbed_run(
    rig: Rig, undisturbed: str
) -> None:
    def kill_and_restart() -> None:
        rig.fleet.kill("superlink")
        rig.fleet.restart_superlink()

    served = rig.serve("superlink", act=after_round(1, kill_and_restart))
    print(f"\n{served.sha256} after {len(served.restarts)} restarts, undisturbed {undisturbed}")
    assert served.restarts
    assert served.sha256 == undisturbed
    check_audit(rig, served)


# Last, for the fleet is not what it was after it.
@pytest.mark.long
def test_when_a_supernode_is_killed_for_good_the_run_completes_with_the_others(rig: Rig) -> None:
    def kill() -> None:
        for role in ("supernode 2", "superexec 2", "clientapp 2"):
            if role in rig.fleet.pids():
                rig.fleet.kill(role)

    served = rig.serve(
        "supernode",
        "corrupt reply member=0 exchange=1",
        act=after_round(1, kill),
        options={"start-timeout": 40.0},  # for which it is waited for
    )
    summary = served.folder.summary()
    print(f"\nmembers {summary['members']}, left out {summary['left_out']}")
    assert summary["members"] == [0, 1]
    assert list(summary["left_out"]) == ["2"]
    assert served.injected == {"corrupt": 1}
    assert served.participants[0] == [1, 2]
    assert served.participants[-1] == [0, 1]
    assert served.restarts == []
    check_audit(rig, served)
