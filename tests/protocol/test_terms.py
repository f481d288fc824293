"""Tests of the terms of a run: they arrive as they were sent, or not at all."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wash_fl.config import ExchangeConfig
from wash_fl.errors import ConfigError
from wash_fl.protocol import terms
from wash_fl.protocol.terms import LATER, Terms, run_identity

ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, max_examples=200)

TERMS = Terms(
    run_name="night",
    seed=7,
    members=4,
    rounds=30,
    local_steps=24,
    exchange=ExchangeConfig(p=0.1, schedule="size-aware", mix="average", topology="all"),
)


MIXES = (
    {
        "mix": st.just("shuffle"),
        "topology": st.sampled_from(["pairs", "permutation"]),
        "average_from": st.just(0.0) | st.floats(0, 1, exclude_max=True),
    },
    {"mix": st.just("average"), "topology": st.sampled_from(["pairs", "all"])},
)


def changed(**fields):
    """Return the JSON of the terms with fields replaced, those of the exchange among them; None removes."""
    content = json.loads(TERMS.to_json())
    for name, value in fields.items():
        part = content["exchange"] if name in content["exchange"] else content
        if value is None:
            del part[name]
        elif isinstance(value, dict):
            part[name].update(value)
        else:
            part[name] = value
    return json.dumps(content, sort_keys=True)


def possible_name(name):
    return name.isprintable() and bool(name.strip()) and "/" not in name and name not in (".", "..")


@ALWAYS_THE_SAME
@given(
    terms=st.builds(
        Terms,
        run_name=st.just("") | st.text(st.characters(codec="utf-8"), max_size=20).filter(possible_name),
        seed=st.integers(0, 2**63 - 1),
        members=st.integers(2, 100_000),
        rounds=st.integers(1, 10**6),
        local_steps=st.integers(1, 10**6),
        exchange=st.one_of(
            st.builds(
                ExchangeConfig,
                p=st.one_of(st.floats(0, 1), st.sampled_from([0, 1])),
                p_per=st.sampled_from(["exchange", "step"]),
                schedule=st.sampled_from(["decreasing", "constant", "increasing", "size-aware"]),
                timing=st.sampled_from(["steady", "cosine"]),
                warmup=st.integers(0, 99),
                stop_after=st.integers(0, 99),
                exchange_optimizer=st.booleans(),
                run_length=st.sampled_from([1, 16, 64]),
                **mix,
            )
            for mix in MIXES
        ),
    )
)
def test_terms_come_back_from_json_with_the_same_text_and_identity(terms):
    text = terms.to_json()
    back = Terms.from_json(text)
    assert back == terms
    assert back.to_json() == text
    assert run_identity(back) == run_identity(terms)


def test_the_schedule_is_that_of_the_run():
    schedule = TERMS.schedule
    assert (schedule.config, schedule.exchanges, schedule.steps) == (TERMS.exchange, 30, 24)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "5",
        '"text"',
        "[]",
        "{}",
        '{"exchange": null}',
        '{"exchange": []}',
        '{"exchange": {}}',
        "[" * 100_000,
        '{"seed": ' + "1" * 5000 + "}",
        changed(seed=None),
        changed(exchange=None),
        changed(exchange=5),
        changed(unheard_of=1),
        json.dumps(json.loads(TERMS.to_json()) | {"exchange": {"p": 0.1, "unheard_of": 1}}),
    ],
    ids=lambda text: text[:25],
)
def test_text_that_is_no_terms_is_refused(text):
    with pytest.raises(ConfigError, match=r"cannot be read.*update the older side"):
        Terms.from_json(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "seed = -1 is not allowed"),
        ({"seed": 2**63}, "seed = 9223372036854775808 is not allowed"),
        ({"seed": 1.5}, "seed = 1.5 is a float"),
        ({"members": 1}, "members = 1 is not allowed"),
        ({"members": True}, "members = True is a bool"),
        ({"rounds": 0}, "rounds = 0 is not allowed"),
        ({"rounds": "30"}, "rounds = '30' is a str"),
        ({"local_steps": 0}, "local-steps = 0 is not allowed"),
        ({"run_name": 5}, "run-name = 5 is an int"),
        ({"p": 1.5}, "p = 1.5 is not allowed"),
        ({"p": float("nan")}, "p = nan is not allowed"),
        ({"p": "0.1"}, "p = '0.1' is a str"),
        ({"schedule": "fancy"}, "schedule = 'fancy' is not allowed"),
        ({"schedule": ["constant"]}, "schedule = .* is a list"),
        ({"timing": "linear"}, "timing = 'linear' is not allowed"),
        ({"mix": "blend"}, "mix = 'blend' is not allowed"),
        ({"topology": "ring"}, "topology = 'ring' is not allowed"),
        ({"warmup": -1}, "warmup = -1 is not allowed"),
        ({"exchange_optimizer": 1}, "exchange-optimizer = 1 is an int"),
        ({"exchange": {"run_length": 2}}, "run-length = 2 is not allowed: it is one of 1, 16, 64"),
        ({"exchange": {"run_length": "16"}}, "run-length = '16' is a str"),
        ({"exchange": {"run_length": 0}}, "run-length = 0 is not allowed"),
    ],
    ids=str,
)
def test_terms_with_a_value_this_version_does_not_know_are_refused(fields, message):
    with pytest.raises(ConfigError, match=f"not possible: {message}"):
        Terms.from_json(changed(**fields))


def test_an_average_over_all_has_the_text_of_the_first_version():
    assert json.loads(TERMS.to_json())["exchange"] == {
        "exchange_optimizer": False,
        "mix": "average",
        "p": 0.1,
        "p_per": "exchange",
        "schedule": "size-aware",
        "stop_after": 0,
        "timing": "steady",
        "topology": "pairs",
        "warmup": 0,
    }
    unchosen = dataclasses.replace(TERMS, exchange=dataclasses.replace(TERMS.exchange, topology="auto"))
    assert unchosen.to_json() == TERMS.to_json()


def test_an_average_in_pairs_has_a_key_that_an_older_version_does_not_know():
    pairs = dataclasses.replace(TERMS, exchange=dataclasses.replace(TERMS.exchange, topology="pairs"))
    content, before = (json.loads(each.to_json())["exchange"] for each in (pairs, TERMS))
    assert content == before | {"averaging": "pairs"}
    assert Terms.from_json(pairs.to_json()) == pairs
    # As in the first version, which passed all keys on by name.
    assert "averaging" not in {field.name for field in dataclasses.fields(ExchangeConfig)}


def averaging(value, **fields):
    content = json.loads(changed(**fields))
    content["exchange"]["averaging"] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    [
        averaging("all"),
        averaging("trees"),
        averaging(["pairs"]),
        averaging("pairs", mix="shuffle"),
        averaging("pairs", topology="permutation"),
        averaging("pairs", topology="all"),
        changed(topology="all"),
        changed(topology="auto"),
        changed(topology="permutation"),
    ],
    ids=lambda text: text[:90],
)
def test_an_average_among_nobody_known_is_refused(text):
    with pytest.raises(ConfigError, match=r"not possible: .*(averaging|topology)"):
        Terms.from_json(text)


@pytest.mark.parametrize("open_choice", [{"schedule": "auto"}, {"schedule": "paper"}, {"mix": "auto"}])
def test_terms_that_leave_a_choice_open_are_refused(open_choice):
    with pytest.raises(ConfigError, match="not possible"):
        Terms.from_json(changed(**open_choice))


def test_terms_do_not_say_by_which_recipe_their_options_were_chosen():
    by_recipe = dataclasses.replace(TERMS, exchange=dataclasses.replace(TERMS.exchange, recipe="wash"))
    assert by_recipe == TERMS and by_recipe.to_json() == TERMS.to_json()


ANCHORED = dataclasses.replace(TERMS.exchange, reference="anchor")


@pytest.mark.parametrize("outer", [{}, {"outer_learning_rate": 0.7}, {"outer_momentum": 0.5}])
def test_terms_of_a_run_with_an_anchor_say_so_and_no_more_than_it_uses(outer):
    exchange = dataclasses.replace(ANCHORED, **outer)
    text = dataclasses.replace(TERMS, exchange=exchange).to_json()
    assert LATER.keys() & json.loads(text)["exchange"].keys() == {"reference", *outer}
    assert Terms.from_json(text).exchange == exchange


def test_a_device_that_knows_no_anchor_refuses_in_one_line(monkeypatch, refused):
    def older(**options):
        unknown = next((each for each in options if each == "reference"), None)
        if unknown:
            raise TypeError(f"ExchangeConfig.__init__() got an unexpected keyword argument {unknown!r}")
        return ExchangeConfig(**options)

    monkeypatch.setattr(terms, "ExchangeConfig", older)
    with refused(ConfigError, "terms cannot be read", "'reference'", "update the older side"):
        Terms.from_json(dataclasses.replace(TERMS, exchange=ANCHORED).to_json())


OF_THE_FIRST_VERSION = [field.name for field in dataclasses.fields(ExchangeConfig) if field.name not in LATER]


def test_terms_say_of_later_options_only_what_the_run_uses():
    exchange = dataclasses.replace(
        TERMS.exchange, exchange_plane="stream", every=3, dtype="int8", run_length=64
    )
    used = dataclasses.replace(TERMS, exchange=exchange)
    assert LATER.keys() & json.loads(TERMS.to_json())["exchange"].keys() == set()
    left_out = {"overlap", "average_from", "recipe", "reference", "outer_learning_rate", "outer_momentum"}
    left_out.add("robust")
    assert LATER.keys() - json.loads(used.to_json())["exchange"].keys() == left_out
    assert (Terms.from_json(TERMS.to_json()), Terms.from_json(used.to_json())) == (TERMS, used)


def test_terms_of_a_version_without_runs_are_of_single_values():
    text = TERMS.to_json()
    assert "run_length" not in text
    assert Terms.from_json(text).exchange.run_length == 1
    runs = dataclasses.replace(TERMS, exchange=dataclasses.replace(TERMS.exchange, run_length=16))
    assert json.loads(runs.to_json())["exchange"]["run_length"] == 16
    assert run_identity(runs) != run_identity(TERMS)


@pytest.mark.parametrize("option", OF_THE_FIRST_VERSION)
def test_terms_that_leave_an_option_out_are_refused_and_not_filled_with_a_default(option):
    # The server of an older version has no such option, and may not behave as this version's default.
    with pytest.raises(ConfigError, match="leave options out: update the older side"):
        Terms.from_json(changed(**{option: None}))
