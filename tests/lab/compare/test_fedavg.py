"""FedAvg every so many rounds, in few bits with error feedback, with an outer step: each by its formula."""

import numpy as np
import pytest

from wash_fl.config import RunConfig
from wash_fl.core.codec import encoded_size, rounded
from wash_fl.core.packet import packet_size
from wash_fl.errors import ConfigError
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.methods.fedavg import FedAvg, FedAvgKnobs, LowBitFedAvg
from wash_fl.lab.compare.methods.feedback import Agreed, Sender
from wash_fl.lab.compare.methods.outer_step import OuterStep
from wash_fl.lab.compare.methods.rival import Rival
from wash_fl.lab.compare.post import Post

OPTIONS = {"members": 3, "rounds": 4, "local-steps": 4, "batch-size": 8}
FEW = (8, 4, 3, 2)


class EveryRound(Rival):
    """FedAvg as it is written down: every round begins at the mean of the members that ended the last."""

    interval = 4
    _mean = None

    def begin_round(self):
        for index in self.here if self._mean is not None else ():
            self.give(index, self._mean)

    def communicate(self, indices, position):
        self._mean = self.mean(indices)
        self.count(indices, position)

    def settle(self):
        for index in self.active():
            self.give(index, self._mean)


@pytest.fixture
def made(make_task):
    """``made(kind, **knobs)``: members, and the post that counts them."""

    def make(kind, dropout=0.0, **knobs):
        config = RunConfig.from_mapping(OPTIONS)
        post = Post(config)
        return kind(config, make_task(), dropout, post, FedAvgKnobs(**knobs)), post

    return make


def vectors(cohort):
    return np.stack([each.parameters() for each in cohort.members])


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_every_round_in_float32_without_an_outer_step_is_fedavg_hash_for_hash(made, make_task, dropout):
    (plain, before), (new, now) = made(EveryRound, dropout), made(FedAvg, dropout)
    rounds = OPTIONS["rounds"]
    for number in range(1, rounds + 1):
        assert plain.round(number) == new.round(number)
        assert plain.relative_distance() == new.relative_distance()
    assert plain.finish().sha256 == new.finish().sha256
    assert before.per_member(3) == now.per_member(3)


def test_one_means_every_round_and_the_method_makes_what_the_bits_say(make_task):
    def run(**knobs):
        config, own = METHODS["fedavg"].settings({**OPTIONS, **knobs})
        cohort = METHODS["fedavg"].make(config, make_task(), 0.0, Post(config), own)
        return type(cohort), cohort.run().sha256

    assert run() == run(every_rounds=1.0) == run(bits=32)
    assert run()[0] is FedAvg
    assert run(bits=8)[0] is LowBitFedAvg


@pytest.mark.parametrize(
    ("every", "stops"), [(0.0, [4, 8, 12, 16]), (2.0, [8, 16]), (0.5, [2, 4, 6, 8, 10, 12, 14, 16])]
)
@pytest.mark.parametrize("bits", [32, 8])
def test_members_average_every_so_many_rounds_at_these_steps_only(made, every, stops, bits):
    cohort, post = made(FedAvg if bits == 32 else LowBitFedAvg, every_rounds=every, bits=bits)
    averaged = []
    own = cohort.communicate
    cohort.communicate = lambda indices, position: (averaged.append(position), own(indices, position))
    for number in range(1, 5):
        cohort.round(number)
    assert averaged == stops and cohort.times == len(stops)
    size = cohort.layout.size if bits == 8 else sum(each.nbytes for each in cohort.weights(0).values())
    each = encoded_size("int8", 1, size) if bits == 8 else size
    assert post.per_member(3)["up_values"] == post.per_member(3)["down_values"] == len(stops) * each


def test_a_fraction_of_rounds_ends_where_the_run_does(made):
    cohort, _ = made(FedAvg, every_rounds=4 / 3)
    assert [cohort.next_stop(position) for position in (0, 5, 11)] == [5, 11, 16]
    rare, _ = made(FedAvg, every_rounds=3.0)
    for number in range(1, 5):
        rare.round(number)
    # The last round was trained since: nobody is put back to the mean of the one before.
    before = vectors(rare)
    rare.settle()
    assert np.array_equal(vectors(rare), before) and not np.array_equal(before[0], before[1])


def test_the_outer_step_is_nesterovs(made):
    step = OuterStep(2)
    m = np.zeros(2)
    for difference in ([1.0, -2.0], [0.5, 4.0], [0.0, 0.25]):
        d = np.array(difference)
        m = 0.5 * m + d
        np.testing.assert_allclose(step.step(d.astype(np.float32)), 0.7 * (d + 0.5 * m), rtol=1e-6)


