"""A member's steps are a pure function of (seed, member, step), and no example is more equal than others."""

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import TensorDataset

from wash_fl.config import RunConfig, TrainingConfig
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ConfigError
from wash_fl.member.member import Member
from wash_fl.member.pace import Round
from wash_fl.member.parameters import flatten, model_sha256
from wash_fl.member.snapshot import Progress, Snapshot
from wash_fl.member.state import FileStore
from wash_fl.member.training import (
    CALIBRATION_BATCH,
    MEMORY_FORMATS,
    LocalTraining,
    enough_for_batchnorm,
    learning_rate,
    make_optimizer,
    placed,
    resolve_device,
)
from wash_fl.protocol.terms import Terms
from wash_fl.tasks import Task, initial_model, load_task, member_examples


def training_of(task: Task, member: int = 0, size: int | None = None, **options: Any) -> LocalTraining:
    config = RunConfig.from_mapping({"learning-rate": 0.1, "batch-size": 8, "recipe": "none", **options})
    if size is None:
        return LocalTraining(config, task, member_examples(task, config, member), member)
    examples = TensorDataset(torch.arange(size, dtype=torch.float32), torch.zeros(size, dtype=torch.int64))
    return LocalTraining(config, task, examples, member)


def rows_of(training: LocalTraining, first: int, steps: int) -> list[int]:
    return [int(row) for batch in training.batches(first, steps) for row in batch]


# Batches


@given(size=st.integers(1, 40), batch=st.integers(1, 50), member=st.integers(0, 3), seed=st.integers(0, 9))
def test_every_epoch_has_every_example_exactly_once_however_small_the_shard(
    make_task, size, batch, member, seed
):
    training = training_of(make_task(), member, size, **{"batch-size": batch, "seed": seed})
    epochs = 4
    rows = rows_of(training, 0, -(-epochs * size // batch))[: epochs * size]
    for begin in range(0, len(rows), size):
        assert sorted(rows[begin : begin + size]) == list(range(size))
    assert all(len(each) == batch for each in training.batches(0, 5))


@given(first=st.integers(0, 30), steps=st.integers(0, 12), size=st.integers(1, 30))
def test_batches_from_the_middle_are_those_of_the_whole_run(make_task, first, steps, size):
    training = training_of(make_task(), 1, size)
    assert rows_of(training, first, steps) == rows_of(training, 0, first + steps)[first * 8 :]


def test_members_epochs_and_seeds_have_orders_of_their_own(make_task):
    orders = [
        tuple(rows_of(training_of(make_task(), member, 40, seed=seed), first, 5))
        for member in range(3)
        for seed in (0, 1)
        for first in (0, 5)  # 5 batches of 8 are an epoch of 40
    ]
    assert len(set(orders)) == len(orders)


# Steps


def member_of(task: Task, index: int, config: RunConfig) -> Member:
    model = initial_model("default", task, config.training.seed)
    return Member(
        model,
        make_optimizer(model, config.training),
        index=index,
        seed=config.training.seed,
        schedule=Schedule.of(config),
    )


def terms_of(config: RunConfig) -> Terms:
    training = config.training
    return Terms(
        run_name="",
        seed=training.seed,
        members=training.members,
        rounds=training.rounds,
        local_steps=training.local_steps,
        exchange=config.exchange,
    )


def disturb_global_generators(seed: int) -> None:
    torch.manual_seed(seed)
    torch.rand(seed)
    np.random.seed(seed)  # noqa: NPY002 - the point is the global state
    random.seed(seed)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("augment", ["none", "grid"])
def test_ten_steps_are_five_and_five_through_the_disk_with_dropout_and_augmentation(
    tmp_path, make_task, optimizer, augment
):
    task = make_task()
    options: dict[str, Any] = {"optimizer": optimizer, "augment": augment, "rounds": 2, "local-steps": 5}
    if augment == "grid":
        pytest.importorskip("torchvision")
        task = load_task("digits")
        options |= {"train-examples": 100}
    for index in (0, 2):
        training = training_of(task, index, **options)
        whole = member_of(task, index, training.config)
        assert augment == "grid" or any(isinstance(each, nn.Dropout) for each in whole.model.modules())
        disturb_global_generators(1)
        training.run(whole.model, whole.optimizer, 0, 10)

        run = bytes(16)
        progress = Progress(
            run=run.hex(), member=index, layout=whole.layout.fingerprint.hex(), settings="", initial=""
        )
        store = FileStore(tmp_path, run, index)
        store.save(Snapshot.of(member_of(task, index, training.config), progress))
        for first in (0, 5):
            disturb_global_generators(first + 2)
            part = member_of(task, index, training.config)
            snapshot = store.load()
            assert snapshot is not None
            snapshot.restore(part)
            training_of(task, index, **options).run(part.model, part.optimizer, first, 5)
            store.save(Snapshot.of(part, progress))
        assert model_sha256(part.model) == model_sha256(whole.model)


@pytest.mark.parametrize("changed", [{"member": 1}, {"seed": 1}, {"first": 1}])
def test_dropout_is_another_for_another_member_seed_or_step(make_task, changed):
    task = make_task(train=1)  # of a single example there is one order only

    def after(member: int = 0, seed: int = 0, first: int = 0) -> str:
        training = training_of(task, member, **{"seed": seed, "batch-size": 1})
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 20), nn.Dropout(0.5), nn.Linear(20, 3))
        training.run(model, SGD(model.parameters(), lr=0.1), first, 1)
        # What was dropped has no gradient; the weights would differ by the learning rate alone.
        return str((model[2].weight.grad[0] != 0).tolist())

    assert after() == after()
    assert after() != after(**changed)


