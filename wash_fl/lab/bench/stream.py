"""What an exchange over streams costs: members in processes of their own, TLS, a journal on the disk."""

import statistics
import time
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import psutil

from wash_fl.lab.bench.bare_streams import bare_times
from wash_fl.lab.bench.stream_fleet import BenchFleet, BenchMember, MemberSetup
from wash_fl.stream.reports import ExchangeReport

MEMBERS: Final = 8
P: Final = 0.001
EXCHANGES: Final = 5000
QUICK: Final = 800
WARM: Final = 200
"""Exchanges before anything is measured."""
BARE, QUICK_BARE = 2000, 400
"""Exchanges by gRPC alone."""


def run(*, quick: bool = False) -> dict[str, Any]:
    """Exchange the slices of a ResNet-18 again and again, with no training in between.

    Parameters
    ----------
    quick : bool
        Fewer exchanges.

    Returns
    -------
    dict
        ``members``; ``values`` in a slice; ``exchanges``; ``exchange_ms_p50`` and ``exchange_ms_p99``: how
        long an exchange takes a member, from the end of one optimizer step until it may begin the next;
        ``bare_ms_p50``: the same of messages of that size by gRPC alone, with the same TLS and nothing else,
        right after it; ``vs_bare``: the one over the other;
        ``wire_ratio``: bytes that the connections carried (messages, HTTP/2, TLS) over bytes of values;
        ``server_growth_mb``: by how much the server's memory grew meanwhile.
    """
    exchanges = QUICK if quick else EXCHANGES
    sizes: list[int] = []
    memory: dict[int, float] = {}
    process = psutil.Process()

    def on_exchange(report: ExchangeReport) -> None:
        number = report.settlement.exchange
        if number in (WARM, exchanges):
            memory[number] = process.memory_info().rss / 1e6
            sizes.append(report.bytes["0"][0] // 4)

    fleet = BenchFleet(MEMBERS, P, on_exchange)
    with fleet.serving() as streams:
        began = time.perf_counter()
        results = fleet.run(streams, partial(_member, exchanges=exchanges))
        seconds = time.perf_counter() - began
        totals = streams.counted.total()
    bare = bare_times(fleet.place, MEMBERS, 4 * sizes[-1], QUICK_BARE if quick else BARE)
    times = sorted(each for result in results for each in result)
    median, bare_median = statistics.median(times), statistics.median(bare)
    payload = totals["up_payload"] + totals["down_payload"]
    return {
        "members": MEMBERS,
        "values": sizes[-1],
        "exchanges": exchanges,
        "exchange_ms_p50": 1e3 * median,
        "exchange_ms_p99": 1e3 * times[int(0.99 * len(times))],
        "bare_ms_p50": 1e3 * bare_median,
        "vs_bare": median / bare_median,
        "wire_ratio": sum(totals.values()) / payload,
        "server_growth_mb": memory[exchanges] - memory[WARM],
        "seconds": seconds,
        "bytes": totals,
    }


def _member(setup: MemberSetup, barrier: Barrier, connection: Connection, exchanges: int) -> None:
    """Step without a gradient, which changes nothing and takes no time, and exchange after each step."""
    member = BenchMember(setup)
    barrier.wait()
    times: list[float] = []
    with member.exchanging() as exchanging:
        before = exchanging.seconds
        for _ in range(exchanges):
            member.optimizer.step()
            times.append(exchanging.seconds - before)
            before = exchanging.seconds
    connection.send(times[WARM:])
