"""The program that takes a few training steps and says how it went: ``python -m wash_fl.doctor.probe JSON``.

It is a process of its own, so that what a step needs is measured alone, and so that the system may kill it.
It imports what Flower's ClientApp imports, and trains as a member does. Each line that it prints is a JSON
object; ``at`` says what it does next, so that whoever reads them knows where it died.
"""

import importlib
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wash_fl.config import RunConfig
from wash_fl.errors import DataError, WashError
from wash_fl.system.peak import private, resident_peak

if TYPE_CHECKING:
    from torch.utils.data import TensorDataset

    from wash_fl.tasks.task import Examples, Task

STEPS: Final = 5
ENOUGH_SECONDS: Final = 60.0
"""After so long no further step is begun: a slow device is known for slow."""

CLASSES: Final = 10
"""Of stand-in data."""


def main(request: dict[str, Any]) -> int:
    """Take the steps.

    Parameters
    ----------
    request : dict
        ``options``, a run's; ``member``, whose data is used; and ``stand_in``, the shape of random inputs to
        train on instead of a task's data, or null.

    Returns
    -------
    int
        An exit status.
    """
    _be_the_first_to_be_killed()
    try:
        _train(RunConfig.from_mapping(request["options"]), request["member"], request["stand_in"])
    except WashError as error:
        _say(refused=str(error))
        return 1
    except (MemoryError, RuntimeError) as error:  # torch says in a RuntimeError that it got no memory
        text = " ".join(str(error).split())[:300]
        if isinstance(error, MemoryError) or "memory" in text:
            _say(no_memory=text or "MemoryError")
        else:
            _say(refused=f"the model cannot be trained on such inputs ({text}).")
        return 1
    return 0


def _train(config: RunConfig, member: int, stand_in: list[int] | None) -> None:
    _say(at="importing PyTorch and Flower")
    import torch

    torch.set_num_threads(1)
    for module in ("flwr.clientapp", "flwr.supernode.cli"):  # as the program flwr-clientapp does
        with suppress(ImportError):
            importlib.import_module(module)
    from wash_fl.member.training import LocalTraining, make_optimizer, placed
    from wash_fl.tasks.models import build_model

    _say(at="building the model")
    task = _task(config, stand_in)
    model = placed(build_model(config.task.model, task), config.training)
    optimizer = make_optimizer(model, config.training)
    _say(parameters=sum(each.numel() for each in model.parameters()))
    _say(at="reading the task's data")
    examples = _examples(config, task, member, stand_in)
    _say(at="training")
    training = LocalTraining(config, task, examples, member)
    began = time.perf_counter()
    seconds: list[float] = []
    for step in range(1 + STEPS):
        before = time.perf_counter()
        training.run(model, optimizer, step, 1)
        seconds.append(time.perf_counter() - before)
        if time.perf_counter() - began > ENOUGH_SECONDS:
            break
    # The first one warms up, unless it alone took all the time.
    _say(seconds=seconds[1:] or seconds, peak=resident_peak(), private=private())


def _task(config: RunConfig, stand_in: list[int] | None) -> "Task":
    from torch.nn.functional import cross_entropy

    from wash_fl.tasks.task import Task, load_task

    if stand_in is None:
        return load_task(config.task.task)

    def nothing() -> Any:
        raise DataError("stand-in data belongs to no task.")

    return Task(
        name="stand-in",
        classes=tuple(f"class {index}" for index in range(CLASSES)),
        input_shape=tuple(stand_in),
        preprocessing="",
        model=nothing,
        train_data=nothing,
        test_data=nothing,
        loss=cross_entropy,
    )


def _examples(config: RunConfig, task: "Task", member: int, stand_in: list[int] | None) -> "Examples":
    from wash_fl.tasks.division import member_examples

    if stand_in is None:
        try:
            examples = member_examples(task, config, member)
            _say(examples=len(examples))  # type: ignore[arg-type]
            return examples
        except DataError as error:
            _say(no_data=str(error))
    return _random(config.training.batch_size, task)


def _random(size: int, task: "Task") -> "TensorDataset":
    import torch
    from torch.utils.data import TensorDataset

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, *task.input_shape, generator=generator)
    return TensorDataset(inputs, torch.randint(len(task.classes), (size,), generator=generator))


def _say(**facts: Any) -> None:
    # Whatever the task's own code prints stays on lines of its own.
    print("\n" + json.dumps(facts), flush=True)


def _be_the_first_to_be_killed() -> None:
    """Have the system kill this program, and no other, when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
