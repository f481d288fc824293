"""What a method is: how members communicate while they train. All else is the same for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol

from wash_fl.config import RunConfig
from wash_fl.errors import ConfigError
from wash_fl.lab.compare.budget import Fit
from wash_fl.lab.compare.cohort import Cohort
from wash_fl.lab.compare.post import Post
from wash_fl.lab.compare.trainer import Trainer
from wash_fl.option import Checked
from wash_fl.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class NoKnobs(Checked):
    """The knobs of a method that has none but the run's options."""


class Make(Protocol):
    """What makes the members, ready to be trained by the method."""

    def __call__(self, config: RunConfig, task: Task, dropout: float, post: Post, knobs: Any, /) -> Cohort:
        """Return them."""


NO_KNOBS: Final = NoKnobs()


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
        Makes the members: ``make(config, task, dropout, post, knobs)``.
    options : dict of str to object
        What it is defined by: values of the run's options, or of its knobs; the rest is the same for all
        methods.
    product : str
        Which model it is judged by: ``averaged``, or ``soup``.
    knobs : type of Checked
        The options that it has besides the run's.
    fit : Fit, optional
        How it chooses its knob for so many bytes; None for one that sends nothing.
    """

    name: str
    source: str
    make: Make
    options: Mapping[str, Any] = field(default_factory=dict)
    product: str = "averaged"
    knobs: type[Checked] = NoKnobs
    fit: Fit | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its knobs."""
        return tuple(spec.name.replace("_", "-") for spec in fields(self.knobs))  # type: ignore[arg-type]

    def config(self, options: Mapping[str, Any]) -> RunConfig:
        """Return the options of a run by this method, without its knobs.

        Raises
        ------
        ConfigError
            If one that is given is not allowed, or another than the method is defined by.
        """
        return self.settings(options)[0]

    def settings(self, options: Mapping[str, Any]) -> tuple[RunConfig, Any]:
        """Return the options of a run by this method, and its knobs.

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
        every = {**given, **self.options}
        knobs = self.knobs(**{key.replace("-", "_"): every.pop(key) for key in self.keys if key in every})
        if every.get("schedule") == "paper":  # as rows of older versions call it
            every = {"mix": "shuffle", **every, "schedule": "decreasing"}
        # A method is defined by its options: what nobody says has its plain default.
        return RunConfig.from_mapping({"recipe": "none", **every}), knobs


def shuffled(config: RunConfig, task: Task, dropout: float, post: Post, knobs: Any = NO_KNOBS, /) -> Trainer:
    """Return members that exchange slices by way of an escrow, as the options say."""
    return Trainer(config, task, dropout=dropout, post=post)
