"""How a link between a device and its server is, and what becomes of a packet on it. Pure: time is told."""

import math
import random
from dataclasses import dataclass

from wash_fl.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Link:
    """How a link is, the same both ways.

    Attributes
    ----------
    kbit : float
        Kilobits (1000 bits) per second, each way; 0 is no limit.
    delay_ms : float
        Milliseconds that a packet is on its way, beside the time that its bits take.
    loss : float
        Probability, 0 to 1, that a packet is lost.
    queue_ms : float
        Milliseconds that a packet waits at most before its bits are sent; one that would wait longer is lost.
    is_cut : bool
        Whether nothing gets through.
    """

    kbit: float = 0.0
    delay_ms: float = 0.0
    loss: float = 0.0
    queue_ms: float = 1000.0
    is_cut: bool = False

    def __post_init__(self) -> None:
        for name in ("kbit", "delay_ms", "queue_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"{name.replace('_', '-')} = {value:g} is not allowed: it must be 0 or more."
                )
        if not 0 <= self.loss < 1:
            raise ConfigError(f"loss = {self.loss:g} is not allowed: it must be at least 0, and below 1.")


@dataclass
class Count:
    """What went into one way of a link.

    Attributes
    ----------
    bytes, packets : int
        All that the sender's interface has sent, headers of IP among them, and what was lost on the way.
    losses : int
        Packets of these that never came out.
    """

    bytes: int = 0
    packets: int = 0
    losses: int = 0

    def __sub__(self, other: "Count") -> "Count":
        return Count(self.bytes - other.bytes, self.packets - other.packets, self.losses - other.losses)


class Lane:
    """One way of a link: packets go in, and come out in order, later, or never.

    Parameters
    ----------
    generator : random.Random
        Which packets are lost.

    Attributes
    ----------
    link : Link
        How it is; may be changed at any time.
    count : Count
        What went in.
    """

    def __init__(self, generator: random.Random) -> None:
        self.link = Link()
        self.count = Count()
        self._generator = generator
        self._idle_from = 0.0
        self._last_arrival = 0.0

    def arrival(self, size: int, now: float) -> float | None:
        """Return when a packet that goes in now comes out; None if it never does.

        Parameters
        ----------
        size : int
            Bytes of the packet.
        now : float
            The time, in seconds.
        """
        link = self.link
        self.count.bytes += size
        self.count.packets += 1
        begin = max(now, self._idle_from) if link.kbit else now
        is_late = begin - now > link.queue_ms / 1000
        if link.is_cut or is_late or self._generator.random() < link.loss:
            self.count.losses += 1
            return None
        if link.kbit:
            begin += size * 8 / (1000 * link.kbit)
            self._idle_from = begin
        # A link that gets better lets no packet overtake one that is on its way.
        self._last_arrival = max(begin + link.delay_ms / 1000, self._last_arrival)
        return self._last_arrival
