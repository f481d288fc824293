"""A server of streams, and members in processes of their own, without Flower."""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.core.schedule import Schedule
from wash_fl.deploy import certificates
from wash_fl.lab.bench.processes import Work, results_of
from wash_fl.member.exchanging import Exchanging, StepOptions
from wash_fl.member.log import ExchangeLog
from wash_fl.member.member import Member
from wash_fl.member.parameters import model_layout
from wash_fl.member.snapshot import Buffers
from wash_fl.protocol.coordinator import Coordinator
from wash_fl.protocol.journal_rows import Enrolment
from wash_fl.protocol.options import ServerOptions
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.session import Offer
from wash_fl.protocol.terms import Terms
from wash_fl.storage.open_journal import open_journal
from wash_fl.stream.guard import Guard
from wash_fl.stream.line import GrpcLine
from wash_fl.stream.place import Place
from wash_fl.stream.reports import ExchangeReport
from wash_fl.stream.service import Service
from wash_fl.stream.ticket import Ticket
from wash_fl.stream.wire import longest_delivery
from wash_fl.tasks.task import import_extra

INITIAL: Final = "0" * 64
SEED: Final = 1
LONG: Final = 600.0
"""Seconds; nobody is to miss a deadline here."""


@dataclass(frozen=True)
class MemberSetup:
    """What a member's process is given.

    Attributes
    ----------
    member : int
        Its index.
    ticket : dict
        The fields of its ticket.
    p : float
        Probability of a coordinate to be exchanged.
    folder : str
        Where it keeps its log.
    run : str
        Identity of the run, in hexadecimal.
    """

    member: int
    ticket: dict[str, Any]
    p: float
    folder: str
    run: str


class BenchMember:
    """A ResNet-18 with an optimizer, and its exchanges."""

    def __init__(self, setup: MemberSetup) -> None:
        torch.set_num_threads(1)
        self.setup = setup
        self.model = resnet18()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self._offer = Offer()
        self._member = Member(
            self.model,
            self.optimizer,
            index=setup.member,
            seed=SEED,
            schedule=Schedule(exchange_config(setup.p)),
        )

    def exchanging(self, *, overlap: bool = False) -> Exchanging:
        """Return exchanges after every step, for as long as the context lasts."""
        setup, layout = self.setup, self._member.layout
        line = GrpcLine(
            Ticket(**setup.ticket),
            run=bytes.fromhex(setup.run),
            layout=layout.fingerprint,
            member=setup.member,
            number=1,
            initial=INITIAL,
            incarnation=0,
            longest=longest_delivery(exchange_config(setup.p), layout.size),
        )
        path = Path(setup.folder) / f"log-{setup.member}"
        path.unlink(missing_ok=True)

        def rest(steps: int, buffers: Buffers) -> ExchangeLog:
            del steps, buffers
            path.unlink()
            return ExchangeLog(path)

        config = exchange_config(setup.p, overlap=overlap)
        return Exchanging(
            self._member,
            line,
            ExchangeLog(path),
            packets=RunPackets(bytes.fromhex(setup.run), self._member.draw),
            offer=self._offer,
            options=StepOptions(config.every, config.overlap, first_step=0, rest_at=16 << 20, on_rest=rest),
        )

    def keep(self, exchanging: Exchanging) -> None:
        """Take note of the last offer, for the next context."""
        self._offer = exchanging.session.offer


def exchange_config(p: float, *, overlap: bool = False) -> ExchangeConfig:
    """Return the options of the exchange: after every step, the same probability everywhere, runs of 16."""
    return ExchangeConfig(
        p=p,
        schedule="constant",
        mix="shuffle",
        run_length=16,
        exchange_plane="stream",
        every=1,
        overlap=overlap,
    )


def resnet18() -> nn.Module:
    """Return a ResNet-18 of 11.2 million parameters."""
    model: nn.Module = import_extra("torchvision", "bench stream").models.resnet18(num_classes=1000)
    return model


def place_in(folder: Path) -> Place:
    """Make certificates, and return where to serve with them."""
    certificates.make_authority(folder)
    certificates.make_server_certificate(folder, [])
    return Place(
        certificate=(folder / certificates.CERTIFICATE).read_bytes(),
        key=(folder / certificates.KEY).read_bytes(),
        authority=(folder / certificates.AUTHORITY).read_bytes(),
    )


class BenchFleet:
    """A server of streams in this process, and its members in others.

    Parameters
    ----------
    members : int
        How many.
    p : float
        Probability of a coordinate to be exchanged.
    on_exchange : callable
        Told of each settled exchange.
    """

    def __init__(
        self, members: int, p: float, on_exchange: Callable[[ExchangeReport], None] = lambda report: None
    ) -> None:
        self.members = members
        self.p = p
        self._on_exchange = on_exchange

    @contextmanager
    def serving(self) -> Iterator[Service]:
        """Serve streams with TLS, from a journal on the disk."""
        terms = Terms(
            run_name="bench",
            seed=SEED,
            members=self.members,
            rounds=1,
            local_steps=1,
            exchange=exchange_config(self.p),
        )
        layout = model_layout(resnet18())
        gc.collect()  # of the model, whose memory would else be given back while the server's is measured
        with tempfile.TemporaryDirectory(prefix="wash-fl-") as name:
            self.folder = Path(name)
            journal = open_journal(self.folder / "journal.sqlite", terms, layout)
            options = ServerOptions(initial=INITIAL, exchange_deadline=LONG, start_timeout=LONG)
            coordinator = Coordinator(terms, layout, journal, options, now=time.monotonic())
            for member in range(self.members):
                coordinator.state.membership.enrol(member, Enrolment(INITIAL))
            self.place = place_in(self.folder)
            service = Service(
                Guard(coordinator, time.monotonic),
                self.place,
                members=self.members,
                deadline=LONG,
                on_exchange=self._on_exchange,
            )
            self._run = coordinator.run.hex()
            with service:
                coordinator.exchanges.begin(1, range(self.members), time.monotonic())
                yield service
                coordinator.exchanges.end(1, time.monotonic())
            journal.close()

    def run(self, streams: Service, work: Work) -> list[Any]:
        """Have all members do the same work, and return what each sends.

        Raises
        ------
        RunError
            If one ends without a word.
        """
        setups = []
        for member in range(self.members):
            fields = streams.fields(member)
            ticket = {
                name: fields[f"stream-{name}"] for name in ("address", "authority", "token", "patience")
            }
            setups.append(MemberSetup(member, ticket, self.p, str(self.folder), self._run))
        return results_of(work, [(setup,) for setup in setups], time.sleep)
