"""A member's process: it handles one request after the other until it is killed, and a new one begins."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wash_fl.clock import Clock
from wash_fl.core.anchor import Anchor
from wash_fl.core.draw import Draw
from wash_fl.core.layout import Layout
from wash_fl.core.plane import plane_of
from wash_fl.errors import NotJoinedError, UnmetError, UnreachedError, WashError
from wash_fl.lab.search.disk import Disk
from wash_fl.lab.search.letters import Letter, Reply, Weights
from wash_fl.lab.search.logs import WatchedLogs
from wash_fl.lab.search.moments import Fuse
from wash_fl.lab.search.streams import Call
from wash_fl.lab.search.turns import Turns
from wash_fl.member.durable import DurableMember, MakeLine, Trained
from wash_fl.member.exchanging import Line
from wash_fl.member.log import Kind as Record
from wash_fl.member.log import caught_up
from wash_fl.member.pace import Round
from wash_fl.member.parameters import Values
from wash_fl.member.snapshot import Progress, Snapshot
from wash_fl.protocol.messages import Answer, Kind, Request, Status
from wash_fl.protocol.terms import Terms

Held = NDArray[np.float32]
"""What a member holds, shape (slots, size)."""


class Watch(Protocol):
    """Who is told what members do, and says what training makes of them."""

    def learn(self, member: int, number: int, held: Held, *, goes_on: bool) -> Held:
        """Return what a member holds after a round or a step, from what it held before.

        ``goes_on`` says that it trained before in this process, and for this request.
        """

    def recorded(self, member: int, kind: Record, exchange: int, values: Values) -> None:
        """Take note of what a member has written into its log."""

    def saved(self, member: int) -> None:
        """Take note that a member is saved."""

    def now(self) -> float:
        """Return the time, in seconds."""

    def line(self, device: "Device", progress: Progress, number: int) -> Line:
        """Return a member's line to the server, for a round."""


@dataclass(frozen=True, eq=False)
class State:
    """What a member's disk holds of it, as who reads it finds it.

    Attributes
    ----------
    progress : Progress
        How far it is.
    offer : ndarray of float32 or None
        Its last offer.
    held : ndarray of float32, shape (slots, size)
        What it holds.
    anchor : Anchor or None
        Its anchor.
    """

    progress: Progress
    offer: Values | None
    held: Held
    anchor: Anchor | None = None


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


@dataclass(frozen=True, eq=False)
class Copy:
    """A copy of what a member's disk held: a snapshot, and the log beside it."""

    snapshot: Snapshot
    log: bytes


