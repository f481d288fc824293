"""What the train message gives a member for its streams: written and read in one place."""

import math
from dataclasses import dataclass
from typing import Any, Final

from flwr.app import Message

from wash_fl.errors import ExchangeError
from wash_fl.planes import records
from wash_fl.planes.stream.place import split

TOKEN_BYTES: Final = 32

_ADDRESS, _AUTHORITY, _TOKEN, _PATIENCE = (
    "stream-address",
    "stream-authority",
    "stream-token",
    "stream-patience",
)


@dataclass(frozen=True)
class Ticket:
    """Where a member's stream goes, and what lets it in.

    Attributes
    ----------
    address : str
        Host and port of the server.
    authority : bytes
        The certificate to trust, PEM; empty: no TLS.
    token : bytes
        What the member proves itself by.
    patience : float
        Seconds for which the answer to an offer is awaited, and the server called again.
    """

    address: str
    authority: bytes
    token: bytes
    patience: float

    def __post_init__(self) -> None:
        split(self.address, "the stream's address")
        if len(self.token) != TOKEN_BYTES or not 0 < self.patience < math.inf:
            raise ExchangeError(
                f"a request to train over streams with a token of {len(self.token)} bytes and a patience of "
                f"{self.patience:g} s: the ServerApp must use WashStrategy of the same version."
            )

    def fields(self) -> dict[str, Any]:
        """Return the fields of the train message."""
        return {
            _ADDRESS: self.address,
            _AUTHORITY: self.authority,
            _TOKEN: self.token,
            _PATIENCE: self.patience,
        }


def ticket_of(message: Message) -> Ticket | None:
    """Return the ticket of a train message; None on the round plane.

    Raises
    ------
    ExchangeError, ConfigError
        If it is not one.
    """
    if not records.optional_field(message, _ADDRESS, str, ""):
        return None
    return Ticket(
        records.field(message, _ADDRESS, str),
        records.field(message, _AUTHORITY, bytes),
        records.field(message, _TOKEN, bytes),
        records.field(message, _PATIENCE, float),
    )
