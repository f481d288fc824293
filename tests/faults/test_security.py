"""Members that do not keep to the protocol: refused and logged, the run goes on, the others lose nothing.

``docs/security.md`` says what each of these is a case of.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from torch import nn

from wash_fl.core.draw import Draw
from wash_fl.core.packet import Direction, Slice, _checksum, decode, encode
from wash_fl.core.schedule import Schedule
from wash_fl.core.wire import exchange_pb2 as wire
from wash_fl.flower import records
from wash_fl.flower.client import Round
from wash_fl.flower.in_process import Deliver
from wash_fl.member.parameters import model_layout

from fleet import Fleet, is_train, make_model, round_of

Replies = list[Message]
HOSTILE = 1


pytestmark = pytest.mark.usefixtures("flower_log")


def record_of(message: Message) -> Any:
    return message.content.config_records[records.RECORD]


class Offers:
    """All offers of a run as they pass, and a hostile member that puts another packet in place of its own."""

    def __init__(self, forge: Callable[["Offers", int], bytes], first: int = 3) -> None:
        self.by_round: dict[tuple[int, int], bytes] = {}
        self._forge = forge
        self._first = first

    def __call__(self, member: int, request: Message, deliver: Deliver) -> Replies:
        (reply,) = deliver(request)
        if is_train(request):
            number = round_of(request)
            self.by_round[member, number] = record_of(reply)["offer"]
            if member == HOSTILE and number >= self._first:
                record_of(reply)["offer"] = self._forge(self, number)
        return [reply]


def parsed(packet: bytes) -> wire.Slice:
    return wire.Slice.FromString(packet)


def resealed(message: wire.Slice) -> bytes:
    """The packet with a checksum that is right: a hostile member can compute it, too."""
    message.checksum = _checksum(message, message.values)
    return message.SerializeToString(deterministic=True)


def changed(packet: bytes, **fields: object) -> bytes:
    message = parsed(packet)
    for name, value in fields.items():
        setattr(message, name, value)
    return resealed(message)


def with_value(packet: bytes, value: float) -> bytes:
    values = np.frombuffer(parsed(packet).values, dtype="<f4").copy()
    values[0] = value
    return changed(packet, values=values.tobytes())


def own(offers: Offers, number: int) -> bytes:
    return offers.by_round[HOSTILE, number]


FORGERIES: dict[str, tuple[Callable[[Offers, int], bytes], str]] = {
    "an offer of its own of the round before": (
        lambda offers, number: offers.by_round[HOSTILE, number - 1],
        "packet refused (exchange)",
    ),
    "another member's offer of this round": (
        lambda offers, number: offers.by_round[0, number],
        "packet refused (member)",
    ),
    "another member's old offer in its own name": (
        lambda offers, number: changed(offers.by_round[0, number - 1], member=HOSTILE),
        "packet refused (exchange)",
    ),
    "an offer of a later exchange": (
        lambda offers, number: changed(own(offers, number), exchange=number + 1),
        "packet refused (exchange)",
    ),
    "an offer of another run": (
        lambda offers, number: changed(own(offers, number), run=b"\x00" * 16),
        "packet refused (run)",
    ),
    "an offer of another model": (
        lambda offers, number: changed(own(offers, number), layout=b"\x00" * 32),
        "packet refused (layout)",
    ),
    "a delivery in place of an offer": (
        lambda offers, number: changed(own(offers, number), direction=wire.DIRECTION_DELIVERY),
        "packet refused (direction)",
    ),
    "not a number, with the right checksum": (
        lambda offers, number: with_value(own(offers, number), float("nan")),
        "packet refused (non-finite)",
    ),
    "infinity, with the right checksum": (
        lambda offers, number: with_value(own(offers, number), float("-inf")),
        "packet refused (non-finite)",
    ),
    "too few values": (
        lambda offers, number: changed(own(offers, number), values=parsed(own(offers, number)).values[:-4]),
        "packet refused (length)",
    ),
    "4 MB of values": (
        lambda offers, number: changed(own(offers, number), values=bytes(4 << 20)),
        "packet refused (length)",
    ),
    "4 MB behind a good packet": (
        # Field 15, of bytes: protobuf keeps what it does not know.
        lambda offers, number: own(offers, number) + b"\x7a\x80\x80\x80\x02" + bytes(4 << 20),
        "packet refused (trailing)",
    ),
    "4 MB of noise": (
        lambda offers, number: b"\xff" * (4 << 20),
        "packet refused (malformed)",
    ),
    "another encoding": (
        lambda offers, number: changed(own(offers, number), dtype=7),
        "packet refused (dtype)",
    ),
    "a changed value and the old checksum": (
        lambda offers, number: parsed_with_old_checksum(own(offers, number)),
        "packet refused (checksum)",
    ),
}


def parsed_with_old_checksum(packet: bytes) -> bytes:
    message = parsed(packet)
    message.values = message.values[4:] + message.values[:4]
    return message.SerializeToString(deterministic=True)


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_offer_is_refused_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    forge, reason = FORGERIES[what]
    fleet = Fleet(tmp_path, rounds=4, fault=Offers(forge))
    fleet.run()
    assert f"member {HOSTILE}: {reason}" in caplog.text
    assert [report.settlement.members for report in fleet.reports] == [(0, 1, 2, 3)] * 2 + [(0, 2, 3)] * 2
    # Its own values were not touched either: it is honest in all but its offers.
    assert np.array_equal(np.sort(fleet.values(), axis=0), np.sort(fleet.own_values(), axis=0))


def test_the_forgeries_are_refused_for_what_they_forge_and_not_because_they_are_broken() -> None:
    layout = model_layout(make_model())
    draw = Draw(3, layout, Schedule(Fleet(Path()).exchange, 4, 1))
    values = np.ones((1, draw.count(3)), dtype=np.float32)
    packet = encode(Slice(Direction.OFFER, b"r" * 16, layout, 3, HOSTILE, values))
    assert resealed(parsed(packet)) == packet
    again = decode(
        with_value(packet, 2.0),
        direction=Direction.OFFER,
        run=b"r" * 16,
        layout=layout,
        member=HOSTILE,
        count=draw.count,
    )
    assert again.values[0, 0] == 2.0


@pytest.mark.parametrize("offered", [b"", b"own"])
def test_a_reply_that_names_another_member_is_not_taken_for_that_members(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, offered: bytes
) -> None:
    offers: dict[tuple[int, int], bytes] = {}

    def impersonate(member: int, request: Message, deliver: Deliver) -> Replies:
        (reply,) = deliver(request)
        if is_train(request):
            offers[member, round_of(request)] = record_of(reply)["offer"]
            if member == HOSTILE and round_of(request) >= 3:
                record_of(reply)["member"] = 0
                record_of(reply)["offer"] = offers[0, round_of(request)] if offered else b""
                record_of(reply)["applied"] = 99
        return [reply]

    fleet = Fleet(tmp_path, rounds=4, fault=impersonate)
    fleet.run()
    assert f"member {HOSTILE}: its reply names member 0; it is ignored" in caplog.text
    assert [report.settlement.members for report in fleet.reports[2:]] == [(0, 2, 3)] * 2
    assert np.array_equal(np.sort(fleet.values(), axis=0), np.sort(fleet.own_values(), axis=0))


@pytest.mark.parametrize("applied", [4, 10**9, 2**63 - 1])
def test_an_acknowledgement_of_what_was_never_sent_harms_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, applied: int
) -> None:
    def boast(member: int, request: Message, deliver: Deliver) -> Replies:
        (reply,) = deliver(request)
        if is_train(request) and member == HOSTILE and round_of(request) == 3:
            record_of(reply)["applied"] = applied
        return [reply]

    fleet = Fleet(tmp_path, rounds=6, fault=boast)
    fleet.run()
    assert fleet.reports[-1].settlement.members[0] == 0
    assert {0, 2, 3} <= set(fleet.collected)
    # No value was made up, and nobody but the liar had to start again.
    for column, possible in zip(fleet.values().T, fleet.own_values().T, strict=True):
        assert set(column) <= set(possible)
    again = [line for line in caplog.messages if "starts anew" in line]
    assert all(line.startswith(f"member {HOSTILE} ") for line in again)


def scale(factor: float, hostile: tuple[int, ...]) -> Callable[[nn.Module, int, Round], None]:
    def after(model: nn.Module, member: int, now: Round) -> None:
        if member in hostile and now.number >= 3:
            with torch.no_grad():
                for each in model.parameters():
                    each.mul_(factor)

    return after


@pytest.mark.parametrize("hostile", [(1,), (0, 4)])
def test_members_with_scaled_values_are_set_aside_and_the_others_values_conserved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hostile: tuple[int, ...]
) -> None:
    honest = [member for member in range(5) if member not in hostile]
    before: dict[int, np.ndarray] = {}

    def after(model: nn.Module, member: int, now: Round) -> None:
        if now.number == 3:
            before[member] = nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()
        scale(1000.0, hostile)(model, member, now)

    fleet = Fleet(tmp_path, members=5, after_training=after)
    strategy = fleet.strategy()
    fleet.start(strategy)
    assert sorted(fleet.reports[2].settlement.aside) == list(hostile)
    assert strategy.collected == honest
    assert sorted(strategy.left_out) == list(hostile)
    for member in hostile:
        assert f"member {member} is set-aside: its values lie" in caplog.text
        assert max(number for who, number in fleet.trained if who == member) == 3
    values = np.stack([before[member] for member in honest])
    assert np.array_equal(np.sort(fleet.values(), axis=0), np.sort(values, axis=0))


def collected_as(change: Callable[[ArrayRecord], object]) -> Callable[[int, Message, Deliver], Replies]:
    def fault(member: int, request: Message, deliver: Deliver) -> Replies:
        (reply,) = deliver(request)
        if request.metadata.message_type == records.COLLECT and member == HOSTILE:
            change(reply.content.array_records[records.ARRAYS])
        return [reply]

    return fault


def put(record: ArrayRecord, name: str, array: np.ndarray) -> None:
    record[name] = records.array_record({name: array})[name]


WRONG_MODELS: dict[str, Callable[[ArrayRecord], object]] = {
    "not a number": lambda record: put(record, "0.bias", np.full(5, np.nan, dtype=np.float32)),
    "infinity": lambda record: put(record, "0.bias", np.full(5, np.inf, dtype=np.float32)),
    "another shape": lambda record: put(record, "0.bias", np.zeros(6, dtype=np.float32)),
    "another dtype": lambda record: put(record, "0.bias", np.zeros(5, dtype=np.float64)),
    "text": lambda record: put(record, "0.bias", np.array(["a", "b", "c", "d", "e"])),
    "one more": lambda record: put(record, "9.bias", np.zeros(5, dtype=np.float32)),
    "one less": lambda record: record.pop("0.bias"),
    "nothing": lambda record: record.clear(),
}


@pytest.mark.parametrize("what", WRONG_MODELS)
def test_a_collected_model_that_does_not_fit_is_left_out_of_the_average(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    fleet = Fleet(tmp_path, fault=collected_as(WRONG_MODELS[what]), calibration=False)
    result = fleet.run()
    assert sorted(fleet.collected) == [0, 2, 3]
    assert f"member {HOSTILE}: its model" in caplog.text
    make_model().load_state_dict(result.arrays.to_torch_state_dict())


def test_metrics_that_are_no_numbers_do_not_end_the_run(tmp_path: Path) -> None:
    def lie(member: int, request: Message, deliver: Deliver) -> Replies:
        (reply,) = deliver(request)
        if is_train(request) and member == HOSTILE:
            reply.content[records.METRICS] = MetricRecord(
                {"loss": float("nan"), "members": -5.0, "list": [1.0, 2.0], "huge": 1e308}
            )
        return [reply]

    fleet = Fleet(tmp_path, rounds=3, fault=lie)
    result = fleet.run()
    assert result.train_metrics_clientapp[1]["members"] == 4.0
    assert fleet.reports[0].metrics[0] == {"loss": 0.0}
