"""A member's process: it handles one request after the other until it is killed, and a new one begins."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.bench.fault_fleet.disk import Disk
from wash_fl.bench.fault_fleet.messages import Kind, Reply, Request, Status
from wash_fl.bench.fault_fleet.moments import Fuse
from wash_fl.core.layout import Layout
from wash_fl.core.terms import Terms
from wash_fl.errors import WashError
from wash_fl.member.durable import DurableMember, NotJoinedError, Trained
from wash_fl.member.pace import Round
from wash_fl.member.snapshot import Progress, Snapshot

Held = NDArray[np.float32]
Learn = Callable[[int, int, Held], Held]
"""``learn(member, round, held)``: what a member holds after a round, from what it held before."""


class Tiny(nn.Module):
    """Two tensors, and nothing that could be computed with them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(4))
        self.b = nn.Parameter(torch.zeros(2))


@dataclass(frozen=True)
class Run:
    """What server and members agree on."""

    identity: bytes
    terms: Terms
    layout: Layout


class Device:
    """A member, its process and its disk.

    Parameters
    ----------
    run : Run
        The run.
    index : int
        The member's index.
    learn : callable
        What training does.
    """

    def __init__(self, run: Run, index: int, learn: Learn) -> None:
        self.fuse = Fuse()
        self.disk = Disk(self.fuse)
        self.trained: tuple[int, Held] | None = None
        self._run = run
        self._index = index
        self._learn = learn
        self._process: _Process | None = None

    def handle(self, request: Request) -> Reply:
        """Answer a request.

        Raises
        ------
        Killed
            Where the fuse says; the disk is then as it is.
        """
        self.trained = None
        if self._process is None:
            self._process = _Process(self._run, self._index, self.disk)
        process, self._process = self._process, None
        process.spoil()
        self.fuse.burn("before looking at a request")
        reply = self._answer(process, request)
        self.fuse.burn("before replying")
        # Who was killed on the way here begins as a new process.
        self._process = process
        return reply

    def _answer(self, process: "_Process", request: Request) -> Reply:
        try:
            if request.kind is Kind.JOIN:
                return self._join(process.member, request)
            if request.kind is Kind.TRAIN:
                trained = self._train(process, request)
                return self._done(request, trained.progress, offer=trained.offer)
            progress = process.member.collect(request.delivery)
            weights = {
                name: each.detach().numpy().copy() for name, each in process.model.state_dict().items()
            }
            return replace(self._done(request, progress), weights=weights)
        except NotJoinedError as error:
            return Reply(request.number, self._index, Status.NOT_JOINED, reason=str(error))
        except WashError as error:
            return Reply(request.number, self._index, Status.REFUSED, reason=str(error))

    def _join(self, member: DurableMember, request: Request) -> Reply:
        start = request.start
        if start is None:
            progress = member.introduce(self._run.terms, self._run.layout)
        else:
            weights = {name: torch.from_numpy(each.copy()) for name, each in start.weights.items()}
            progress = member.start(
                self._run.terms,
                self._run.layout,
                weights,
                exchange=start.exchange,
                incarnation=start.incarnation,
            )
        if progress is None:
            return Reply(request.number, self._index, Status.NOT_JOINED)
        return self._done(request, progress)

    def _train(self, process: "_Process", request: Request) -> Trained:
        def work(now: Round) -> None:
            before = process.held()
            self.fuse.burn("before training")
            after = self._learn(self._index, now.number, before)
            halfway = after.copy()
            halfway[:, : after.shape[1] // 2] = before[:, : after.shape[1] // 2]
            process.hold(halfway)
            self.fuse.burn("while training")
            process.hold(after)
            self.trained = (now.number, after)
            self.fuse.burn("after training")

        return process.member.train(request.round, request.delivery, work)

    def _done(self, request: Request, progress: Progress, offer: bytes = b"") -> Reply:
        return Reply(
            request.number,
            self._index,
            Status.DONE,
            round=progress.round,
            applied=progress.applied,
            incarnation=progress.incarnation,
            initial=progress.initial,
            offer=offer,
        )


class _Process:
    """What is in a member's memory."""

    def __init__(self, run: Run, index: int, disk: Disk) -> None:
        self.model = Tiny()
        self.parameters = list(self.model.parameters())
        self._with_optimizer = len(run.layout.slots) > 1
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=0.1, momentum=0.9 if self._with_optimizer else 0.0
        )
        self.member = DurableMember(self.model, self.optimizer, index=index, run=run.identity, store=disk)

    def spoil(self) -> None:
        """Leave nothing in memory that the next request could rely on."""
        with torch.no_grad():
            for each in self.parameters:
                each.fill_(float("nan"))
        self.optimizer.state.clear()

    def held(self) -> Held:
        """Return what the member holds, shape (slots, size)."""
        rows = [torch.cat([each.detach() for each in self.parameters]).numpy()]
        if self._with_optimizer:
            rows.append(torch.cat([self._momentum(each) for each in self.parameters]).numpy())
        return np.stack(rows)

    def hold(self, values: Held) -> None:
        """Make the member hold other values."""
        begin = 0
        with torch.no_grad():
            for each in self.parameters:
                end = begin + each.numel()
                each.copy_(torch.from_numpy(values[0, begin:end].copy()))
                if self._with_optimizer:
                    momentum = torch.from_numpy(values[1, begin:end].copy())
                    self.optimizer.state[each]["momentum_buffer"] = momentum
                begin = end

    def _momentum(self, parameter: nn.Parameter) -> torch.Tensor:
        found = self.optimizer.state[parameter].get("momentum_buffer")
        return torch.zeros_like(parameter) if found is None else found


def held_in(snapshot: Snapshot, slots: int) -> Held:
    """Return what a member holds whose state is this, shape (slots, size)."""
    names = list(snapshot.model)
    rows = [np.concatenate([snapshot.model[name].numpy() for name in names])]
    if slots > 1:
        state = snapshot.optimizer["state"]
        sizes = [snapshot.model[name].numel() for name in names]
        rows.append(
            np.concatenate(
                [
                    np.zeros(size, np.float32)
                    if (found := state.get(place, {}).get("momentum_buffer")) is None
                    else found.numpy()
                    for place, size in enumerate(sizes)
                ]
            )
        )
    return np.stack(rows)
