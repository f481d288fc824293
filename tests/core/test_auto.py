"""What `auto` stands for follows from the division; what is said stays as it is."""

import pytest

from wash_fl.config import ExchangeConfig, TaskConfig, fields
from wash_fl.core.auto import OWN, chosen
from wash_fl.core.mix import mix
from wash_fl.core.schedule import Schedule

DIVISIONS = (*fields()["division"].metadata["choices"], OWN)


@pytest.mark.parametrize("division", DIVISIONS)
def test_every_division_has_a_choice_and_a_choice_is_final(division):
    found = chosen(ExchangeConfig(), division)
    assert (found.schedule, found.mix) not in {("auto", found.mix), (found.schedule, "auto")}
    assert {chosen(found, other) for other in DIVISIONS} == {found}
    Schedule(found)


@pytest.mark.parametrize("division", DIVISIONS)
def test_the_papers_setting_is_one_option_away(division):
    found = chosen(ExchangeConfig(schedule="paper"), division)
    assert (found.schedule, found.mix) == ("decreasing", "shuffle")
    assert chosen(ExchangeConfig(schedule="paper", mix="average"), division).mix == "average"


def test_skewed_labels_are_averaged_and_equal_data_is_shuffled():
    assert chosen(ExchangeConfig(), TaskConfig().division).mix == "shuffle"
    assert chosen(ExchangeConfig(schedule="constant"), "dirichlet").mix == "average"
    assert chosen(ExchangeConfig(mix="shuffle"), "dirichlet").mix == "shuffle"


@pytest.mark.parametrize("schedule", ["auto", "paper"])
def test_a_schedule_that_is_not_chosen_draws_nothing(schedule):
    with pytest.raises(ValueError, match=rf"schedule = {schedule} .*chosen"):
        Schedule(ExchangeConfig(schedule=schedule))


def test_a_mix_that_is_not_chosen_mixes_nothing():
    with pytest.raises(ValueError, match=r"mix = auto .*chosen"):
        mix([], seed=0, exchange=1, config=ExchangeConfig())
