"""Who waits at the stream port without having said who it is: few, not for long, and few of one address.

Whoever reaches the port can open calls and say nothing. They must not take the places of members, which say
at once who they are: so a call that comes when there are too many takes the place of the one that has waited
longest, first of its own address.
"""

from ipaddress import IPv6Address, ip_address
from typing import Final, Generic, TypeVar

from wash_fl.stream.counting import host_and_port

AnyCall = TypeVar("AnyCall")

SPARE: Final = 8
"""Calls of one address beside one of each member: all members may be behind one."""

IN_ALL: Final = 64
"""Calls of all addresses beside one of each member."""

_NETWORK_BITS: Final = 64
"""Of an IPv6 address: who has one address there has all of the network."""


class Door(Generic[AnyCall]):
    """The calls that have not proven yet whose they are.

    Parameters
    ----------
    members : int
        Size of the ensemble.

    Attributes
    ----------
    turned_away : int
        How many calls had to make room so far.
    """

    def __init__(self, members: int) -> None:
        self.turned_away = 0
        self.most_of_one = members + SPARE
        self.most = members + IN_ALL
        self._waiting: dict[AnyCall, str] = {}

    def enter(self, call: AnyCall, peer: str) -> AnyCall | None:
        """Let a call wait; return the one that has to make room for it, if there are too many.

        Parameters
        ----------
        call : object
            It.
        peer : str
            From where, in gRPC's words, such as ``ipv4:192.0.2.7:4711``.
        """
        address = address_of(peer)
        same = [each for each, other in self._waiting.items() if other == address]
        out = None
        if len(same) >= self.most_of_one:
            out = same[0]
        elif len(self._waiting) >= self.most:
            out = next(iter(self._waiting))
        if out is not None:
            del self._waiting[out]
            self.turned_away += 1
        self._waiting[call] = address
        return out

    def leave(self, call: AnyCall) -> None:
        """Take note that a call has proven whose it is, or is over."""
        self._waiting.pop(call, None)

    def __len__(self) -> int:
        return len(self._waiting)


def address_of(peer: str) -> str:
    """Return the address of a peer, without its port; of IPv6 the network."""
    host, _ = host_and_port(peer)
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host or peer
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS))
    return str(address)
