"""The one model of those that the members hand in: who is in it, and how it is made of them."""

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from wash_fl.consensus.averaging import ModelAverage
from wash_fl.consensus.screen import Models, strange_models
from wash_fl.consensus.treatment import Treatment
from wash_fl.core.robust import robust_mean
from wash_fl.core.rules import StateRules

Arrays = dict[str, NDArray[Any]]


class FinalModel:
    """The averaged model, made of the models that pass the screen.

    Parameters
    ----------
    models : Models
        Those that were handed in.
    rules : StateRules
        Of the model.
    constants : mapping of str to str
        As for :class:`~wash_fl.consensus.averaging.ModelAverage`.
    factor : float
        How far from the others' middle a member's model may lie (:mod:`wash_fl.consensus.screen`); 0 allows
        any.
    how : str
        One of :data:`~wash_fl.core.robust.FINAL_AVERAGES`.
    tell : callable
        Gets each member's index and state dict that is in the average, one model at a time.

    Attributes
    ----------
    left_out : dict of int to str
        Who is not in it, and why.
    members : list of int
        Who is, in order.
    arrays : dict of str to ndarray
        The averaged state dict.
    treatment : dict of str to list of str
        What was done with each of its buffers.
    """

    def __init__(
        self,
        models: Models,
        rules: StateRules,
        constants: Mapping[str, str],
        *,
        factor: float,
        how: str = "mean",
        tell: Callable[[int, Arrays], object] = lambda member, arrays: None,
    ) -> None:
        self.left_out = strange_models(models, rules, constants, factor)
        average = ModelAverage(rules, constants)
        for member in models.members:
            if member not in self.left_out:
                arrays = models.model(member)
                average.add(member, arrays)
                tell(member, arrays)
        self.members = sorted(average.members)

        def robust(name: str) -> NDArray[Any]:
            return robust_mean([models.entry(member, name) for member in self.members], how)

        self.arrays = average.mean(None if how == "mean" else robust)
        self.treatment: Treatment = average.treatment()
