"""What a method is: how members communicate while they train. All else is the same for all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError
from wash_fl.lab.compare.cohort import Cohort
from wash_fl.lab.compare.post import Post
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.tasks.task import Task

Make = Callable[[RunConfig, Task, float, Post], Cohort]
"""``make(config, task, dropout, post)``: members, ready to be trained by the method."""


@dataclass(frozen=True)
class Method:
    """One way to train an ensemble and to make one model of it.

    Attributes
    ----------
    name : str
        What it is called on the command line.
    source : str
        Where the rule is from.
    make : callable
        Makes the members.
    options : dict of str to object
        What it changes in the run's options; the rest is the same for all methods.
    product : str
        Which model it is judged by: ``averaged``, or ``soup``.
    """

    name: str
    source: str
    make: Make
    options: Mapping[str, Any] = field(default_factory=dict)
    product: str = "averaged"

    def config(self, options: Mapping[str, Any]) -> RunConfig:
        """Return the options of a run by this method.

        Raises
        ------
        ConfigError
            If one that is given is not allowed, or another than the method is defined by.
        """
        given = {key.replace("_", "-"): value for key, value in options.items()}
        for key, own in self.options.items():
            if given.get(key, own) != own:
                raise ConfigError(
                    f"{key} = {given[key]} does not go with the method {self.name}, which is defined by "
                    f"{key} = {own}: leave one of the two out."
                )
        return RunConfig.from_mapping({**given, **self.options})


def shuffled(config: RunConfig, task: Task, dropout: float, post: Post) -> Cohort:
    """Return members that exchange slices by way of an escrow, as the options say."""
    return Trainer(config, task, dropout=dropout, post=post)
