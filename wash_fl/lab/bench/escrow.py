"""What it takes the server to settle an exchange of a large ensemble, beside a plain copy of its bytes."""

import time
import tracemalloc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wash_fl.config import ExchangeConfig, FleetConfig
from wash_fl.core import philox
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.schedule import Schedule
from wash_fl.protocol.escrow import Escrow
from wash_fl.protocol.journal_rows import Delivery, Record

MEMBERS = (100, 300, 1000)
VALUES = 25_000
REPEATS = 7
QUICK_REPEATS = 3
SEED = 1
PARAMETERS = 1_000_000
TENSORS = 50

Fleet = NDArray[np.float32]


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return seconds per exchange by number of members, and what they are of a copy's in the same run.

    Settling is all of :meth:`Escrow.settle` with the default ``outlier-factor`` and the journal in memory.
    The copy is of the same offers into memory that was written to before. A smaller fleet is one part of the
    largest after the other, so that it is as little in the cache. All alternate, and of each the least
    counts: what else runs on the machine only adds. Beside that are the seconds of what an exchange cannot do
    without: ``words_seconds`` of the random words that a permutation takes by the protocol, and
    ``record_seconds`` of the hashes that a journal on disk keeps.

    Parameters
    ----------
    quick : bool
        Measure less often.
    """
    fleet = _fleet(MEMBERS[-1], VALUES)
    copied = np.zeros_like(fleet)
    seconds: dict[str, list[float]] = {}
    for _ in range(QUICK_REPEATS if quick else REPEATS):
        seconds.setdefault("copy", []).append(_copy_seconds(copied, fleet))
        for topology in ("pairs", "permutation"):
            for members in MEMBERS:
                if topology == "pairs" or members == MEMBERS[-1]:
                    elapsed = _settle_seconds(topology, fleet, members)
                    seconds.setdefault(f"{topology} {members}", []).append(elapsed)
        seconds.setdefault("record", []).append(_record_seconds(fleet))
        seconds.setdefault("words", []).append(_words_seconds(fleet))
    least = {name: min(each) for name, each in seconds.items()}
    pairs = [least[f"pairs {members}"] for members in MEMBERS]
    permutation = least[f"permutation {MEMBERS[-1]}"]
    per_member = [each / members for each, members in zip(pairs, MEMBERS, strict=True)]
    memory = {topology: _peak_bytes(topology, fleet) / fleet.nbytes for topology in ("pairs", "permutation")}
    return {
        "pairs_vs_copy": least["copy"] / pairs[-1],
        "permutation_vs_copy": least["copy"] / permutation,
        "linearity": per_member[-1] / per_member[0],
        "memory_ratio": max(memory.values()),
        "memory_ratio_by_topology": memory,
        "copy_seconds": least["copy"],
        "pairs_seconds": pairs,
        "permutation_seconds": permutation,
        "words_seconds": least["words"],
        "record_seconds": least["record"],
        "members": list(MEMBERS),
        "values": VALUES,
        "bytes": fleet.nbytes,
        "repeats": len(seconds["copy"]),
    }


def _fleet(members: int, values: int) -> Fleet:
    """Return offers of members that have a part in common, as trained ones do, shape (members, 1, values)."""
    random = np.random.Generator(np.random.Philox(SEED))
    fleet = random.standard_normal((members, 1, values), dtype=np.float32)
    fleet *= np.float32(0.03)
    fleet += np.float32(0.1) * random.standard_normal((1, values), dtype=np.float32)
    return fleet


def _draw(values: int) -> Draw:
    layout = layout_of([(f"tensor{index}", (PARAMETERS // TENSORS,)) for index in range(TENSORS)])
    draw = Draw(SEED, layout, Schedule(ExchangeConfig(p=values / PARAMETERS, schedule="constant")))
    assert draw.count(1) == values, draw.count(1)
    return draw


def _offered(topology: str, offers: Fleet) -> Escrow:
    """Return an escrow that has the offers of its first exchange."""
    escrow = Escrow(
        _draw(offers.shape[2]),
        ExchangeConfig(mix="shuffle", topology=topology),
        outlier_factor=FleetConfig().outlier_factor,
    )
    escrow.open(1, range(len(offers)))
    for member, values in enumerate(offers):
        escrow.offer(member, 1, values)
    assert escrow.complete
    return escrow


def _settle_seconds(topology: str, fleet: Fleet, members: int) -> float:
    """Return the mean seconds of settling as many exchanges of so many members as the fleet is enough for."""
    exchanges = len(fleet) // members
    seconds = 0.0
    for number in range(exchanges):
        escrow = _offered(topology, fleet[number * members : (number + 1) * members])
        begin = time.perf_counter()
        settlement = escrow.settle()
        seconds += time.perf_counter() - begin
        assert len(settlement.members) == members and settlement.gauge is not None
    return seconds / exchanges


def _copy_seconds(copied: Fleet, fleet: Fleet) -> float:
    begin = time.perf_counter()
    np.copyto(copied, fleet)
    return time.perf_counter() - begin


def _record_seconds(fleet: Fleet) -> float:
    """Return the seconds of hashing an exchange in pairs for its record, as a journal on disk does."""
    offers = dict(enumerate(fleet))
    deliveries = {member: Delivery(1, values) for member, values in offers.items()}
    begin = time.perf_counter()
    Record.of(1, deliveries, offers)
    return time.perf_counter() - begin


def _words_seconds(fleet: Fleet) -> float:
    """Return the seconds of drawing the words of a permutation, one for each value but one member's."""
    members, _, values = fleet.shape
    stream = philox.stream(SEED, "permute", index=1)
    begin = time.perf_counter()
    for _ in range(members - 1):
        stream.random_raw(values)
    return time.perf_counter() - begin


def _peak_bytes(topology: str, fleet: Fleet) -> int:
    """Return the most memory that is held while an exchange is settled, its offers included."""
    tracemalloc.start()
    try:
        escrow = _offered(topology, fleet.copy())
        tracemalloc.reset_peak()
        escrow.settle()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