class Device:
    """A member, its process and its disk.

    Parameters
    ----------
    run : Run
        The run.
    index : int
        The member's index.
    folder : Path
        For its logs; empty.
    watch : Watch
        Who is told what it does.

    Attributes
    ----------
    trained : (int, Held) or None
        What it learned for the request that it handles now or handled last, and in which round, on the round
        plane.
    waits_for : Call or float or None
        Where its process stands still, if it does: it waits for what comes next on a call, or until a time.
    """

    def __init__(self, run: Run, index: int, folder: Path, watch: Watch) -> None:
        self.fuse = Fuse()
        self.disk = Disk(self.fuse, lambda: watch.saved(index))
        self.logs = WatchedLogs(folder, self.fuse, partial(watch.recorded, index))
        self.trained: tuple[int, Held] | None = None
        self.waits_for: Call | float | None = None
        self._run = run
        self._index = index
        self._metrics: dict[str, float] | None = None
        self.watch = watch
        self._draw = Draw(run.terms.seed, run.layout, run.terms.schedule)
        self._process: _Process | None = None
        self._turns: Turns | None = None
        self._state: tuple[Snapshot, int, State] | None = None

    @property
    def changes(self) -> int:
        """How often what its disk holds has changed."""
        return self.disk.changes + self.logs.changes

    @property
    def busy(self) -> bool:
        """Whether its process is at work on a request, and stands still."""
        return self._turns is not None

    def state(self) -> State | None:
        """Return what a reader of its disk finds; None if there is nothing, or nothing whole."""
        snapshot = self.disk.whole()
        if snapshot is None:
            return None
        if self._state is None or self._state[0] is not snapshot or self._state[1] != self.logs.changes:
            last, entries = caught_up(snapshot, self.logs)
            held = _held_in(snapshot, len(self._run.layout.slots))
            anchor = None if snapshot.anchor is None else snapshot.anchor.copy()
            for entry in entries:
                places = self._draw.coordinates(entry.exchange)
                if entry.held is not None:
                    held[:, places] = entry.held
                if anchor is not None:
                    entry.move(anchor, places)
            self._state = snapshot, self.logs.changes, State(last.progress, last.offer, held, anchor)
        return self._state[2]

    def copy(self) -> Copy | None:
        """Return a copy of what its disk holds; None if that is nothing, or nothing whole."""
        snapshot = self.disk.whole()
        return None if snapshot is None else Copy(snapshot, self.logs.content(snapshot.progress.log))

    def restore(self, copy: Copy) -> None:
        """Hold what a copy holds, and nothing else."""
        self.disk.remove()
        self.disk.current = copy.snapshot
        self.logs.put(copy.snapshot.progress.log, copy.log)

    def handle(self, letter: Letter) -> Reply | None:
        """Answer a request; None if its process stands still before it has done that: see :meth:`go_on`.

        Raises
        ------
        Killed
            Where the fuse says; the disk is then as it is.
        """
        assert not self.busy, "a device does one thing at a time"
        self.trained = None
        if letter.request.kind is not Kind.TRAIN or plane_of(self._run.terms.exchange).once_per_round:
            return self._handle(letter)
        self._turns = Turns(partial(self._handle, letter))
        return self.go_on()

    def go_on(self, value: object = None) -> Reply | None:
        """Let its process go on with what it waited for, or raise that; as :meth:`handle`."""
        turns = self._turns
        assert turns is not None, "it does not stand still"
        self.waits_for = None
        try:
            turns.go_on(value)
        finally:
            if turns.done:
                self._turns = None
        reply: Reply | None = turns.result
        return reply

    def pause(self, waits_for: "Call | float") -> Any:
        """Stand still, for its process itself."""
        assert self._turns is not None, "nobody lets it go on"
        self.waits_for = waits_for
        return self._turns.pause()

    def _handle(self, letter: Letter) -> Reply:
        if self._process is None:
            self._process = _Process(self._run, self._index, self)
        process, self._process = self._process, None
        process.spoil()
        self.fuse.burn("before looking at a request")
        self._metrics = None
        answer, weights = self._answer(process, letter)
        self.fuse.burn("before replying")
        # Who was killed on the way here begins as a new process.
        self._process = process
        reply = Reply(letter.request.number, letter.server, self._index, answer, weights)
        return reply if self._metrics is None else replace(reply, metrics=self._metrics)

    def _answer(self, process: "_Process", letter: Letter) -> tuple[Answer, Weights | None]:
        request = letter.request
        try:
            process.member.check_fence(request.fence)
            if request.kind is Kind.JOIN:
                return self._join(process.member, letter), None
            if request.kind is Kind.TRAIN:
                trained = self._train(process, request)
                self._metrics = trained.metrics
                return trained.progress.answer(trained.offer), None
            if request.kind is Kind.LEAVE:
                return Answer(Status.DONE, self._index), None
            progress = process.member.collect(request.delivery)
            weights = {
                name: each.detach().numpy().copy() for name, each in process.model.state_dict().items()
            }
            return progress.answer(), weights
        except NotJoinedError as error:
            return Answer(Status.NOT_JOINED, self._index, str(error) if error.fell_back else ""), None
        except UnmetError as error:
            return Answer(Status.UNMET, self._index, str(error)), None
        except WashError as error:
            cut_off = isinstance(error, UnreachedError)
            return Answer(Status.REFUSED, self._index, str(error), unreached=cut_off), None

    def _join(self, member: DurableMember, letter: Letter) -> Answer:
        start = letter.request.start
        token = member.meet(letter.request.server)
        if start is None:
            progress = member.introduce(self._run.terms, self._run.layout)
        else:
            assert letter.weights is not None, "a start without weights"
            progress = member.start(
                self._run.terms,
                self._run.layout,
                {name: torch.from_numpy(each.copy()) for name, each in letter.weights.items()},
                exchange=start.exchange,
                incarnation=start.incarnation,
                anchor=letter.request.delivery,
            )
        answer = Answer(Status.NOT_JOINED, self._index) if progress is None else progress.answer()
        return replace(answer, fence=token)

    def _train(self, process: "_Process", request: Request) -> Trained:
        def learn(number: int, *, goes_on: bool) -> None:
            before = process.held()
            self.fuse.burn("before training")
            after = self.watch.learn(self._index, number, before, goes_on=goes_on)
            halfway = after.copy()
            halfway[:, : after.shape[1] // 2] = before[:, : after.shape[1] // 2]
            process.hold(halfway)
            self.fuse.burn("while training")
            process.hold(after)
            self.trained = (number, after)
            self.fuse.burn("after training")

        def work(now: Round) -> None:
            if plane_of(now.terms.exchange).once_per_round:
                learn(now.number, goes_on=False)
                return
            for step in range(now.steps):
                process.optimizer.work = partial(learn, now.first_step + step + 1, goes_on=step > 0)
                try:
                    process.optimizer.step()
                finally:
                    process.optimizer.work = None

        return process.member.train(
            request.round, request.delivery, work, line=self._line(request), exchange=request.exchange
        )

    def _line(self, request: Request) -> MakeLine | None:
        if plane_of(self._run.terms.exchange).once_per_round or request.exchange:
            return None
        return lambda member, progress: self.watch.line(self, progress, request.round)


class _Optimizer(torch.optim.SGD):
    """An optimizer whose step is the work that it is given, if it is given any."""

    work: Callable[[], None] | None = None

    def step(self, closure: Any = None) -> Any:
        if self.work is None:
            return super().step(closure)
        return self.work()


class _DeviceClock(Clock):
    """The search's time; a process that sleeps stands still until the search lets it go on."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def now(self) -> float:
        return self._device.watch.now()

    def sleep(self, seconds: float) -> None:
        self._device.pause(self.now() + seconds)


class _Process:
    """What is in a member's memory."""

    def __init__(self, run: Run, index: int, device: Device) -> None:
        self.model = Tiny()
        self.parameters = list(self.model.parameters())
        self._with_optimizer = len(run.layout.slots) > 1
        self.optimizer = _Optimizer(self.parameters, lr=0.1, momentum=0.9 if self._with_optimizer else 0.0)
        self.member = DurableMember(
            self.model,
            self.optimizer,
            index=index,
            run=run.identity,
            store=device.disk,
            logs=device.logs,
            clock=_DeviceClock(device),
        )

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


def _held_in(snapshot: Snapshot, slots: int) -> Held:
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
