"""The member's handlers: Flower messages in, Flower messages out, and a member on the disk in between."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.packet import Direction, Slice, encode
from wash_fl.errors import StateError
from wash_fl.faults import points
from wash_fl.faults.plan import FaultPlan
from wash_fl.flower import records
from wash_fl.flower.client import Participant, Round, participant, state_folder
from wash_fl.flower.in_process import InProcessGrid
from wash_fl.flower.records import read_answer
from wash_fl.member.parameters import model_layout, model_sha256
from wash_fl.member.state import FileStore, stored_members
from wash_fl.protocol.messages import Answer, Status
from wash_fl.protocol.terms import Terms, run_identity

TERMS = Terms(
    run_name="round",
    seed=4,
    members=2,
    rounds=9,
    local_steps=3,
    exchange=ExchangeConfig(p=0.5, mix="shuffle", schedule="constant"),
)
RUN = run_identity(TERMS)
MEMBER = 1


pytestmark = pytest.mark.usefixtures("flower_log")


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


class Client:
    """One client, and what a server says to it."""

    def __init__(self, folder: Path, model: Callable[[], nn.Module] = make_model) -> None:
        self.folder = folder
        self.rounds: list[Round] = []
        self.calibration = [torch.ones(4, 4)]
        self.during: Callable[[], None] = lambda: None
        self._model = model
        app = ClientApp()
        participant(app)(self.bring)
        self.grid = InProcessGrid(app, 2, {"state-dir": str(folder)})
        self.node = 1007

    def bring(self, context: Context) -> Participant:
        del context
        model = self._model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def train(now: Round) -> dict[str, float]:
            self.rounds.append(now)
            with torch.no_grad():
                for each in model.parameters():
                    each.add_(0.25 * now.number)
            self.during()
            return {"loss": 1.0}

        return Participant(
            model=model,
            optimizer=optimizer,
            train=train,
            evaluate=lambda: {"accuracy": 0.5},
            calibration=lambda: self.calibration,
        )

    def send(self, kind: str, fields: dict[str, Any], arrays: ArrayRecord | None = None) -> Message:
        request = records.request(self.node, kind, fields, 60.0, arrays)
        (reply,) = self.grid.pull_messages(self.grid.push_messages([request]))
        return reply

    def ask(self, kind: str, fields: dict[str, Any], arrays: ArrayRecord | None = None) -> Answer:
        reply = self.send(kind, fields, arrays)
        assert not reply.has_error(), reply.error
        return read_answer(reply)

    def join(self, seed: int | None = 0, **fields: Any) -> Answer:
        layout = records.layout_to_json(model_layout(make_model()))
        arrays = None if seed is None else ArrayRecord(make_model(seed).state_dict())
        return self.ask(records.JOIN, {"terms": TERMS.to_json(), "layout": layout, **fields}, arrays)

    def train(self, number: int, delivery: bytes = b"", **fields: Any) -> Answer:
        return self.ask(
            records.TRAIN, {"run": RUN, "round": number, "evaluate": False, "delivery": delivery, **fields}
        )

    @property
    def store(self) -> FileStore:
        return FileStore(self.folder, RUN, MEMBER)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "state")


def delivery(exchange: int) -> bytes:
    layout = model_layout(make_model())
    count = Draw(TERMS.seed, layout, TERMS.schedule).count(exchange)
    values = np.full((1, count), 7.0, dtype=np.float32)
    return encode(Slice(Direction.DELIVERY, RUN, layout, exchange, MEMBER, values))


# Servers of before


def test_a_request_of_a_server_that_is_gone_changes_nothing(client: Client) -> None:
    first = client.join(None, server="first").fence
    client.join(fence=first)
    client.train(1, fence=first)
    met = client.join(None, server="second")
    assert (met.round, met.fence != first) == (1, True)
    state = client.store.path.read_bytes()
    late = [
        client.train(2, delivery(1), fence=first),
        client.ask(records.COLLECT, {"run": RUN, "delivery": delivery(1), "fence": first}),
        client.join(incarnation=1, fence=first),
        client.ask(records.LEAVE, {"run": RUN, "fence": first}),
    ]
    assert {each.status for each in late} == {Status.UNMET}
    assert client.store.path.read_bytes() == state
    assert client.train(2, delivery(1), fence=met.fence).applied == 1


# Joining


def test_who_has_no_state_says_so_with_its_index_and_leaves_no_trace(client: Client) -> None:
    assert client.join(None) == Answer(Status.NOT_JOINED, MEMBER)
    assert client.train(1) == Answer(Status.NOT_JOINED, MEMBER)
    assert client.ask(records.COLLECT, {"run": RUN, "delivery": b""}) == Answer(Status.NOT_JOINED, MEMBER)
    assert client.ask(records.LEAVE, {"run": RUN}).status is Status.DONE
    assert not client.folder.exists() or list(client.folder.iterdir()) == []


def test_who_has_one_says_how_far_it_is_with_and_without_weights(client: Client) -> None:
    initial = model_sha256(make_model())
    assert client.join() == Answer(Status.DONE, MEMBER, initial=initial)
    client.train(1)
    client.train(2, delivery(1))
    for seed in (None, 0, 5):
        assert client.join(seed) == Answer(Status.DONE, MEMBER, round=2, applied=1, initial=initial)


def test_who_makes_the_weights_that_are_named_starts_from_them_as_if_they_had_come(client: Client) -> None:
    initial = model_sha256(make_model())
    assert client.join(None, initial=initial) == Answer(Status.DONE, MEMBER, initial=initial)
    by_itself = client.train(1)
    client.ask(records.LEAVE, {"run": RUN})
    assert client.join(0) == Answer(Status.DONE, MEMBER, initial=initial)
    assert client.train(1) == by_itself


def test_who_makes_others_than_are_named_says_that_it_holds_nothing(client: Client) -> None:
    for named in (model_sha256(make_model(5)), "0" * 64, "none"):
        assert client.join(None, initial=named) == Answer(Status.NOT_JOINED, MEMBER)
    assert not client.store.path.exists()
    client.join(5)
    client.train(1)
    # Its own state counts, and not what it could make.
    again = client.join(None, initial=model_sha256(make_model()))
    assert (again.round, again.initial) == (1, model_sha256(make_model(5)))


def test_who_is_to_start_anew_is_sent_weights_even_if_it_could_make_them(client: Client) -> None:
    refused = client.join(None, initial=model_sha256(make_model()), incarnation=1)
    assert refused.status is Status.REFUSED and "without weights" in refused.reason


def test_a_late_joiner_starts_with_the_exchange_it_joins_after_as_applied(client: Client) -> None:
    given = client.join(5, exchange=6, incarnation=1)
    assert given == Answer(Status.DONE, MEMBER, applied=6, incarnation=1, initial=model_sha256(make_model(5)))
    assert client.train(7, delivery(6)).applied == 6
    assert client.rounds[0].first_step == 18


def test_anew_replaces_the_state_and_the_one_before_it(client: Client) -> None:
    client.join()
    client.train(1)
    client.train(2)
    assert client.store.previous.exists()
    given = client.join(5, exchange=3, incarnation=2)
    assert given == Answer(Status.DONE, MEMBER, applied=3, incarnation=2, initial=model_sha256(make_model(5)))
    assert not client.store.previous.exists()


@pytest.mark.parametrize(
    ("fields", "arrays", "reason"),
    [
        ({"incarnation": 1}, None, "anew without weights"),
        ({"exchange": "3"}, 0, "exchange is '3', expected int"),
        ({"exchange": True}, 0, "exchange is 'True', expected int"),
        ({"exchange": -1}, 0, "after exchange -1"),
        ({"incarnation": True}, 0, "incarnation is 'True', expected int"),
        ({"incarnation": -1}, 0, "start number -1"),
        ({"layout": "{}"}, 0, "layout cannot be read"),
        ({"terms": "{}"}, 0, "terms cannot be read"),
    ],
)
def test_requests_to_join_that_make_no_sense_are_refused_in_the_protocols_words(
    client: Client, fields: dict[str, Any], arrays: int | None, reason: str
) -> None:
    given = client.join(arrays, **fields)
    assert given.status is Status.REFUSED and reason in given.reason
    assert stored_members(client.folder, RUN) == []


def test_a_model_that_could_not_be_handed_in_is_refused_when_it_joins(tmp_path: Path) -> None:
    def frozen() -> nn.Module:
        model = make_model()
        model.register_buffer("table", torch.ones(3, dtype=torch.bfloat16))
        return model

    for seed in (None, 0):
        given = Client(tmp_path, frozen).join(seed)
        assert given.status is Status.REFUSED
        assert "'table' is bfloat16, and cannot be handed in" in given.reason


def test_a_record_without_anything_is_refused(client: Client) -> None:
    for kind in (records.JOIN, records.TRAIN, records.COLLECT, records.RECALIBRATE, records.LEAVE):
        assert client.ask(kind, {}).status is Status.REFUSED
        request = Message(RecordDict({"other": ConfigRecord({"run": RUN})}), client.node, kind)
        (reply,) = client.grid.pull_messages(client.grid.push_messages([request]))
        assert not reply.has_error() and read_answer(reply).status is Status.REFUSED


def test_arrays_that_are_no_arrays_are_refused(client: Client) -> None:
    arrays = ArrayRecord(make_model().state_dict())
    for each in arrays.values():
        each.data = each.data[:-3]
    layout = records.layout_to_json(model_layout(make_model()))
    given = client.ask(records.JOIN, {"terms": TERMS.to_json(), "layout": layout}, arrays)
    assert given.status is Status.REFUSED and "weights do not fit" in given.reason


# Rounds


def test_a_round_asked_twice_is_trained_once_and_evaluated_both_times(client: Client) -> None:
    client.join()
    fields = {"run": RUN, "round": 1, "evaluate": True, "delivery": b"", "seconds": 0.0}
    first, again = (client.send(records.TRAIN, fields) for _ in range(2))
    assert len(client.rounds) == 1
    assert read_answer(again).offer == read_answer(first).offer != b""
    assert dict(first.content.metric_records[records.METRICS]) == {"loss": 1.0, "accuracy": 0.5}
    assert dict(again.content.metric_records[records.METRICS]) == {"accuracy": 0.5}


def test_seconds_reach_the_round_and_are_steps_if_left_out(client: Client) -> None:
    client.join()
    client.train(1)
    client.train(2, seconds=0.0)
    client.train(3, seconds=30.0)
    rounds = [(now.seconds, now.first_step, now.steps) for now in client.rounds]
    assert rounds == [(0.0, 0, 3), (0.0, 3, 3), (30.0, 6, 3)]
    assert client.rounds[2].progress(0) == pytest.approx(2 / 9)
    assert client.rounds[2].progress(3) == pytest.approx(3 / 9)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"seconds": -1.0}, "-1 seconds"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"seconds": 30}, "seconds is '30', expected float"),
        ({"run": RUN[:8]}, "an identity of 8 bytes; it has 16"),
        ({"run": "x"}, "run is 'x', expected bytes"),
        ({"round": 0}, "round 0 is none of this run"),
        ({"round": 10}, "round 10 is none of this run"),
        ({"delivery": b"x"}, "packet refused (malformed)"),
    ],
)
def test_requests_to_train_that_make_no_sense_are_refused_and_change_nothing(
    client: Client, fields: dict[str, Any], reason: str
) -> None:
    client.join()
    before = client.store.path.read_bytes()
    good = {"run": RUN, "round": 1, "evaluate": False, "delivery": b""}
    given = client.ask(records.TRAIN, good | fields)
    assert given.status is Status.REFUSED and reason in given.reason
    assert client.store.path.read_bytes() == before and client.rounds == []


def test_a_state_that_fell_back_is_not_gone_on_with_and_the_server_hears_why(client: Client) -> None:
    client.join()
    client.train(1)
    client.train(2, delivery(1))
    client.store.path.unlink()  # and with it that delivery 1 was applied
    given = client.train(3, delivery(2))
    assert given.status is Status.NOT_JOINED
    assert given.reason.startswith("it fell back to a state before what it had offered")
    assert len(client.rounds) == 2


def test_a_damaged_state_gives_way_to_the_one_before_and_the_round_is_trained_again(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.join()
    first = client.train(1)
    # As after a power cut in round 1: the reply was not sent.
    client.store.path.write_bytes(client.store.path.read_bytes()[:-5])
    assert client.train(1) == first
    assert len(client.rounds) == 2
    assert "is damaged" in caplog.text
    for path in (client.store.path, client.store.previous):
        path.write_bytes(b"x")
    given = client.train(2)
    assert given.status is Status.REFUSED and "is damaged" in given.reason and "move" in given.reason


@pytest.mark.parametrize(("at", "kept"), [("asked", 0), ("trained", 0), ("saved", 1)])
def test_a_member_killed_at_any_point_offers_the_same_when_it_is_asked_again(
    tmp_path: Path, at: str, kept: int
) -> None:
    undisturbed, client = Client(tmp_path / "undisturbed"), Client(tmp_path / "killed")
    for each in (undisturbed, client):
        each.join()
    with points.installed(FaultPlan.parse(f"kill member={MEMBER} exchange=1 at={at}")):
        fields = {"run": RUN, "round": 1, "evaluate": False, "delivery": b""}
        assert client.send(records.TRAIN, fields).has_error()
        snapshot = client.store.load()
        assert snapshot is not None and snapshot.progress.round == kept
        assert client.train(1) == undisturbed.train(1)
    assert len(client.rounds) == (2 if at == "trained" else 1)


def test_nobody_else_can_work_on_a_member_while_it_trains(client: Client) -> None:
    client.join()
    seen: list[str] = []

    def intrude() -> None:
        with pytest.raises(StateError) as caught, client.store.locked(wait=0):
            pass
        seen.append(str(caught.value))

    client.during = intrude
    client.train(1)
    assert len(seen) == 1 and "another process" in seen[0]
    with client.store.locked(wait=0):
        pass


# The end


def test_collecting_hands_in_what_is_on_the_disk_with_the_delivery_applied(client: Client) -> None:
    client.join()
    client.train(1)
    reply = client.send(records.COLLECT, {"run": RUN, "delivery": delivery(1)})
    given = read_answer(reply)
    assert (given.round, given.applied) == (1, 1)
    arrays = records.named_arrays(reply.content.array_records[records.ARRAYS])
    snapshot = client.store.load()
    assert snapshot is not None
    assert list(arrays) == list(make_model().state_dict())
    for name, each in snapshot.model.items():
        assert np.array_equal(arrays[name], each.numpy())
    assert sum(int((each == 7.0).sum()) for each in arrays.values() if each.dtype == np.float32) > 5


def test_leaving_removes_all_of_the_member_and_nothing_of_another(client: Client) -> None:
    client.join()
    client.train(1)
    client.train(2)
    other = client.store.path.parent.with_name("member-0")
    shutil.copytree(client.store.path.parent, other)
    assert client.ask(records.LEAVE, {"run": RUN}).status is Status.DONE
    assert stored_members(client.folder, RUN) == [0]
    shutil.rmtree(other)
    assert client.ask(records.LEAVE, {"run": RUN}).status is Status.DONE
    assert list(client.folder.iterdir()) == []


def test_recalibrating_leaves_the_member_alone_and_needs_more_than_one_example(client: Client) -> None:
    client.join()
    before = client.store.path.read_bytes()
    arrays = ArrayRecord(make_model(3).state_dict())
    reply = client.send(records.RECALIBRATE, {}, arrays)
    assert read_answer(reply).status is Status.DONE
    found = records.named_arrays(reply.content.array_records[records.ARRAYS])
    assert sorted(found) == ["1.running_mean", "1.running_var", "examples"]
    client.calibration = [torch.ones(1, 4)]
    given = client.ask(records.RECALIBRATE, {}, arrays)
    assert given.status is Status.REFUSED and "calibration-examples = 2" in given.reason
    assert client.ask(records.RECALIBRATE, {}).status is Status.REFUSED
    assert client.store.path.read_bytes() == before


# Where


def test_the_state_folder_is_the_nodes_own_then_the_runs_then_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def context(node: str, run: str) -> Context:
        return Context(
            run_id=1,
            node_id=1,
            node_config={"state-dir": node},
            state=RecordDict(),
            run_config={"state-dir": run},
        )

    monkeypatch.setenv("WASH_FL_STATE", "/environment")
    assert state_folder(context("/node", "/run")) == Path("/node")
    assert state_folder(context("", "/run")) == Path("/run")
    assert state_folder(context("", "")) == Path("/environment")
    monkeypatch.delenv("WASH_FL_STATE")
    assert state_folder(context("", "")) == Path("~/.local/state/wash-fl").expanduser()
