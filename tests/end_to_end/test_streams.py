"""The stream plane on a real fleet, with TLS and node authentication: an exchange after every step."""

import json
from collections.abc import Iterator

import pytest

from tests.end_to_end.rig import MEMBERS, Rig
from wash_fl.deploy.launch import Fleet
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.runs.audit import audit
from wash_fl.runs.folder import EXCHANGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROUNDS, STEPS = 2, 6
OPTIONS = {
    "members": MEMBERS,
    "rounds": ROUNDS,
    "local-steps": STEPS,
    "train-examples": 200,
    "test-examples": 100,
    "p": 0.3,
    "recipe": "frugal",
    "exchange-plane": "stream",
    "every": 1,
    # Lock-step: nobody is so slow.
    "exchange-deadline": 300.0,
    "evaluate-every": 0,
    "batchnorm": "server",
    "keep-members": True,
    "deadline-spread": 0.0,
    "round-timeout": 900.0,
    "start-timeout": 300.0,
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("streams"), OPTIONS, quick=False)
    with Fleet.up(made.root / "fleet", MEMBERS, env=made.environment) as made.fleet:
        yield made
    assert made.fleet.pids() == {}


def test_an_exchange_after_every_step_gives_the_weights_of_the_trainer(rig: Rig) -> None:
    served = rig.serve("undisturbed")
    expected = Trainer(rig.config("trainer")).run().sha256
    lines = (served.folder.path / EXCHANGES).read_text().splitlines()
    exchanges = [json.loads(line) for line in lines]
    print(f"\n{served.sha256} over streams, trainer {expected}")
    assert served.sha256 == expected
    assert [each["exchange"] for each in exchanges] == list(range(1, ROUNDS * STEPS + 1))
    assert all(each["members"] == list(range(MEMBERS)) for each in exchanges)
    found = audit(served.folder, rig.states)
    assert found.problems == [] and found.settled == ROUNDS * STEPS and found.values > 0
    sums = served.folder.summary()["bytes"]
    carried = sums["up_messages"] + sums["up_framing"]
    print(f"{sums}")
    assert sums["up_values"] < carried


@pytest.mark.long
def test_connections_cut_members_and_server_killed_and_the_run_completes(rig: Rig) -> None:
    # Members that are killed are missed at some exchanges: nobody is to wait long for them.
    rig.options = OPTIONS | {"exchange-deadline": 15.0, "recipe": "none", "topology": "permutation"}
    served = rig.serve(
        "faults",
        "cut member=0 exchange=2 at=offering; cut member=1 exchange=3 at=sent; "
        "cut member=2 exchange=4 at=delivered; cut member=0 exchange=5 at=applied; "
        "kill server exchange=7 at=settled; kill member=1 exchange=9 at=sent; "
        "pause member=2 exchange=11 at=offering by=5",
    )
    summary = served.folder.summary()
    print(f"\n{served.injected}, {len(served.restarts)} restarts, members {summary['members']}")
    assert served.injected == {"cut": 4, "kill": 2, "pause": 1}
    assert len(served.restarts) == 1
    assert summary["members"] == list(range(MEMBERS))
    found = audit(served.folder, rig.states)
    print(found.members)
    assert found.problems == [] == found.unchecked
