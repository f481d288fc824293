"""What a run's server knows: its record, what it has asked, and the moment."""

from dataclasses import dataclass

from wash_fl.protocol.escrow import Escrow
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.membership import Membership
from wash_fl.protocol.options import ServerOptions
from wash_fl.protocol.packets import RunPackets
from wash_fl.protocol.requests import Requests
from wash_fl.protocol.terms import Terms
from wash_fl.protocol.turn import Turn


@dataclass(frozen=True, eq=False)
class ServerState:
    """What the parts of a coordinator share.

    Attributes
    ----------
    turn : Turn
        The moment of an event, and where commands go.
    terms : Terms
        What the run agrees on.
    options : ServerOptions
        What the server decides by.
    packets : RunPackets
        How slices are read and written.
    journal, escrow, membership
        What is recorded, and what of it is in memory.
    requests : Requests
        What was asked, and is not answered yet.
    """

    turn: Turn
    terms: Terms
    options: ServerOptions
    packets: RunPackets
    journal: Journal
    escrow: Escrow
    membership: Membership
    requests: Requests

    def delivery(self, member: int) -> bytes:
        """Return the packet that waits for a member; empty if none does."""
        return self.escrow.packet(self.packets, member)
