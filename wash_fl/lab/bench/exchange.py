"""What an exchange costs a member, beside the training step it is added to."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.schedule import Schedule
from wash_fl.member.member import Member
from wash_fl.member.parameters import exchanged_parameters, gather, scatter
from wash_fl.member.threads import one_thread
from wash_fl.tasks.task import import_extra

P, BATCH, REPEATS = 0.001, 32, 9
SIZES = (1_000_000, 10_000_000, 100_000_000)
FIXED_COUNT = 10_000
TENSORS = 60


def run() -> dict[str, Any]:
    """Return median milliseconds of a ResNet-18 step and of the parts of an exchange at p = 0.001.

    Step and exchange alternate in one process with one thread, so that a change of the machine's speed meets
    both.
    """
    with one_thread():
        return _resnet() | _draws()


def _resnet() -> dict[str, Any]:
    torchvision = import_extra("torchvision", "bench exchange")
    model = torchvision.models.resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    schedule = Schedule(ExchangeConfig(p=P, schedule="constant"))
    member = Member(model, optimizer, index=0, seed=1, schedule=schedule)
    inputs, targets = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    parameters = [each for _, each in exchanged_parameters(model)]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(nn.functional.cross_entropy(model(inputs), targets))
        optimizer.step()

    times: dict[str, list[float]] = {"step": [], "draw": [], "gather": [], "scatter": []}
    step()
    for exchange in range(1, REPEATS + 1):
        times["step"].append(_milliseconds(step))
        times["draw"].append(_milliseconds(member.draw.coordinates, exchange))
        coordinates = member.draw.coordinates(exchange)
        times["gather"].append(_milliseconds(gather, parameters, member.layout, coordinates))
        values = gather(parameters, member.layout, coordinates)
        times["scatter"].append(_milliseconds(scatter, parameters, member.layout, coordinates, values))
    median = {f"{name}_ms": statistics.median(each) for name, each in times.items()}
    cost = median["draw_ms"] + median["gather_ms"] + median["scatter_ms"]
    return {
        **median,
        "share_of_step": cost / median["step_ms"],
        "values": member.draw.count(1),
        "parameters": member.layout.size,
    }


def _draws() -> dict[str, Any]:
    """Return the cost of drawing by number of parameters: at p, and at a fixed number selected."""
    return {
        "sizes": list(SIZES),
        "draw_ms_by_size": [_draw_milliseconds(size, P) for size in SIZES],
        "fixed_count_draw_ms": [_draw_milliseconds(size, FIXED_COUNT / size) for size in SIZES],
    }


def _draw_milliseconds(size: int, p: float) -> float:
    layout = layout_of([(f"tensor{index}", (size // TENSORS,)) for index in range(TENSORS)])
    draw = Draw(1, layout, Schedule(ExchangeConfig(p=p, schedule="constant")))
    return statistics.median(_milliseconds(draw.coordinates, number) for number in range(1, 2 * REPEATS))


def _milliseconds(action: Callable[..., Any], *arguments: Any) -> float:
    begin = time.perf_counter()
    action(*arguments)
    return 1000.0 * (time.perf_counter() - begin)
