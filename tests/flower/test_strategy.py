"""The round plane and the strategy, through a real ClientApp, with faults by member and round."""

import gc
import logging
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.consensus.averaging import ModelAverage
from wash_fl.core.draw import Draw
from wash_fl.core.layout import Layout
from wash_fl.core.schedule import Schedule
from wash_fl.errors import LayoutError, RunError
from wash_fl.flower import records
from wash_fl.flower.client import Round
from wash_fl.flower.in_process import Deliver
from wash_fl.flower.strategy import WashStrategy
from wash_fl.member.parameters import model_layout

from fleet import Fleet, is_train, make_model, random_faults, round_of

Replies = list[Message]


pytestmark = pytest.mark.usefixtures("flower_log")


def sorted_values(values: np.ndarray) -> np.ndarray:
    return np.sort(values, axis=0)


def test_a_shuffle_conserves_every_value_at_every_coordinate(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.run()
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))
    assert not np.array_equal(fleet.values(), fleet.own_values())


@pytest.mark.parametrize("topology", ["pairs", "permutation"])
@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_faults_lose_no_value_and_double_none(tmp_path: Path, seed: int, members: int, topology: str) -> None:
    exchange = ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", topology=topology)
    fleet = Fleet(tmp_path, members=members, exchange=exchange, rounds=12, fault=random_faults(seed))

    fleet.run()

    trained = sorted({member for member, _ in fleet.trained})
    assert sorted(fleet.collected) == trained
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()[trained]))


def test_the_average_is_the_same_bits_with_and_without_exchange_and_faults(tmp_path: Path) -> None:
    still = Fleet(tmp_path / "still", exchange=ExchangeConfig(p=0.0, mix="shuffle", schedule="constant"))
    shuffled = Fleet(tmp_path / "shuffled", rounds=9, fault=random_faults(11))
    names = [name for name, _ in make_model().named_parameters()]
    one, other = still.run().arrays, shuffled.run().arrays
    assert {number for _, number in shuffled.trained} == set(range(1, 10))
    for name in names:
        assert np.array_equal(one[name].numpy(), other[name].numpy()), name


def test_sparse_averaging_conserves_the_sum(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, exchange=ExchangeConfig(p=0.5, schedule="constant", mix="average"))
    fleet.run()
    assert np.allclose(fleet.values().sum(axis=0), fleet.own_values().sum(axis=0), rtol=1e-6)


def test_the_result_is_the_mean_of_the_collected_members_and_fits_the_model(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, calibration=False)
    result = fleet.run(recalibrate=False)
    average = ModelAverage(model_layout(make_model()).rules)
    for member, weights in fleet.collected.items():
        average.add(member, weights)
    for name, expected in average.mean().items():
        assert np.array_equal(result.arrays[name].numpy(), expected)
    make_model().load_state_dict(result.arrays.to_torch_state_dict())


def test_batchnorm_is_re_estimated_over_the_clients_own_data(tmp_path: Path) -> None:
    result = Fleet(tmp_path).run()
    state = result.arrays.to_torch_state_dict()
    # Member m calibrates with a batch of m + 1 everywhere, so the mean over all is that of 1, 2, 3 and 4.
    expected = 2.5 * state["0.weight"].sum(dim=1) + state["0.bias"]
    assert torch.allclose(state["1.running_mean"], expected, rtol=1e-5)


def test_clients_without_calibration_data_leave_the_members_average(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = Fleet(tmp_path, calibration=False).run()
    assert "no client re-estimated BatchNorm" in caplog.text
    assert np.array_equal(result.arrays["1.running_mean"].numpy(), np.zeros(5, dtype=np.float32))


def test_a_lost_reply_is_logged_and_the_round_goes_on_without_that_member(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lose(member: int, request: Message, deliver: Deliver) -> Replies:
        return [] if is_train(request) and member == 1 and round_of(request) == 2 else deliver(request)

    fleet = Fleet(tmp_path, fault=lose)
    fleet.run()
    assert "member 1: no reply in round 2" in caplog.text
    assert fleet.reports[1].settlement.members == (0, 2, 3)
    assert fleet.reports[1].settlement.absent == (1,)
    assert fleet.reports[2].settlement.members == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("code", "meaning"), [(2, "raised an exception"), (5, "SuperNode is gone"), (8, "killed")]
)
def test_a_failed_node_is_told_by_the_message_it_failed_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int, meaning: str
) -> None:
    def fail(member: int, request: Message, deliver: Deliver) -> Replies:
        if not (is_train(request) and member == 2 and round_of(request) == 3):
            return deliver(request)
        reply = Message(Error(code, "Traceback (most recent call last):\nBoom: planted"), reply_to=request)
        # For a dead node the reply comes from the SuperLink itself.
        reply.metadata.__dict__["_src_node_id"] = 1
        return [reply]

    fleet = Fleet(tmp_path, fault=fail)
    fleet.run()
    assert "member 2: round 3 failed" in caplog.text
    assert meaning in caplog.text
    assert "Boom: planted" in caplog.text
    assert fleet.reports[2].settlement.members == (0, 1, 3)