def test_a_model_that_was_evaluated_is_trained_in_training_mode(make_task):
    task = make_task()
    models = [initial_model("default", task, 0) for _ in range(2)]
    models[1].eval()
    for model in models:
        training_of(task).run(model, SGD(model.parameters(), lr=0.1), 0, 2)
    assert model_sha256(models[0]) == model_sha256(models[1])
    assert all(module.training for module in models[1].modules())


def test_the_loss_is_the_mean_over_the_steps_and_falls(make_task):
    task = make_task()
    training = training_of(task, **{"rounds": 1, "local-steps": 60})
    model = initial_model("default", task, 0)
    optimizer = make_optimizer(model, training.config.training)
    each = [training.run(model, optimizer, step, 1)["loss"] for step in range(60)]
    again = initial_model("default", task, 0)
    optimizer = make_optimizer(again, training.config.training)
    assert training.run(again, optimizer, 0, 60)["loss"] == pytest.approx(np.mean(each), rel=1e-6)
    assert np.mean(each[-10:]) < 0.8 * np.mean(each[:10])
    assert training.run(again, optimizer, 60, 0) == {}


def test_each_member_has_an_augmentation_of_its_own_and_soft_targets_reach_the_loss():
    pytest.importorskip("torchvision")
    task = load_task("digits")
    seen: list[torch.Tensor] = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(targets)
        return nn.functional.cross_entropy(outputs, targets)

    spied = Task(**{**vars(task), "loss": loss})
    results = []
    for member in range(3):
        training = training_of(spied, member, **{"augment": "grid", "train-examples": 64})
        model = initial_model("default", task, 0)
        metrics = training.run(model, make_optimizer(model, training.config.training), 0, 2)
        assert math.isfinite(metrics["loss"])
        results.append(model_sha256(model))
    assert len(set(results)) == 3
    assert {tuple(targets.shape) for targets in seen} == {(8, 10)}
    assert all(torch.allclose(targets.sum(1), torch.ones(8)) for targets in seen)


# The learning rate


def test_the_cosine_begins_and_ends_where_the_options_say():
    config = TrainingConfig(learning_rate=0.3, learning_rate_end=0.1)
    rates = [learning_rate(config, step / 100) for step in range(101)]
    assert rates[0] == 0.3
    assert rates[50] == pytest.approx(0.2)
    assert rates[25] == pytest.approx(0.1 + 0.2 * (0.5 + math.sqrt(0.125)))
    assert rates[100] == pytest.approx(0.1) and rates[99] > 0.1
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert learning_rate(config, 10.0) == pytest.approx(0.1), "and stays there"


def test_a_step_is_taken_at_its_rate_in_every_group(make_task):
    task = make_task()
    training = training_of(task, **{"rounds": 2, "local-steps": 10})
    model = initial_model("default", task, 0)
    optimizer = SGD([{"params": [each]} for each in model.parameters()], lr=9.0)
    rates: list[list[float]] = []
    optimizer.register_step_pre_hook(
        lambda stepped, *_: rates.append([group["lr"] for group in stepped.param_groups])
    )
    training.run(model, optimizer, 7, 3)
    wanted = [learning_rate(training.config.training, step / 20) for step in (7, 8, 9)]
    assert rates == [[rate] * len(optimizer.param_groups) for rate in wanted]
    # By seconds it follows the rounds, of which this is the second of two, in steps of this device's own.
    rates.clear()
    training.run(model, optimizer, 7, 4, lambda step: (1 + step / 4) / 2)
    wanted = [learning_rate(training.config.training, progress) for progress in (0.5, 0.625, 0.75, 0.875)]
    assert rates == [[rate] * len(optimizer.param_groups) for rate in wanted]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_by_steps_a_rounds_progress_gives_the_same_bits_as_the_steps_numbers(make_task, optimizer):
    task = make_task()
    training = training_of(task, **{"rounds": 7, "local-steps": 3, "optimizer": optimizer})
    results = []
    for by_round in (True, False):
        member = member_of(task, 0, training.config)
        for number in range(1, 8):
            now = Round(number, (number - 1) * 3, 3, terms_of(training.config))
            progress = (now.progress,) if by_round else ()
            training.run(member.model, member.optimizer, now.first_step, now.steps, *progress)
        results.append(model_sha256(member.model))
    assert results[0] == results[1]


