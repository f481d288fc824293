"""A member on disk is the member: the same bits, whole or refused, and never lost to a broken write."""

import errno
import json
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
from wash_fl.member.state import FILE, Progress, load, read_progress, save, state_path

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
    schedule = Schedule(ExchangeConfig(p=0.5, schedule="constant"))
    return Member(model, OPTIMIZERS[name](model), index=2, seed=1, schedule=schedule, exchange_optimizer=opt)


def train(member: Member, first: int, steps: int) -> None:
    for step in range(first, first + steps):
        member.optimizer.zero_grad()
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        torch.autograd.backward(member.model(inputs).square().mean())
        member.optimizer.step()


def progress_of(member: Member, **changes: Any) -> Progress:
    told = Progress(
        run="ab" * 16,
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


def saved(path: Path, name: str = "sgd momentum") -> tuple[Member, Progress, np.ndarray]:
    member = make(name)
    train(member, 0, 3)
    offer, member.applied = member.offer(4), 3
    progress = progress_of(member, round=4, step=3, applied=3)
    save(path, member, progress, offer)
    return member, progress, offer


# Round trip


@each_optimizer
def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path, name):
    path = tmp_path / "deep" / FILE
    member, progress, offer = saved(path, name)
    fresh = make(name, seed=9)
    assert everything(fresh) != everything(member)
    assert read_progress(path) == progress
    back = load(path, fresh, progress)
    assert everything(fresh) == everything(member)
    assert back is not None and back.dtype == offer.dtype and back.tobytes() == offer.tobytes()
    assert back.shape == offer.shape


@each_optimizer
def test_training_resumed_from_disk_is_uninterrupted_training(tmp_path, name):
    path = tmp_path / FILE
    uninterrupted = make(name)
    train(uninterrupted, 0, 9)
    progress = progress_of(uninterrupted)
    save(path, make(name), progress)  # before the first step there is no optimizer state
    for first in (0, 3, 6):
        resumed = make(name, seed=first + 1)
        load(path, resumed, progress)
        train(resumed, first, 3)
        save(path, resumed, progress)
    assert everything(resumed) == everything(uninterrupted)


@pytest.mark.parametrize("name", ["sgd momentum", "adam"])
def test_a_delivery_after_loading_is_a_delivery_without(tmp_path, name):
    path = tmp_path / FILE
    member, partner = make(name, opt=True), make(name, seed=5, opt=True)
    for each in (member, partner):
        train(each, 0, 2)
    progress = progress_of(member)
    save(path, member, progress)
    resumed = make(name, seed=7, opt=True)
    load(path, resumed, progress)
    for each in (member, resumed):
        each.deliver(1, partner.offer(1))
        train(each, 2, 2)
    assert everything(resumed) == everything(member)


def test_tied_weights_are_tied_after_loading(tmp_path):
    path = tmp_path / FILE
    member, progress, _ = saved(path)
    fresh = make(seed=9)
    load(path, fresh, progress)
    assert fresh.model.first.weight is fresh.model.back.weight
    assert torch.equal(fresh.model.back.weight, member.model.first.weight)
    train(fresh, 3, 1)
    assert torch.equal(fresh.model.back.weight, fresh.model.first.weight)


def test_the_offer_is_kept_only_if_there_was_one_also_an_empty_one(tmp_path):
    member = make()
    progress = progress_of(member)
    save(tmp_path / FILE, member, progress)
    assert load(tmp_path / FILE, make(), progress) is None
    save(tmp_path / FILE, member, progress, np.empty((1, 0), dtype=np.float32))
    back = load(tmp_path / FILE, make(), progress)
    assert back is not None and back.shape == (1, 0)


def test_a_member_loaded_may_be_saved_over_the_file_it_came_from(tmp_path):
    path = tmp_path / FILE
    member, progress, offer = saved(path)
    for _ in range(3):
        fresh = make(seed=9)
        back = load(path, fresh, progress)
        save(path, fresh, progress, back)
    assert everything(fresh) == everything(member)
    assert back is not None and back.tobytes() == offer.tobytes()


def test_no_file_is_no_member(tmp_path):
    assert read_progress(tmp_path / FILE) is None


def test_each_member_of_each_run_has_a_file_of_its_own(tmp_path):
    paths = {state_path(tmp_path, bytes([run]) * 16, member) for run in (1, 2) for member in (0, 1)}
    assert len({path.parent for path in paths}) == 4
    assert all(tmp_path in path.parents for path in paths)


def test_a_setting_that_is_no_plain_number_is_refused_before_anything_is_written(tmp_path, refused):
    model = _Tied()
    optimizer = Adam(model.parameters(), lr=torch.tensor(0.1))
    schedule = Schedule(ExchangeConfig())
    member = Member(model, optimizer, index=0, seed=1, schedule=schedule)
    with refused(StateError, "Adam", "plain numbers"):
        save(tmp_path / FILE, member, progress_of(member))
    assert list(tmp_path.iterdir()) == []


# Broken writes


