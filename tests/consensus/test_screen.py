"""Who is far from the others with its final model is not averaged; who is only different is."""

import numpy as np
import pytest

from wash_fl.consensus.final import FinalModel
from wash_fl.consensus.screen import InMemory, strange_models
from wash_fl.core.rules import Rule, StateRules
from wash_fl.storage.model_store import ModelStore

RULES = StateRules.of(
    {
        "features.weight": Rule.TRAINED,
        "norm.running_mean": Rule.BATCHNORM,
        "norm.num_batches_tracked": Rule.COUNTER,
        "mask": Rule.AVERAGED,
        "head.weight": Rule.TRAINED,
        "head.bias": Rule.TRAINED,
    }
)
CONSTANTS = {"mask": "hash"}
FACTOR = 3.0


def honest(members=4, apart=0.3, seed=1):
    draw = np.random.Generator(np.random.Philox(seed))
    common = {
        "features.weight": draw.normal(0, 0.1, (50, 40)),
        "head.weight": draw.normal(0, 0.3, (3, 40)),
        "head.bias": np.zeros(3),
    }
    models = {}
    for member in range(members):
        model = {
            name: (each + apart * 0.1 * draw.normal(size=each.shape)).astype(np.float32)
            for name, each in common.items()
        }
        # Of data that is one member's: signs and sizes of their own.
        model["norm.running_mean"] = draw.normal(0, 1, 80).astype(np.float32)
        model["norm.num_batches_tracked"] = np.array(member * 10**6)
        model["mask"] = np.full(4, -np.inf, np.float32)
        models[member] = {name: model[name] for name in RULES.rules}
    return models


def noise(model):
    draw = np.random.Generator(np.random.Philox(9))
    return {
        name: (each + 10 * each.std() * draw.normal(size=each.shape)).astype(each.dtype)
        if RULES.rules[name] is Rule.TRAINED
        else each
        for name, each in model.items()
    }


ATTACKS = {
    "noise of ten times the weights": noise,
    "the last layer times -20": lambda model: model | {"head.weight": model["head.weight"] * -20},
    "the last layer with its signs turned": lambda model: model | {"head.weight": -model["head.weight"]},
    "one value of 1e30": lambda model: model | {"head.bias": np.array([0, 0, 1e30], np.float32)},
    "statistics of no data": lambda model: model | {"norm.running_mean": np.full(80, 1e6, np.float32)},
}


@pytest.mark.parametrize("what", ATTACKS)
@pytest.mark.parametrize("members", [3, 4, 8])
@pytest.mark.parametrize("apart", [0.1, 1.0])
def test_one_hostile_final_model_is_left_out_and_no_other(what, members, apart):
    models = honest(members, apart)
    bad = members - 1
    models[bad] = ATTACKS[what](models[bad])
    left_out = strange_models(InMemory(models), RULES, CONSTANTS, FACTOR)
    assert list(left_out) == [bad]
    assert left_out[bad].isprintable() and "coordinates" in left_out[bad]


def test_two_of_eight_are_left_out():
    models = honest(8)
    for bad, what in ((2, "noise of ten times the weights"), (5, "the last layer times -20")):
        models[bad] = ATTACKS[what](models[bad])
    assert set(strange_models(InMemory(models), RULES, CONSTANTS, FACTOR)) == {2, 5}


@pytest.mark.parametrize("apart", [0.0, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_honest_models_are_all_averaged_however_unlike_they_are(apart, members):
    assert strange_models(InMemory(honest(members, apart)), RULES, CONSTANTS, FACTOR) == {}


@pytest.mark.parametrize(("times", "expected"), [(1, []), (8, []), (-8, []), (40, [2])])
def test_statistics_of_ones_own_data_may_lie_farther_away_than_weights_may(times, expected):
    models = honest()
    models[2]["norm.running_mean"] *= times
    assert list(strange_models(InMemory(models), RULES, CONSTANTS, FACTOR)) == expected


def test_of_two_nobody_can_say_which_and_a_factor_of_zero_lets_all_pass():
    models = honest(2)
    models[1] = noise(models[1])
    assert strange_models(InMemory(models), RULES, CONSTANTS, FACTOR) == {}
    models = honest(4)
    models[1] = noise(models[1])
    assert strange_models(InMemory(models), RULES, CONSTANTS, 0.0) == {}


@pytest.mark.parametrize("how", ["mean", "trimmed", "median"])
def test_the_final_model_is_that_of_the_others_and_tells_of_them(tmp_path, how):
    models = honest(5)
    models[0] = noise(models[0])
    store = ModelStore(tmp_path)
    for member in (3, 0, 1, 4, 2):
        store.put(member, models[member])
    constants = {"mask": _hash(models[1]["mask"])}
    in_turn = []
    final = FinalModel(
        store, RULES, constants, factor=FACTOR, how=how, tell=lambda member, arrays: in_turn.append(member)
    )
    assert list(final.left_out) == [0] and final.members == [1, 2, 3, 4] and in_turn == [3, 1, 4, 2]
    values = np.stack([models[member]["head.weight"] for member in final.members]).astype(np.float64)
    expected = {
        "mean": values.mean(axis=0),
        "trimmed": np.sort(values, axis=0)[1:-1].mean(axis=0),
        "median": np.median(values, axis=0),
    }[how]
    assert final.arrays["head.weight"] == pytest.approx(expected.astype(np.float32))
    assert final.arrays["head.weight"].dtype == np.float32
    assert (final.arrays["mask"] == -np.inf).all()
    assert final.arrays["norm.num_batches_tracked"] == 10**6, "that of the first member that is in it"


def test_a_store_gives_back_what_it_was_given(tmp_path):
    models = honest(2)
    store = ModelStore(tmp_path)
    for member, model in models.items():
        store.put(member, model)
    for member, model in models.items():
        again = store.model(member)
        assert again.keys() == model.keys()
        for name, each in model.items():
            assert again[name].tobytes() == store.entry(member, name).tobytes() == each.tobytes()


def _hash(array):
    from wash_fl.core.identity import array_sha256

    return array_sha256(array)