@pytest.mark.parametrize("bits", [32, 8])
def test_the_members_go_on_from_the_outer_step_on_their_mean_difference(made, bits):
    cohort, _ = made(FedAvg if bits == 32 else LowBitFedAvg, outer_step=True, bits=bits)
    model, m = cohort.members[0].parameters().astype(np.float64), 0.0
    scale = 0.0
    for number, position in ((1, 4), (2, 8)):
        for index, member in enumerate(cohort.members):
            noise = np.random.default_rng([number, index]).normal(size=model.size)
            member.load_parameters((model + 0.1 * noise).astype(np.float32))
        d = vectors(cohort).astype(np.float64).mean(axis=0) - model
        m = 0.5 * m + d
        cohort.communicate([0, 1, 2], position)
        cohort.settle()
        scale += 0.0 if bits == 32 else 0.6 / 127
        np.testing.assert_allclose(vectors(cohort)[0], model + 0.7 * (d + 0.5 * m), atol=1e-5 + scale)
        assert np.array_equal(vectors(cohort)[0], vectors(cohort)[2])
        model = vectors(cohort)[0].astype(np.float64)


@pytest.mark.parametrize("bits", FEW)
def test_what_was_sent_and_what_is_kept_are_the_differences(bits):
    sender = Sender(300, lambda values: rounded(values[np.newaxis], f"int{bits}")[0])
    random = np.random.default_rng(bits)
    differences = random.normal(size=(20, 300)).astype(np.float32)
    sent = [sender.send(each) for each in differences]
    assert not np.allclose(sent, differences, atol=1e-4)
    total = np.sum(sent, axis=0, dtype=np.float64) + sender.kept
    np.testing.assert_allclose(total, differences.sum(axis=0, dtype=np.float64), atol=1e-4)


@pytest.mark.parametrize("bits", FEW)
def test_nothing_is_lost_in_either_direction(bits):
    start = np.zeros(200, dtype=np.float32)
    agreed = Agreed(start, 3, lambda values: rounded(values[np.newaxis], f"int{bits}")[0])
    random = np.random.default_rng(bits)
    whole = np.zeros(200)
    for _ in range(15):
        differences = random.normal(size=(3, 200)).astype(np.float32)
        agreed.average({index: agreed.model + each for index, each in enumerate(differences)})
        whole += differences.mean(axis=0, dtype=np.float64)
    kept = np.mean([each.kept for each in agreed.members], axis=0) + agreed.server.kept
    assert np.abs(kept).max() > 1e-3
    np.testing.assert_allclose(agreed.model + kept, whole, atol=1e-4)


def test_in_few_bits_all_go_on_from_the_model_they_agree_on(made):
    cohort, _ = made(LowBitFedAvg, bits=4)
    for number in (1, 2):
        cohort.round(number)
        assert all(np.array_equal(each, cohort.agreed.model) for each in vectors(cohort))


def test_who_was_away_gets_what_it_missed_and_is_counted(made):
    cohort, post = made(LowBitFedAvg, bits=8)
    before = vectors(cohort)[2]
    for position in (4, 8, 12, 16, 20):
        cohort.communicate([0, 1], position)
        cohort.members[0].load_parameters(cohort.agreed.model + np.float32(0.1))
    assert np.array_equal(vectors(cohort)[2], before)
    down = post.per_member(1)["down_packets"]
    cohort.here = [0, 1, 2]
    cohort.begin_round()
    cohort.begin_round()
    assert np.array_equal(vectors(cohort)[2], cohort.agreed.model)
    # Five differences in a byte each are more than all values as float32.
    assert post.per_member(1)["down_packets"] - down == packet_size(cohort.layout, 4 * cohort.layout.size)


def test_wrong_knobs_are_refused(refused):
    for knobs, parts in (
        ({"bits": 5}, ["bits = 5", "32, 8, 4, 3, 2"]),
        ({"every-rounds": -1}, ["every-rounds", "at least 0"]),
        ({"outer-step": 2}, ["outer-step = 2"]),
    ):
        with refused(ConfigError, *parts):
            METHODS["fedavg"].settings({**OPTIONS, **knobs})
    with refused(ConfigError, "fedavg-outer-step", "defined by outer-step = True"):
        METHODS["fedavg-outer-step"].settings({**OPTIONS, "outer-step": False})
    with refused(ConfigError, "unknown option 'bits'"):
        METHODS["papa"].settings({**OPTIONS, "bits": 8})