class _Crash(BaseException):
    """Nobody catches it, as nobody catches a power cut."""


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), StateError), (_Crash(), _Crash)],
)
def test_a_write_that_fails_half_way_leaves_the_state_before_it_usable(tmp_path, monkeypatch, error, raised):
    path = tmp_path / FILE
    member, progress, offer = saved(path)
    before = everything(member)
    train(member, 3, 2)
    write = Path.write_bytes

    def half(self: Path, content: bytes) -> int:
        write(self, content[: len(content) // 2])
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", half)
        with pytest.raises(raised):
            save(path, member, progress.after(round=5))
    assert [each.name for each in tmp_path.iterdir()] == [FILE]
    assert read_progress(path) == progress
    fresh = make(seed=9)
    back = load(path, fresh, progress)
    assert everything(fresh) == before
    assert back is not None and back.tobytes() == offer.tobytes()
    # and with room on the disk again, it goes on
    save(path, member, progress.after(round=5))
    assert read_progress(path) == progress.after(round=5)


# Damaged files


def assert_refused(path: Path, refused: Any, *parts: str) -> None:
    """A file is refused in one line, by its header or by its content, and left as it is."""
    content = path.read_bytes()
    with refused(StateError, str(path), *parts):
        progress = read_progress(path)
        assert progress is not None
        load(path, make(seed=9), progress)
    assert path.read_bytes() == content, "what may still be rescued was touched"


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, refused):
    path = tmp_path / FILE
    saved(path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in {0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(content) - 1}:
        path.write_bytes(content[:length])
        assert_refused(path, refused, "is damaged", "move it away")


def test_a_flipped_bit_of_the_header_is_refused_wherever_it_is(tmp_path, refused):
    path = tmp_path / FILE
    saved(path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    # Places all over the header, with another bit each time; all bits of the length.
    flips = [(place, place % 8) for place in range(8, header, 3)] + [
        (p, b) for p in range(8) for b in range(8)
    ]
    for place, bit in flips:
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        assert_refused(path, refused)


def test_a_flipped_bit_of_a_value_is_refused(tmp_path, refused):
    path = tmp_path / FILE
    saved(path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for place in range(header, len(content), 37):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        assert_refused(path, refused, "is damaged", "move it away")


def test_files_of_another_kind_are_refused(tmp_path, refused):
    path = tmp_path / FILE
    for foreign in (b"", b"\0" * 4096, b"hello, world\n" * 100, b"\x89PNG\r\n\x1a\n" + b"\1" * 500):
        path.write_bytes(foreign)
        assert_refused(path, refused, "is damaged", "move it away")
    save_file({"weight": np.zeros(3, dtype=np.float32)}, path)
    assert_refused(path, refused, "has the format None", "'wash-fl member 1'", "Move it away")
    save_file({"weight": np.zeros(3, dtype=np.float32)}, path, {"format": "wash-fl member 2"})
    assert_refused(path, refused, "has the format 'wash-fl member 2'", "another version")


@pytest.mark.parametrize("progress", ["", "{}", "[]", "null", '{"run": "ab"}', '{"surprise": 1}'])
def test_a_header_with_the_right_format_and_nothing_in_it_is_refused(tmp_path, refused, progress):
    path = tmp_path / FILE
    metadata = {"format": "wash-fl member 1", "progress": progress, "optimizer": "{}"}
    save_file({"weight": np.zeros(3, dtype=np.float32)}, path, metadata)
    assert_refused(path, refused, "is damaged")


# Another model's state


def test_the_state_of_another_model_is_refused_and_this_one_left_alone(tmp_path, refused):
    path = tmp_path / FILE
    _, progress, _ = saved(path)
    for other in (_Tied(width=6), nn.Sequential(nn.Linear(4, 5))):
        optimizer = SGD(other.parameters(), lr=0.1, momentum=0.9)
        member = Member(other, optimizer, index=2, seed=1, schedule=Schedule(ExchangeConfig()))
        before = model_sha256(other)
        with refused(StateError, str(path), "another model", "another state-dir"):
            load(path, member, progress)
        assert model_sha256(other) == before


def test_with_and_without_wash_opt_are_not_the_same_state(tmp_path, refused):
    path = tmp_path / FILE
    _, progress, _ = saved(path)
    with refused(StateError, "another model"):
        load(path, make(opt=True), progress)


def test_the_state_of_another_optimizer_is_refused_and_the_member_left_alone(tmp_path, refused):
    path = tmp_path / FILE
    _, progress, _ = saved(path, "sgd momentum")
    member = make("adam", seed=9)
    before = everything(member)
    with refused(StateError, str(path), "optimizer SGD", "Adam", "another state-dir"):
        load(path, member, progress)
    assert everything(member) == before


def test_a_model_with_the_same_parameters_and_other_buffers_is_refused(tmp_path, refused):
    path = tmp_path / FILE
    _, progress, _ = saved(path)
    model = _Tied()
    model.register_buffer("extra", torch.zeros(2))
    with refused(StateError, str(path), "damaged"):
        load(path, make(model=model), progress)
