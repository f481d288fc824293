"""What `auto` and `paper` stand for; what is said stays as it is."""

import pytest

from wash_fl.config import ExchangeConfig, RunConfig
from wash_fl.core.auto import chosen, with_choices
from wash_fl.core.mix import mix
from wash_fl.core.schedule import Schedule


@pytest.mark.parametrize("division", ["shared", "iid", "dirichlet"])
def test_a_choice_is_one_that_can_be_drawn_and_is_final(division):
    found = with_choices(RunConfig.from_mapping({"division": division}))
    exchange = found.exchange
    assert (exchange.schedule, exchange.mix, exchange.topology) == ("size-aware", "average", "all")
    assert found.task.division == division
    assert with_choices(found) == found
    Schedule(found.exchange)


def test_the_papers_setting_is_one_option_away():
    found = chosen(ExchangeConfig(schedule="paper"))
    assert (found.schedule, found.mix, found.topology) == ("decreasing", "shuffle", "pairs")
    assert chosen(ExchangeConfig(schedule="paper", mix="average")).mix == "average"


@pytest.mark.parametrize(
    ("options", "mix", "topology"),
    [
        ({"mix": "shuffle"}, "shuffle", "pairs"),
        ({"mix": "average"}, "average", "all"),
        ({"mix": "average", "topology": "pairs"}, "average", "pairs"),
        ({"topology": "pairs"}, "average", "pairs"),
        ({"topology": "all"}, "average", "all"),
        ({"topology": "all", "schedule": "paper"}, "average", "all"),
        ({"topology": "permutation"}, "shuffle", "permutation"),
        ({"average_from": 0.75}, "shuffle", "pairs"),
        ({"average_from": 0.75, "topology": "permutation"}, "shuffle", "permutation"),
    ],
    ids=str,
)
def test_what_is_open_is_chosen_to_go_with_what_is_said(options, mix, topology):
    found = chosen(ExchangeConfig(**options))
    assert (found.mix, found.topology) == (mix, topology)
    assert chosen(found) == found


def test_what_is_said_is_not_chosen():
    assert chosen(ExchangeConfig(mix="shuffle")).mix == "shuffle"
    assert chosen(ExchangeConfig(schedule="constant")).schedule == "constant"


@pytest.mark.parametrize("schedule", ["auto", "paper"])
def test_a_schedule_that_is_not_chosen_draws_nothing(schedule):
    with pytest.raises(ValueError, match=rf"schedule = {schedule} .*chosen"):
        Schedule(ExchangeConfig(schedule=schedule))


def test_a_mix_that_is_not_chosen_mixes_nothing():
    with pytest.raises(ValueError, match=r"mix = auto .*chosen"):
        mix([], seed=0, exchange=1, config=ExchangeConfig())
