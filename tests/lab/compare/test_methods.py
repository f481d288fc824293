"""Each method does what its source says, on members that are known."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.config import RunConfig
from wash_fl.config import fields as options_of_a_run
from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.methods.dart import Dart
from wash_fl.lab.compare.methods.fedavg import FedAvg
from wash_fl.lab.compare.methods.fedmr import FedMR
from wash_fl.lab.compare.methods.isolated import Isolated
from wash_fl.lab.compare.methods.papa import ALPHA, Papa, PapaAll
from wash_fl.lab.compare.post import Post
from wash_fl.member.training import learning_rate
from wash_fl.tasks.task import load_task

OPTIONS = {"members": 3, "rounds": 4, "local-steps": 10, "batch-size": 8, "p": 0.3, "schedule": "constant"}


@pytest.fixture
def cohort(make_task):
    """``cohort(kind, **options)``: members whose weights differ everywhere."""

    def make(kind, dropout=0.0, **options):
        config = RunConfig.from_mapping(OPTIONS | options)
        found = kind(config, make_task(), dropout, Post(config))
        for index in range(3):
            weights = {
                name: (each + index + 1).astype(each.dtype) for name, each in found.weights(index).items()
            }
            found.give(index, weights)
        return found

    return make


def held(cohort):
    return [{name: each.copy() for name, each in cohort.weights(index).items()} for index in range(3)]


def test_the_methods_are_those_of_the_folders_files_each_with_a_source():
    assert list(METHODS)[:2] == ["isolated", "fedavg"]
    assert METHODS.keys() == {
        *("isolated", "greedy-soup", "fedavg", "fedavg-outer-step", "top-k", "single-merge", "early", "late"),
        *("papa", "papa-0.9", "papa-all", "dart", "fedmr", "sparta", "wash", "wash-opt"),
        *("recipe-frugal", "recipe-pairs", "recipe-wash"),
    }
    assert all(method.source and name == method.name for name, method in METHODS.items())
    # What is a method's own is no option of a run.
    own = {spec.name for method in METHODS.values() for spec in fields(method.knobs)}
    assert own and not own & {key.replace("-", "_") for key in options_of_a_run()}


def test_isolated_members_never_communicate(cohort, make_task):
    together = cohort(Isolated)
    assert not together.interval
    before = held(together)
    for position in range(1, 41):
        together.after_step(position)
    assert all(
        np.array_equal(a[name], b[name]) for a, b in zip(before, held(together), strict=True) for name in a
    )


@pytest.mark.parametrize(("kind", "interval"), [(FedAvg, 10), (Dart, 4), (PapaAll, 20)])
def test_some_methods_replace_all_members_by_their_mean(cohort, kind, interval):
    together = cohort(kind)
    # PAPA-all: 5 epochs of 60 examples are 37 steps, and half of the run is fewer.
    assert together.interval == interval
    before = held(together)
    together.after_step(interval - 1)
    assert np.array_equal(held(together)[0]["first.weight"], before[0]["first.weight"])
    together.after_step(interval)
    together.settle()
    for name in ("first.weight", "norm.running_mean"):
        mean = np.mean([each[name].astype(np.float64) for each in before], axis=0)
        for each in held(together):
            np.testing.assert_allclose(each[name], mean, rtol=1e-6)


def test_papa_all_averages_every_five_epochs_in_a_longer_run(cohort):
    assert cohort(PapaAll, rounds=40).interval == round(5 * 60 / 8)


@pytest.mark.parametrize("position", [10, 30])
@pytest.mark.parametrize("method", ["papa", "papa-0.9"])
def test_papa_pulls_every_value_and_buffer_by_what_the_learning_rate_says(cohort, method, position):
    config, knobs = METHODS[method].settings(OPTIONS)
    together = cohort(lambda *arguments: METHODS[method].make(*arguments, knobs))
    before = held(together)
    together.after_step(position)
    alpha = 0.9 if method == "papa-0.9" else ALPHA
    assert together.knob == f"alpha {alpha}, 4 pulls"
    training = config.training
    pull = (1 - alpha) * learning_rate(training, position / 40) / training.learning_rate
    assert pull < 1 - alpha if position == 30 else pull <= 1 - alpha
    for name in ("last.bias", "norm.running_var"):
        mean = np.mean([each[name].astype(np.float64) for each in before], axis=0)
        for old, new in zip(before, held(together), strict=True):
            np.testing.assert_allclose(new[name], old[name] + pull * (mean - old[name]), rtol=1e-5)


def test_fedmr_permutes_each_tensor_as_a_whole(cohort):
    together = cohort(FedMR)
    before = held(together)
    together.after_step(10)
    after = held(together)
    sources = {}
    for name in before[0]:
        sources[name] = [
            next(source for source in range(3) if np.array_equal(each[name], before[source][name]))
            for each in after
        ]
        assert sorted(sources[name]) == [0, 1, 2]
    assert len({tuple(each) for each in sources.values()}) > 1


def test_who_is_away_neither_trains_nor_is_averaged_and_goes_on_from_the_mean(cohort):
    together = cohort(FedAvg, dropout=0.5)
    trained = []
    for number in range(1, 9):
        before = held(together)
        trained.append(sorted(together.round(number)))
        for index in {0, 1, 2} - set(trained[-1]):
            assert np.array_equal(held(together)[index]["last.bias"], before[index]["last.bias"])
    assert len({tuple(each) for each in trained}) > 2
    together.settle()
    assert together.relative_distance() < 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_repeats_hash_for_hash(make_task, name):
    method = METHODS[name]
    # DART's augmentation is one of images.
    task = load_task("digits") if name == "dart" else make_task()

    def run():
        config, knobs = method.settings(OPTIONS | {"local-steps": 3, "train-examples": 200})
        return method.make(config, task, 0.0, Post(config), knobs).run()

    first = run()
    assert first.sha256 == run().sha256
    chance = 1 / len(task.classes)
    assert first.recalibrated > 1.2 * chance


class _Strange(nn.Module):
    """A layer of two names, and a buffer that has no mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.trunk = nn.Sequential(self.layer)
        self.register_buffer("quantile", torch.zeros(2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.trunk(inputs)
        return outputs


@pytest.fixture
def strange(make_task):
    """``strange(kind)``: members of such a model, whose weights differ everywhere."""

    def make(kind):
        config = RunConfig.from_mapping(OPTIONS)
        found = kind(config, replace(make_task(), model=_Strange), 0.0, Post(config))
        for index, member in enumerate(found.members):
            for each in member.model.state_dict().values():
                each.add_(index + 1.0)
        return found

    return make


@pytest.mark.parametrize("seed", range(3))
def test_fedmr_moves_an_entry_of_two_names_once(strange, seed):
    together = strange(FedMR)
    before = sorted(each["layer.weight"].tobytes() for each in held(together))
    together.communicate([0, 1, 2], 10 * seed)
    after = held(together)
    assert sorted(each["layer.weight"].tobytes() for each in after) == before
    for each in after:
        assert np.array_equal(each["layer.weight"], each["trunk.0.weight"])


def test_papa_pulls_nothing_that_has_no_mean(strange):
    together = strange(Papa)
    before = held(together)
    together.communicate([0, 1, 2], 10)
    for old, new in zip(before, held(together), strict=True):
        assert np.array_equal(old["quantile"], new["quantile"])
        assert np.array_equal(new["layer.weight"], new["trunk.0.weight"])
    assert not np.array_equal(before[0]["layer.weight"], held(together)[0]["layer.weight"])
