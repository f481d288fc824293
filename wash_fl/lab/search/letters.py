"""What is on its way between a coordinator and its members, without Flower."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from numpy.typing import NDArray

from wash_fl.protocol.messages import Answer, Request

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Letter:
    """A request on its way, of one server process, with the weights that it names if it names some.

    ``token`` is what its member proves itself by on a stream.
    """

    request: Request
    server: int
    weights: Weights | None = None
    token: bytes = b""

    @property
    def member(self) -> int:
        """Who gets it: nodes are numbered as the members on them."""
        return self.request.node

    def corrupted(self, number: int) -> Self | None:
        """Return it with a bit of its packet flipped, another one by number; None without one."""
        delivery = self.request.delivery
        if not delivery:
            return None
        return replace(self, request=replace(self.request, delivery=flipped(delivery, number)))


@dataclass(frozen=True, eq=False)
class Reply:
    """A reply on its way to the request of a number, of one server process: another knows none of it."""

    number: int
    server: int
    member: int
    answer: Answer
    weights: Weights | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def corrupted(self, number: int) -> Self | None:
        """Return it with a bit of its packet flipped, another one by number; None without one."""
        offer = self.answer.offer
        if not offer:
            return None
        return replace(self, answer=replace(self.answer, offer=flipped(offer, number)))


def flipped(packet: bytes, number: int) -> bytes:
    """Return a packet with a bit flipped, another one by number."""
    changed = bytearray(packet)
    bit = number * 2654435761 % (8 * len(changed))
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
