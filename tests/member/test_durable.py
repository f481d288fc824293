"""A member does each thing once, however often it is asked, and tells nobody what is not on its disk."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from wash_fl.clock import Clock
from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.layout import Layout
from wash_fl.core.packet import Direction, PacketError, Refusal, Slice, decode, encode
from wash_fl.errors import ExchangeError, LayoutError, NotJoinedError, StateError, WashError
from wash_fl.member.durable import DurableMember, Trained
from wash_fl.member.log import Logs
from wash_fl.member.pace import Round
from wash_fl.member.parameters import model_layout, model_sha256
from wash_fl.member.slots import optimizer_slots
from wash_fl.member.snapshot import MemoryStore, Snapshot
from wash_fl.protocol.terms import Terms, run_identity

TERMS = Terms(
    run_name="durable",
    seed=4,
    members=3,
    rounds=9,
    local_steps=2,
    exchange=ExchangeConfig(p=0.5, mix="shuffle", schedule="constant"),
)
INDEX = 1


def make_model(seed: int = 0, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


class Disk(MemoryStore):
    """A store that remembers what it was asked, and can be full or broken."""

    def __init__(self) -> None:
        super().__init__()
        self.saves = 0
        self.full = False
        self.broken = False

    def load(self) -> Snapshot | None:
        if self.broken:
            raise StateError("it is damaged: move it away.")
        return super().load()

    def save(self, snapshot: Snapshot, *, anew: bool = False) -> None:
        if self.full:
            raise StateError("it cannot be written (full).")
        super().save(snapshot, anew=anew)
        self.saves += 1


class Stopwatch(Clock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


class Device:
    """A device on which every message finds a new process, and training that anyone can repeat."""

    def __init__(self, terms: Terms = TERMS, logs: Logs | None = None) -> None:
        self.terms = terms
        self.logs = logs
        self.disk = Disk()
        self.rounds: list[Round] = []
        self.clock = Stopwatch()
        self.seconds_per_step = 0.5
        self.process()

    def process(self) -> DurableMember:
        """Start anew, with nothing in memory."""
        self.model = make_model(seed=99)
        self.optimizer = SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        run = run_identity(self.terms)
        return DurableMember(
            self.model,
            self.optimizer,
            index=INDEX,
            run=run,
            store=self.disk,
            logs=self.logs,
            clock=self.clock,
        )

    @property
    def layout(self) -> Layout:
        slots = optimizer_slots(self.optimizer) if self.terms.exchange.exchange_optimizer else ()
        return model_layout(make_model(), slots)

    def start(self, seed: int = 0, **options: Any) -> Any:
        return self.process().start(self.terms, self.layout, make_model(seed).state_dict(), **options)

    def work(self, now: Round) -> dict[str, float]:
        self.rounds.append(now)
        self.clock.time += self.seconds_per_step * now.steps
        for step in range(now.first_step, now.first_step + now.steps):
            self.optimizer.zero_grad()
            inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(step))
            torch.autograd.backward(self.model(inputs).square().mean())
            self.optimizer.step()
        return {"loss": float(now.number)}

    def train(
        self,
        number: int,
        delivery: bytes = b"",
        work: Callable[[Round], Any] | None = None,
        seconds: float = 0.0,
        exchange: int = 0,
    ) -> Trained:
        return self.process().train(number, delivery, work or self.work, seconds, exchange=exchange)

    def offered(self, trained: Trained, exchange: int = 0) -> np.ndarray:
        """What a packet offers, read as the server reads it."""
        draw = Draw(self.terms.seed, self.layout, self.terms.schedule)
        return decode(
            trained.offer,
            direction=Direction.OFFER,
            run=run_identity(self.terms),
            layout=self.layout,
            member=INDEX,
            exchange=exchange or trained.progress.round,
            count=draw.count,
        ).values

    def delivery(self, exchange: int, value: float = 7.0, member: int = INDEX) -> bytes:
        draw = Draw(self.terms.seed, self.layout, self.terms.schedule)
        values = np.full((len(self.layout.slots), draw.count(exchange)), value, dtype=np.float32)
        run = run_identity(self.terms)
        return encode(Slice(Direction.DELIVERY, run, self.layout, exchange, member, values))

    @property
    def kept(self) -> str:
        """All that the disk holds, in one comparable string."""
        snapshot = self.disk.load()
        if snapshot is None:
            return ""
        optimizer = {
            f"{index}.{key}": value.tolist()
            for index, entries in snapshot.optimizer["state"].items()
            for key, value in entries.items()
        }
        model = {name: each.tolist() for name, each in snapshot.model.items()}
        offer = None if snapshot.offer is None else snapshot.offer.tolist()
        return f"{snapshot.progress} {model} {optimizer} {offer}"


@pytest.fixture
def device() -> Device:
    device = Device()
    device.start()
    return device


# Starting


def test_one_that_never_started_says_so(refused):
    device = Device()
    assert device.process().introduce(TERMS, device.layout) is None
    for ask in (lambda: device.train(1), lambda: device.process().collect(b"")):
        with pytest.raises(NotJoinedError, match="let it join first") as caught:
            ask()
        assert not caught.value.fell_back
    assert device.rounds == [] and device.disk.saves == 0


def test_it_starts_from_the_weights_it_is_given_and_names_their_hash():
    device = Device()
    progress = device.start(seed=5)
    assert progress.initial == model_sha256(make_model(5))
    assert (progress.round, progress.applied, progress.joined, progress.member) == (0, 0, 0, INDEX)
    assert progress.run == run_identity(TERMS).hex() and progress.settings == TERMS.to_json()
    assert device.process().introduce(TERMS, device.layout) == progress


def test_it_starts_once(device):
    device.train(1)
    kept, saves = device.kept, device.disk.saves
    again = device.start(seed=5)
    assert (again.round, again.initial) == (1, model_sha256(make_model(0)))
    assert device.kept == kept and device.disk.saves == saves


def test_a_late_joiner_has_no_round_and_needs_no_delivery_up_to_the_exchange_it_joined_after():
    device = Device()
    progress = device.start(exchange=4)
    assert (progress.round, progress.applied, progress.joined) == (0, 4, 4)
    trained = device.train(5, device.delivery(4))
    assert trained.progress.applied == 4, "a delivery that was meant for what it held before"
    assert (device.rounds[-1].first_step, device.rounds[-1].number) == (8, 5)
    assert device.train(6, device.delivery(5)).progress.applied == 5


@pytest.mark.parametrize("exchange", [-1, 10])
def test_a_start_after_an_exchange_that_the_run_does_not_have_is_refused(refused, exchange):
    device = Device()
    with refused(ExchangeError, f"after exchange {exchange}", "from 0 to 9"):
        device.start(exchange=exchange)
    assert device.disk.load() is None


def test_weights_or_a_model_that_differ_from_the_servers_are_refused(refused):
    device = Device()
    other = make_model(width=5)
    with refused(LayoutError, "server's weights do not fit", "size mismatch"):
        device.process().start(TERMS, device.layout, other.state_dict())
    for ask in ("introduce", "start"):
        arguments = [other.state_dict()] if ask == "start" else []
        with refused(LayoutError, f"member {INDEX}'s model is not the server's", "same model"):
            getattr(device.process(), ask)(TERMS, model_layout(other), *arguments)
    assert device.disk.load() is None


# Starting anew


def test_anew_replaces_what_it_has(device):
    device.train(1)
    device.train(2)
    progress = device.start(seed=5, exchange=6, incarnation=1)
    assert (progress.round, progress.applied, progress.joined, progress.incarnation) == (0, 6, 6, 1)
    assert progress.initial == model_sha256(make_model(5))
    trained = device.train(7)
    assert trained.progress.round == 7
    # nothing of the optimizer that it had before
    fresh = Device()
    fresh.start(seed=5, exchange=6, incarnation=1)
    fresh.train(7)
    assert device.kept == fresh.kept


def test_anew_starts_one_that_has_nothing_and_one_whose_state_is_damaged():
    device = Device()
    assert device.start(exchange=3, incarnation=1).joined == 3
    device.disk.broken = True
    with pytest.raises(StateError):
        device.start(exchange=4)
    assert device.start(seed=5, exchange=4, incarnation=1).joined == 4


def test_anew_twice_is_anew_once(device):
    device.start(seed=5, exchange=6, incarnation=1)
    device.train(7)
    kept = device.kept
    assert device.start(seed=5, exchange=6, incarnation=1).round == 7
    assert device.kept == kept


def test_a_request_to_start_anew_that_was_delayed_undoes_nothing(device):
    device.start(seed=5, exchange=4, incarnation=3)
    device.train(5)
    kept = device.kept
    # after the same exchange, from other weights, and after earlier and later ones
    for seed, exchange, incarnation in ((8, 4, 2), (5, 4, 2), (8, 3, 1), (8, 6, 2), (0, 0, 0)):
        progress = device.start(seed=seed, exchange=exchange, incarnation=incarnation)
        assert (progress.round, progress.incarnation) == (5, 3)
    assert device.kept == kept


def test_a_later_start_counts_whatever_was_done_since_the_one_before(device):
    device.start(seed=5, exchange=6, incarnation=1)
    assert device.start(seed=6, exchange=6, incarnation=2).initial == model_sha256(make_model(6))
    device.train(7)
    # the exchange of round 7 is not settled: who offered in it may still be started anew
    progress = device.start(seed=7, exchange=6, incarnation=3)
    assert (progress.initial, progress.incarnation) == (model_sha256(make_model(7)), 3)


def test_a_full_disk_leaves_what_there_was_when_it_starts_anew(device):
    device.train(1)
    kept = device.kept
    device.disk.full = True
    with pytest.raises(StateError):
        device.start(seed=5, exchange=6, incarnation=1)
    assert device.kept == kept


# Rounds


def test_a_round_is_trained_offered_and_kept(device):
    trained = device.train(1)
    assert trained.metrics == {"loss": 1.0}
    assert (trained.progress.round, trained.progress.step, trained.progress.applied) == (1, 2, 0)
    draw = Draw(TERMS.seed, device.layout, TERMS.schedule)
    vector = np.concatenate([each.detach().numpy().reshape(-1) for each in device.model.parameters()])
    assert device.offered(trained)[0].tolist() == vector[draw.coordinates(1)].tolist()
    assert device.process().introduce(TERMS, device.layout) == trained.progress


def test_a_repeated_round_offers_the_same_again_and_does_not_train(device):
    first = device.train(1)
    kept, saves = device.kept, device.disk.saves
    for delivery in (b"", device.delivery(1)):
        again = device.train(1, delivery)
        assert (again.offer, again.progress, again.metrics) == (first.offer, first.progress, None)
    assert len(device.rounds) == 1
    assert device.kept == kept and device.disk.saves == saves


def test_the_offer_of_a_round_is_repeated_also_after_its_delivery_was_collected(device):
    first = device.train(1)
    device.process().collect(device.delivery(1))
    again = device.train(1)
    assert again.offer == first.offer and again.progress.applied == 1


def test_an_earlier_round_is_refused_and_changes_nothing(device, refused):
    device.train(1)
    device.train(3)
    kept = device.kept
    for number in (1, 2):
        with refused(ExchangeError, f"round {number} is over", "at round 3"):
            device.train(number, device.delivery(1))
    assert device.kept == kept and len(device.rounds) == 2


def test_a_round_before_a_late_joiner_joined_is_refused(refused):
    device = Device()
    device.start(exchange=4)
    for number in (1, 4):
        with refused(ExchangeError, f"round {number} is over", "exchange 4"):
            device.train(number)
    assert device.rounds == []


@pytest.mark.parametrize("number", [-1, 0, 10])
def test_a_round_that_the_run_does_not_have_is_refused(device, refused, number):
    with refused(ExchangeError, f"round {number} is none of this run", "1 to 9"):
        device.train(number)
    assert device.rounds == []


def test_steps_follow_the_rounds_number_whatever_was_missed(device):
    for number in (1, 2, 5):
        device.train(number)
    assert [(now.number, now.first_step, now.steps) for now in device.rounds] == [
        (1, 0, 2),
        (2, 2, 2),
        (5, 8, 2),
    ]
    assert all(now.terms == TERMS and now.seconds == 0.0 for now in device.rounds)


def test_an_exchange_without_coordinates_offers_nothing():
    device = Device(
        dataclasses.replace(TERMS, exchange=ExchangeConfig(p=0.0, mix="shuffle", schedule="constant"))
    )
    device.start()
    trained = device.train(1)
    assert trained.offer == b"" and trained.progress.round == 1
    assert device.train(1).offer == b"" and len(device.rounds) == 1


def test_no_process_in_between_makes_a_difference():
    def after(interrupted: bool) -> str:
        device = Device()
        device.start()
        member = device.process()
        for number in range(1, 5):
            if interrupted:
                member = device.process()
            member.train(number, device.delivery(number - 1, 0.01) if number > 1 else b"", device.work)
        return device.kept

    assert after(interrupted=True) == after(interrupted=False)


@pytest.mark.parametrize("stage", ["training raises", "diverged", "disk full"])
def test_after_any_failure_the_state_is_what_it_was_and_the_round_can_be_repeated(stage):
    undisturbed, device = Device(), Device()
    for each in (undisturbed, device):
        each.start()
        each.train(1)
    kept = device.kept

    def work(now: Round) -> dict[str, float]:
        metrics = device.work(now)
        if stage == "training raises":
            raise RuntimeError("out of memory")
        if stage == "diverged":
            with torch.no_grad():
                list(device.model.parameters())[-1][0] = float("inf")
        return metrics

    device.disk.full = stage == "disk full"
    with pytest.raises((RuntimeError, WashError)) as caught:
        device.train(2, device.delivery(1), work)
    assert stage != "diverged" or "1 parameters that are infinite" in str(caught.value)
    assert device.kept == kept, "it told somebody, or itself, of what is not on the disk"
    device.disk.full = False
    assert device.train(2, device.delivery(1)) == undisturbed.train(2, undisturbed.delivery(1))
    assert device.kept == undisturbed.kept


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            lambda model: model.register_buffer("cache", torch.zeros(2)),
            ["'cache'", "was not there", "float32[2]"],
        ),
        (lambda model: delattr(model[1], "running_mean"), ["'1.running_mean'", "float32[4]", "is not there"]),
        (lambda model: model[1].double(), ["'1.", "was float32[4]", "is float64[4]"]),
    ],
)
def test_training_that_changes_what_a_state_dict_looks_like_is_refused(device, refused, change, parts):
    def work(now: Round) -> None:
        device.work(now)
        change(device.model)

    saves = device.disk.saves
    with refused(LayoutError, *parts, "after training"):
        device.train(1, work=work)
    assert device.disk.saves == saves
    assert device.train(1).progress.round == 1


def test_optimizer_state_that_diverged_is_not_offered():
    device = Device(
        dataclasses.replace(
            TERMS, exchange=ExchangeConfig(p=1.0, mix="shuffle", schedule="constant", exchange_optimizer=True)
        )
    )
    device.start()

    def work(now: Round) -> None:
        device.work(now)
        for entries in device.optimizer.state.values():
            entries["momentum_buffer"].fill_(float("inf"))

    kept = device.kept
    with pytest.raises(PacketError) as caught:
        device.train(1, work=work)
    assert caught.value.refusal is Refusal.NON_FINITE
    assert device.kept == kept


# Deliveries


def values_at(device: Device, exchange: int) -> list[float]:
    snapshot = device.disk.load()
    assert snapshot is not None
    draw = Draw(TERMS.seed, device.layout, TERMS.schedule)
    vector = np.concatenate([snapshot.model[each.name].numpy().reshape(-1) for each in device.layout.tensors])
    found: list[float] = vector[draw.coordinates(exchange)].tolist()
    return found


def test_a_delivery_is_applied_before_training_and_once(device):
    device.train(1)
    seen: list[list[float]] = []

    def look(now: Round) -> None:
        draw = Draw(TERMS.seed, device.layout, TERMS.schedule)
        vector = nn.utils.parameters_to_vector(device.model.parameters()).detach()
        seen.append(vector[torch.from_numpy(draw.coordinates(1))].tolist())

    assert device.train(2, device.delivery(1, 7.0), look).progress.applied == 1
    assert device.train(3, device.delivery(1, 8.0), look).progress.applied == 1
    assert [set(values) for values in seen] == [{7.0}, {7.0}]


def test_collecting_applies_the_delivery_once_and_the_model_is_what_is_kept(device):
    device.train(1)
    progress = device.process().collect(device.delivery(1))
    assert (progress.round, progress.applied) == (1, 1)
    assert set(values_at(device, 1)) == {7.0}
    kept, saves = device.kept, device.disk.saves
    snapshot = device.disk.load()
    assert snapshot is not None
    for delivery in (device.delivery(1, 8.0), b""):
        assert device.process().collect(delivery) == progress
        for name, each in device.model.state_dict().items():
            assert torch.equal(each, snapshot.model[name])
    assert device.kept == kept and device.disk.saves == saves


@pytest.mark.parametrize("act", ["train", "collect"])
def test_a_delivery_for_another_or_a_damaged_one_is_refused_and_changes_nothing(device, act):
    device.train(1)
    kept = device.kept
    good = device.delivery(1)
    damaged = bytearray(good)
    damaged[-20] ^= 1
    for packet, refusal in (
        (device.delivery(1, member=2), Refusal.MEMBER),
        (bytes(damaged), Refusal.CHECKSUM),
        (good[:-1], Refusal.MALFORMED),
    ):
        with pytest.raises(PacketError) as caught:
            device.train(2, packet) if act == "train" else device.process().collect(packet)
        assert caught.value.refusal is refusal
    assert device.kept == kept and len(device.rounds) == 1


@pytest.mark.parametrize("act", ["train", "collect"])
def test_one_that_is_given_what_it_does_not_know_it_took_part_in_has_fallen_back_and_says_so(device, act):
    device.train(1)
    older = device.disk.load()
    assert older is not None
    device.train(2, device.delivery(1))
    device.disk.save(older)  # the disk forgot round 2, and the delivery of exchange 1 that was applied in it
    kept = device.kept
    with pytest.raises(NotJoinedError, match=r"fell back .* exchange 1, .* exchange 2") as caught:
        device.train(3, device.delivery(2)) if act == "train" else device.process().collect(
            device.delivery(2)
        )
    assert caught.value.fell_back
    assert device.kept == kept


# By seconds


def test_by_seconds_a_round_takes_as_many_steps_as_fit_and_remembers_on_disk(device):
    taken = [device.train(number, seconds=10.0).progress for number in range(1, 5)]
    assert [now.steps for now in device.rounds] == [2, 8, 20, 20]  # at most four times as many
    assert [now.first_step for now in device.rounds] == [0, 2, 10, 30]
    assert taken[-1].step == 50
    assert taken[-1].seconds_per_step == pytest.approx(0.5)
    device.seconds_per_step = 2.0
    assert device.train(5, seconds=10.0).progress.seconds_per_step == pytest.approx(1.0)
    device.train(6, seconds=10.0)
    assert device.rounds[-1].steps == 10


def test_only_training_is_measured(device):
    device.train(1, seconds=10.0)
    device.clock.time += 1000.0
    assert device.train(2, seconds=10.0).progress.seconds_per_step == pytest.approx(0.5)


def test_by_steps_nothing_of_the_clock_is_kept(device):
    slow = Device()
    slow.seconds_per_step = 100.0
    slow.start()
    for each in (device, slow):
        each.train(1)
    assert device.kept == slow.kept


def test_impossible_seconds_are_refused(device, refused):
    with refused(ExchangeError, "-1 seconds"):
        device.train(1, seconds=-1.0)
    assert device.rounds == []


# On the stream plane, where members do not reach the port


STREAMS = dataclasses.replace(TERMS, exchange=dataclasses.replace(TERMS.exchange, exchange_plane="stream"))


def test_without_streams_a_member_offers_in_its_reply_for_the_exchange_that_it_is_told(tmp_path):
    device = Device(STREAMS, Logs(tmp_path))
    device.start()
    trained = device.train(1, exchange=5)
    assert np.isfinite(device.offered(trained, exchange=5)).all()
    assert (trained.progress.offered, trained.progress.round, trained.progress.applied) == (5, 1, 0)
    assert device.train(1, exchange=5).offer == trained.offer, "asked again, it offers the same again"
    assert device.train(1, exchange=6).offer == b"", "and nothing for another exchange"
    after = device.train(2, device.delivery(5), exchange=6)
    assert (after.progress.applied, after.progress.offered) == (5, 6)
    with pytest.raises(ExchangeError, match="round 3 is over"):
        device.train(3, exchange=5)


def test_a_request_without_a_call_needs_a_number_on_streams_and_has_none_elsewhere(tmp_path):
    device = Device()
    device.start()
    with pytest.raises(ExchangeError, match="does not fit a run on the round plane"):
        device.train(1, exchange=1)
    device = Device(STREAMS, Logs(tmp_path))
    device.start()
    with pytest.raises(ExchangeError, match="does not fit a run on the stream plane"):
        device.train(1)
