"""Replies that are wrong in ways in which none of Flower's own would be: none of them ends a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from wash_fl.flower import records
from wash_fl.flower.in_process import Deliver, InProcessGrid

from fleet import Fleet, is_train, make_model

Replies = list[Message]
HOSTILE = 1
REQUESTS = (records.JOIN, records.TRAIN, records.COLLECT, records.RECALIBRATE, records.LEAVE)


pytestmark = pytest.mark.usefixtures("flower_log")


def altering(kind: str, alter: Callable[[Message], object], hostile: int = HOSTILE) -> Any:
    def fault(member: int, request: Message, deliver: Deliver) -> Replies:
        (reply,) = deliver(request)
        if request.metadata.message_type == kind and member == hostile:
            alter(reply)
        return [reply]

    return fault


def arrays_of(reply: Message) -> ArrayRecord:
    return reply.content.array_records[records.ARRAYS]


def put(name: str, array: np.ndarray) -> Callable[[Message], object]:
    return lambda reply: arrays_of(reply).update(records.array_record({name: array}))


def put_bytes(name: str, data: bytes) -> Callable[[Message], object]:
    def alter(reply: Message) -> None:
        arrays_of(reply)[name] = Array(dtype="float32", shape=(5,), stype="numpy.ndarray", data=data)

    return alter


def set_field(name: str, value: Any) -> Callable[[Message], object]:
    return lambda reply: reply.content.config_records[records.RECORD].update({name: value})


REPLIES: dict[str, Callable[[Message], object]] = {
    "neither content nor error": lambda reply: reply.__dict__.update(_content=None),
    "nothing in it": lambda reply: reply.__dict__.update(_content=RecordDict()),
    "a status that is a list": set_field("status", ["done"]),
    "a status of bytes": set_field("status", b"done"),
    "a truth for a member": set_field("member", True),
    "a negative round": set_field("round", -1),
    "a round with a fraction": set_field("round", 1.0),
    "a member beyond all": set_field("member", 2**62),
    "offers in a list": set_field("offer", [b"a"]),
}


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("what", REPLIES)
def test_a_reply_that_cannot_be_read_is_no_reply(tmp_path: Path, what: str, kind: str) -> None:
    fleet = Fleet(tmp_path, rounds=2, fault=altering(kind, REPLIES[what]), min_members=3)
    fleet.run()
    others = {0, 2, 3}
    assert others <= set(fleet.collected) <= {*others, HOSTILE}
    assert (HOSTILE in fleet.collected) == (kind in {records.TRAIN, records.RECALIBRATE, records.LEAVE})


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04" + bytes(60), b"\xff" * 148], ids=["empty", "archive", "noise"]
)
@pytest.mark.parametrize("kind", [records.COLLECT, records.RECALIBRATE])
def test_arrays_that_are_none_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, data: bytes
) -> None:
    name = "0.bias" if kind == records.COLLECT else "1.running_var"
    fleet = Fleet(tmp_path, rounds=2, fault=altering(kind, put_bytes(name, data)))
    result = fleet.run()
    assert (HOSTILE in fleet.collected) == (kind == records.RECALIBRATE)
    assert f"member {HOSTILE}: its" in caplog.text
    make_model().load_state_dict(result.arrays.to_torch_state_dict())


STATISTICS: dict[str, Callable[[Message], object]] = {
    "no variance": lambda reply: arrays_of(reply).pop("1.running_var"),
    "of no layer": lambda reply: [arrays_of(reply).pop(f"1.running_{kind}") for kind in ("mean", "var")],
    "of minus as many examples as the others'": put(records.EXAMPLES, np.array([-24])),
    "of infinitely many examples": put(records.EXAMPLES, np.array([np.inf])),
    "a negative variance": put("1.running_var", np.full(5, -1.0, dtype=np.float32)),
    "a mean beyond squaring": put("1.running_mean", np.full(5, 3e38, dtype=np.float32)),
    "text": put("1.running_var", np.array(list("abcde"))),
    "a parameter": put("0.bias", np.zeros(5, dtype=np.float32)),
}


@pytest.mark.parametrize("hostile", [0, HOSTILE])
@pytest.mark.parametrize("what", STATISTICS)
def test_batchnorm_statistics_that_cannot_be_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, hostile: int
) -> None:
    fault = altering(records.RECALIBRATE, STATISTICS[what], hostile)
    result = Fleet(tmp_path, rounds=2, fault=fault).run()
    assert f"member {hostile}: its BatchNorm statistics are not used" in caplog.text
    state = result.arrays.to_torch_state_dict()
    # Member m calibrates with a batch of m + 1 everywhere, eight examples each.
    level = sum(member + 1 for member in range(4) if member != hostile) / 3
    expected = level * state["0.weight"].sum(dim=1) + state["0.bias"]
    assert np.allclose(state["1.running_mean"].numpy(), expected.numpy(), rtol=1e-5)


def test_batchnorm_statistics_of_other_layers_than_most_members_have_are_left_out() -> None:
    from wash_fl.consensus.batchnorm import BatchNormStatistics
    from wash_fl.consensus.pooling import pooled

    one, other = {"a": np.zeros(2, dtype=np.float32)}, {"b": np.zeros(2, dtype=np.float32)}
    estimates = {
        member: BatchNormStatistics(mean, mean, 5) for member, mean in {3: one, 0: other, 2: one}.items()
    }
    statistics, left_out = pooled(estimates, factor=0, most_examples=100)
    assert statistics.examples == 5 + 5
    assert left_out == {0: "they are not of the others' layers"}


def test_what_a_member_says_is_logged_on_one_line_without_control_characters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def shout(reply: Message) -> None:
        set_field("status", "refused")(reply)
        set_field("reason", "x\n\x1b[2Jmember 0: all is well\u202e" + "y" * 100_000)(reply)

    Fleet(tmp_path, rounds=2, fault=altering(records.TRAIN, shout)).run()
    (line, *_) = [line for line in caplog.messages if line.startswith(f"member {HOSTILE} refused round 1")]
    assert line.isprintable()
    assert "x [2Jmember 0: all is well" in line
    assert len(line) < 600


def test_a_flood_of_metrics_does_not_fill_the_log(tmp_path: Path) -> None:
    def flood(reply: Message) -> None:
        reply.content[records.METRICS] = MetricRecord({f"m{i}\n": float(i) for i in range(5000)})

    fleet = Fleet(tmp_path, rounds=2, fault=altering(records.TRAIN, flood))
    fleet.run()
    assert len(fleet.reports[0].metrics[HOSTILE]) == 100
    assert all(name.isprintable() for name in fleet.reports[0].metrics[HOSTILE])


def test_an_acknowledgement_of_an_exchange_that_is_not_settled_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first: list[bool] = []

    def boast(reply: Message) -> None:
        if not first:
            first.append(True)
            set_field("applied", 10**9)(reply)

    fleet = Fleet(tmp_path, rounds=4, fault=altering(records.TRAIN, boast))
    fleet.run()
    assert f"member {HOSTILE}: it acknowledges exchange 1000000000, which is not settled" in caplog.text
    assert [HOSTILE in report.settlement.members for report in fleet.reports] == [False, True, True, True]
    assert np.array_equal(np.sort(fleet.values(), axis=0), np.sort(fleet.own_values(), axis=0))


@pytest.mark.parametrize("error", [ValueError, KeyError, IndexError, TypeError, RecursionError])
def test_a_reply_at_which_flowers_own_grid_stumbles_costs_no_more_than_that_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    class Stumbling(InProcessGrid):
        times = 0

        def pull_messages(self, message_ids: Any) -> Any:
            replies = list(super().pull_messages(message_ids))
            if any(is_train(reply) for reply in replies) and self.times == 0:
                self.times = 1
                raise error("planted")
            return replies

    fleet = Fleet(tmp_path, rounds=4)
    fleet.grid.__class__ = Stumbling
    fleet.run()
    assert "replies were lost" in caplog.text
    assert [report.settlement.members for report in fleet.reports] == [(), *[(0, 1, 2, 3)] * 3]
    assert np.array_equal(np.sort(fleet.values(), axis=0), np.sort(fleet.own_values(), axis=0))