# BatchNorm and a single example


def test_a_batch_too_small_for_batchnorm_is_refused_in_terms_of_the_options(make_task, refused):
    task = make_task()  # its model has a BatchNorm1d
    training = training_of(task, **{"batch-size": 1})
    model = initial_model("default", task, 0)
    optimizer = make_optimizer(model, training.config.training)
    with refused(ConfigError, "one example", "BatchNorm", "batch-size = 2"):
        training.run(model, optimizer, 0, 1)
    # One example in a batch of two is two values.
    two = training_of(task, size=None, **{"batch-size": 2, "train-examples": 1})
    assert math.isfinite(two.run(model, optimizer, 0, 1)["loss"])


def test_other_errors_of_a_model_stay_what_they_are():
    with pytest.raises(ValueError, match="mine") as caught, enough_for_batchnorm("batch-size"):
        raise ValueError("mine")
    assert type(caught.value) is ValueError


# What the options ask for


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adam", Adam), ("adamw", AdamW)])
def test_the_optimizer_is_the_one_asked_for_over_what_is_trainable(name, kind):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad = False
    config = TrainingConfig(optimizer=name, learning_rate=0.25, momentum=0.75, weight_decay=0.125)
    optimizer: Optimizer = make_optimizer(model, config)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert name != "sgd" or group["momentum"] == 0.75
    assert [id(each) for each in group["params"]] == [
        id(each) for each in model.parameters() if each.requires_grad
    ]


@pytest.mark.parametrize(
    ("there", "auto"), [((), "cpu"), (("cuda",), "cuda"), (("mps",), "mps"), (("mps", "cuda"), "cuda")]
)
def test_a_device_that_is_not_there_is_refused_and_auto_takes_what_is(monkeypatch, refused, there, auto):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert resolve_device("auto") == torch.device(auto)
    for name in ("cuda", "mps", "cpu"):
        if name in there or name == "cpu":
            assert resolve_device(name) == torch.device(name)
        else:
            with refused(ConfigError, f"device = {name!r}", "use auto, or one of", "cpu"):
                resolve_device(name)


# Memory format


def lying_as_channels_last(model: nn.Module) -> list[bool]:
    """Note of everything that convolutions, norms and pools put out from now on how it lies."""
    seen: list[bool] = []

    def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        seen.append(output.is_contiguous(memory_format=torch.channels_last))

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)):
            module.register_forward_hook(note)
    return seen


def test_channels_last_is_how_activations_lie_and_gives_the_same_up_to_rounding():
    task = load_task("digits")
    trained = {}
    for memory_format in MEMORY_FORMATS:
        config = RunConfig.from_mapping({"memory-format": memory_format, "train-examples": 64})
        model = placed(initial_model("default", task, 0), config.training)
        seen = lying_as_channels_last(model)
        training = LocalTraining(config, task, member_examples(task, config, 0), 0)
        training.run(model, make_optimizer(model, config.training), 0, 3)
        assert len(seen) == 3 * 8
        assert all(seen) if memory_format == "channels-last" else not any(seen)
        trained[memory_format] = flatten(list(model.parameters()))
    one, other = trained.values()
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


# Calibration


@pytest.mark.parametrize(("size", "asked", "given"), [(600, 100, 100), (600, 2048, 600), (3, 2048, 3)])
def test_calibration_takes_so_many_examples_each_once_in_even_batches(make_task, size, asked, given):
    batches = list(training_of(make_task(), 0, size, **{"calibration-examples": asked}).calibration())
    rows = torch.cat(batches).tolist()
    assert len(rows) == len(set(rows)) == given
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= CALIBRATION_BATCH and max(sizes) - min(sizes) <= 1


def test_members_calibrate_on_choices_of_their_own_that_repeat(make_task):
    def chosen(member: int) -> list[float]:
        training = training_of(make_task(), member, 600, **{"calibration-examples": 50})
        return torch.cat(list(training.calibration())).tolist()

    assert chosen(0) == chosen(0)
    assert sorted(chosen(0)) != sorted(chosen(1))


def test_calibration_is_not_augmented():
    task = load_task("digits")
    plain, grid = (
        training_of(task, 0, **{"augment": augment, "train-examples": 64}) for augment in ("none", "grid")
    )
    assert torch.equal(torch.cat(list(plain.calibration())), torch.cat(list(grid.calibration())))
