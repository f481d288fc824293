"""What a loop keeps goes with its member through rounds, crashes and new starts, on the round plane."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR
from torch.optim.swa_utils import AveragedModel

from wash_fl.errors import RunError
from wash_fl.faults import points
from wash_fl.faults.plan import FaultPlan
from wash_fl.faults.points import Killed
from wash_fl.flower.client import Participant, Round, member_index
from wash_fl.protocol.commands import RoundEnded

from fleet import Fleet, make_model

STEPS = 3


def right(first: int, last: int) -> list[float]:
    """Return the rates of steps ``first`` to ``last - 1`` in one process."""
    optimizer = torch.optim.SGD(make_model().parameters(), lr=0.1)
    schedule = StepLR(optimizer, 4, 0.1)
    rates = []
    for _ in range(last):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates[first:]


class Scheduled(Fleet):
    """Members that step a scheduler, a counter and an average; how they are handed over is the test's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rates: dict[int, dict[int, list[float]]] = {member: {} for member in range(self.members)}
        self.averages: dict[tuple[int, int], int] = {}
        self.hand_over: Any = lambda schedule, average: {"schedule": schedule, "average": average}
        self.in_train = False
        self.catch_up = False

    def bring(self, context: Context) -> Participant:
        brought = super().bring(context)
        member, optimizer = member_index(context), brought.optimizer
        average = AveragedModel(brought.model)
        made: list[LRScheduler] = [] if self.in_train else [StepLR(optimizer, 4, 0.1)]

        def train(now: Round) -> dict[str, float] | None:
            metrics = brought.train(now)
            schedule = made[0] if made else StepLR(optimizer, 4, 0.1)
            while self.catch_up and schedule.last_epoch < now.first_step:
                schedule.step()
            rates = self.rates[member][now.number] = []
            for _ in range(now.steps):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                schedule.step()
                average.update_parameters(brought.model)
            self.averages[member, now.number] = int(average.n_averaged)
            return metrics

        state = self.hand_over(made[0] if made else None, average)
        return Participant(**{**vars(brought), "train": train, "state": state})

    def strategy(self, **options: Any) -> Any:
        return super().strategy(**{"local_steps": STEPS, **options})


def by_round(fleet: Scheduled, member: int) -> list[float]:
    return [rate for _, rates in sorted(fleet.rates[member].items()) for rate in rates]


def test_the_rates_and_the_average_are_those_of_one_process(tmp_path: Path) -> None:
    fleet = Scheduled(tmp_path)
    fleet.run()
    for member in range(4):
        assert by_round(fleet, member) == right(0, 6 * STEPS)
        assert [fleet.averages[member, number] for number in range(1, 7)] == [3, 6, 9, 12, 15, 18]


@pytest.mark.parametrize("at", ["asked", "trained", "saved"])
def test_a_member_or_a_server_that_is_killed_changes_no_rate(tmp_path: Path, at: str) -> None:
    fleet = Scheduled(tmp_path)
    plan = FaultPlan.parse(f"kill member=1 exchange=3 at={at}; kill server exchange=4 at=settled")
    for _ in range(2):
        try:
            with points.installed(plan):
                fleet.run(journal=tmp_path / "journal.sqlite")
        except Killed:
            continue
    for member in range(4):
        assert by_round(fleet, member) == right(0, 6 * STEPS)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("catch_up", [False, True])
def test_one_that_starts_anew_starts_with_them_as_they_are_made_or_catches_up(
    tmp_path: Path, catch_up: bool
) -> None:
    def lose(report: RoundEnded) -> None:
        if report.round == 2:
            for path in fleet.state_files():
                if "member-1" in str(path) and path.parent.exists():
                    shutil.rmtree(path.parent)

    fleet = Scheduled(tmp_path, on_round=lose)
    fleet.catch_up = catch_up
    fleet.run()
    # It lost its state after round 2, was noticed in round 3, and was given weights in round 4.
    assert sorted(fleet.rates[1]) == [1, 2, 5, 6]
    after = fleet.rates[1][5] + fleet.rates[1][6]
    assert after == (pytest.approx(right(12, 18)) if catch_up else right(0, 6))
    assert fleet.averages[1, 5] == 3


def test_a_scheduler_that_is_not_handed_over_ends_the_run_with_what_to_write(tmp_path: Path) -> None:
    fleet = Scheduled(tmp_path)
    fleet.hand_over = lambda schedule, average: {"average": average}
    with pytest.raises(RunError) as caught:
        fleet.run()
    said = str(caught.value)
    assert said.startswith("0 of 4 members joined: members 0, 1, 2, 3: a learning-rate scheduler")
    assert 'Participant(..., state={"schedule": schedule})' in said and fleet.trained == []


def test_a_scheduler_that_train_makes_ends_the_run_in_its_first_round(tmp_path: Path) -> None:
    fleet = Scheduled(tmp_path)
    fleet.in_train = True
    fleet.hand_over = lambda schedule, average: {"average": average}
    with pytest.raises(RunError) as caught:
        fleet.run()
    said = str(caught.value)
    assert said.startswith(
        "no member took part in round 1: members 0, 1, 2, 3: train() makes a learning-rate"
    )
    assert 'state={"schedule": schedule}' in said


@pytest.mark.parametrize(
    ("hand_over", "said"),
    [
        (lambda schedule, average: {"schedule": schedule.state_dict()}, "state['schedule'] is a dict"),
        (lambda schedule, average: {"schedule": schedule, "model": average.module}, ""),
        (lambda schedule, average: schedule, "state is a StepLR"),
        (
            lambda schedule, average: {"it": schedule, "odd": LambdaLR(schedule.optimizer, _Odd())},
            "state['odd']['lr_lambdas'][0]['call'] is of type builtins.builtin_function_or_method",
        ),
    ],
)
def test_what_cannot_be_kept_is_said_when_members_join(tmp_path: Path, hand_over: Any, said: str) -> None:
    fleet = Scheduled(tmp_path)
    fleet.hand_over = hand_over
    if not said:
        fleet.run()
        return
    with pytest.raises(RunError) as caught:
        fleet.run()
    assert f"members 0, 1, 2, 3: {said}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


class _Odd:
    """A multiplier that holds what cannot be kept."""

    def __init__(self) -> None:
        self.call = abs

    def __call__(self, epoch: int) -> float:
        return 1.0


def test_a_client_that_is_changed_in_the_middle_of_a_run_is_refused(tmp_path: Path) -> None:
    def change(report: RoundEnded) -> None:
        if report.round == 2:
            fleet.hand_over = lambda schedule, average: {"schedule": schedule}

    fleet = Scheduled(tmp_path, on_round=change)
    with pytest.raises(
        RunError, match=r"keeps 'average', 'schedule' besides model and optimizer.*hands over 'sch"
    ):
        fleet.run()
