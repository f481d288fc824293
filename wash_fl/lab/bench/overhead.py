"""What exchanging after every step adds to training, beside no exchange at all in the same run."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import torch
from torch import nn

from wash_fl.lab.bench.stream_fleet import BenchFleet, BenchMember, MemberSetup

MEMBERS: Final = 2
P: Final = 0.001
BATCH: Final = 32
STEPS: Final = 6
"""Steps in a block; blocks of all kinds take turns, so that a change of the machine's speed meets all."""
BLOCKS, QUICK_BLOCKS = 12, 2
MODES: Final = ("none", "plain", "overlap")


def run(*, quick: bool = False) -> dict[str, Any]:
    """Train two ResNet-18 in two processes: without exchange, with one after each step, and with overlap.

    Parameters
    ----------
    quick : bool
        Fewer blocks: to see it work.

    Returns
    -------
    dict
        ``step_ms``: a step without exchange; ``overhead`` and ``overhead_overlap``: by which part of it a
        step with an exchange takes longer, from the sums of the blocks' times, each the longer of the two
        processes'; ``exchange_ms`` and ``exchange_ms_overlap``: how long a member's step waits for the
        exchange, on average; ``exchange_alone_ms`` and ``exchange_alone_ms_overlap``: the same of the member
        that comes last to each exchange, and so waits for no other's step.
    """
    fleet = BenchFleet(MEMBERS, P)
    with fleet.serving() as streams:
        results = fleet.run(streams, partial(_member, blocks=QUICK_BLOCKS if quick else BLOCKS))
    blocks = {mode: list(zip(*(result[mode] for result in results), strict=True)) for mode in MODES}
    seconds = {mode: sum(max(pair) for pair in pairs) for mode, pairs in blocks.items()}
    steps = STEPS * len(blocks["none"])
    waits = {mode: list(zip(*(result["waits"][mode] for result in results), strict=True)) for mode in MODES}
    mean = {mode: statistics.fmean(map(statistics.fmean, pairs)) for mode, pairs in waits.items()}
    alone = {mode: statistics.fmean(map(min, pairs)) for mode, pairs in waits.items()}
    return {
        "members": MEMBERS,
        "steps": steps,
        "step_ms": 1e3 * seconds["none"] / steps,
        "overhead": seconds["plain"] / seconds["none"] - 1.0,
        "overhead_overlap": seconds["overlap"] / seconds["none"] - 1.0,
        "exchange_ms": 1e3 * mean["plain"],
        "exchange_ms_overlap": 1e3 * mean["overlap"],
        "exchange_alone_ms": 1e3 * alone["plain"],
        "exchange_alone_ms_overlap": 1e3 * alone["overlap"],
        "block_seconds": {mode: [round(max(pair), 4) for pair in pairs] for mode, pairs in blocks.items()},
    }


def _member(setup: MemberSetup, barrier: Barrier, connection: Connection, blocks: int) -> None:
    member = BenchMember(setup)
    torch.manual_seed(setup.member)
    inputs, targets = torch.randn(BATCH, 3, 32, 32), torch.randint(1000, (BATCH,))

    def steps(mode: str, seconds_waiting: Callable[[], float] = float) -> None:
        marks = [seconds_waiting()]
        began = time.perf_counter()
        for _ in range(STEPS):
            member.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(nn.functional.cross_entropy(member.model(inputs), targets))
            member.optimizer.step()
            marks.append(seconds_waiting())
        times[mode].append(time.perf_counter() - began)
        waits[mode] += [after - before for before, after in pairwise(marks)]

    times: defaultdict[str, list[float]] = defaultdict(list)
    waits: defaultdict[str, list[float]] = defaultdict(list)
    steps("warm")
    for block in range(blocks):
        # Each kind comes first, second and third equally often.
        for mode in MODES[block % 3 :] + MODES[: block % 3]:
            if mode == "none":
                barrier.wait()
                steps(mode)
                continue
            with member.exchanging(overlap=mode == "overlap") as exchanging:
                barrier.wait()
                steps(mode, partial(getattr, exchanging, "seconds"))
            member.keep(exchanging)
    connection.send({**times, "waits": dict(waits)})
