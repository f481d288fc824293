"""How many bytes Flower needs for a slice, counted on a real serialized message."""

from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from wash_fl.core.layout import layout_of
from wash_fl.core.packet import Direction, Slice, encode
from wash_fl.flower import records
from wash_fl.flower.in_process import identify_process
from wash_fl.protocol.messages import Answer, Status

SIZES = (1_000, 10_000, 100_000, 1_000_000)


def run() -> dict[str, Any]:
    """Return the bytes of a member's reply over the bytes of the values in it, by number of values."""
    figures: dict[str, Any] = {}
    for size in SIZES:
        reply = _reply(size)
        figures[f"ratio_{size}"] = records.message_bytes(reply) / records.value_bytes(reply, "offer")
        figures[f"overhead_bytes_{size}"] = records.message_bytes(reply) - records.value_bytes(reply, "offer")
    return figures


def _reply(size: int) -> Message:
    """Return a reply as a member sends it after a round: an offer of ``size`` float32 values, and metrics."""
    layout = layout_of([("weight", (size,))])
    values = np.random.Generator(np.random.Philox(1)).standard_normal((1, size)).astype(np.float32)
    packet = encode(Slice(Direction.OFFER, bytes(16), layout, 7, 3, values))
    identify_process()
    request = Message(RecordDict(), 1, records.TRAIN, ttl=3600)
    reply = Answer(Status.DONE, 3, round=7, applied=6, offer=packet)
    return records.answer(request, reply, metrics={"loss": 0.1, "accuracy": 0.9})
