"""Tests of the names of big things: hashes of weights, and identities of runs."""

import dataclasses

import numpy as np
import pytest

from wash_fl.config import ExchangeConfig
from wash_fl.core.identity import weights_sha256
from wash_fl.protocol.terms import Terms, run_identity

WEIGHTS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1, 2], dtype=np.int64),
    "c": np.array(0.0, dtype=np.float32),
}


def with_array(name, array):
    return WEIGHTS | {name: array}


def flipped(array):
    """Return an array with its very last bit turned over."""
    content = bytearray(array.tobytes())
    content[-1] ^= 1
    return np.frombuffer(bytes(content), array.dtype).reshape(array.shape)


def test_the_hash_of_weights_does_not_depend_on_their_order_or_place_in_memory():
    expected = weights_sha256(WEIGHTS)
    assert weights_sha256(dict(reversed(WEIGHTS.items()))) == expected
    assert weights_sha256(with_array("a", np.asfortranarray(WEIGHTS["a"]))) == expected
    assert weights_sha256(with_array("a", np.repeat(WEIGHTS["a"], 2, axis=1)[:, ::2])) == expected


@pytest.mark.parametrize(
    "changed",
    [
        with_array("a", flipped(WEIGHTS["a"])),
        with_array("b", flipped(WEIGHTS["b"])),
        with_array("c", np.array(-0.0, dtype=np.float32)),
        with_array("a", WEIGHTS["a"].reshape(3, 2)),
        with_array("a", WEIGHTS["a"].reshape(6)),
        with_array("b", WEIGHTS["b"].view(np.uint64)),
        with_array("b", WEIGHTS["b"].astype(np.int32)),
        with_array("c", WEIGHTS["c"].reshape(1)),
        with_array("d", np.empty(0, dtype=np.float32)),
        {"A" if name == "a" else name: array for name, array in WEIGHTS.items()},
        {"a": WEIGHTS["a"], "c": WEIGHTS["c"]},
        {"a": WEIGHTS["a"], "b": WEIGHTS["c"], "c": WEIGHTS["b"]},
        {},
    ],
    ids=[
        "last bit",
        "last bit of another",
        "sign of zero",
        "shape",
        "dimensions",
        "dtype of the same bits",
        "dtype of the same values",
        "one more dimension",
        "an empty array more",
        "name",
        "one less",
        "names exchanged",
        "nothing",
    ],
)
def test_the_hash_of_weights_sees_a_change_of(changed):
    assert weights_sha256(changed) != weights_sha256(WEIGHTS)


def test_hashing_changes_nothing():
    before = {name: array.tobytes() for name, array in WEIGHTS.items()}
    assert len(bytes.fromhex(weights_sha256(WEIGHTS))) == 32
    assert {name: array.tobytes() for name, array in WEIGHTS.items()} == before


def test_runs_have_different_identities_if_they_agree_on_anything_different():
    exchange = ExchangeConfig(
        p=0.05,
        p_per="exchange",
        schedule="decreasing",
        timing="steady",
        warmup=0,
        stop_after=0,
        mix="shuffle",
        topology="pairs",
        exchange_optimizer=False,
    )
    terms = Terms(run_name="r", seed=0, members=4, rounds=3, local_steps=2, exchange=exchange)
    others = [
        dataclasses.replace(terms, run_name="R"),
        dataclasses.replace(terms, seed=1),
        dataclasses.replace(terms, members=5),
        dataclasses.replace(terms, rounds=4),
        dataclasses.replace(terms, local_steps=3),
        *(
            dataclasses.replace(terms, exchange=dataclasses.replace(terms.exchange, **change))
            for change in (
                {"p": 0.06},
                {"p_per": "step"},
                {"schedule": "constant"},
                {"timing": "cosine"},
                {"warmup": 1},
                {"stop_after": 1},
                {"mix": "average"},
                {"topology": "permutation"},
                {"exchange_optimizer": True},
            )
        ),
    ]
    identities = {run_identity(each) for each in [terms, *others]}
    assert len(identities) == len(others) + 1
    assert {len(each) for each in identities} == {16}
    assert run_identity(dataclasses.replace(terms)) == run_identity(terms)
