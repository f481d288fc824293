"""A scheduler that is handed over gives the rates of one process; one that is not is noticed."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from wash_fl.config import ExchangeConfig
from wash_fl.errors import ConfigError
from wash_fl.member.durable import DurableMember
from wash_fl.member.pace import Round
from wash_fl.member.parameters import model_layout
from wash_fl.member.schedules import check_handed_over, none_is_made
from wash_fl.member.state import FileStore
from wash_fl.protocol.terms import Terms, run_identity

ROUNDS, STEPS = 6, 3
TERMS = Terms(
    run_name="schedules",
    seed=4,
    members=2,
    rounds=ROUNDS,
    local_steps=STEPS,
    exchange=ExchangeConfig(p=0.5, mix="shuffle", schedule="constant"),
)


class Factor:
    """A multiplier with a state of its own, which LambdaLR keeps."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, epoch: int) -> float:
        self.calls += 1
        return 0.9**self.calls


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda opt: LambdaLR(opt, lambda epoch: 0.95**epoch),
    "LambdaLR with a state": lambda opt: LambdaLR(opt, Factor()),
    "MultiplicativeLR": lambda opt: MultiplicativeLR(opt, lambda epoch: 0.9),
    "StepLR": lambda opt: StepLR(opt, 4, 0.1),
    "MultiStepLR": lambda opt: MultiStepLR(opt, [2, 2, 5, 11], 0.5),
    "ConstantLR": lambda opt: ConstantLR(opt, 0.25, 7),
    "LinearLR": lambda opt: LinearLR(opt, 0.1, 1.0, 10),
    "ExponentialLR": lambda opt: ExponentialLR(opt, 0.9),
    "PolynomialLR": lambda opt: PolynomialLR(opt, 16, 2.0),
    "CosineAnnealingLR": lambda opt: CosineAnnealingLR(opt, ROUNDS * STEPS),
    "CosineAnnealingWarmRestarts": lambda opt: CosineAnnealingWarmRestarts(opt, 4, 2),
    "CyclicLR": lambda opt: CyclicLR(opt, 0.01, 0.5, step_size_up=4, mode="triangular2"),
    "CyclicLR with a function": lambda opt: CyclicLR(
        opt, 0.01, 0.5, step_size_up=4, scale_fn=lambda cycle: 0.5**cycle
    ),
    "OneCycleLR": lambda opt: OneCycleLR(opt, 0.5, ROUNDS * STEPS),
    "ReduceLROnPlateau": lambda opt: ReduceLROnPlateau(opt, patience=1, cooldown=1),
    "SequentialLR": lambda opt: SequentialLR(
        opt, [LinearLR(opt, 0.1, 1.0, 5), CosineAnnealingLR(opt, 13)], [5]
    ),
    "ChainedScheduler": lambda opt: ChainedScheduler([ConstantLR(opt, 0.1, 4), ExponentialLR(opt, 0.9)]),
    "SWALR": lambda opt: SWALR(opt, 0.05, anneal_epochs=9),
}


def make(kind: type[Optimizer] = SGD) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    if kind is SGD:
        return model, SGD(
            [{"params": [model.weight], "lr": 2.0}, {"params": [model.bias]}], lr=1.0, momentum=0.9
        )
    return model, Adam(model.parameters(), lr=1.0)


def steps(optimizer: Optimizer, schedule: Any, first: int, count: int) -> list[Any]:
    """Take steps as a training loop does; return what each was taken with."""
    used = []
    for step in range(first, first + count):
        optimizer.step()
        used.append(
            [
                (group["lr"], group.get("momentum"), list(group.get("betas", ())))
                for group in optimizer.param_groups
            ]
        )
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step([3.0, 2.0, 2.5, 2.5, 2.5, 1.0, 4.0][step % 7])
        else:
            schedule.step()
    return used


def test_every_scheduler_of_pytorch_is_here() -> None:
    kinds = {each for each in lr_scheduler.__all__ if each != "LRScheduler"}
    assert kinds <= SCHEDULERS.keys()
    assert {type(SCHEDULERS[name](make()[1])).__name__ for name in kinds} == kinds


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_rates_over_rounds_of_new_processes_are_those_of_one(
    tmp_path: Path, name: str, kind: type[Optimizer]
) -> None:
    _, optimizer = make(kind)
    right = steps(optimizer, SCHEDULERS[name](optimizer), 0, ROUNDS * STEPS)
    assert len({str(each) for each in right}) > 1

    used: list[Any] = []
    run = run_identity(TERMS)
    for number in range(ROUNDS + 1):
        model, optimizer = make(kind)
        schedule = SCHEDULERS[name](optimizer)
        store = FileStore(tmp_path, run, 1)
        member = DurableMember(model, optimizer, index=1, run=run, store=store, states={"schedule": schedule})
        if number == 0:
            member.start(TERMS, model_layout(model), model.state_dict())
            continue

        def work(now: Round, optimizer: Optimizer = optimizer, schedule: Any = schedule) -> None:
            used.extend(steps(optimizer, schedule, now.first_step, now.steps))

        check_handed_over(optimizer, {"schedule": schedule}, work)
        member.train(number, b"", work)
    assert used == right


# One that is not handed over


class Nothing:
    """Has a state, and nothing to do with the optimizer."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        return


class Own:
    """A scheduler that is not PyTorch's, but marks the optimizer as those do."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        return


