"""The oracle: one seed, one hash; what is exchanged is conserved to the bit; nothing outside is touched."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from wash_fl.config import RunConfig
from wash_fl.consensus.averaging import Accumulator
from wash_fl.consensus.finish import Outcome
from wash_fl.core.mix import matching
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.protocol.escrow import Settlement

OPTIONS: dict[str, Any] = {
    "recipe": "none",
    "members": 3,
    "rounds": 4,
    "local-steps": 3,
    "batch-size": 8,
    "learning-rate": 0.1,
    "p": 0.3,
    "schedule": "constant",
    "mix": "shuffle",
}


@pytest.fixture
def trainer(make_task):
    """``trainer(**options)``: of a small task; options by name, with hyphens."""

    def make(*, keep_residual: bool = True, **options: Any) -> Trainer:
        config = RunConfig.from_mapping(OPTIONS | options)
        return Trainer(config, make_task(), keep_residual=keep_residual)

    return make


def settlements(trainer: Trainer) -> tuple[Outcome, list[Settlement]]:
    seen: list[Settlement] = []
    outcome = trainer.run(lambda number, losses: seen.append(trainer.settlement))
    return outcome, seen


def mean_bits(trainer: Trainer, slot: str | None = None) -> bytes:
    """The exact mean of what the members hold: their parameters, or the optimizer's state."""
    accumulator = Accumulator(trainer.members[0].layout.size)
    for member in trainer.members:
        if slot is None:
            accumulator.add(member.parameters())
        else:
            state = [member.optimizer.state[each][slot] for each in member.model.parameters()]
            accumulator.add(np.concatenate([each.numpy().reshape(-1) for each in state]))
    return accumulator.mean().tobytes()


def take_deliveries(trainer: Trainer) -> int:
    """Deliver what waits, as the next round would; return how many members were given something."""
    given = 0
    for member in trainer.members:
        waiting = trainer.escrow.delivery(member.index)
        if waiting is not None:
            given += member.deliver(waiting.exchange, waiting.values)
            trainer.escrow.acknowledge(member.index, waiting.exchange)
    return given


