"""What the round plane's Flower messages hold: written and read in one place, checked where it enters.

Six requests, all from the server: ``join`` (the terms and the initial weights), ``train`` (a round, with
the delivery of the exchange before), ``collect`` (the member's whole model, once, at the end),
``recalibrate`` (the averaged model, for BatchNorm statistics over the member's own data), ``leave``
(the run is over; the state may go) and ``remind`` (nothing: it makes a SuperNode hand over what it holds).
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from wash_fl.core.layout import Layout, TensorSpec
from wash_fl.core.packet import value_bytes as packet_value_bytes
from wash_fl.errors import ExchangeError, LayoutError
from wash_fl.flower.transport import Size
from wash_fl.protocol.messages import Answer, Status
from wash_fl.protocol.terms import Terms
from wash_fl.protocol.text import printable
from wash_fl.stream import ticket

EXAMPLES = "examples"
"""Name under which a member says how many examples its BatchNorm statistics are from."""

RECORD = "wash"
ARRAYS = "arrays"
METRICS = "metrics"

JOIN = "query.wash_join"
TRAIN = "train"
COLLECT = "query.wash_collect"
RECALIBRATE = "query.wash_recalibrate"
LEAVE = "query.wash_leave"
REMIND = "query.wash_remind"


Arrays = dict[str, NDArray[Any]]
"""A state dict in numpy."""


def answer(
    request: Message,
    given: Answer,
    *,
    arrays: ArrayRecord | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Message:
    """Return a member's reply to a request."""
    fields = {
        name: value for name, value in vars(given).items() if value not in ("", b"") and value is not False
    }
    content = RecordDict({RECORD: ConfigRecord({**fields, "status": str(given.status)})})
    if arrays is not None:
        content[ARRAYS] = arrays
    if metrics:
        content[METRICS] = MetricRecord(dict(metrics))
    return Message(content, reply_to=request)


def read_answer(reply: Message) -> Answer:
    """Return what a member replied.

    Raises
    ------
    ExchangeError
        If the reply is not one of this protocol.
    """
    record = reply.content.config_records.get(RECORD) if reply.has_content() else None
    if record is None:
        raise ExchangeError("a reply without a record 'wash': that client does not run wash_fl's ClientApp.")
    kinds = {each.name: type(each.default) for each in fields(Answer)} | {"member": int}
    given: dict[str, Any] = {}
    for name, value in record.items():
        if name != "status":
            if type(value) is not kinds.get(name) or (isinstance(value, int) and value < 0):
                raise ExchangeError(f"a reply whose {name} is {str(value)[:40]!r}; update the older side.")
            # Ends up in logs and messages on one line.
            given[name] = printable(value) if isinstance(value, str) else value
    try:
        return Answer(status=Status(str(record["status"])), **given)
    except (KeyError, ValueError, TypeError) as error:
        raise ExchangeError(f"a reply that cannot be read ({error}); update the older side.") from error


def request(
    node: int, kind: str, fields: Mapping[str, Any], ttl: float, arrays: ArrayRecord | None = None
) -> Message:
    """Return a request to a node."""
    content = RecordDict({RECORD: ConfigRecord(dict(fields))})
    if arrays is not None:
        content[ARRAYS] = arrays
    return Message(content, node, kind, ttl=ttl)


def field(message: Message, name: str, kind: type) -> Any:
    """Return a field of a request, checked for its type."""
    record = message.content.config_records.get(RECORD)
    value = None if record is None else record.get(name)
    if type(value) is not kind:
        raise ExchangeError(
            f"a request whose {name} is {str(value)[:40]!r}, expected {kind.__name__}: "
            "the ServerApp must use WashStrategy of the same version."
        )
    return value


def optional_field(message: Message, name: str, kind: type, default: Any) -> Any:
    """Return a field of a request, checked for its type; ``default`` if it is not there."""
    record = message.content.config_records.get(RECORD)
    return default if record is None or name not in record else field(message, name, kind)


def layout_to_json(layout: Layout) -> str:
    """Return a layout as JSON, for the one message in which both sides compare theirs."""
    tensors = [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in layout.tensors]
    return json.dumps({"tensors": tensors, "slots": list(layout.slots)})


def layout_from_json(text: str) -> Layout:
    """Read a layout from the wire."""
    try:
        content = json.loads(text)
        tensors = tuple(
            TensorSpec(str(name), tuple(int(n) for n in shape), str(dtype))
            for name, shape, dtype in content["tensors"]
        )
        return Layout(tensors, tuple(str(slot) for slot in content["slots"]))
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise LayoutError(f"the server's layout cannot be read ({error}): update the older side.") from error


def terms_of(message: Message) -> Terms:
    """Return the terms a ``join`` request announces."""
    return Terms.from_json(field(message, "terms", str))


def ticket_of(message: Message) -> ticket.Ticket | None:
    """Return the ticket of a train message; None on the round plane.

    Raises
    ------
    ExchangeError, ConfigError
        If it is not one.
    """
    if not optional_field(message, ticket.ADDRESS, str, ""):
        return None
    return ticket.Ticket(
        field(message, ticket.ADDRESS, str),
        field(message, ticket.AUTHORITY, bytes),
        field(message, ticket.TOKEN, bytes),
        field(message, ticket.PATIENCE, float),
    )


def named_arrays(record: ArrayRecord) -> Arrays:
    """Return an ArrayRecord as numpy arrays, in its order."""
    return {name: array.numpy() for name, array in record.items()}


def array_record(arrays: Arrays) -> ArrayRecord:
    """Return named numpy arrays as an ArrayRecord, in their order."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = Array(np.asarray(array, order="C"))
    return record


def value_bytes(message: Message, name: str) -> int:
    """Return the bytes of values in a message's packet, the field ``name``; 0 if it carries none."""
    record = message.content.config_records.get(RECORD) if message.has_content() else None
    packet = None if record is None else record.get(name)
    return packet_value_bytes(packet) if isinstance(packet, bytes) else 0


def message_bytes(message: Message) -> int:
    """Return the bytes of a message as Flower serializes it: the sum over the objects it is sent as."""
    return Size.of(message).bytes
