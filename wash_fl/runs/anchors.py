"""The part of an audit that looks at a run of differences to an anchor.

The server's anchor, as its journal gives it back, and those of the members that have every move must be one,
bit for bit; the last move is what the journal says it delivered; and what members offered in it, as long as
they have not moved their anchors since, is what the journal says it settled, and makes that move again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wash_fl.config import RunConfig
from wash_fl.core.anchor import Anchor, Move, difference
from wash_fl.core.codec import decode_values, rounded
from wash_fl.core.draw import Draw
from wash_fl.member.log import Logs
from wash_fl.member.snapshot import Snapshot
from wash_fl.protocol.anchored import Anchored
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Moved, Record, Values, values_hash
from wash_fl.protocol.terms import Terms
from wash_fl.runs.findings import Audit, made_member


def check_anchors(
    result: Audit,
    config: RunConfig,
    record: Record,
    by_member: Mapping[int, Sequence[Snapshot]],
    journal: Journal,
) -> None:
    """Compare the members' anchors with the server's, and the last exchange with its record.

    Parameters
    ----------
    result : Audit
        Where it is said what is wrong.
    config : RunConfig
        The run's options.
    record : Record
        Of the last exchange.
    by_member : mapping of int to sequence of Snapshot
        What each member's folder holds, the newest first, with what its log says of how far it is.
    journal : Journal
        The server's.
    """
    settings = next((each[0].progress.settings for each in by_member.values() if each), None)
    if settings is None:
        return
    terms = Terms.from_json(settings)
    layout = made_member(config, terms).layout
    if any(each[0].progress.layout != layout.fingerprint.hex() for each in by_member.values() if each):
        result.unchecked.append("the members' anchors: the run's task makes another model now")
        return
    if not any(True for _ in journal.vectors()):
        result.problems.append("the journal has no anchor")
        return
    draw = Draw(terms.seed, layout, terms.schedule)
    first = np.zeros((len(layout.slots), layout.size), dtype=np.float32)
    server = Anchored(draw, terms.exchange, journal, first).anchor
    moves = {each.exchange: each for each in journal.moves()}
    last = max(moves, default=0)
    for member, snapshots in sorted(by_member.items()):
        if not snapshots:
            continue
        anchor = _anchor(snapshots[0], draw)
        result.values += server.values.size
        if snapshots[0].progress.applied < last:
            result.unchecked.append(f"member {member}'s anchor: it has not got every move")
        elif anchor is None or (anchor.values.tobytes(), anchor.chain) != (
            server.values.tobytes(),
            server.chain,
        ):
            result.problems.append(f"member {member}'s anchor is not the server's")
    offers = _offers(result, record, by_member, draw)
    moved = moves.get(record.exchange)
    _check_delivered(result, record, moved, draw)
    if offers is not None:
        before = Anchored(draw, terms.exchange, journal, first, before=record.exchange).anchor
        move = before.outcome(draw.coordinates(record.exchange), offers)
        if _row_of(moved) != _outcome_of(move):
            result.problems.append(
                f"exchange {record.exchange} moved the anchor by other values than the offers make"
            )


def _check_delivered(result: Audit, record: Record, moved: Moved | None, draw: Draw) -> None:
    """Compare by how much the last exchange moved the anchor with what it delivered."""
    exchange = record.exchange
    if moved is not None:
        shape = len(draw.layout.slots), draw.count(exchange)
        delta = decode_values(moved.delta, draw.schedule.config.dtype, *shape)
        if set(record.deliveries.values()) != {values_hash(delta)}:
            result.problems.append(f"exchange {exchange} moved the anchor by other values than it delivered")
    elif record.deliveries:
        result.problems.append(f"exchange {exchange} delivered a move that the journal does not have")


def _offers(
    result: Audit, record: Record, by_member: Mapping[int, Sequence[Snapshot]], draw: Draw
) -> list[Values] | None:
    """Return what members offered in the last exchange, in their order, if all is there and on record."""
    exchange = record.exchange
    offers: list[Values] = []
    missing, wrong = [], []
    for member, expected in sorted(record.offers.items()):
        offered = _offered(by_member.get(member, ()), exchange, draw)
        if offered is None:
            missing.append(member)
        elif values_hash(offered) != expected:
            wrong.append(member)
        else:
            offers.append(offered)
    result.problems += [f"member {member} offered other values in exchange {exchange}" for member in wrong]
    if missing:
        result.unchecked.append(
            f"the offers of exchange {exchange}: members {missing} have moved their anchors since, or do not "
            "have them any more"
        )
    return None if missing or wrong or not offers else offers


def _row_of(moved: Moved | None) -> tuple[bytes, ...] | None:
    return None if moved is None else (moved.delta, moved.error, moved.momentum)


def _outcome_of(move: Move | None) -> tuple[bytes, ...] | None:
    if move is None:
        return None
    error, momentum = (b"" if each is None else each.tobytes() for each in (move.error, move.momentum))
    return move.data, error, momentum


def _anchor(snapshot: Snapshot, draw: Draw) -> Anchor | None:
    """Return a member's anchor with what its log says was done to it."""
    if snapshot.anchor is None:
        return None
    anchor, name = snapshot.anchor.copy(), snapshot.progress.log
    for entry in Logs(Path(snapshot.source).parent).open(name).read() if name else ():
        entry.move(anchor, draw.coordinates(entry.exchange))
    return anchor


def _offered(snapshots: Sequence[Snapshot], exchange: int, draw: Draw) -> Values | None:
    """Return what a member offered in an exchange, as it travelled, if it can still be made."""
    for snapshot in snapshots:
        progress = snapshot.progress
        if progress.offered == exchange > progress.applied and snapshot.offer is not None:
            anchor = _anchor(snapshot, draw)
            if anchor is not None:
                at = anchor.at(draw.coordinates(exchange))
                return rounded(difference(snapshot.offer, at), draw.schedule.config.dtype)
    return None
