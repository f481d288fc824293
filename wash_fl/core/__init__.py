"""The algorithm and the protocol, in numpy alone: what is exchanged, when, among whom, and as which bytes."""

from wash_fl.core.draw import Draw
from wash_fl.core.escrow import Escrow, Settlement, Verdict
from wash_fl.core.gauge import Gauge
from wash_fl.core.journal import Delivery, Journal, MemoryJournal
from wash_fl.core.layout import Layout, TensorSpec, layout_of
from wash_fl.core.packet import Direction, PacketError, Refusal, Slice, decode, encode
from wash_fl.core.schedule import Schedule

__all__ = [
    "Delivery",
    "Direction",
    "Draw",
    "Escrow",
    "Gauge",
    "Journal",
    "Layout",
    "MemoryJournal",
    "PacketError",
    "Refusal",
    "Schedule",
    "Settlement",
    "Slice",
    "TensorSpec",
    "Verdict",
    "decode",
    "encode",
    "layout_of",
]
