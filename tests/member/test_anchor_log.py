"""A member's anchor on disk: in its snapshot, in the file, and in the log of what happened since."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.core.anchor import Anchor
from wash_fl.errors import ExchangeError, NotJoinedError, StateError
from wash_fl.member.durable import DurableMember
from wash_fl.member.encoding import FORMAT, WITH_ANCHOR, WITH_BOTH, WITH_STATES, encode, read
from wash_fl.member.log import Entry, Kind, Logs
from wash_fl.member.parameters import model_layout
from wash_fl.member.snapshot import MemoryStore, Progress, Snapshot
from wash_fl.member.stateful import PackedStates
from wash_fl.protocol.terms import Terms, run_identity

F = np.float32


def terms(reference="anchor"):
    return Terms(
        run_name="anchor",
        seed=4,
        members=3,
        rounds=9,
        local_steps=1,
        exchange=ExchangeConfig(
            p=0.5,
            mix="average",
            schedule="constant",
            exchange_plane="stream",
            dtype="int8",
            reference=reference,
        ),
    )


class Device:
    def __init__(self, folder: Path, reference: str = "anchor") -> None:
        self.terms, self.store, self.logs = terms(reference), MemoryStore(), Logs(folder)

    def process(self, index: int = 1) -> DurableMember:
        torch.manual_seed(7)
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        run = run_identity(self.terms)
        return DurableMember(
            self.model, self.optimizer, index=index, run=run, store=self.store, logs=self.logs
        )

    def start(self, **options):
        weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([6.0, 7.0])}
        return self.process().start(self.terms, model_layout(nn.Linear(3, 2)), weights, **options)

    def restored(self):
        """Return the member as its next process finds it, and how far it is."""
        process = self.process()
        progress = process.introduce(self.terms, model_layout(nn.Linear(3, 2)))
        return process._member(self.terms), progress


def test_a_member_that_starts_with_the_initial_weights_has_them_as_its_anchor(tmp_path):
    device = Device(tmp_path)
    device.start()
    member, _ = device.restored()
    assert member.anchor.values.tolist() == [[*range(8)]] and member.anchor.chain == 0
    member.load_parameters(np.zeros(8, F))
    assert member.anchor.values.any(), "it is a copy"


@pytest.mark.parametrize("later", [{"exchange": 3}, {"incarnation": 1}])
def test_a_member_that_starts_later_needs_the_anchor_besides(tmp_path, later, refused):
    device = Device(tmp_path)
    with refused(ExchangeError, "start anew without the anchor", "update the older side"):
        device.start(**later)
    assert device.store.load() is None


def test_an_anchor_that_is_damaged_on_its_way_is_asked_for_once_more(tmp_path):
    device = Device(tmp_path)
    with pytest.raises(NotJoinedError):
        device.start(exchange=3, incarnation=1, anchor=b"no packet")
    assert device.store.load() is None


def test_a_log_gives_back_every_move_and_what_was_held_with_it(tmp_path):
    device = Device(tmp_path)
    progress = device.start()
    log = device.logs.open(progress.log)
    member, _ = device.restored()
    anchor, held = member.anchor.copy(), member.parameters()[None]
    rng = np.random.default_rng(1)

    def some(exchange):
        return rng.standard_normal((1, member.draw.count(exchange))).astype(F)

    values, first, second, third = some(1), some(1), some(2), some(3)
    log.offered(1, values)
    log.settled(1, values + 1, first)
    log.missed(2, second)
    log.missed(3, third)
    for exchange, delta in ((1, first), (2, second), (3, third)):
        anchor.move(exchange, member.draw.coordinates(exchange), delta)
    held[:, member.draw.coordinates(1)] = values + 1
    member, progress = device.restored()
    assert (progress.offered, progress.applied) == (1, 3)
    assert member.anchor.values.tobytes() == anchor.values.tobytes() and member.anchor.chain == anchor.chain
    assert member.parameters().tobytes() == held.tobytes()

    whole = Anchor(rng.standard_normal((1, 8)).astype(F), chain=0x7FF0_0001_FFFF_FFFF)
    log.anchored(7, whole)
    log.missed(8, last := some(8))
    member, progress = device.restored()
    whole.move(8, member.draw.coordinates(8), last)
    assert progress.applied == 8 and member.parameters().tobytes() == held.tobytes()
    assert member.anchor.values.tobytes() == whole.values.tobytes() and member.anchor.chain == whole.chain


def test_half_a_record_moves_nothing(tmp_path):
    device = Device(tmp_path)
    log = device.logs.open(device.start().log)
    member, _ = device.restored()
    count = member.draw.count(1)
    log.settled(1, np.full((1, count), 5, F), np.full((1, count), 1, F))
    before = member.anchor.values.tobytes(), member.parameters().tobytes()
    with log.path.open("r+b") as file:
        file.truncate(log.size - 1)
    member, progress = device.restored()
    assert progress.applied == 0
    assert (member.anchor.values.tobytes(), member.parameters().tobytes()) == before


def test_what_a_record_says_is_held_and_moved():
    values = np.arange(8, dtype=F).reshape(2, 4)
    assert Entry(Kind.OFFERED, 1, values).held.tolist() == values.tolist()
    assert Entry(Kind.SETTLED, 1, values).held.tolist() == values[:1].tolist()
    assert Entry(Kind.MISSED, 1, values).held is None is Entry(Kind.ANCHORED, 1, values).held


def snapshot(anchor=None, states=None):
    progress = Progress(run="00", member=0, layout="1", settings="{}", initial="2")
    return Snapshot(
        progress=progress,
        model={"a": torch.zeros(3)},
        optimizer={"state": {}, "param_groups": []},
        optimizer_class="SGD",
        anchor=anchor,
        states=states,
    )


@pytest.mark.parametrize("states", [None, PackedStates('{"s": {}}', ())], ids=["", "with states"])
@pytest.mark.parametrize("chain", [0, 1, 2**64 - 1])
def test_an_anchor_comes_back_from_its_file(tmp_path, states, chain):
    path = tmp_path / "state.safetensors"
    values = np.array([[0.0, -0.0, 1e-45], [3e38, -1.0, 2.0]], F)
    path.write_bytes(encode(snapshot(Anchor(values, chain), states)))
    back = read(path)
    assert back.anchor.values.tobytes() == values.tobytes() and back.anchor.chain == chain
    assert (back.states is None) == (states is None)


def test_a_file_without_an_anchor_has_the_format_that_it_had_and_one_with_it_another(tmp_path):
    packed = PackedStates('{"s": {}}', ())
    anchor = Anchor(np.zeros((1, 3), F))
    formats = [encode(snapshot(*each)) for each in ((), (None, packed), (anchor,), (anchor, packed))]
    for content, name in zip(formats, (FORMAT, WITH_STATES, WITH_ANCHOR, WITH_BOTH), strict=True):
        assert f'"format":"{name}"'.encode() in content


@pytest.mark.parametrize(("kept", "reads"), [("anchor", "values"), ("values", "anchor")])
def test_a_state_with_an_anchor_too_many_or_too_few_is_not_gone_on_with(tmp_path, kept, reads, refused):
    one = Device(tmp_path, kept)
    one.start()
    other = Device(tmp_path, reads)
    other.store = one.store
    with refused(StateError, "is not of this run"):
        other.restored()
