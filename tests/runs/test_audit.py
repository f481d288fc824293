"""An audit finds every value in its place on a stopped fleet, and says which is not when one is not."""

import gc
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp

from wash_fl.config import RunConfig
from wash_fl.core.anchor import Anchor, Move, ServerAnchor
from wash_fl.core.codec import decode_values, encode_values, rounded
from wash_fl.errors import RunError, StateError
from wash_fl.faults import points
from wash_fl.faults.plan import FaultPlan
from wash_fl.faults.points import Killed
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.member.encoding import encode, read
from wash_fl.member.snapshot import Snapshot
from wash_fl.member.state import PREVIOUS
from wash_fl.protocol.journal import Journal
from wash_fl.runs.audit import audit
from wash_fl.runs.findings import Audit
from wash_fl.runs.folder import JOURNAL, RunFolder
from wash_fl.runs.job import run_job
from wash_fl.storage.sqlite_store import SqliteStore

pytestmark = pytest.mark.usefixtures("only_trained")

OPTIONS = {
    "recipe": "none",
    "members": 3,
    "rounds": 4,
    "local-steps": 2,
    "p": 0.3,
    "train-examples": 200,
    "test-examples": 50,
    "run-name": "one",
    "keep-members": True,
}


def client_app() -> ClientApp:
    from clients.client_app import app

    return app


def run(folder: Path, plan: str = "", **options: object) -> tuple[RunFolder, Path]:
    """Run the main job in one process, until the server is killed if the plan says so."""
    states = folder / "states"
    config = RunConfig.from_mapping({**OPTIONS, "run-dir": str(folder), **options})
    clients = {**config.to_mapping(), "state-dir": str(states)}
    grid = InProcessGrid(client_app(), config.training.members, clients)
    if plan:
        with pytest.raises(Killed), points.installed(FaultPlan.parse(plan)):
            run_job(grid, config)
        gc.collect()
    else:
        run_job(grid, config)
    return RunFolder.open(folder / "one"), states


def state_of(states: Path, member: int) -> Path:
    (path,) = states.glob(f"*/member-{member}/state.safetensors")
    return path


def rewrite(path: Path, **changes: object) -> Snapshot:
    """Write a member's file anew with something changed, its checksums in order."""
    before = read(path)
    after = Snapshot(**{**vars(before), **changes})  # type: ignore[arg-type]
    path.write_bytes(encode(after))
    return after


@pytest.mark.parametrize("topology", ["pairs", "permutation"])
@pytest.mark.parametrize(
    "plan", ["", *(f"kill server exchange=3 at={at}" for at in ("sent", "offered", "settled"))]
)
def test_a_fleet_that_stopped_anywhere_has_every_value_in_its_place(
    tmp_path: Path, plan: str, topology: str
) -> None:
    result = audit(*_args(run(tmp_path, plan, topology=topology)))
    assert result.problems == []
    assert result.unchecked == []
    assert result.values > 0
    assert sorted(result.members) == [0, 1, 2]
    assert result.settled == (4 if not plan else 3 if "settled" in plan else 2)


def test_weight_shuffling_of_the_optimizer_is_audited_too(tmp_path: Path) -> None:
    result = audit(*_args(run(tmp_path, "", **{"exchange-optimizer": True})))
    assert result.problems == [] == result.unchecked


@pytest.mark.parametrize("plan", ["", "kill server exchange=3 at=settled"])
@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "int8"},
        {"dtype": "int8", "topology": "permutation"},
        {"dtype": "bfloat16", "exchange-optimizer": True},
        {"mix": "average", "topology": "pairs"},
        {"dtype": "int8", "topology": "pairs"},
        {"dtype": "int8", "average-from": 0.5},
    ],
    ids=["int8", "int8 permutation", "bfloat16 optimizer", "pairs", "int8 pairs", "int8, then averages"],
)
def test_what_a_dtype_left_out_of_an_offer_is_where_it_belongs(
    tmp_path: Path, options: dict[str, object], plan: str
) -> None:
    result = audit(*_args(run(tmp_path, plan, **options)))
    assert result.problems == [] == result.unchecked
    assert result.values > 0


def _args(files: tuple[RunFolder, Path]) -> tuple[RunFolder, list[Path]]:
    return files[0], [files[1]]


