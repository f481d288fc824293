"""Which faults are injected, and where: by member and exchange, never by the clock.

A plan is one line of text, so that it fits an option, an environment variable and a failed test's message::

    drop reply member=1 exchange=3; delay request member=0 exchange=4 by=2; kill server exchange=3 at=settled

``docs/faults.md`` explains every word.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from wash_fl.faults.fault import AT_POINTS, NETWORK, ROUND_POINTS, STREAM_POINTS, Fault, Kind, Way, refuse
from wash_fl.faults.ledger import Ledger, MemoryLedger


class FaultPlan:
    """Faults, and how often each has happened.

    Parameters
    ----------
    faults : sequence of Fault
        What is to happen. Of several that fit a message, the first that is left happens.
    ledger : Ledger, optional
        Where injections are counted; in memory by default.

    Examples
    --------
    >>> plan = FaultPlan.parse("drop reply member=1 exchange=3")
    >>> plan.take(Way.REPLY, member=1, exchange=3).kind
    <Kind.DROP: 'drop'>
    >>> plan.take(Way.REPLY, member=1, exchange=3) is None
    True
    >>> plan.injected
    {'drop': 1}
    """

    def __init__(self, faults: Sequence[Fault] = (), ledger: Ledger | None = None) -> None:
        self.faults = tuple(faults)
        self._ledger = MemoryLedger() if ledger is None else ledger
        # By member, for a long run has thousands.
        self._of: dict[tuple[int | None, int | None], list[tuple[int, Fault]]] = defaultdict(list)
        for index, fault in enumerate(self.faults):
            self._of[fault.member, fault.exchange].append((index, fault))

    @classmethod
    def parse(cls, text: str, ledger: Ledger | None = None) -> "FaultPlan":
        """Read a plan: faults with semicolons between them.

        Raises
        ------
        ConfigError
            If a part of it is no fault.
        """
        return cls([Fault.parse(each) for each in text.split(";") if each.strip()], ledger)

    @classmethod
    def random(
        cls,
        seed: int,
        members: int,
        exchanges: int,
        rate: float,
        *,
        kinds: Collection[Kind] = NETWORK,
    ) -> "FaultPlan":
        """Return a plan that is a pure function of its arguments.

        Parameters
        ----------
        seed : int
            Other seeds give other plans.
        members, exchanges : int
            Size of the run.
        rate : float
            Probability, 0 to 1, that a member meets a fault in an exchange.
        kinds : collection of Kind
            What may happen, all equally often.
        """
        candidates = [kind for kind in Kind if kind in kinds]
        if not 0 <= rate <= 1 or not candidates:
            refuse(f"rate={rate} with {len(candidates)} kinds", "rate is 0 to 1, of at least one kind")
        faults = []
        for exchange in range(1, exchanges + 1):
            for member in range(members):
                chance, kind, way, rest = _words(f"{seed} {member} {exchange}")
                if chance >= rate * 2**32:
                    continue
                fault_kind = candidates[kind % len(candidates)]
                if fault_kind in AT_POINTS:
                    points = STREAM_POINTS if fault_kind is Kind.CUT else ROUND_POINTS
                    faults.append(Fault(fault_kind, member, exchange, at=points[rest % len(points)]))
                else:
                    by = 1 + rest % 3 if fault_kind is Kind.DELAY else 1
                    faults.append(Fault(fault_kind, member, exchange, tuple(Way)[way % 2], by=by))
        return cls(faults)

    def __str__(self) -> str:
        return "; ".join(str(each) for each in self.faults)

    @property
    def injected(self) -> dict[str, int]:
        """How many faults were injected so far, by kind."""
        return self._ledger.count()

    def take(
        self,
        way: Way,
        *,
        member: int,
        exchange: int | None,
        of: str = "train",
        without: Collection[Kind] = (),
    ) -> Fault | None:
        """Return the fault that a message meets, and count it; None if it gets through.

        Parameters
        ----------
        way : Way
            Whether the message is a request or a reply.
        member : int
            To or from whom.
        exchange : int or None
            Of which exchange; None for a message that belongs to none.
        of : str
            Which request it is, or answers.
        without : collection of Kind
            What cannot happen to this message.
        """
        return self._claim(
            member,
            exchange,
            lambda fault: fault.way is way and fault.of == of and fault.kind not in without,
        )

    def at(self, point: str, *, member: int | None, exchange: int | None) -> Fault | None:
        """Return the fault that a process meets at a point, and count it; None if there is none."""
        return self._claim(member, exchange, lambda fault: fault.kind in AT_POINTS and fault.at == point)

    def _claim(self, member: int | None, exchange: int | None, fits: Callable[[Fault], bool]) -> Fault | None:
        keys = {(member, exchange), (member, None)}
        candidates = sorted(
            (entry for key in keys for entry in self._of.get(key, ())), key=lambda entry: entry[0]
        )
        for index, fault in candidates:
            if fits(fault) and self._ledger.claim(index, fault.kind, fault.times):
                return fault
        return None


def _words(text: str) -> list[int]:
    digest = hashlib.blake2b(text.encode(), digest_size=16, person=b"wash-fl faults").digest()
    return [int.from_bytes(digest[start : start + 4], "little") for start in range(0, 16, 4)]
