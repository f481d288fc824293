"""One member of the ensemble: a model, its optimizer, and what it has exchanged."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from wash_fl.core.anchor import Anchor
from wash_fl.core.draw import Draw
from wash_fl.core.layout import PARAMETER
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ExchangeError, LayoutError
from wash_fl.member.parameters import (
    FlatViews,
    Values,
    exchanged_parameters,
    flatten,
    gather,
    model_layout,
    scatter,
    unflatten,
)
from wash_fl.member.slots import slot_tensors, travelling_slots
from wash_fl.member.stateful import Stateful, States


class Member:
    """Wraps any model and any optimizer; the model stays the user's and is changed in place.

    Parameters
    ----------
    model : torch.nn.Module
        On any device. Its trainable parameters must be float32 and are what is exchanged.
    optimizer : torch.optim.Optimizer
        Over the model's parameters.
    index : int
        The member's stable number, 0 to N-1.
    seed : int
        The run seed.
    schedule : Schedule
        How probable an exchange is, and of which options: with ``exchange_optimizer`` (WASH+Opt), optimizer
        state shaped like its parameter travels along.
    states : mapping of str to Stateful, optional
        What else its training loop keeps, such as a learning-rate scheduler.

    Attributes
    ----------
    applied : int
        The last exchange whose delivery was applied; 0 before the first.
    anchor : Anchor or None
        What the run's server and members agree on, as this member knows it; None where values travel.

    Examples
    --------
    >>> from wash_fl.config import ExchangeConfig
    >>> model = nn.Linear(3, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> schedule = Schedule(ExchangeConfig(p=0.5, schedule="constant"))
    >>> member = Member(model, optimizer, index=0, seed=1, schedule=schedule)
    >>> member.offer(exchange=1).shape
    (1, 4)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        index: int,
        seed: int,
        schedule: Schedule,
        states: Mapping[str, Stateful] | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.states: States = dict(states or {})
        self.index = index
        self.applied = 0
        self.anchor: Anchor | None = None
        self._parameters = [each for _, each in exchanged_parameters(model)]
        self._views = FlatViews(self._parameters)
        self.layout = model_layout(model, travelling_slots(optimizer, schedule.config))
        self.draw = Draw(seed, self.layout, schedule)
        self._kinds = _kinds_of(model)

    def check_state(self) -> None:
        """Refuse a model whose training has changed what its state dict looks like.

        Raises
        ------
        LayoutError
            If an entry came, went, or is of another shape or dtype: nobody could load it, or average it.
        """
        kinds = _kinds_of(self.model)
        for name in (*self._kinds, *kinds):
            before, now = self._kinds.get(name, "not there"), kinds.get(name, "not there")
            if before != now:
                raise LayoutError(
                    f"{name!r} in the model's state dict was {before}, and is {now} after training: let "
                    "model() return it as it will be, by one batch through the model if need be, or register "
                    "it with persistent=False."
                )

    def offer(self, exchange: int) -> Values:
        """Return a copy of what this member holds at the coordinates of an exchange, shape (slots, count)."""
        selection = self.draw.selection(exchange)
        rows = [gather(tensors, selection, views) for tensors, views in self._slots()]
        return rows[0][np.newaxis] if len(rows) == 1 else np.stack(rows)

    def deliver(self, exchange: int, values: NDArray[np.float32]) -> bool:
        """Take over what came back from an exchange; at most once.

        Parameters
        ----------
        exchange : int
            Number of the exchange.
        values : ndarray of float32, shape (slots, count)
            This member's new values at its coordinates.

        Returns
        -------
        bool
            False if this or a later delivery was applied before; nothing is changed then.

        Raises
        ------
        ExchangeError
            If the values are not of the exchange's shape; nothing is changed then.
        """
        if exchange <= self.applied:
            return False
        self.hold(exchange, values)
        self.applied = exchange
        return True

    def hold(self, exchange: int, values: NDArray[np.float32]) -> None:
        """Take over values, shape (slots, count), at the coordinates of an exchange.

        Raises
        ------
        ExchangeError
            If they are not of the exchange's shape; nothing is changed then.
        """
        selection = self.draw.selection(exchange)
        expected = (len(self.layout.slots), selection.count)
        if values.shape != expected:
            raise ExchangeError(
                f"a delivery of shape {values.shape} for exchange {exchange}; it must be {expected}."
            )
        for (tensors, views), row in zip(self._slots(), values, strict=True):
            scatter(tensors, selection, row, views)

    def begin_anchor(self) -> None:
        """Make what this member holds the anchor, as all members do that start with the same weights."""
        values = np.zeros((len(self.layout.slots), self.layout.size), dtype=np.float32)
        values[0] = self.parameters()
        self.anchor = Anchor(values)

    def parameters(self) -> Values:
        """Return all exchanged parameters as one flat vector, shape (layout.size,)."""
        return flatten(self._parameters)

    def load_parameters(self, vector: Values) -> None:
        """Take over a flat vector of exchanged parameters, shape (layout.size,)."""
        unflatten(vector, self._parameters)

    def _slots(self) -> list[tuple[Sequence[torch.Tensor], FlatViews]]:
        """Return the tensors of each slot, and their views.

        Optimizer state is looked up anew: optimizers replace its tensors.
        """
        state = [slot for slot in self.layout.slots if slot != PARAMETER]
        others = slot_tensors(self.optimizer, self._parameters, state)
        return [(self._parameters, self._views), *((tensors, FlatViews(tensors)) for tensors in others)]


def _kinds_of(model: nn.Module) -> dict[str, str]:
    """Return dtype and shape of each entry of a model's state dict."""
    return {
        name: f"{str(each.dtype).removeprefix('torch.')}{list(each.shape)}"
        for name, each in model.state_dict().items()
    }
