"""How the exchanges of a run are carried: in Flower's own messages, or over streams beside them."""

from collections.abc import Iterable
from typing import Any, Protocol, Self

from wash_fl.faults import points
from wash_fl.protocol.commands import Command, OfferTaken, Settled
from wash_fl.stream.counting import Counted


class Carrier(Protocol):
    """What carries exchanges; a context that lasts as long as the server."""

    @property
    def counted(self) -> Counted | None:
        """Bytes that travelled beside Flower's messages."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def fields(self, member: int) -> dict[str, Any]:
        """Return what a member's request to train says about exchanges."""

    def execute(self, commands: Iterable[Command]) -> None:
        """Do what a coordinator says about exchanges, while it is locked."""

    def changed(self) -> None:
        """Take note that the coordinator may wait for another moment than before."""


class InMessages:
    """The round plane: all is in Flower's messages."""

    counted: None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def fields(self, member: int) -> dict[str, Any]:
        """Return nothing: the delivery is in every request to train."""
        del member
        return {}

    def execute(self, commands: Iterable[Command]) -> None:
        """Pass the moments at which a server may be killed."""
        for command in commands:
            if isinstance(command, OfferTaken):
                points.reach("offered", exchange=command.exchange)
            elif isinstance(command, Settled):
                points.reach("settled", exchange=command.settlement.exchange)

    def changed(self) -> None:
        """Do nothing: no thread waits but Flower's."""
