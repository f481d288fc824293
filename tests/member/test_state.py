"""A member on disk is the member: the same bits, whole or refused, and never lost to a broken file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from wash_fl.config import ExchangeConfig
from wash_fl.core.schedule import Schedule
from wash_fl.errors import StateError
from wash_fl.member.member import Member
from wash_fl.member.parameters import model_sha256
from wash_fl.member.snapshot import Progress, Snapshot
from wash_fl.member.state import FILE, LOCK, PREVIOUS, FileStore, state_path, stored_members

RUN = b"\xab" * 16
MEMBER = 2

OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda model: SGD(model.parameters(), lr=0.1),
    "sgd momentum": lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adam": lambda model: Adam(model.parameters(), lr=0.01),
    "adamw amsgrad": lambda model: AdamW(model.parameters(), lr=0.01, amsgrad=True),
    "rmsprop": lambda model: RMSprop(model.parameters(), lr=0.01, centered=True, momentum=0.5),
    "two groups": lambda model: SGD(
        [{"params": model.first.parameters(), "lr": 0.2}, {"params": model.norm.parameters()}],
        lr=0.1,
        momentum=0.9,
    ),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


class _Tied(nn.Module):
    """Has a tied weight, BatchNorm, a parameter without dimensions, and one that is stored transposed."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.back = nn.Linear(4, width, bias=False)
        self.back.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.mixed = nn.Parameter(torch.randn(width, 3).t())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (batch, 4) to (batch, 3)."""
        hidden = torch.tanh(self.norm(self.first(inputs) + self.back(inputs) * self.scale))
        return hidden @ self.mixed.t()


def make(
    name: str = "sgd momentum", seed: int = 0, model: nn.Module | None = None, opt: bool = False
) -> Member:
    torch.manual_seed(seed)
    model = _Tied() if model is None else model
    schedule = Schedule(ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", exchange_optimizer=opt))
    return Member(model, OPTIMIZERS[name](model), index=MEMBER, seed=1, schedule=schedule)


def train(member: Member, first: int, steps: int) -> None:
    for step in range(first, first + steps):
        member.optimizer.zero_grad()
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        torch.autograd.backward(member.model(inputs).square().mean())
        member.optimizer.step()


def progress_of(member: Member, **changes: Any) -> Progress:
    told = Progress(
        run=RUN.hex(),
        member=member.index,
        layout=member.layout.fingerprint.hex(),
        settings='{"é": "\\n"}',
        initial="cd" * 32,
    )
    return told.after(**changes)


def everything(member: Member) -> str:
    """Return all that must survive, bit for bit, in one comparable string."""
    state = member.optimizer.state_dict()
    tensors = {
        f"{index}.{key}": (value.dtype, value.shape, value.contiguous().numpy().tobytes())
        for index, entries in state["state"].items()
        for key, value in entries.items()
        if isinstance(value, torch.Tensor)
    }
    groups = json.dumps(state["param_groups"])  # as JSON, for which (0.9, 0.999) is a list
    return f"{model_sha256(member.model)} {sorted(tensors.items())} {groups} {member.applied}"


def store_in(folder: Path) -> FileStore:
    return FileStore(folder, RUN, MEMBER)


def save(folder: Path, member: Member, progress: Progress, offer: np.ndarray | None = None) -> None:
    store_in(folder).save(Snapshot.of(member, progress, offer))


def load(folder: Path, member: Member) -> Snapshot:
    snapshot = store_in(folder).load()
    assert snapshot is not None
    snapshot.restore(member)
    return snapshot


def saved(folder: Path, name: str = "sgd momentum") -> tuple[Member, Progress, np.ndarray]:
    """A member with a state of round 4 and, before that, one of round 3."""
    member = make(name)
    train(member, 0, 2)
    save(folder, member, progress_of(member, round=3, step=2, applied=2), member.offer(3))
    train(member, 2, 1)
    offer, member.applied = member.offer(4), 3
    progress = progress_of(member, round=4, step=3, applied=3)
    save(folder, member, progress, offer)
    return member, progress, offer


pytestmark = pytest.mark.usefixtures("flower_log")


# Round trip


@each_optimizer
def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path, name):
    member, progress, offer = saved(tmp_path / "deep", name)
    fresh = make(name, seed=9)
    assert everything(fresh) != everything(member)
    snapshot = load(tmp_path / "deep", fresh)
    assert snapshot.progress == progress
    assert everything(fresh) == everything(member)
    back = snapshot.offer
    assert back is not None and back.dtype == offer.dtype and back.tobytes() == offer.tobytes()
    assert back.shape == offer.shape


@each_optimizer
def test_training_resumed_from_disk_is_uninterrupted_training(tmp_path, name):
    uninterrupted = make(name)
    train(uninterrupted, 0, 9)
    progress = progress_of(uninterrupted)
    save(tmp_path, make(name), progress)  # before the first step there is no optimizer state
    for first in (0, 3, 6):
        resumed = make(name, seed=first + 1)
        load(tmp_path, resumed)
        train(resumed, first, 3)
        save(tmp_path, resumed, progress)
    assert everything(resumed) == everything(uninterrupted)


@pytest.mark.parametrize("name", ["sgd momentum", "adam"])
def test_a_delivery_after_loading_is_a_delivery_without(tmp_path, name):
    member, partner = make(name, opt=True), make(name, seed=5, opt=True)
    for each in (member, partner):
        train(each, 0, 2)
    save(tmp_path, member, progress_of(member))
    resumed = make(name, seed=7, opt=True)
    load(tmp_path, resumed)
    for each in (member, resumed):
        each.deliver(1, partner.offer(1))
        train(each, 2, 2)
    assert everything(resumed) == everything(member)


def test_tied_weights_are_tied_after_loading(tmp_path):
    member, _, _ = saved(tmp_path)
    fresh = make(seed=9)
    load(tmp_path, fresh)
    assert fresh.model.first.weight is fresh.model.back.weight
    assert torch.equal(fresh.model.back.weight, member.model.first.weight)
    train(fresh, 3, 1)
    assert torch.equal(fresh.model.back.weight, fresh.model.first.weight)


def test_a_snapshot_does_not_change_with_the_member_it_is_of_nor_with_one_made_from_it(tmp_path):
    member = make()
    train(member, 0, 2)
    snapshot = Snapshot.of(member, progress_of(member))
    before = everything(member)
    train(member, 2, 2)
    for _ in range(2):
        twin = make(seed=5)
        snapshot.restore(twin)
        assert everything(twin) == before
        train(twin, 2, 2)
        assert everything(twin) == everything(member)


def test_the_offer_is_kept_only_if_there_was_one_also_an_empty_one(tmp_path):
    member = make()
    save(tmp_path, member, progress_of(member))
    assert load(tmp_path, make()).offer is None
    save(tmp_path, member, progress_of(member), np.empty((1, 0), dtype=np.float32))
    back = load(tmp_path, make()).offer
    assert back is not None and back.shape == (1, 0)


def test_no_file_is_no_member(tmp_path):
    assert store_in(tmp_path).load() is None


def test_each_member_of_each_run_has_a_file_of_its_own(tmp_path):
    paths = {state_path(tmp_path, bytes([run]) * 16, member) for run in (1, 2) for member in (0, 1)}
    assert len({path.parent for path in paths}) == 4
    assert all(tmp_path in path.parents for path in paths)


def test_the_members_of_a_run_are_found_also_those_with_a_previous_state_only(tmp_path):
    assert stored_members(tmp_path, RUN) == []
    for index in (0, 2, 11):
        member = make()
        member.index = index
        FileStore(tmp_path, RUN, index).save(Snapshot.of(member, progress_of(member)))
    path = state_path(tmp_path, RUN, 11)
    path.rename(path.with_name(PREVIOUS))
    assert stored_members(tmp_path, RUN) == [0, 2, 11]
    assert stored_members(tmp_path, b"\1" * 16) == []


def test_a_setting_that_is_no_plain_number_is_refused_before_anything_is_written(tmp_path, refused):
    model = _Tied()
    optimizer = Adam(model.parameters(), lr=torch.tensor(0.1))
    member = Member(
        model,
        optimizer,
        index=MEMBER,
        seed=1,
        schedule=Schedule(ExchangeConfig(mix="shuffle", schedule="decreasing")),
    )
    with refused(StateError, "Adam", "plain numbers"):
        save(tmp_path, member, progress_of(member))
    assert list(tmp_path.iterdir()) == []


# Two generations


def current(folder: Path) -> Path:
    return state_path(folder, RUN, MEMBER)


def previous(folder: Path) -> Path:
    return current(folder).with_name(PREVIOUS)


def test_the_state_before_the_last_is_kept_and_no_other(tmp_path):
    member = make()
    for number in range(1, 5):
        save(tmp_path, member, progress_of(member, round=number))
    assert sorted(each.name for each in current(tmp_path).parent.iterdir()) == [FILE, PREVIOUS]
    assert load(tmp_path, make()).progress.round == 4
    current(tmp_path).unlink()
    assert load(tmp_path, make()).progress.round == 3


def test_a_missing_current_state_gives_way_to_the_previous_one_with_a_warning(tmp_path, caplog):
    saved(tmp_path)
    load(tmp_path, make())
    assert caplog.text == ""
    current(tmp_path).unlink()
    assert load(tmp_path, make()).progress.round == 3
    assert "member 2" in caplog.text and "interrupted" in caplog.text and "round 3" in caplog.text


def test_a_state_started_anew_leaves_nothing_to_fall_back_to(tmp_path, refused):
    saved(tmp_path)
    member = make(seed=8)
    store_in(tmp_path).save(Snapshot.of(member, progress_of(member, joined=7, applied=7)), anew=True)
    assert not previous(tmp_path).exists()
    assert load(tmp_path, make()).progress.joined == 7
    damage(current(tmp_path), 100)
    with refused(StateError, str(current(tmp_path)), "is damaged", "no whole state before it"):
        store_in(tmp_path).load()


@pytest.mark.parametrize("loaded", [True, False])
def test_a_damaged_state_never_takes_the_place_of_the_whole_one_before_it(tmp_path, loaded):
    member, _, _ = saved(tmp_path)
    damage(current(tmp_path), 100)
    store = store_in(tmp_path)
    if loaded:
        store.load()
    store.save(Snapshot.of(member, progress_of(member, round=5)))
    assert load(tmp_path, make()).progress.round == 5
    current(tmp_path).unlink()
    assert load(tmp_path, make()).progress.round == 3


def test_what_writers_that_were_killed_left_behind_is_removed_by_the_next_save(tmp_path):
    member, _, _ = saved(tmp_path)
    leftover = current(tmp_path).with_name(f".{FILE}.0123456789abcdef.part")
    leftover.write_bytes(b"half")
    foreign = current(tmp_path).with_name("notes.txt")
    foreign.write_text("mine")
    save(tmp_path, member, progress_of(member, round=5))
    assert not leftover.exists()
    assert foreign.read_text() == "mine"


def test_removing_removes_all_of_one_member_and_nothing_of_another(tmp_path):
    saved(tmp_path)
    other = make()
    other.index = 1
    FileStore(tmp_path, RUN, 1).save(Snapshot.of(other, progress_of(other)))
    current(tmp_path).with_name(f".{FILE}.0123456789abcdef.part").write_bytes(b"half")
    for _ in range(2):  # the second time there is nothing left to remove
        store = store_in(tmp_path)
        with store.locked():
            store.remove()
        assert not current(tmp_path).parent.exists()
    assert stored_members(tmp_path, RUN) == [1]
    store = FileStore(tmp_path, RUN, 1)
    with store.locked():
        store.remove()
    assert list(tmp_path.iterdir()) == []


def test_looking_for_a_member_that_is_not_there_leaves_no_trace(tmp_path):
    store = store_in(tmp_path)
    with store.locked():
        assert store.load() is None
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_kept_with_the_member(tmp_path):
    saved(tmp_path)
    with store_in(tmp_path).locked():
        pass
    assert sorted(each.name for each in current(tmp_path).parent.iterdir()) == [LOCK, FILE, PREVIOUS]


def test_a_member_that_cannot_be_locked_is_refused_with_the_option_to_change(tmp_path, refused):
    (tmp_path / "file").write_text("no folder")
    with refused(StateError, "cannot lock", "choose a state-dir"), store_in(tmp_path / "file").locked():
        raise AssertionError("locked")


def test_a_member_that_another_process_uses_is_refused_after_the_wait(tmp_path, refused):
    with (
        store_in(tmp_path).locked(),
        refused(StateError, "another process has been using", "more than 0 s", "a state-dir of its own"),
        store_in(tmp_path).locked(wait=0),
    ):
        raise AssertionError("both use it")


# Damaged files


def damage(path: Path, place: int, bits: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


def header_of(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@pytest.fixture
def assert_unusable(tmp_path, refused, caplog):
    """A damaged current file: the previous state is used; without one it is refused, and left untouched."""

    def check(path: Path, *parts: str) -> None:
        content = path.read_bytes()
        kept = previous(tmp_path).read_bytes()
        caplog.clear()
        assert load(tmp_path, make(seed=9)).progress.round == 3
        assert f"{path} is damaged" in caplog.text and "round 3" in caplog.text
        previous(tmp_path).unlink()
        with refused(StateError, str(path), "is damaged", "no whole state before it", "start", *parts):
            store_in(tmp_path).load()
        assert path.read_bytes() == content, "what may still be rescued was touched"
        previous(tmp_path).write_bytes(kept)

    return check


def test_a_truncated_file_is_noticed_wherever_it_ends(tmp_path, assert_unusable):
    saved(tmp_path)
    path = current(tmp_path)
    content, header = path.read_bytes(), header_of(path)
    for length in {0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(content) - 1}:
        path.write_bytes(content[:length])
        assert_unusable(path)


def test_a_flipped_bit_of_the_header_is_noticed_wherever_it_is(tmp_path, refused):
    saved(tmp_path)
    path = current(tmp_path)
    content, header = path.read_bytes(), header_of(path)
    # Places all over the header, with another bit each time; all bits of the length.
    flips = [(place, place % 8) for place in range(8, header, 3)]
    flips += [(place, bit) for place in range(8) for bit in range(8)]
    used = 0
    for place, bit in flips:
        path.write_bytes(content)
        damage(path, place, 1 << bit)
        try:
            used += load(tmp_path, make(seed=9)).progress.round == 3
        except StateError as error:
            assert "format" in str(error), error  # a file of another version is never passed over
    assert used > 0.9 * len(flips)


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_changed_anywhere_give_the_state_before_bit_for_bit(tmp_path, seed):
    member = make()
    train(member, 0, 2)
    save(tmp_path, member, progress_of(member, round=3))
    before = everything(member)
    train(member, 2, 1)
    save(tmp_path, member, progress_of(member, round=4))
    path = current(tmp_path)
    content, header = path.read_bytes(), header_of(path)
    generator = np.random.Generator(np.random.Philox(seed))
    for place in generator.integers(header, len(content), size=60):
        path.write_bytes(content)
        damage(path, int(place), int(generator.integers(1, 256)))
        fresh = make(seed=9)
        assert load(tmp_path, fresh).progress.round == 3
        assert everything(fresh) == before


def test_a_value_that_changed_is_refused_if_there_is_no_state_before(tmp_path, assert_unusable):
    saved(tmp_path)
    path = current(tmp_path)
    damage(path, header_of(path) + 5)
    assert_unusable(path, "a bit of its tensors has changed")


def test_two_damaged_files_are_refused(tmp_path, refused):
    saved(tmp_path)
    for path in (current(tmp_path), previous(tmp_path)):
        damage(path, header_of(path) + 5)
    with refused(StateError, str(current(tmp_path)), "is damaged", "no whole state before it"):
        store_in(tmp_path).load()
    current(tmp_path).unlink()
    with refused(StateError, str(previous(tmp_path)), "is damaged", "no whole state before it"):
        store_in(tmp_path).load()


def test_tensors_of_the_same_bytes_in_another_shape_are_noticed(tmp_path):
    saved(tmp_path)
    path = current(tmp_path)
    content = path.read_bytes()
    turned = content.replace(b'"shape":[5,4]', b'"shape":[4,5]')
    assert turned != content
    path.write_bytes(turned)
    assert load(tmp_path, make()).progress.round == 3


def test_files_of_another_kind_are_never_used(tmp_path, refused, assert_unusable):
    saved(tmp_path)
    path = current(tmp_path)
    for foreign in (b"", b"\0" * 4096, b"hello, world\n" * 100, b"\x89PNG\r\n\x1a\n" + b"\1" * 500):
        path.write_bytes(foreign)
        assert_unusable(path)
    # Whole, but of no version that this one knows: that is no damage, and nothing is passed over in silence.
    save_file({"weight": np.zeros(3, dtype=np.float32)}, path)
    with refused(StateError, "has the format None", "'wash-fl member 2'", "Move it away"):
        store_in(tmp_path).load()
    save_file({"weight": np.zeros(3, dtype=np.float32)}, path, {"format": "wash-fl member 1"})
    with refused(StateError, "has the format 'wash-fl member 1'", "another version"):
        store_in(tmp_path).load()


@pytest.mark.parametrize("progress", ["", "{}", "[]", "null", '{"run": "ab"}', '{"surprise": 1}'])
def test_a_header_with_the_right_format_and_nothing_in_it_is_refused(tmp_path, assert_unusable, progress):
    saved(tmp_path)
    metadata = {"format": "wash-fl member 2", "progress": progress, "optimizer": "{}"}
    save_file({"weight": np.zeros(3, dtype=np.float32)}, current(tmp_path), metadata)
    assert_unusable(current(tmp_path))


# Another's state


@pytest.mark.parametrize(("run", "index"), [(b"\1" * 16, MEMBER), (RUN, 0)])
def test_the_state_of_another_run_or_member_is_refused_where_it_was_copied(tmp_path, refused, run, index):
    saved(tmp_path)
    store = FileStore(tmp_path, run, index)
    store.path.parent.mkdir(parents=True)
    shutil.copy(current(tmp_path), store.path)
    with refused(StateError, str(store.path), f"member {MEMBER} of run abab", "move it back"):
        store.load()
    shutil.move(store.path, store.previous)
    with refused(StateError, str(store.previous), "move it back"):
        store.load()
    with refused(StateError, "move it back"):
        store.save(Snapshot.of(make(), progress_of(make())))


def test_the_state_of_another_model_is_refused_and_this_one_left_alone(tmp_path, refused):
    saved(tmp_path)
    for other in (_Tied(width=6), nn.Sequential(nn.Linear(4, 5))):
        optimizer = SGD(other.parameters(), lr=0.1, momentum=0.9)
        member = Member(
            other,
            optimizer,
            index=MEMBER,
            seed=1,
            schedule=Schedule(ExchangeConfig(mix="shuffle", schedule="decreasing")),
        )
        before = model_sha256(other)
        with refused(StateError, str(current(tmp_path)), "another model", "another state-dir"):
            load(tmp_path, member)
        assert model_sha256(other) == before


def test_with_and_without_wash_opt_are_not_the_same_state(tmp_path, refused):
    saved(tmp_path)
    with refused(StateError, "another model"):
        load(tmp_path, make(opt=True))


def test_the_state_of_another_optimizer_is_refused_and_the_member_left_alone(tmp_path, refused):
    saved(tmp_path, "sgd momentum")
    member = make("adam", seed=9)
    before = everything(member)
    with refused(StateError, str(current(tmp_path)), "optimizer SGD", "Adam", "another state-dir"):
        load(tmp_path, member)
    assert everything(member) == before


def test_a_model_with_the_same_parameters_and_other_buffers_is_refused(tmp_path, refused):
    saved(tmp_path)
    model = _Tied()
    model.register_buffer("extra", torch.zeros(2))
    with refused(StateError, str(current(tmp_path)), "does not fit", "extra"):
        load(tmp_path, make(model=model))