def problem(folder: RunFolder, states: Path) -> str:
    result: Audit = audit(folder, [states])
    assert len(result.problems) >= 1
    return "\n".join(result.problems)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_value_that_changed_in_a_member_is_found(tmp_path: Path, dtype: str) -> None:
    folder, states = run(tmp_path, dtype=dtype)
    path = state_of(states, 1)
    model = {name: each.clone() for name, each in read(path).model.items()}
    next(iter(model.values())).add_(1e-3)
    rewrite(path, model=model)
    assert problem(folder, states) == "member 1 does not hold what it got in exchange 4"


def test_a_member_of_another_start_than_the_journals_does_not_count(tmp_path: Path) -> None:
    folder, states = run(tmp_path)
    path = state_of(states, 1)
    path.with_name(PREVIOUS).unlink()
    rewrite(path, progress=read(path).progress.after(incarnation=1))
    assert "member 1 started anew, and the journal does not know of it" in problem(folder, states)
    # The same from the journal's side.
    rewrite(path, progress=read(path).progress.after(incarnation=0))
    store = SqliteStore.read(folder.path / JOURNAL)
    enrolment, run_, layout = Journal(store).enrolments()[1], store.run, store.layout
    store.close()
    at = Journal(SqliteStore.open(folder.path / JOURNAL, run_, layout))
    at.enrolled(1, replace(enrolment, incarnation=1, joined=4, applied=4))
    at.close()
    result = audit(folder, [states])
    assert result.problems == []
    assert "member 1 was to start anew and has not yet: what it holds does not count" in result.unchecked


def test_a_member_without_what_its_offer_left_out_is_found(tmp_path: Path) -> None:
    folder, states = run(tmp_path, dtype="int8")
    path = state_of(states, 1)
    offer = read(path).offer
    assert offer is not None
    # The offer travels as the same bytes; only what was left out of it is not what it was.
    rewrite(path, offer=rounded(offer, "int8").copy())
    assert problem(folder, states) == "member 1 does not hold what it got in exchange 4"


def test_an_offer_that_changed_is_found(tmp_path: Path) -> None:
    folder, states = run(tmp_path, "kill server exchange=3 at=settled")
    path = state_of(states, 2)
    offer = read(path).offer
    assert offer is not None
    offer = offer.copy()
    offer[0, 0] = np.nextafter(offer[0, 0], np.float32(9))
    rewrite(path, offer=offer)
    assert "member 2 offered other values in exchange 3" in problem(folder, states)


def test_a_delivery_that_is_nowhere_is_found(tmp_path: Path) -> None:
    folder, states = run(tmp_path, "kill server exchange=3 at=settled")
    # As a server would that forgot it without having heard from the member.
    looked = SqliteStore.read(folder.path / JOURNAL)
    run_id, layout = looked.run, looked.layout
    looked.close()
    journal = Journal(SqliteStore.open(folder.path / JOURNAL, run_id, layout))
    journal.released(0)
    journal.close()
    assert problem(folder, states).startswith("delivery 3 of member 0 is nowhere")


def test_a_member_that_lost_what_it_acknowledged_is_found(tmp_path: Path) -> None:
    folder, states = run(tmp_path)
    path = state_of(states, 1)
    rewrite(path, progress=read(path).progress.after(applied=1))
    assert "member 1 has applied 1 and acknowledged 4" in problem(folder, states)


def test_two_states_of_one_member_are_found(tmp_path: Path) -> None:
    folder, states = run(tmp_path)
    import shutil

    shutil.copytree(states, tmp_path / "copy")
    result = audit(folder, [states, tmp_path / "copy"])
    assert any("member 0 has states in 2 folders" in each for each in result.problems)


def test_a_missing_state_is_said_to_be_unchecked_and_is_no_problem(tmp_path: Path) -> None:
    folder, states = run(tmp_path)
    state_of(states, 1).unlink()
    state_of(states, 0).with_name("state.safetensors.previous").unlink(missing_ok=True)
    for path in states.glob("*/member-1/*"):
        path.unlink()
    result = audit(folder, [states])
    assert result.problems == []
    assert any("member 1's state is in none of the folders" in each for each in result.unchecked)


def test_a_damaged_journal_and_a_run_without_one_are_refused(tmp_path: Path) -> None:
    folder, states = run(tmp_path)
    database = sqlite3.connect(folder.path / JOURNAL)
    database.execute("UPDATE records SET offers = '{}' WHERE exchange = 2")
    database.commit()
    database.close()
    with pytest.raises(StateError, match="damaged"):
        audit(folder, [states])
    for path in folder.path.glob(f"{JOURNAL}*"):
        path.unlink()
    with pytest.raises(RunError, match="no server has worked on this run"):
        audit(folder, [states])