VARIANTS: dict[str, dict[str, Any]] = {
    "the default": {},
    "an even number": {"members": 4},
    "permutation": {"topology": "permutation"},
    "the paper's every step": {"topology": "permutation", "local-steps": 1, "schedule": "decreasing"},
    "WASH+Opt": {"exchange-optimizer": True},
    "WASH+Opt with Adam": {"exchange-optimizer": True, "optimizer": "adam", "learning-rate": 0.01},
    "sparse averaging": {"mix": "average"},
    "p per step, cosine, warm-up": {"p-per": "step", "timing": "cosine", "warmup": 2, "stop-after": 3},
    "size-aware": {"schedule": "size-aware"},
    "server's batchnorm": {"batchnorm": "server"},
    "averaged batchnorm": {"batchnorm": "average"},
    "shards": {"division": "iid"},
    "int8": {"dtype": "int8"},
    "bfloat16, a permutation": {"dtype": "bfloat16", "topology": "permutation"},
    "averages in pairs": {"mix": "average", "topology": "pairs"},
    "averages in pairs, an even number, int8": {
        "mix": "average",
        "topology": "pairs",
        "members": 4,
        "dtype": "int8",
    },
    "a shuffle that ends in averages": {"average-from": 0.5},
    "a permutation that ends in averages": {"average-from": 0.5, "topology": "permutation"},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


@each_variant
def test_the_same_seed_gives_the_same_hash_and_another_seed_another(trainer, variant):
    options = VARIANTS[variant]
    first, again, other = (trainer(**options, seed=seed).run() for seed in (5, 5, 6))
    assert first.sha256 == again.sha256 != other.sha256
    assert (first.members, first.ensemble, first.recalibrated) == (
        again.members,
        again.ensemble,
        again.recalibrated,
    )
    assert list(first.members) == list(range(options.get("members", OPTIONS["members"])))


def test_every_variant_is_a_training_of_its_own(trainer):
    hashes = {variant: trainer(**options).run().sha256 for variant, options in VARIANTS.items()}
    assert len(set(hashes.values())) == len(VARIANTS), hashes


@pytest.mark.parametrize(
    "variant",
    [name for name, options in VARIANTS.items() if not options.keys() & {"mix", "dtype", "average-from"}],
)
def test_a_settlement_and_its_deliveries_do_not_move_the_mean_by_a_bit(trainer, variant):
    running = trainer(**VARIANTS[variant])
    slots = [None, *running.members[0].layout.slots[1:]]
    assert len(slots) > 1 or not VARIANTS[variant].get("exchange-optimizer")
    moved = 0
    for number in range(1, running.config.training.rounds + 1):
        running.round(number)
        before = [mean_bits(running, slot) for slot in slots]
        held = [member.parameters() for member in running.members]
        delivered = take_deliveries(running)
        assert [mean_bits(running, slot) for slot in slots] == before
        after = [member.parameters() for member in running.members]
        moved += sum(not np.array_equal(*pair) for pair in zip(held, after, strict=True))
        assert delivered in (0, len(running.members))
    assert moved > len(running.members), "nothing was exchanged"


def test_sparse_averaging_conserves_the_sum_up_to_rounding(trainer):
    running = trainer(mix="average", p=1.0)
    running.round(1)
    before = np.frombuffer(mean_bits(running))
    take_deliveries(running)
    np.testing.assert_allclose(np.frombuffer(mean_bits(running)), before, rtol=0, atol=1e-7)
    first, *others = (member.parameters().tobytes() for member in running.members)
    assert all(other == first for other in others), "with p = 1 all hold the average"


def rounded_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return what values are in a dtype, by PyTorch."""
    return values if dtype == "float32" else torch.from_numpy(values.copy()).bfloat16().float().numpy()


@pytest.mark.parametrize("members", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{"mix": "average", "topology": "pairs"}, {"average-from": 0.5}], ids=str)
def test_members_hold_what_the_rule_in_numpy_gives(trainer, members, dtype, options):
    """Exchange after exchange; of four, with ``average-from``, the first two shuffle."""
    running = trainer(members=members, dtype=dtype, **options)
    for number in range(1, 5):
        running.round(number)
        held = [member.parameters() for member in running.members]
        places = running.members[0].draw.coordinates(number)
        offers = [rounded_to(each[places], dtype) for each in held]
        source = matching(members, seed=running.config.training.seed, exchange=number)
        averages = "mix" in options or number > 2
        running.settle()
        for index, member in enumerate(running.members):
            expected = held[index].copy()
            received = offers[source[index]]
            if averages:
                received = (offers[index] + received) * np.float32(0.5)
            kept = held[index][places] - offers[index]
            expected[places] = np.where(kept == 0, received, received + kept)
            assert member.parameters().tobytes() == expected.tobytes()


def test_averages_in_pairs_conserve_the_sum_and_pairs_agree(trainer):
    running = trainer(mix="average", topology="pairs", p=1.0, members=4)
    running.round(1)
    before = np.frombuffer(mean_bits(running))
    running.settle()
    np.testing.assert_allclose(np.frombuffer(mean_bits(running)), before, rtol=0, atol=1e-7)
    held = [member.parameters().tobytes() for member in running.members]
    source = matching(4, seed=running.config.training.seed, exchange=1)
    assert [held[other] for other in source] == held, "with p = 1 a pair holds one model"
    assert len(set(held)) == 2


def test_the_optimizers_state_travels_into_the_mean_too(trainer):
    running = trainer(**{"mix": "average", "topology": "pairs", "p": 1.0, "exchange-optimizer": True})
    running.round(1)
    (slot,) = running.members[0].layout.slots[1:]
    before = np.frombuffer(mean_bits(running, slot))
    running.settle()
    np.testing.assert_allclose(np.frombuffer(mean_bits(running, slot)), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("topology", ["pairs", "permutation"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_what_a_dtype_leaves_out_stays_with_the_sender_or_is_lost_if_it_may_not(trainer, dtype, topology):
    def moved(**kept: bool) -> float:
        running = trainer(dtype=dtype, topology=topology, p=1.0, **kept)
        running.round(1)
        before = np.frombuffer(mean_bits(running))
        running.finish()  # applies what waits
        assert all(member.applied == 1 for member in running.members)
        return float(np.abs(np.frombuffer(mean_bits(running)) - before).max())

    assert moved() < 2.0**-23 < 100 * 2.0**-23 < moved(keep_residual=False)


def test_without_its_residual_float32_is_the_same_and_int8_is_not(trainer):
    def hashes(**options: Any) -> set[str]:
        return {trainer(**options, keep_residual=kept).run().sha256 for kept in (True, False)}

    assert hashes(dtype="float32") == {trainer().run().sha256}
    assert len(hashes(dtype="int8")) == 2


def test_with_p_zero_nothing_ever_moves(trainer):
    alone, shuffled = trainer(p=0.0), trainer()
    outcome, seen = settlements(alone)
    assert [settlement.exchange for settlement in seen] == [1, 2, 3, 4]
    assert all(settlement.members == () and settlement.gauge is None for settlement in seen)
    assert all(alone.escrow.delivery(member.index) is None for member in alone.members)
    assert all(member.applied == 0 for member in alone.members)
    # and each has learned as it would have by itself, whoever the others are
    other = trainer(p=0.0, members=2)
    other.run()
    for mine, theirs in zip(alone.members, other.members, strict=False):
        assert mine.parameters().tobytes() == theirs.parameters().tobytes()
    assert shuffled.run().sha256 != outcome.sha256


def test_members_start_as_one_and_then_differ(trainer):
    running = trainer()
    assert len({member.parameters().tobytes() for member in running.members}) == 1
    running.round(1)
    assert len({member.parameters().tobytes() for member in running.members}) == 3


def test_every_exchange_has_everybody_and_a_distance(trainer):
    _, seen = settlements(trainer())
    assert [settlement.members for settlement in seen] == [(0, 1, 2)] * 4
    assert all(settlement.gauge.distance > 0 for settlement in seen)


def test_after_the_run_every_delivery_was_applied(trainer):
    running = trainer()
    running.run()
    assert all(member.applied == 4 for member in running.members)
    assert all(running.escrow.delivery(member.index) is None for member in running.members)


def test_more_exchange_keeps_members_closer(trainer):
    def distance(p: float) -> float:
        running = trainer(p=p, rounds=6, topology="permutation")
        running.run()
        vectors = [member.parameters() for member in running.members]
        return float(np.mean([np.linalg.norm(a - b) for a, b in itertools.combinations(vectors, 2)]))

    assert distance(0.5) < 0.8 * distance(0.0)


def test_the_averaged_model_is_the_mean_of_the_members(trainer):
    running = trainer(batchnorm="average")
    outcome = running.run()
    flat = np.concatenate(
        [outcome.weights[name].reshape(-1) for name, _ in running.members[0].model.named_parameters()]
    )
    mean = np.frombuffer(mean_bits(running)).astype(np.float32)
    assert flat.tobytes() == mean.tobytes()
    assert outcome.averaged == outcome.recalibrated


def test_batchnorm_is_estimated_anew_where_the_options_say(trainer):
    variances = {
        where: trainer(batchnorm=where).run().weights["norm.running_var"].tobytes()
        for where in ("average", "clients", "server")
    }
    assert len(set(variances.values())) == 3


def test_the_callers_generator_and_threads_are_left_as_they_were(trainer):
    running = trainer(rounds=1)
    torch.manual_seed(77)
    torch.set_num_threads(2)
    inside: list[int] = []
    try:
        before = torch.get_rng_state()
        running.run(lambda *_: inside.append(torch.get_num_threads()))
        assert torch.equal(torch.get_rng_state(), before)
        assert (inside, torch.get_num_threads()) == ([1], 2)
        with pytest.raises(KeyError, match="stop"):
            trainer(rounds=1).run(_raise)
        assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def _raise(*_: object) -> None:
    raise KeyError("stop")


def test_the_callers_generator_does_not_matter(trainer):
    hashes = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        hashes.add(trainer(rounds=2).run().sha256)
    assert len(hashes) == 1


def test_a_built_in_task_is_learned():
    config = {"members": 2, "rounds": 6, "train-examples": 600, "test-examples": 200, "learning-rate": 0.3}
    outcome = Trainer(RunConfig.from_mapping(config)).run()
    assert outcome.recalibrated > 0.7
    assert min(outcome.members.values()) > 0.5
