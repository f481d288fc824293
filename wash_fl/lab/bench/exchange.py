"""What an exchange costs a member, beside the training step it is added to."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.recipes import RECIPES
from wash_fl.core.schedule import Schedule
from wash_fl.member.parameters import FlatViews, exchanged_parameters, gather, model_layout, scatter
from wash_fl.member.threads import one_thread
from wash_fl.tasks.task import import_extra

P, BATCH, REPEATS = 0.001, 32, 22
RUN_LENGTH: Final = int(RECIPES["frugal"].options["run_length"])
SIZES = (1_000_000, 10_000_000, 100_000_000)
FIXED_COUNT = 10_000
TENSORS = 60


def run() -> dict[str, Any]:
    """Return milliseconds of CPU of a ResNet-18 step and of the parts of an exchange at p = 0.001.

    Draw, gather and scatter are those of a run that averages, in runs of ``run_length`` values;
    ``one_by_one`` has the same of values that are drawn one by one, and ``ratio`` what the three take
    together over what they take then. All are means over exchanges (the step's is a median) that alternate
    with steps in one process with one thread, so that a change of the machine's speed meets both.
    """
    with one_thread():
        return _resnet() | _draws()


def _resnet() -> dict[str, Any]:
    torchvision = import_extra("torchvision", "bench exchange")
    model = torchvision.models.resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    layout = model_layout(model)
    draws = {length: Draw(1, layout, _schedule(P, length)) for length in (1, RUN_LENGTH)}
    inputs, targets = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    parameters = [each for _, each in exchanged_parameters(model)]
    views = FlatViews(parameters)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(nn.functional.cross_entropy(model(inputs), targets))
        optimizer.step()

    def exchange(draw: Draw, number: int) -> dict[str, float]:
        """Return what the parts of an exchange take, done as a member does them."""
        times = {"draw": _milliseconds(lambda: draw.selection(number))}
        selection = draw.selection(number)
        times["gather"] = _milliseconds(lambda: gather(parameters, selection, views))
        values = gather(parameters, selection, views)
        times["scatter"] = _milliseconds(lambda: scatter(parameters, selection, values, views))
        return times

    steps: list[float] = []
    parts: dict[int, list[dict[str, float]]] = {length: [] for length in draws}
    step()
    for number in range(1, REPEATS + 1):
        for length, draw in draws.items():
            # The weights are where a step leaves them, for both.
            steps.append(_milliseconds(step))
            parts[length].append(exchange(draw, number))
    single, mine = (_means(parts[length]) for length in draws)
    step_ms = statistics.median(steps)
    return {
        "step_ms": step_ms,
        **mine,
        "share_of_step": sum(mine.values()) / step_ms,
        "run_length": RUN_LENGTH,
        "one_by_one": single,
        "ratio": sum(mine.values()) / sum(single.values()),
        "values": draws[1].count(1),
        "parameters": layout.size,
    }


def _schedule(p: float, length: int) -> Schedule:
    return Schedule(ExchangeConfig(p=p, schedule="constant", run_length=length))


def _means(times: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each part: several exchanges may be drawn with the first of them."""
    return {f"{name}_ms": statistics.fmean(each[name] for each in times) for name in times[0]}


def _draws() -> dict[str, Any]:
    """Return the cost of drawing one by one by number of parameters: at p, and at a fixed number selected."""
    return {
        "sizes": list(SIZES),
        "draw_ms_by_size": [_draw_milliseconds(size, P) for size in SIZES],
        "fixed_count_draw_ms": [_draw_milliseconds(size, FIXED_COUNT / size) for size in SIZES],
    }


def _draw_milliseconds(size: int, p: float) -> float:
    layout = layout_of([(f"tensor{index}", (size // TENSORS,)) for index in range(TENSORS)])
    draw = Draw(1, layout, _schedule(p, 1))
    return statistics.median(
        _milliseconds(partial(draw.selection, number)) for number in range(1, 2 * REPEATS)
    )


def _milliseconds(action: Callable[[], object]) -> float:
    begin = time.thread_time()
    action()
    return 1000.0 * (time.thread_time() - begin)