def corrupted(offer: bytes, how: str) -> bytes:
    if how == "truncated":
        return offer[:-3]
    if how == "altered":
        return offer[:100] + bytes([offer[100] ^ 1]) + offer[101:]
    return offer + b"\x00\x01"


@pytest.mark.parametrize("how", ["truncated", "altered", "extended"])
def test_a_damaged_offer_is_refused_and_its_member_keeps_its_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    def damage(member: int, request: Message, deliver: Deliver) -> Replies:
        replies = deliver(request)
        if is_train(request) and member == 0 and round_of(request) == 2:
            record = replies[0].content.config_records[records.RECORD]
            record["offer"] = corrupted(record["offer"], how)  # type: ignore[arg-type]
        return replies

    fleet = Fleet(tmp_path, fault=damage)
    fleet.run()
    assert "member 0: packet refused" in caplog.text
    assert fleet.reports[1].settlement.members == (1, 2, 3)
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_a_damaged_delivery_is_refused_kept_and_delivered_in_the_next_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def damage(member: int, request: Message, deliver: Deliver) -> Replies:
        if is_train(request) and member == 3 and round_of(request) == 2:
            record = request.content.config_records[records.RECORD]
            record["delivery"] = corrupted(record["delivery"], "altered")  # type: ignore[arg-type]
        return deliver(request)

    fleet = Fleet(tmp_path, fault=damage)
    fleet.run()
    assert "member 3 refused round 2: packet refused" in caplog.text
    assert (3, 2) not in fleet.trained
    assert (3, 3) in fleet.trained
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_a_repeated_message_returns_the_saved_offer_and_does_not_train_again(tmp_path: Path) -> None:
    offers: list[bytes] = []

    def repeat(member: int, request: Message, deliver: Deliver) -> Replies:
        if is_train(request) and member == 1 and round_of(request) == 2:
            for _ in range(2):
                (reply,) = deliver(request)
                offers.append(reply.content.config_records[records.RECORD]["offer"])  # type: ignore[arg-type]
            return [reply]
        return deliver(request)

    fleet = Fleet(tmp_path, fault=repeat)
    fleet.run()
    assert offers[0] == offers[1]
    assert fleet.trained.count((1, 2)) == 1


@pytest.mark.parametrize(
    "what", ["no-record", "wrong-type", "unknown-field", "other-member", "unknown-status"]
)
def test_a_malformed_reply_is_refused_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    def malform(member: int, request: Message, deliver: Deliver) -> Replies:
        replies = deliver(request)
        if is_train(request) and member == 0 and round_of(request) == 2:
            content = replies[0].content
            record = content.config_records[records.RECORD]
            if what == "no-record":
                del content[records.RECORD]
            elif what == "wrong-type":
                record["offer"] = "text"
            elif what == "unknown-field":
                record["extra"] = 1
            elif what == "other-member":
                record["member"] = 3
            else:
                record["status"] = "fine"
        return replies

    fleet = Fleet(tmp_path, fault=malform)
    fleet.run()
    assert fleet.reports[1].settlement.members == (1, 2, 3)
    assert any(record.levelno == logging.WARNING for record in caplog.records)
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_members_whose_models_differ_are_refused_with_what_differs(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, models=lambda member: make_model(hidden=5 if member else 7))
    with pytest.raises(RunError, match="3 of 4 members joined") as caught:
        fleet.run()
    assert "0.weight" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_with_other_trainable_parameters_is_refused_with_what_differs(tmp_path: Path) -> None:
    def frozen(member: int) -> nn.Module:
        model = make_model()
        model[3].bias.requires_grad_(member != 2)  # type: ignore[union-attr]
        return model

    with pytest.raises(RunError, match=r"5 tensors instead of 6|instead of"):
        Fleet(tmp_path, models=frozen).run()


