"""What an audit finds, and the member that it looks with."""

from dataclasses import dataclass, field

from wash_fl.config import RunConfig
from wash_fl.member.member import Member
from wash_fl.member.training import make_optimizer
from wash_fl.protocol.terms import Terms
from wash_fl.tasks.models import build_model
from wash_fl.tasks.task import load_task


@dataclass
class Audit:
    """What an audit found.

    Attributes
    ----------
    run : str
        Name of the run.
    settled : int
        The last exchange in the journal.
    members : dict of int to str
        One line about each member.
    waiting : int
        Deliveries that wait in the journal.
    checked : int
        Members whose state was beside the journal; 0 is an audit that has shown nothing.
    values : int
        Values of the last exchange that were compared, over all members and slots.
    problems : list of str
        What is wrong; empty if nothing is.
    unchecked : list of str
        What could not be looked at, and why.
    """

    run: str
    settled: int
    members: dict[int, str] = field(default_factory=dict)
    waiting: int = 0
    checked: int = 0
    values: int = 0
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def made_member(config: RunConfig, terms: Terms) -> Member:
    """Return a member of the run to hold a snapshot."""
    model = build_model(config.task.model, load_task(config.task.task))
    return Member(
        model,
        make_optimizer(model, config.training),
        index=0,
        seed=terms.seed,
        schedule=terms.schedule,
    )
