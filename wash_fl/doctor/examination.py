"""All checks of a machine, the quick ones first."""

from collections.abc import Iterator
from pathlib import Path

from wash_fl.checks.finding import Finding
from wash_fl.config import RunConfig
from wash_fl.doctor import machine, software
from wash_fl.doctor.clock import clock
from wash_fl.doctor.model_file import model_file
from wash_fl.doctor.superlink import Address, reach
from wash_fl.doctor.training import training
from wash_fl.files import members_folder


def examine(
    config: RunConfig,
    *,
    superlink: Address | None = None,
    authority: Path | None = None,
    member: int = 0,
    model: Path | None = None,
) -> Iterator[Finding]:
    """Yield what each check finds, as soon as it has.

    Parameters
    ----------
    config : RunConfig
        The run that the machine is to take part in.
    superlink : Address, optional
        The SuperLink that it must reach; left out, that is not checked.
    authority : Path, optional
        The fleet's authority, by whose certificate the SuperLink is known.
    member : int
        Which member the machine will train: whose data it has.
    model : Path, optional
        An exported model that the machine is to answer with; left out, that is not checked.
    """
    yield machine.python()
    yield machine.architecture()
    yield from software.packages()
    torch = software.torch_build()
    if torch is not None:
        yield torch
    if model is not None:
        yield model_file(model)
    # Before the steps are tried, which take some of it for a while.
    memory = machine.read_memory()
    yield machine.memory(memory)
    yield machine.disk(_state_folder(config))
    ahead = None
    if superlink is not None:
        reachability = reach(superlink, authority)
        yield from reachability.findings
        ahead = reachability.ahead
    yield clock(ahead)
    yield from training(config, member, memory)


def _state_folder(config: RunConfig) -> Path:
    """Return where members are kept, as :func:`wash_fl.flower.client.state_folder` will choose it."""
    return members_folder(config.fleet.state_dir).absolute()
