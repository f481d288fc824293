"""Where members' replies to a round are taken: acknowledgement, offer, metrics; each checked."""

import logging
from itertools import islice

from flwr.app import Message, MetricRecord

from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow, Verdict
from wash_fl.core.packet import PacketError
from wash_fl.core.run_packets import RunPackets
from wash_fl.planes import records
from wash_fl.planes.asking import understand
from wash_fl.planes.joining import Reception
from wash_fl.planes.records import Status, printable
from wash_fl.planes.roster import Roster

MOST_METRICS = 100
"""Metrics of a member and round that are kept: they are written to the run's log for good."""

logger = logging.getLogger("flwr.wash_fl")


class Desk:
    """Reads replies to rounds, in time or late, and hands what they bring to the escrow.

    Attributes
    ----------
    last_reason : str
        Why a member refused last; empty if none did.
    """

    def __init__(self, run: bytes, draw: Draw, escrow: Escrow, roster: Roster, reception: Reception) -> None:
        self._packets = RunPackets(run, draw)
        self._escrow = escrow
        self._roster = roster
        self._reception = reception
        self.last_reason = ""

    def take(self, number: int, member: int, reply: Message) -> dict[str, float] | None:
        """Take a member's reply to a round and return its metrics; None if the reply is no use."""
        given = understand(f"member {member}", f"round {number}", reply)
        if given is None or member not in self._roster.nodes:
            return None
        if given.status is Status.REFUSED:
            self.last_reason = given.reason
            return None
        if given.member != member:
            logger.warning("member %d: its reply names member %d; it is ignored", member, given.member)
            return None
        if given.status is Status.NOT_JOINED:
            self._reception.anew(member, given.reason or "it has lost its state")
            return None
        if reason := self._roster.astray(member, given):
            self._reception.anew(member, reason)
            return None
        if given.applied > self._escrow.settled:
            logger.warning(
                "member %d: it acknowledges exchange %d, which is not settled", member, given.applied
            )
            return None
        self._roster.acknowledge(member, given.applied)
        if given.offer and not self._offered(number, member, given.offer):
            return None
        found = reply.content.metric_records.get(records.METRICS, MetricRecord())
        numbers = {
            printable(name): float(value) for name, value in found.items() if isinstance(value, (int, float))
        }
        return dict(islice(numbers.items(), MOST_METRICS))

    def _offered(self, number: int, member: int, packet: bytes) -> bool:
        """Hand a member's offer to the escrow; False if it is no offer."""
        try:
            values = self._packets.read_offer(packet, member, number)
        except PacketError as error:
            logger.warning("member %d: %s It keeps its own values", member, error)
            return False
        verdict = self._escrow.offer(member, number, values)
        if verdict is not Verdict.ACCEPTED:
            logger.warning("member %d: its offer in round %d is %s", member, number, verdict)
        return True
