"""A member at one moment: everything of it that must outlive its process, as one value."""

import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import nn

from wash_fl.core.anchor import Anchor
from wash_fl.errors import StateError, reason_of
from wash_fl.member.fence import Fence, FenceStore
from wash_fl.member.member import Member
from wash_fl.member.parameters import Values, owned
from wash_fl.member.stateful import PackedStates
from wash_fl.protocol.messages import Answer, Status

Buffers = dict[str, torch.Tensor]
"""Part of a state dict."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a member is.

    Attributes
    ----------
    run : str
        Identity of the run, hexadecimal.
    member : int
        Index of the member.
    layout : str
        Fingerprint of what it exchanges, hexadecimal.
    settings : str
        The terms of the run it agreed to when it joined, as JSON.
    initial : str
        Hash of the weights it started from.
    incarnation : int
        Number of that start, counted by the server; 0 with the run's initial weights.
    joined : int
        The exchange after which it started; 0 is the beginning of the run.
    round : int
        The last round it trained in; 0 before the first.
    step : int
        The number of its next optimizer step.
    applied : int
        The last exchange whose delivery it applied; of one that joined late, the one after which it did.
    offered : int
        The last exchange it offered for; on the round plane that of ``round``.
    offered_step : int
        The number of its next optimizer step when it did.
    log : str
        Name of the log of what it exchanged since (:mod:`wash_fl.member.log`); empty on the round plane.
    seconds_per_step : float
        How long its optimizer steps take; 0 as long as no round by seconds was measured.
    last_steps : int
        Optimizer steps in the last round by seconds; 0 before the first.
    """

    run: str
    member: int
    layout: str
    settings: str
    initial: str
    incarnation: int = 0
    joined: int = 0
    round: int = 0
    step: int = 0
    applied: int = 0
    offered: int = 0
    offered_step: int = 0
    log: str = ""
    seconds_per_step: float = 0.0
    last_steps: int = 0

    def after(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def answer(self, offer: bytes = b"") -> Answer:
        """Return what a member that is so far answers when it has done what it was asked."""
        return Answer(
            Status.DONE,
            self.member,
            round=self.round,
            applied=self.applied,
            incarnation=self.incarnation,
            initial=self.initial,
            offer=offer,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Snapshot:
    """A copy of a member, on the CPU; nothing changes it.

    Attributes
    ----------
    progress : Progress
        How far it is.
    model : dict of str to torch.Tensor
        Its model's state dict.
    optimizer : dict
        Its optimizer's state dict.
    optimizer_class : str
        Name of the optimizer's class.
    offer : ndarray of float32, shape (slots, count), or None
        What it held at the coordinates of its last offer when it made it; None before the first.
    states : PackedStates or None
        What its training loop keeps besides; None if that is nothing.
    anchor : Anchor or None
        Its anchor; None where values travel.
    source : str
        Where it was kept, for messages.
    """

    progress: Progress
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    optimizer_class: str
    offer: Values | None = None
    states: PackedStates | None = None
    anchor: Anchor | None = None
    source: str = "the saved state"

    @classmethod
    def of(
        cls,
        member: Member,
        progress: Progress,
        offer: Values | None = None,
        *,
        buffers: Buffers | None = None,
    ) -> Self:
        """Return a copy of a member as it is now, but for ``buffers``, if they are given."""
        optimizer = member.optimizer.state_dict()
        state = {
            index: {
                key: owned(value) if isinstance(value, torch.Tensor) else copy.deepcopy(value)
                for key, value in entries.items()
            }
            for index, entries in optimizer["state"].items()
        }
        return cls(
            progress=progress,
            model={name: owned(each) for name, each in member.model.state_dict().items()} | (buffers or {}),
            optimizer={"state": state, "param_groups": copy.deepcopy(optimizer["param_groups"])},
            optimizer_class=type(member.optimizer).__name__,
            offer=None if offer is None else offer.copy(),
            states=PackedStates.of(member.states),
            anchor=None if member.anchor is None else member.anchor.copy(),
        )

    def restore(self, member: Member) -> None:
        """Make a member what it was.

        Raises
        ------
        StateError
            If the snapshot is of another model or optimizer; nothing is changed then, unless two models have
            the same parameters and other buffers.
        """
        fingerprint = member.layout.fingerprint.hex()
        if self.progress.layout != fingerprint:
            raise StateError(
                f"{self.source} is of another model: its layout is {self.progress.layout[:16]}, this model's "
                f"is {fingerprint[:16]}. Use the model the run began with, or another state-dir."
            )
        kind = type(member.optimizer).__name__
        if self.optimizer_class != kind:
            # PyTorch would take it, and fail at the next step.
            raise StateError(
                f"{self.source} is of the optimizer {self.optimizer_class}, and this member's is {kind}: use "
                "the one the run began with, or another state-dir."
            )
        self._check_states(member)
        # PyTorch copies a model's tensors, and takes over an optimizer's.
        state = {
            index: {
                key: value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
                for key, value in entries.items()
            }
            for index, entries in self.optimizer["state"].items()
        }
        try:
            member.model.load_state_dict(self.model)
            member.optimizer.load_state_dict({**self.optimizer, "state": state})
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = reason_of(error, 200)
            raise StateError(
                f"{self.source} does not fit this member's model and optimizer ({reason}): use those the run "
                "began with, or another state-dir."
            ) from error
        if self.states is not None:
            self.states.restore(member.states)
        member.applied = self.progress.applied
        member.anchor = None if self.anchor is None else self.anchor.copy()

    def _check_states(self, member: Member) -> None:
        """Refuse to go on with some of what was kept: a scheduler that starts again would not be noticed."""
        kept = set() if self.states is None else self.states.names()
        if kept != member.states.keys():
            raise StateError(
                f"{self.source} keeps {_named(kept)} besides model and optimizer, and this client hands over "
                f"{_named(set(member.states))}: give its Participant the state= that the run began with, or "
                "use another run-name."
            )


def buffers_of(model: nn.Module) -> Buffers:
    """Return a copy of what is no parameter in a model's state dict: a forward pass may change it."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: owned(each) for name, each in model.state_dict().items() if name not in parameters}


def _named(names: set[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "nothing"


class Store(FenceStore, Protocol):
    """Where a member's last snapshot of a run is kept, and which server it answers to."""

    def load(self) -> Snapshot | None:
        """Return the last snapshot that was saved; None if there is none."""

    def save(self, snapshot: Snapshot, *, anew: bool = False) -> None:
        """Keep a snapshot, as a whole or not at all; it outlasts the process when this returns.

        With ``anew`` nothing from before remains.
        """

    def remove(self) -> None:
        """Keep nothing."""


class MemoryStore:
    """Keeps a snapshot as long as the process lives."""

    def __init__(self) -> None:
        self._kept: Snapshot | None = None
        self._fence: Fence | None = None

    def load(self) -> Snapshot | None:
        """Return the last snapshot."""
        return self._kept

    def save(self, snapshot: Snapshot, *, anew: bool = False) -> None:
        """Keep a snapshot."""
        del anew  # there is only one to keep
        self._kept = snapshot

    def remove(self) -> None:
        """Keep nothing."""
        self._kept = None
        self._fence = None

    def fence(self) -> Fence | None:
        """Return which server the member answers to."""
        return self._fence

    def keep_fence(self, fence: Fence) -> None:
        """Keep which server the member answers to."""
        self._fence = fence