def test_a_member_that_starts_from_other_weights_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def other_weights(member: int, request: Message, deliver: Deliver) -> Replies:
        replies = deliver(request)
        if request.metadata.message_type == records.JOIN and member == 1:
            replies[0].content.config_records[records.RECORD]["initial"] = "0" * 64
        return replies

    fleet = Fleet(tmp_path, fault=other_weights, min_members=3)
    fleet.run()
    assert "other weights" in caplog.text
    assert sorted(fleet.collected) == [0, 2, 3]


def test_two_nodes_with_the_same_partition_id_do_not_both_join(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(tmp_path, min_members=3)
    context = fleet.grid._contexts[1000]
    context.node_config["partition-id"] = 1
    with caplog.at_level(logging.WARNING, logger="flwr"):
        fleet.run()
    assert "has joined already" in caplog.text
    assert sorted(fleet.collected) == [1, 2, 3]


def test_a_node_outside_the_run_or_without_a_partition_id_says_what_to_do(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.grid._contexts[1000].node_config["partition-id"] = 9
    with pytest.raises(RunError, match="use 0 to 3"):
        fleet.run()


def test_too_few_clients_end_the_run_with_a_hint(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.grid._members.popitem()
    with pytest.raises(RunError, match="3 of 4 clients connected within 1 s: start the others"):
        fleet.run()


def test_a_member_that_dies_for_good_is_left_out_of_the_average(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def dies(member: int, request: Message, deliver: Deliver) -> Replies:
        dead = member == 2 and (not is_train(request) or round_of(request) >= 3)
        joining = request.metadata.message_type == records.JOIN
        return [] if dead and not joining else deliver(request)

    fleet = Fleet(tmp_path, fault=dies)
    fleet.run()
    assert sorted(fleet.collected) == [0, 1, 3]
    assert "collected members [0, 1, 3], without [2]" in caplog.text


def test_nobody_left_to_collect_is_an_error(tmp_path: Path) -> None:
    def silent(member: int, request: Message, deliver: Deliver) -> Replies:
        return [] if request.metadata.message_type == records.COLLECT else deliver(request)

    with pytest.raises(RunError, match="no member handed in its model"):
        Fleet(tmp_path, fault=silent).run()


def test_a_run_in_which_nobody_takes_part_ends_with_what_the_members_said(tmp_path: Path) -> None:
    def diverge(model: nn.Module, member: int, now: Round) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))

    fleet = Fleet(tmp_path, after_training=diverge)
    with pytest.raises(RunError, match=r"no member took part in round 1: member 0: member 0 has .* diverged"):
        fleet.run()


def test_a_member_that_never_trained_is_not_averaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def silent(member: int, request: Message, deliver: Deliver) -> Replies:
        return [] if is_train(request) and member == 1 else deliver(request)

    fleet = Fleet(tmp_path, fault=silent)
    fleet.run()
    assert "member 1: it never trained" in caplog.text
    assert sorted(fleet.collected) == [0, 2, 3]


def test_a_diverged_member_is_kept_out_and_its_last_good_state_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def diverge(model: nn.Module, member: int, now: Round) -> None:
        if (member, now.number) == (1, 3):
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))

    fleet = Fleet(tmp_path, after_training=diverge)
    fleet.run()
    assert "diverged; lower learning-rate" in caplog.text
    assert fleet.reports[2].settlement.members == (0, 2, 3)
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_the_server_holds_no_model_while_the_members_train(tmp_path: Path) -> None:
    held: list[int] = []

    def look(report: object) -> None:
        gc.collect()
        held.append(sum(type(each) is Array for each in gc.get_objects()))

    fleet = Fleet(tmp_path, on_round=look)
    gc.freeze()  # what other tests of this process have left
    try:
        fleet.run()
    finally:
        gc.unfreeze()
    assert held == [0] * fleet.rounds