def idle(now: Round) -> None:
    """Train nothing."""


@pytest.mark.parametrize("others", [{}, {"other": Nothing()}])
@pytest.mark.parametrize("name", [*SCHEDULERS, "Own"])
def test_one_that_is_attached_and_not_handed_over_is_refused(refused: Any, name: str, others: Any) -> None:
    _, optimizer = make()
    schedule = {**SCHEDULERS, "Own": Own}[name](optimizer)

    def train(now: Round) -> None:
        schedule.step()

    with refused(ConfigError, "a learning-rate scheduler", 'Participant(..., state={"schedule": schedule})'):
        check_handed_over(optimizer, others, train)
    check_handed_over(optimizer, {"any name": schedule, **others}, train)


class Trainer:
    def __init__(self, optimizer: Optimizer, schedule: Any) -> None:
        self.optimizer, self.tools = optimizer, {"schedules": [schedule]}

    def train(self, now: Round, *more: Any) -> None:
        """Train."""


_global: Any = None


def _train_with_the_global(now: Round) -> None:
    def inner() -> None:
        _global.step(1.0)

    inner()


@pytest.mark.parametrize("how", ["method", "partial", "keyword", "default", "global", "helper", "lambda"])
def test_one_that_leaves_no_mark_is_found_by_what_the_loop_refers_to(
    refused: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    _, optimizer = make()
    schedule = ReduceLROnPlateau(optimizer)
    trainer = Trainer(optimizer, schedule)
    monkeypatch.setitem(globals(), "_global", schedule)

    def helper() -> None:
        schedule.step(1.0)

    loops: dict[str, Callable[..., Any]] = {
        "method": trainer.train,
        "partial": functools.partial(idle, schedule),
        "keyword": functools.partial(idle, schedule=schedule),
        "default": lambda now, schedule=schedule: None,
        "global": _train_with_the_global,
        "helper": lambda now: helper(),
        "lambda": lambda now: schedule.step(1.0),
    }
    with refused(ConfigError, "(ReduceLROnPlateau) is attached to the optimizer", "hand it over"):
        check_handed_over(optimizer, {}, loops[how])
    check_handed_over(optimizer, {"schedule": schedule}, loops[how])
    _, other = make()
    check_handed_over(other, {}, loops[how])


def test_one_within_another_that_is_handed_over_is_kept_with_it_and_not_the_other_way_round(
    refused: Any,
) -> None:
    _, optimizer = make()
    inner = [LinearLR(optimizer, 0.1, 1.0, 5), CosineAnnealingLR(optimizer, 13)]
    outer = SequentialLR(optimizer, inner, [5])  # type: ignore[arg-type]

    def train(now: Round) -> None:
        outer.step()
        assert inner

    check_handed_over(optimizer, {"outer": outer}, train)
    with refused(ConfigError, "(SequentialLR) is attached"):
        check_handed_over(optimizer, {"one": inner[0], "two": inner[1]}, train)


def test_one_in_a_wrapper_that_is_handed_over_is_kept_with_it() -> None:
    class Warm(Nothing):
        def __init__(self, schedule: LRScheduler) -> None:
            self.inner = [schedule]

    _, optimizer = make()
    warm = Warm(StepLR(optimizer, 1))
    check_handed_over(optimizer, {"warm": warm}, lambda now: warm)


def test_a_loop_that_sets_its_own_rate_is_let_be(refused: Any) -> None:
    _, optimizer = make()

    def train(now: Round) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.1

    check_handed_over(optimizer, {}, train)
    with none_is_made(optimizer, {}):
        train(None)  # type: ignore[arg-type]


def test_one_of_another_optimizer_is_refused_unless_that_is_kept_too(refused: Any) -> None:
    _, optimizer = make()
    _, other = make()
    schedule = StepLR(other, 1)
    with refused(ConfigError, "state['schedule'], a StepLR, belongs to another optimizer"):
        check_handed_over(optimizer, {"schedule": schedule}, idle)
    check_handed_over(optimizer, {"schedule": schedule, "other": other}, idle)
    with refused(ConfigError, "a learning-rate scheduler is attached"):
        check_handed_over(optimizer, {"other": other}, idle)


def test_one_of_an_optimizer_that_wraps_the_members_is_the_members() -> None:
    class Lookahead(Optimizer):
        def __init__(self, base: Optimizer) -> None:
            self.base, self.param_groups, self.defaults = base, base.param_groups, base.defaults

    _, optimizer = make()
    check_handed_over(Lookahead(optimizer), {"schedule": StepLR(optimizer, 1)}, idle)


def test_one_that_training_makes_in_each_round_is_refused_whatever_was_restored(refused: Any) -> None:
    for restored in (False, True):
        _, optimizer = make()
        if restored:
            optimizer.param_groups[0]["initial_lr"] = 1.0
        said = refused(ConfigError, "train() makes a learning-rate scheduler", "hand it over")
        with said, none_is_made(optimizer, {}):
            StepLR(optimizer, 1)
        # What was restored from a client that had one once is no sign of one now.
        with none_is_made(optimizer, {}):
            optimizer.step()
    _, optimizer = make()
    with none_is_made(optimizer, {"schedule": StepLR(optimizer, 1)}):
        optimizer.step()
