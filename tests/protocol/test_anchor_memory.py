"""What differences to an anchor need of memory: the server one anchor for all, a member one, on its disk."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from wash_fl.config import ExchangeConfig
from wash_fl.core.draw import Draw
from wash_fl.core.layout import layout_of
from wash_fl.core.schedule import Schedule
from wash_fl.member.member import Member
from wash_fl.member.snapshot import Progress, Snapshot
from wash_fl.member.state import FileStore
from wash_fl.protocol.escrow import Escrow
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Enrolment

SIZE = 400_000
ANCHOR = 4 * SIZE
F = np.float32


def config(momentum: float = 0.5) -> ExchangeConfig:
    rate = 0.7 if momentum else 1.0
    return ExchangeConfig(
        p=0.05,
        mix="average",
        schedule="constant",
        dtype="int4",
        reference="anchor",
        run_length=16,
        outer_learning_rate=rate,
        outer_momentum=momentum,
    )


def server_bytes(members: int, momentum: float) -> int:
    """Return what a server holds after some exchanges that everybody has acknowledged."""
    options = config(momentum)
    draw = Draw(3, layout_of([("a", (SIZE,))]), Schedule(options))
    gc.collect()
    tracemalloc.start()
    try:
        journal = Journal.in_memory()  # else its rows are in this memory, too
        for member in range(members):
            journal.enrolled(member, Enrolment("weights"))
        escrow = Escrow(draw, options, journal, first=np.zeros((1, SIZE), F))
        for exchange in range(1, 4):
            escrow.open(exchange, range(members))
            for member in range(members):
                offer = np.full((1, draw.count(exchange)), 0.01 * (member + 1), F)
                assert escrow.offer(member, exchange, offer, escrow.missed(member).chain) is None
            escrow.settle()
            for member in range(members):
                escrow.acknowledge(member, exchange, sync=False)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("momentum", "vectors"), [(0.0, 2), (0.5, 3)], ids=["without", "with an outer step"])
def test_a_server_holds_the_anchor_once_however_many_members_there_are(momentum, vectors):
    few, many = server_bytes(2, momentum), server_bytes(12, momentum)
    # The anchor, its error and its momentum; beside them the last draws and moves, which p makes small.
    assert vectors * ANCHOR < few < (vectors + 1) * ANCHOR
    assert many - few < ANCHOR / 4


def test_a_member_keeps_one_anchor_and_on_its_disk(tmp_path):
    sizes, held = {}, {}
    for reference in ("value", "anchor"):
        options = (
            config() if reference == "anchor" else ExchangeConfig(p=0.05, mix="average", schedule="constant")
        )
        model = nn.Linear(SIZE // 2 - 1, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        member = Member(model, optimizer, index=0, seed=1, schedule=Schedule(options))
        if reference == "anchor":
            member.begin_anchor()
        store = FileStore(tmp_path / reference, bytes(16), 0)
        progress = Progress(
            run=bytes(16).hex(),
            member=0,
            layout=member.layout.fingerprint.hex(),
            settings="{}",
            initial="0" * 64,
        )
        store.save(Snapshot.of(member, progress))
        sizes[reference] = store.path.stat().st_size
        held[reference] = 0 if member.anchor is None else member.anchor.values.nbytes
    assert held == {"value": 0, "anchor": 4 * member.layout.size}
    assert 0 <= sizes["anchor"] - sizes["value"] - 4 * member.layout.size < 4096