def test_bytes_are_those_of_the_values_and_of_the_messages(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    strategy = fleet.strategy()
    strategy.start(fleet.grid, ArrayRecord(make_model().state_dict()), num_rounds=6, timeout=1.0)
    draw = Draw(3, model_layout(make_model()), Schedule(fleet.exchange, 6, 1))
    values = sum(4 * draw.count(exchange) for exchange in range(1, 7))
    for member in range(4):
        assert strategy.traffic.up[member].values == values
        assert strategy.traffic.down[member].values == values
        assert strategy.traffic.up[member].messages > values
        assert strategy.traffic.up[member].models > 4 * make_model()[0].weight.numel()  # type: ignore[union-attr]


def test_state_is_removed_after_the_run_and_kept_on_request(tmp_path: Path) -> None:
    gone, kept = Fleet(tmp_path / "gone"), Fleet(tmp_path / "kept")
    gone.run()
    kept.run(keep_members=True)
    assert gone.state_files() == []
    assert len(kept.state_files()) == 4


def test_metrics_of_the_members_reach_the_history_and_evaluation_is_asked_when_due(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, evaluate_every=4)
    result = fleet.run()
    assert result.train_metrics_clientapp[1]["loss"] == 1.5
    evaluated = [
        number for number, metrics in result.train_metrics_clientapp.items() if "accuracy" in metrics
    ]
    assert evaluated == [4, 6]


def test_evaluate_fn_gets_the_averaged_model_once(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    seen: list[int] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        seen.append(number)
        make_model().load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord({"accuracy": 0.75})

    strategy = fleet.strategy()
    initial = ArrayRecord(make_model().state_dict())
    result = strategy.start(fleet.grid, initial, num_rounds=6, timeout=1.0, evaluate_fn=evaluate)
    assert seen == [6]
    assert result.evaluate_metrics_serverapp[6]["accuracy"] == 0.75


def test_options_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with pytest.raises(RunError, match="takes no train_config"):
        fleet.strategy().start(
            fleet.grid, ArrayRecord(make_model().state_dict()), train_config=ConfigRecord({"lr": 0.1})
        )
    with pytest.raises(RunError, match="at least 2 members"):
        Fleet(tmp_path / "one", members=1).run()


def test_train_messages_are_a_list_for_a_deployment_iterates_twice(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    kinds: list[type] = []
    push = fleet.grid.push_messages

    def watch(messages):  # type: ignore[no-untyped-def]
        kinds.append(type(messages))
        return push(messages)

    fleet.grid.push_messages = watch  # type: ignore[method-assign]
    fleet.run()
    assert set(kinds) == {list}


def test_optimizer_state_travels_when_asked_for(tmp_path: Path) -> None:
    exchange = ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", exchange_optimizer=True)
    fleet = Fleet(tmp_path, exchange=exchange)
    strategy = fleet.strategy()
    strategy.start(fleet.grid, ArrayRecord(make_model().state_dict()), num_rounds=6, timeout=1.0)
    draw = Draw(3, model_layout(make_model(), ("momentum_buffer",)), Schedule(exchange, 6, 1))
    expected = sum(2 * 4 * draw.count(number) for number in range(1, 7))
    assert strategy.traffic.up[0].values == expected
    assert np.array_equal(sorted_values(fleet.values()), sorted_values(fleet.own_values()))


def test_when_the_exchange_stops_only_the_rounds_messages_travel(tmp_path: Path) -> None:
    stopping = ExchangeConfig(p=0.5, mix="shuffle", schedule="constant", stop_after=2)
    fleet = Fleet(tmp_path, exchange=stopping)
    strategy = fleet.strategy()
    fleet.start(strategy)
    draw = Draw(3, model_layout(make_model()), Schedule(stopping, 6, 1))
    sent = strategy.traffic.total()["up_values"]
    assert sent == 4 * 4 * (draw.count(1) + draw.count(2))
    assert all(report.settlement.gauge is None for report in fleet.reports[2:])


class Quantile(nn.Module):
    """Two layers with one weight, and buffers that training changes and PyTorch knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.first.weight
        self.register_buffer("ema", torch.zeros(2))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))


class QuantileFleet(Fleet):
    """A fleet of such models; each member has its own index in their buffers."""

    def strategy(self, **options: object) -> WashStrategy:
        return WashStrategy(
            model_layout(Quantile()),
            members=self.members,
            local_steps=1,
            exchange=self.exchange,
            run_name="test",
            start_timeout=1.0,
            clock=self.clock,
            **options,  # type: ignore[arg-type]
        )

    def initial(self) -> OrderedDict[str, torch.Tensor]:
        return OrderedDict(Quantile().state_dict())


def quantile_fleet(folder: Path) -> QuantileFleet:
    def train(model: nn.Module, member: int, now: Round) -> None:
        torch.nn.init.constant_(model.first.weight, float(member))
        model.ema.fill_(float(member))

    return QuantileFleet(folder, members=3, rounds=1, models=lambda member: Quantile(), after_training=train)


def test_a_buffer_that_nobody_knows_is_one_members_unless_it_is_marked(tmp_path: Path) -> None:
    for marked, expected, treated in (((), 0.0, "from member 0"), (("e*",), 1.0, "averaged")):
        fleet = quantile_fleet(tmp_path / treated)
        fleet.exchange = ExchangeConfig(p=0.0, mix="shuffle", schedule="constant")
        strategy = fleet.strategy(averaged_buffers=marked)
        arrays = fleet.start(strategy).arrays
        assert arrays["ema"].numpy().tolist() == [expected, expected]
        assert arrays["mask"].numpy().tolist() == [0.0, -np.inf]
        assert np.array_equal(arrays["tied.weight"].numpy(), arrays["first.weight"].numpy())
        assert arrays["first.weight"].numpy()[0, 0] == 1.0
        assert strategy.buffers == {treated: ["ema"], "constant": ["mask"]}


def test_what_was_done_with_buffers_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quantile_fleet(tmp_path).run()
    assert "buffers from member 0: ema; constant: mask" in caplog.text
    caplog.clear()
    Fleet(tmp_path / "batchnorm").run()
    assert "buffers " not in caplog.text


def test_a_pattern_of_nothing_is_refused_before_anybody_is_asked(tmp_path: Path, refused) -> None:  # type: ignore[no-untyped-def]
    with refused(LayoutError, "'emma'", "ema, mask"):
        quantile_fleet(tmp_path).strategy(averaged_buffers=["emma"])


def test_a_layout_that_knows_nothing_of_its_model_is_refused(refused) -> None:  # type: ignore[no-untyped-def]
    with refused(LayoutError, "model_layout(model)"):
        WashStrategy(Layout(model_layout(make_model()).tensors), members=2, local_steps=1)


def test_initial_weights_of_another_model_are_refused(tmp_path: Path, refused) -> None:  # type: ignore[no-untyped-def]
    fleet = quantile_fleet(tmp_path)
    arrays = Quantile().state_dict()
    for change in (lambda state: state.pop("mask"), lambda state: state.update(other=torch.zeros(1))):
        other = dict(arrays)
        change(other)
        with refused(RunError, "initial_arrays", f"{len(other)} arrays", "layout's model"):
            fleet.strategy().start(fleet.grid, ArrayRecord(other), num_rounds=1)
    untied = {**arrays, "tied.weight": torch.zeros(6, 6)}
    with refused(RunError, "'tied.weight'", "'first.weight'", "one tensor"):
        fleet.strategy().start(fleet.grid, ArrayRecord(untied), num_rounds=1)
    infinite = {**arrays, "first.bias": torch.full((6,), torch.inf)}
    with refused(RunError, "'first.bias'", "infinite or not numbers"):
        fleet.strategy().start(fleet.grid, ArrayRecord(infinite), num_rounds=1)
    assert fleet.trained == []


def test_initial_weights_of_any_strides_reach_the_members(tmp_path: Path) -> None:
    fleet = quantile_fleet(tmp_path)
    state = Quantile().state_dict()
    swapped = state["first.weight"].t().contiguous().t()
    record = ArrayRecord({**state, "first.weight": swapped, "tied.weight": swapped})
    assert np.isfortran(record["first.weight"].numpy())
    result = fleet.strategy().start(fleet.grid, record, num_rounds=1, timeout=1.0)
    assert result.arrays["first.weight"].numpy().shape == (6, 6)


def test_a_buffer_that_training_gives_another_shape_is_refused_at_once(tmp_path: Path, refused) -> None:  # type: ignore[no-untyped-def]
    def train(model: nn.Module, member: int, now: Round) -> None:
        model.register_buffer("ema", torch.zeros(5))

    fleet = quantile_fleet(tmp_path)
    fleet.after_training = train
    with refused(RunError, "'ema'", "was float32[2]", "is float32[5] after training", "model()"):
        fleet.run()
    assert {number for _, number in fleet.trained} == {1}
