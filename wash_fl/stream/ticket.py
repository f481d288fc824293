"""What the train message gives a member for its streams."""

import math
from dataclasses import dataclass
from typing import Any, Final

from wash_fl.errors import ExchangeError
from wash_fl.stream.place import split

TOKEN_BYTES: Final = 32

ADDRESS: Final = "stream-address"
AUTHORITY: Final = "stream-authority"
TOKEN: Final = "stream-token"
PATIENCE: Final = "stream-patience"


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
            ADDRESS: self.address,
            AUTHORITY: self.authority,
            TOKEN: self.token,
            PATIENCE: self.patience,
        }
