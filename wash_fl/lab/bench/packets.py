"""Mutated packets: none may be taken for something else, and none may raise anything but its refusal."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from wash_fl.core.codec import rounded
from wash_fl.core.dtypes import DTYPES
from wash_fl.core.layout import layout_of
from wash_fl.core.packet import Direction, PacketError, Refusal, Slice, decode, encode
from wash_fl.lab.search.mutation import MUTATIONS, Dice

SIZES = (0, 1, 2, 31, 128, 300)
MEMBERS = (0, 1, 127, 128, 2**32 - 1)
EXCHANGES = (1, 2, 127, 128, 2**32, 2**63)
CHAINS = (0, 2**63 + 5)
RUNS = (bytes(range(16)), bytes(16))
LAYOUTS = tuple(
    layout_of([("weight", (300,))], slots) for slots in (["parameter"], ["parameter", "momentum"])
)


@dataclass(frozen=True, eq=False)
class Case:
    """A valid packet, and where it is expected.

    Attributes
    ----------
    packet : bytes
        The packet.
    expected : dict
        The arguments of :func:`~wash_fl.core.packet.decode` for it.
    valid : frozenset of bytes
        All packets of this bench that may be accepted there: for an offer this one, for a delivery those of
        other exchanges, too.
    chain : int
        That of the anchor there.
    """

    packet: bytes
    expected: dict[str, Any]
    valid: frozenset[bytes]
    chain: int


def run(examples: int, seed: int = 0) -> dict[str, Any]:
    """Decode mutated packets where valid ones are expected, and count what happens.

    Parameters
    ----------
    examples : int
        How many.
    seed : int
        Another seed, other examples.

    Returns
    -------
    dict
        ``examples``; ``mutations`` and ``refusals`` (counts by kind); ``accepted_unchanged`` (the mutation
        changed nothing, or made another valid packet that is as welcome) and ``accepted_rewritten`` (the same
        slice in other bytes, no more of them: fields in another order, or a bit that protobuf ignores in the
        last byte of the largest numbers); ``violations``, with the first one as ``first_violation``;
        ``seconds``.
    """
    begin = time.perf_counter()
    dice, cases = Dice(seed, "packets"), _cases(seed)
    kinds = list(MUTATIONS)
    mutations: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    figures: dict[str, Any] = {"examples": examples}
    for _ in range(examples):
        case, other = cases[dice.below(len(cases))], cases[dice.below(len(cases))]
        kind = kinds[dice.below(len(kinds))]
        mutated = MUTATIONS[kind](case.packet, other.packet, dice)
        outcome = _outcome(mutated, case)
        mutations[kind] += 1
        outcomes[outcome] += 1
        if outcome not in _ALLOWED and "first_violation" not in figures:
            figures["first_violation"] = f"{kind}: {case.packet.hex()} became {mutated.hex()}: {outcome}"
    return figures | {
        "mutations": dict(sorted(mutations.items())),
        "refusals": {refusal.value: outcomes[refusal.value] for refusal in Refusal},
        "accepted_unchanged": outcomes["unchanged"],
        "accepted_rewritten": outcomes["rewritten"],
        "violations": examples - sum(outcomes[outcome] for outcome in _ALLOWED),
        "seconds": time.perf_counter() - begin,
    }


_ALLOWED = frozenset({*(refusal.value for refusal in Refusal), "unchanged", "rewritten"})


def _outcome(mutated: bytes, case: Case) -> str:
    """Return the refusal, how it was accepted, or in other words what is wrong."""
    try:
        accepted = decode(mutated, **case.expected)
        if accepted.chain != case.chain:
            return Refusal.CHAIN.value  # by the escrow: such a member starts anew
        packet = encode(accepted)
    except PacketError as error:
        return error.refusal.value if isinstance(error.refusal, Refusal) else f"refusal {error.refusal!r}"
    except Exception as error:  # Anything else would end a server that a client can make angry.
        return f"{type(error).__name__}: {error}"
    if packet not in case.valid:
        return f"accepted as {packet.hex()}"
    if mutated == packet:
        return "unchanged"
    return "rewritten" if len(mutated) == len(packet) else f"accepted, and {len(mutated)} bytes long"


def _cases(seed: int) -> list[Case]:
    """Return packets of every direction, size, member, and of small and large exchanges."""
    draw = np.random.Generator(np.random.Philox(seed))
    cases = []
    dtypes = list(DTYPES)
    for number, size in enumerate(SIZES * len(MEMBERS)):
        dtype = dtypes[number % len(dtypes)]
        layout = LAYOUTS[number // 2 % 2]
        slices = [
            Slice(
                direction,
                RUNS[number % 2],
                layout,
                EXCHANGES[(number + later) % len(EXCHANGES)],
                MEMBERS[number % len(MEMBERS)],
                # As they are once they have travelled, so that they stay what they are.
                rounded(draw.normal(0, 0.1, (len(layout.slots), size)).astype(np.float32), dtype),
                dtype,
                CHAINS[number % len(CHAINS)] if direction is Direction.OFFER else 0,
            )
            for direction in Direction
            for later in (0, 1)
        ]
        cases += [_case(each, slices) for each in slices]
    return cases


def _case(slice_: Slice, siblings: list[Slice]) -> Case:
    """Return what the receiver of a slice expects; of a delivery it does not know the exchange."""
    size = slice_.values.shape[1]
    offer = slice_.direction is Direction.OFFER
    welcome = [
        each
        for each in siblings
        if each.direction is slice_.direction and (not offer or each.exchange == slice_.exchange)
    ]
    expected = {
        "direction": slice_.direction,
        "run": slice_.run,
        "layout": slice_.layout,
        "member": slice_.member,
        "exchange": slice_.exchange if offer else None,
        "count": lambda exchange: size,
        "dtype": slice_.dtype,
        "chained": slice_.chain != 0,
    }
    return Case(encode(slice_), expected, frozenset(map(encode, welcome)), slice_.chain)