def test_an_audit_of_folders_without_any_state_has_checked_nothing(tmp_path: Path) -> None:
    folder, states = run(tmp_path)
    assert audit(folder, [states]).checked == 3
    (tmp_path / "empty").mkdir()
    result = audit(folder, [tmp_path / "empty"])
    assert (result.checked, result.problems) == (0, [])
    for path in states.glob("*/member-*/state.safetensors*"):
        path.write_bytes(path.read_bytes()[:100])
    result = audit(folder, [states])
    assert (result.checked, result.problems) == (0, [])
    assert any("cannot be used" in each for each in result.unchecked)


def test_a_state_folder_that_is_not_there_is_an_error(tmp_path: Path, refused) -> None:
    folder, states = run(tmp_path)
    (tmp_path / "file").write_text("")
    for other in ("missing", "file"):
        with refused(RunError, f"there is no folder {tmp_path / other}", "state-dir", "keep-members"):
            audit(folder, [states, tmp_path / other])


def test_the_command_says_whether_anything_was_checked_and_its_status_is_0_only_then(tmp_path, wash) -> None:
    folder, states = run(tmp_path)
    result = wash("audit", folder.path, states)
    assert result.status == 0 and result.out.endswith(
        "no value is lost or held twice, as far as was checked\n"
    )
    (tmp_path / "empty").mkdir()
    result = wash("audit", folder.path, tmp_path / "empty")
    assert result.status == 1 and "nothing was checked" in result.out and "no value is lost" not in result.out
    result = wash("audit", folder.path, tmp_path / "empty", "--json")
    assert result.status == 1 and json.loads(result.out)["checked"] == 0
    result = wash("audit", folder.path)  # its states are not beside it
    assert (result.status, result.out) == (1, "") and "there is no folder" in result.err


ANCHORED = {"reference": "anchor", "dtype": "int8", "outer-learning-rate": 0.7, "outer-momentum": 0.5}


@pytest.mark.parametrize("plan", ["", *(f"kill server exchange=3 at={at}" for at in ("offered", "settled"))])
def test_a_fleet_that_stopped_anywhere_has_one_anchor(tmp_path: Path, plan: str) -> None:
    result = audit(*_args(run(tmp_path, plan, **ANCHORED)))
    assert result.problems == []
    assert result.values > 0
    # What was settled before the server died is still to be delivered.
    behind = [f"member {member}'s anchor" for member in range(3)] if "settled" in plan else []
    assert [each.split(":")[0] for each in result.unchecked] == behind


def test_an_anchor_that_changed_in_a_member_is_found(tmp_path: Path) -> None:
    folder, states = run(tmp_path, **ANCHORED)
    path = state_of(states, 1)
    anchor = read(path).anchor
    assert anchor is not None
    rewrite(path, anchor=Anchor(np.nextafter(anchor.values, np.float32(9)), anchor.chain))
    assert problem(folder, states) == "member 1's anchor is not the server's"


def test_a_difference_that_changed_is_found(tmp_path: Path) -> None:
    folder, states = run(tmp_path, "kill server exchange=3 at=settled", **ANCHORED)
    path = state_of(states, 2)
    offer = read(path).offer
    assert offer is not None
    rewrite(path, offer=offer + 1)
    assert problem(folder, states) == "member 2 offered other values in exchange 3"


@pytest.mark.parametrize(
    "changes",
    [
        lambda move: {"data": encode_values(2 * move.delta, "int8")},
        lambda move: {"error": 0 * move.error},
        lambda move: {"momentum": np.nextafter(move.momentum, np.float32(9))},
    ],
    ids=["what is delivered", "error", "momentum"],
)
@pytest.mark.parametrize("plan", ["", "kill server exchange=3 at=settled"])
def test_a_server_that_reckoned_otherwise_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str, changes: Callable[[Move], dict[str, Any]]
) -> None:
    outcome = ServerAnchor.outcome

    def wrong(self: ServerAnchor, *arguments: Any) -> Move | None:
        move = outcome(self, *arguments)
        assert move is not None
        changed = replace(move, **changes(move))
        delta = decode_values(changed.data, self._dtype, *move.delta.shape)
        return replace(changed, delta=delta)

    with monkeypatch.context() as planted:
        planted.setattr(ServerAnchor, "outcome", wrong)
        folder, states = run(tmp_path, plan, **ANCHORED)
    last = 3 if plan else 4
    assert problem(folder, states) == f"exchange {last} moved the anchor by other values than the offers make"
