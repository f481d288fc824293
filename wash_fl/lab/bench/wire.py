"""How many bytes a slice needs: in Flower's message, counted on a real serialized one, and in each dtype."""

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from wash_fl.core.codec import decode_values, encode_values
from wash_fl.core.dtypes import DTYPES, FLOAT32
from wash_fl.core.layout import layout_of
from wash_fl.core.packet import Direction, Slice, encode
from wash_fl.flower import records
from wash_fl.flower.in_process import identify_process
from wash_fl.protocol.messages import Answer, Status

SIZES = (1_000, 10_000, 100_000, 1_000_000)
REPEATS: Final = 9


def run() -> dict[str, Any]:
    """Measure messages and packets.

    Returns
    -------
    dict
        By number of values ``ratio_...`` (bytes of a member's reply over the bytes of the values in it) and
        ``overhead_bytes_...``; ``packets`` by dtype: ``ratio_...`` (bytes of a packet over the bytes of its
        values as float32), ``encode_ms`` and ``decode_ms`` (a million values, the shortest of several times).
    """
    figures: dict[str, Any] = {}
    for size in SIZES:
        reply = _reply(size)
        figures[f"ratio_{size}"] = records.message_bytes(reply) / records.value_bytes(reply, "offer")
        figures[f"overhead_bytes_{size}"] = records.message_bytes(reply) - records.value_bytes(reply, "offer")
    return figures | {"packets": {dtype: _packets(dtype) for dtype in DTYPES}}


def _packets(dtype: str) -> dict[str, float]:
    """Return the figures of a dtype."""
    found = {f"ratio_{size}": len(_packet(size, dtype)) / (4 * size) for size in SIZES}
    values = _values(SIZES[-1])
    data = encode_values(values, dtype)
    return found | {
        "encode_ms": _milliseconds(lambda: encode_values(values, dtype)),
        "decode_ms": _milliseconds(lambda: decode_values(data, dtype, *values.shape)),
    }


def _milliseconds(work: Callable[[], Any]) -> float:
    """Return the shortest of several times: what else runs on the machine only adds."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def _values(size: int) -> NDArray[np.float32]:
    return np.random.Generator(np.random.Philox(1)).standard_normal((1, size)).astype(np.float32)


def _packet(size: int, dtype: str = FLOAT32) -> bytes:
    """Return an offer of ``size`` values."""
    layout = layout_of([("weight", (size,))])
    return encode(Slice(Direction.OFFER, bytes(16), layout, 7, 3, _values(size), dtype))


def _reply(size: int) -> Message:
    """Return a reply as a member sends it after a round: an offer of ``size`` float32 values, and metrics."""
    identify_process()
    request = Message(RecordDict(), 1, records.TRAIN, ttl=3600)
    reply = Answer(Status.DONE, 3, round=7, applied=6, offer=_packet(size))
    return records.answer(request, reply, metrics={"loss": 0.1, "accuracy": 0.9})
