"""What recipes stand for; options that are given win over them."""

import pytest

from wash_fl.config import DECIDED_BY_RECIPES, ExchangeConfig, RunConfig
from wash_fl.core.codec import encoded_size
from wash_fl.core.cost import cost_of_run
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.packet import packet_size
from wash_fl.core.recipes import RECIPES, exchange_of, resolve, sentence
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ConfigError


def resolved(divided=False, **options):
    return resolve(RunConfig.from_mapping(options), divided=divided)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_only_options_that_recipes_decide_and_a_run_by_it_leaves_none_open(name):
    recipe = RECIPES[name]
    assert {key.replace("_", "-") for key in recipe.options} <= DECIDED_BY_RECIPES
    config = resolved(recipe=name)
    assert not config.open and config.exchange.recipe == name
    assert {key: getattr(config.exchange, key) for key in recipe.options} == recipe.options
    assert RunConfig.from_mapping(config.to_mapping()) == config
    assert resolve(config, divided=True) is config
    Schedule.of(config)


def test_auto_goes_by_whether_members_have_data_of_their_own():
    assert resolved(divided=True).exchange.recipe == "frugal"
    assert resolved(divided=False).exchange.recipe == "wash"
    assert resolved(divided=True, mix="shuffle").exchange.recipe == "wash"
    assert resolved(divided=False, mix="average").exchange.recipe == "frugal"


@pytest.mark.parametrize(
    ("options", "mix", "topology"),
    [
        ({"mix": "shuffle"}, "shuffle", "pairs"),
        ({"mix": "average"}, "average", "all"),
        ({"mix": "average", "topology": "pairs"}, "average", "pairs"),
        ({"topology": "all"}, "average", "all"),
        ({"outer_momentum": 0.9}, "average", "all"),
        ({"reference": "values"}, "average", "all"),
        ({"topology": "permutation"}, "shuffle", "permutation"),
        ({"average_from": 0.75}, "shuffle", "pairs"),
        ({"average_from": 0.75, "topology": "permutation"}, "shuffle", "permutation"),
    ],
    ids=str,
)
@pytest.mark.parametrize("divided", [False, True])
def test_what_is_open_is_decided_to_go_with_what_is_given(divided, options, mix, topology):
    exchange = resolved(divided=divided, **options).exchange
    assert (exchange.mix, exchange.topology) == (mix, topology)


def test_pairs_swap_or_average_by_whose_the_data_are():
    assert resolved(divided=False, topology="pairs").exchange.mix == "shuffle"
    assert resolved(divided=True, topology="pairs").exchange.recipe == "pairs"


def test_options_that_do_not_go_with_the_recipe_are_refused_with_what_it_has():
    with pytest.raises(ConfigError, match=r"average-from = 0.75 says when a shuffle .*recipe = wash has"):
        resolved(recipe="wash", mix="average")


def test_what_is_given_wins_over_the_recipe():
    config = resolved(recipe="frugal", p=0.5, dtype="float32")
    assert (config.exchange.p, config.exchange.dtype, config.exchange.mix) == (0.5, "float32", "average")


def test_auto_in_a_file_is_as_if_nothing_were_given():
    assert RunConfig.from_mapping(dict.fromkeys(DECIDED_BY_RECIPES, "auto")) == RunConfig.from_mapping({})
    assert RunConfig.from_mapping({}).to_mapping()["p"] == "auto"
    with pytest.raises(ConfigError, match="members = 'auto' is a str"):
        RunConfig.from_mapping({"members": "auto"})


def test_without_a_recipe_options_have_their_plain_defaults():
    assert RunConfig.from_mapping({"recipe": "none"}).exchange == ExchangeConfig(recipe="none")
    assert exchange_of("none", local_steps=24, p=0.3) == ExchangeConfig(recipe="none", p=0.3)


def test_on_streams_the_exchanges_of_a_round_share_its_p():
    options = {"recipe": "wash", "exchange-plane": "stream", "local-steps": 24}
    assert resolved(**options).exchange.p == pytest.approx(0.2 / 24, rel=0.01)
    assert resolved(**options, every=8).exchange.p == pytest.approx(0.2 / 3, rel=0.01)
    assert resolved(**options, p=0.2).exchange.p == 0.2
    assert resolved(recipe="paper").exchange.p == RECIPES["paper"].options["p"]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("option", [{"every": 4}, {"overlap": True}])
def test_what_only_streams_have_goes_with_a_recipe_that_streams(name, option):
    if RECIPES[name].options.get("exchange_plane") == "stream":
        assert resolved(recipe=name, **option).exchange == exchange_of(name, local_steps=24, **option)
    else:
        with pytest.raises(ConfigError, match="add exchange-plane = stream"):
            resolved(recipe=name, **option)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_cost_is_what_the_draws_come_to(name, dtype):
    layout = layout_of([("a", (40, 50)), ("b", (50,)), ("c", (10, 50))])
    exchange = exchange_of(name, local_steps=4, dtype=dtype)
    cost = cost_of_run(layout, exchange, rounds=50, local_steps=4)
    draw = Draw(3, layout, Schedule.between(exchange, 50, 4))
    exchanges = range(1, draw.schedule.exchanges + 1)
    counts = [count for count in map(draw.count, exchanges) if count]
    sizes = [
        packet_size(layout, encoded_size(dtype, 1, count), chained=exchange.anchored) for count in counts
    ]
    assert cost.up == pytest.approx(sum(sizes), rel=0.03)
    chains = 9 * len(counts) if exchange.anchored else 0  # which anchor an offer is taken from: 9 bytes
    assert cost.down >= cost.up - chains - 1
    assert cost.fedavg == 50 * layout.size * 4


def test_a_sentence_says_what_a_run_does():
    assert sentence(exchange_of("wash", local_steps=24)) == (
        "each round 20 % of the parameters change places between pairs of members, and are averaged "
        "from 75 % of the run on, as int8"
    )
    assert sentence(exchange_of("paper", local_steps=24)).startswith("after every optimizer step 0.5 % of")
    assert "averaged over all members" in sentence(exchange_of("frugal", local_steps=24))
